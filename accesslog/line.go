// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package accesslog

// Hot path: no allocation per packet.

import (
	"crypto/tls"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/metrics"
)

// The keys of a line beside those of log/slog, in their order.
const (
	keyService  = "service"
	keyClient   = "client"
	keyPort     = "port" // of the client
	keyStandIn  = "stand-in"
	keyCrossing = "crossing"
	keyPool     = "pool"
	keyBackend  = "backend"
	keyTLS      = "tls"
	keyProtocol = "protocol"
	keyMethod   = "method"
	keyHost     = "host"
	keyPath     = "path"
	keyStatus   = "status"
	keyToServer = "to-server-bytes"
	keyToClient = "to-client-bytes"
	keyWait     = "wait-us"
	keyFirst    = "first-byte-us"
	keyTotal    = "total-us"
	keyReused   = "reused"
	keyRetries  = "retries"
	keyReason   = "reason"
)

const (
	msgRequest = "request"
	msgFlow    = "flow"
)

// appendLine renders r, which ended at the time at.
func appendLine(dst []byte, r *Record, at time.Time) []byte {
	l := line(append(dst, `{"time":"`...))
	l = at.AppendFormat(l, time.RFC3339Nano)
	l = append(l, `","level":"INFO"`...)
	msg := msgFlow
	if r.Request {
		msg = msgRequest
	}
	l.word("msg", msg)
	l.word(keyService, r.Service)
	l.peers(r)
	l.word(keyTLS, tlsVersion(r.TLS))
	if r.Request {
		l.request(r)
	}
	l.number(keyToServer, r.Counts.ToServer)
	l.number(keyToClient, r.Counts.ToClient)
	if r.Wait > 0 {
		l.duration(keyWait, r.Wait)
	}
	if r.First > 0 {
		l.duration(keyFirst, r.First)
	}
	l.duration(keyTotal, r.Total)
	if r.Reused {
		l = append(l, `,"`+keyReused+`":true`...)
	}
	if r.Retries > 0 {
		l.number(keyRetries, uint64(r.Retries))
	}
	if r.Reason != metrics.Fine {
		l.word(keyReason, r.Reason.String())
	}
	return append(l, "}\n"...)
}

// line is a line as far as it has been rendered.
type line []byte

// peers renders who was served and by whom.
func (l *line) peers(r *Record) {
	if r.Client.IsValid() {
		l.addr(keyClient, r.Client.Addr())
		l.number(keyPort, uint64(r.Client.Port()))
	}
	if r.StandIn.IsValid() {
		l.addr(keyStandIn, r.StandIn)
	}
	if !r.Backend.IsValid() {
		return
	}
	if r.Client.IsValid() {
		c := ip.Crossing{Client: ip.FamilyOf(r.Client.Addr()), Backend: ip.FamilyOf(r.Backend.Addr())}
		l.key(keyCrossing)
		*l = append(*l, '"', '0'+byte(c.Client))
		*l = append(*l, "→"...)
		*l = append(*l, '0'+byte(c.Backend), '"')
	}
	l.word(keyPool, r.Pool)
	l.key(keyBackend)
	*l = append(*l, '"')
	*l = r.Backend.AppendTo(*l)
	*l = append(*l, '"')
}

// request renders what was asked for and how it was answered.
func (l *line) request(r *Record) {
	l.word(keyProtocol, httpVersion(r.Version))
	method, host, path := r.texts()
	l.text(keyMethod, method, r.method.cut)
	l.text(keyHost, host, r.host.cut)
	l.text(keyPath, path, r.path.cut)
	if r.Status != 0 {
		l.number(keyStatus, uint64(r.Status))
	}
}

func (l *line) key(name string) {
	*l = append(*l, ',', '"')
	*l = append(*l, name...)
	*l = append(*l, '"', ':')
}

// word renders a text of ours that needs no escapes: the names in a site file have none.
func (l *line) word(key, w string) {
	if w == "" {
		return
	}
	l.key(key)
	*l = append(*l, '"')
	*l = append(*l, w...)
	*l = append(*l, '"')
}

func (l *line) number(key string, n uint64) {
	l.key(key)
	*l = strconv.AppendUint(*l, n, 10)
}

func (l *line) duration(key string, d time.Duration) {
	l.number(key, uint64(max(d, 0).Microseconds()))
}

func (l *line) addr(key string, a netip.Addr) {
	l.key(key)
	*l = append(*l, '"')
	*l = a.AppendTo(*l)
	*l = append(*l, '"')
}

// text renders a stranger's text. A cut one may end in the middle of a character, of which nothing is kept.
func (l *line) text(key string, p []byte, cut bool) {
	if len(p) == 0 {
		return
	}
	l.key(key)
	*l = append(*l, '"')
	if cut {
		p = wholeCharacters(p)
	}
	*l = appendEscaped(*l, p)
	if cut {
		*l = append(*l, "…"...)
	}
	*l = append(*l, '"')
}

// wholeCharacters returns p without the beginning of a character at its end.
func wholeCharacters(p []byte) []byte {
	for i := len(p) - 1; i >= 0 && i >= len(p)-utf8.UTFMax; i-- {
		if utf8.RuneStart(p[i]) {
			if !utf8.FullRune(p[i:]) {
				return p[:i]
			}
			break
		}
	}
	return p
}

// appendEscaped renders p as the inside of a JSON string, as log/slog does. RFC 8259 §7. U+2028 and U+2029 are escaped
// too because JavaScript takes them for the ends of lines.
func appendEscaped(dst, p []byte) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i := 0; i < len(p); {
		c := p[i]
		if c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		size := 1
		var escape string
		if c >= utf8.RuneSelf {
			var r rune
			switch r, size = utf8.DecodeRune(p[i:]); {
			case r == utf8.RuneError && size == 1:
				escape = `\ufffd`
			case r == '\u2028':
				escape = `\u2028`
			case r == '\u2029':
				escape = `\u2029`
			default:
				i += size
				continue
			}
		}
		dst = append(dst, p[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			if escape == "" {
				dst = append(dst, `\u00`...)
				dst = append(dst, hex[c>>4], hex[c&15])
			}
			dst = append(dst, escape...)
		}
		i += size
		from = i
	}
	return append(dst, p[from:]...)
}

func httpVersion(v uint8) string {
	switch v {
	case 10:
		return "HTTP/1.0"
	case 11:
		return "HTTP/1.1"
	case 20:
		return "HTTP/2"
	}
	return ""
}

func tlsVersion(v uint16) string {
	switch v {
	case tls.VersionTLS12:
		return "1.2"
	case tls.VersionTLS13:
		return "1.3"
	}
	return ""
}
