// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/ip"
)

// What is kept of one answer. More of it is a stranger's joke.
const (
	mostAliases = 8
	mostRecords = 16
	mostText    = 1024 // bytes of one TXT record
)

const (
	longest = time.Hour // that an answer is remembered: RFC 2181 §8 leaves the bound to us
	failure = 5 * time.Second
)

// The reasons for which a message is not the answer to a question.
var (
	errOther     = errors.New("it answers another question")
	errNoService = errors.New("it does not resolve for us")
	errAliases   = errors.New("too many aliases")
)

// read reads a message from a server. Its question must be the one that was asked: RFC 5452 §9.1. Returns errOther if it
// is not, and the answer and how long it may be remembered.
func read(p []byte, id uint16, q dns.Question) (a Answer, keep time.Duration, truncated bool, err error) {
	var m dns.Msg
	if err := m.Unpack(p); err != nil {
		return a, 0, false, errOther // it may be a guess: the true one may still come
	}
	if m.Id != id || !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 || !same(m.Question[0], q) {
		return a, 0, false, errOther
	}
	if m.Truncated {
		return a, 0, true, nil
	}
	a, keep, err = interpret(&m, q)
	return a, keep, false, err
}

// same says whether two questions are the same: names are, whatever the case of their letters. RFC 4343 §3.
func same(a, b dns.Question) bool {
	return a.Qtype == b.Qtype && a.Qclass == b.Qclass && strings.EqualFold(a.Name, b.Name)
}

// interpret says what a message says about a question. An error means that the server could not say.
func interpret(m *dns.Msg, q dns.Question) (a Answer, keep time.Duration, err error) {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return a, 0, fmt.Errorf("it says %s", dns.RcodeToString[m.Rcode])
	}
	name, ttl, err := follow(m.Answer, q)
	if err != nil {
		return a, 0, err
	}
	found := 0
	for _, rr := range m.Answer {
		h := rr.Header()
		if h.Rrtype != q.Qtype || h.Class != q.Qclass || !strings.EqualFold(h.Name, name) || found == mostRecords {
			continue
		}
		found++
		ttl = min(ttl, seconds(h.Ttl))
		a.add(rr)
	}
	switch {
	case found > 0 && a.empty():
		return Answer{Err: ErrNoData}, ttl, nil // nothing of it is usable
	case found > 0:
		return a, ttl, nil
	case m.Rcode == dns.RcodeNameError:
		return Answer{Err: ErrNoName}, min(ttl, negative(m.Ns)), nil
	case !m.RecursionAvailable && !m.Authoritative && len(m.Answer) == 0:
		return a, 0, errNoService // a referral: nobody has looked
	}
	return Answer{Err: ErrNoData}, min(ttl, negative(m.Ns)), nil
}

// follow returns the name that the question's name is an alias of, in the end, and how long that holds. RFC 1034 §3.6.2.
func follow(answer []dns.RR, q dns.Question) (name string, ttl time.Duration, err error) {
	name, ttl = q.Name, longest
	for range mostAliases {
		next := ""
		for _, rr := range answer {
			if c, ok := rr.(*dns.CNAME); ok && c.Hdr.Class == q.Qclass && strings.EqualFold(c.Hdr.Name, name) {
				next, ttl = c.Target, min(ttl, seconds(c.Hdr.Ttl))
				break
			}
		}
		if next == "" {
			return name, ttl, nil
		}
		name = next
	}
	return "", 0, errAliases
}

// negative returns how long it may be remembered that there is nothing: as the SOA record says; without one, not at all.
// RFC 2308 §5.
func negative(authority []dns.RR) time.Duration {
	for _, rr := range authority {
		if soa, ok := rr.(*dns.SOA); ok {
			return min(seconds(soa.Hdr.Ttl), seconds(soa.Minttl))
		}
	}
	return 0
}

// seconds reads a TTL: one with the highest bit set is 0. RFC 2181 §8.
func seconds(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// add adds what a record says.
func (a *Answer) add(rr dns.RR) {
	switch rr := rr.(type) {
	case *dns.A:
		a.addAddr(rr.A)
	case *dns.AAAA:
		a.addAddr(rr.AAAA)
	case *dns.PTR:
		if name, ok := host(rr.Ptr); ok && name != "" {
			a.Names = append(a.Names, name)
		}
	case *dns.TXT:
		text := strings.Join(rr.Txt, "")
		a.Texts = append(a.Texts, text[:min(len(text), mostText)])
	case *dns.MX:
		if name, ok := host(rr.Mx); ok {
			a.Mail = append(a.Mail, Mail{rr.Preference, name})
		}
	case *dns.SRV:
		if name, ok := host(rr.Target); ok {
			a.Services = append(a.Services, Service{rr.Priority, rr.Weight, rr.Port, name})
		}
	case *dns.NAPTR:
		if name, ok := host(rr.Replacement); ok {
			a.Pointers = append(a.Pointers, Pointer{rr.Order, rr.Preference, rr.Flags, rr.Service, rr.Regexp, name})
		}
	}
}

// addAddr adds an address as the library has it: of four or sixteen bytes.
func (a *Answer) addAddr(b []byte) {
	if addr, ok := netip.AddrFromSlice(b); ok {
		a.Addrs = append(a.Addrs, ip.Canonical(addr))
	}
}

// empty says whether nothing was added.
func (a *Answer) empty() bool {
	return len(a.Addrs)+len(a.Names)+len(a.Texts)+len(a.Mail)+len(a.Services)+len(a.Pointers) == 0
}

// host returns a name without the dot at its end, and whether it is one that a host may have: letters, digits, hyphens
// (RFC 1123 §2.1), and underscores, which there are. Names come from strangers, and go into logs and protocols.
func host(name string) (string, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", false
		}
	}
	return name, len(name) < 254
}
