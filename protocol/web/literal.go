// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"bytes"
	"net/netip"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/protocol/web/http1"
)

// A server that has lived on IPv4 alone may name itself by its address: in a redirect, in the domain of a cookie, in
// a link. IPv6 clients cannot reach that. What responses name is counted, by field, and shown in the status; nothing is
// rewritten, because only the server's owner knows what should stand there.
//
//	head ─ fewer than three dots: nothing, as in nearly all; some 10 ns
//	     └ each digit-dot-digit ─ a whole literal? ─ meant for the client to use? ─▶ literals.count

// look counts the literals in a response of pool to a request for host.
func (l *literals) look(r *http1.Response, pool *backend.Pool, host []byte) {
	lines := r.Lines()
	if bytes.Count(lines, []byte{'.'}) < 3 {
		return
	}
	for at := 0; ; {
		next := bytes.IndexByte(lines[at:], '.')
		if next < 0 {
			return
		}
		at += next
		q, ok := quadAt(lines, at)
		if !ok {
			at++
			continue
		}
		at = q.end
		// A server may write what the client has called it: that is the client's doing.
		if own := pool.Has(q.addr); q.reaches(lines, own) && !bytes.Equal(lines[q.start:q.end], host) {
			l.count(pool.Spec.Name, q.place(lines), q.addr, own)
		}
	}
}

// quad is an IPv4 address in a text, written as four numbers.
type quad struct {
	start, end int
	addr       netip.Addr
}

// quadAt returns the address whose first dot is at dot. Parts of names, of versions and of longer numbers are none.
func quadAt(p []byte, dot int) (q quad, ok bool) {
	q.start = dot
	for q.start > 0 && isDigit(p[q.start-1]) && dot-q.start < 4 {
		q.start--
	}
	var parts [4]byte
	q.end = q.start
	for i := range parts {
		from, n := q.end, 0
		for q.end < len(p) && isDigit(p[q.end]) && q.end-from < 4 {
			n = 10*n + int(p[q.end]-'0')
			q.end++
		}
		if q.end == from || n > 255 || p[from] == '0' && q.end-from > 1 {
			return quad{}, false
		}
		parts[i] = byte(n)
		if i < 3 {
			if q.end == len(p) || p[q.end] != '.' {
				return quad{}, false
			}
			q.end++
		}
	}
	q.addr = netip.AddrFrom4(parts)
	return q, !inName(p, q.start-1, -1) && !inName(p, q.end, 1)
}

// inName says whether what stands at i, and beyond it in direction step, makes a name of the address next to it.
func inName(p []byte, i, step int) bool {
	if i >= 0 && i < len(p) && p[i] == '.' { // the end of a sentence, or "domain=.10.0.1.11"
		i += step
	}
	return i >= 0 && i < len(p) && (isDigit(p[i]) || p[i]|0x20 >= 'a' && p[i]|0x20 <= 'z' || p[i] == '-' || p[i] == '_')
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// reaches says whether a client is meant to use the address: it is the host of a URL, the domain of a cookie, or, own,
// that of a server, wherever it stands. What a cookie's value holds is the server's own affair.
func (q *quad) reaches(p []byte, own bool) bool {
	before := p[:q.start]
	if hasSuffixFold(bytes.TrimSuffix(before, []byte{'.'}), "domain=") {
		return true
	}
	if equalFold(q.field(p), "set-cookie") {
		return false
	}
	return own || bytes.HasSuffix(before, []byte("//"))
}

// field returns the name of the field that the address stands in.
func (q *quad) field(p []byte) []byte {
	name := p[bytes.LastIndexByte(p[:q.start], '\n')+1:]
	return name[:bytes.IndexByte(name, ':')]
}

// place is the field that an address stands in, and what is shown of its value.
type place struct{ name, example []byte }

// maxExample is how many bytes of a value are shown.
const maxExample = 100

// place returns where an address that the client is meant to use stands. The example ends before a query, which may hold a secret; so may a cookie, of
// which only the domain is shown.
func (q *quad) place(p []byte) place {
	name := q.field(p)
	if equalFold(name, "set-cookie") {
		return place{name, p[bytes.LastIndexByte(p[:q.start], '=')-len("domain") : q.end]}
	}
	from := bytes.LastIndexByte(p[:q.start], '\n') + 1 + len(name) + 1
	for from < q.start && (p[from] == ' ' || p[from] == '\t') {
		from++
	}
	if q.end-from > maxExample {
		from = q.start
	}
	end := q.end
	for end < len(p) && end-from < maxExample && p[end] > ' ' && p[end] != '?' && p[end] != '#' && p[end] != ';' {
		end++
	}
	return place{name, p[from:end]}
}

// equalFold says whether p is lower, which is in lower case, but for the case of letters.
func equalFold(p []byte, lower string) bool { return len(p) == len(lower) && hasSuffixFold(p, lower) }

func hasSuffixFold(p []byte, lower string) bool {
	if len(p) < len(lower) {
		return false
	}
	p = p[len(p)-len(lower):]
	for i := range p {
		if c := p[i]; c != lower[i] && (c < 'A' || c > 'Z' || c|0x20 != lower[i]) {
			return false
		}
	}
	return true
}
