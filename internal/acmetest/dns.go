// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acmetest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// Zone is the zone that has all names of a DNS, and takes updates.
const Zone = "example."

const (
	keyName = "kyozon."
	secret  = "c2VjcmV0IG9mIGEgdGVzdCwgMzIgYnl0ZXMgbG9uZyE="
)

// DNS is a server of the zone Zone: each name in it has the loopback address of one family. It takes dynamic updates
// that are signed with its key.
type DNS struct {
	Addr netip.AddrPort // TCP
	Key  string         // file with the key

	address dns.RR

	mu    sync.Mutex
	txt   []*dns.TXT
	cname map[string]string
	seen  []string // the names of the records that were added
}

func startDNS(t testing.TB, f ip.Family) *DNS {
	t.Helper()
	d := &DNS{Key: filepath.Join(t.TempDir(), "update.key"), cname: make(map[string]string)}
	text := fmt.Sprintf("key %q {\n\talgorithm hmac-sha256;\n\tsecret %q;\n};\n", keyName, secret)
	if err := os.WriteFile(d.Key, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := iptest.Loopback(f)
	if f == ip.V4 {
		d.address = &dns.A{Hdr: dns.RR_Header{Rrtype: dns.TypeA, Class: dns.ClassINET}, A: a.AsSlice()}
	} else {
		d.address = &dns.AAAA{Hdr: dns.RR_Header{Rrtype: dns.TypeAAAA, Class: dns.ClassINET}, AAAA: a.AsSlice()}
	}
	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f]
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		t.Fatal(err)
	}
	d.Addr = l.Addr().(*net.TCPAddr).AddrPort()
	started := make(chan struct{})
	s := &dns.Server{Listener: l, Handler: d, TsigSecret: map[string]string{keyName: secret},
		MsgAcceptFunc:     func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }, // updates, too
		NotifyStartedFunc: func() { close(started) }}
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		s.Shutdown()
		<-ended
	})
	return d
}

// Delegate makes name, fully qualified, an alias of another.
func (d *DNS) Delegate(name, to string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cname[name] = to
}

// Seen returns the names of the records that were added so far, and how many there are now.
func (d *DNS) Seen() (names []string, left int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.seen), len(d.txt)
}

// ServeDNS implements dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	signed := r.IsTsig()
	switch {
	case signed != nil && w.TsigStatus() != nil:
		m.Rcode = dns.RcodeNotAuth
	case r.Opcode == dns.OpcodeUpdate && (signed == nil || r.Question[0].Name != Zone):
		m.Rcode = dns.RcodeRefused
	case r.Opcode == dns.OpcodeUpdate:
		d.update(r.Ns)
	default:
		d.answer(m, r.Question[0])
	}
	if signed != nil && m.Rcode != dns.RcodeNotAuth {
		m.SetTsig(signed.Hdr.Name, signed.Algorithm, 300, int64(signed.TimeSigned))
	}
	w.WriteMsg(m)
}

// update adds and removes records. RFC 2136 §2.5.
func (d *DNS) update(changes []dns.RR) {
	for _, rr := range changes {
		t, ok := rr.(*dns.TXT)
		switch {
		case !ok:
		case t.Hdr.Class == dns.ClassINET:
			d.txt, d.seen = append(d.txt, t), append(d.seen, t.Hdr.Name)
		case t.Hdr.Class == dns.ClassNONE:
			d.txt = slices.DeleteFunc(d.txt, func(o *dns.TXT) bool { return o.Hdr.Name == t.Hdr.Name && slices.Equal(o.Txt, t.Txt) })
		}
	}
}

func (d *DNS) answer(m *dns.Msg, q dns.Question) {
	name := strings.ToLower(q.Name)
	soa := &dns.SOA{Hdr: dns.RR_Header{Name: Zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: "ns." + Zone, Mbox: "host." + Zone}
	if to := d.cname[name]; to != "" {
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: to})
		name = to
	}
	switch {
	case !dns.IsSubDomain(Zone, name):
		m.Rcode = dns.RcodeRefused
	case q.Qtype == dns.TypeTXT:
		for _, t := range d.txt {
			if t.Hdr.Name == name {
				m.Answer = append(m.Answer, t)
			}
		}
	case q.Qtype == d.address.Header().Rrtype:
		rr := dns.Copy(d.address)
		rr.Header().Name = q.Name
		m.Answer = append(m.Answer, rr)
	default:
		m.Ns = append(m.Ns, soa)
	}
}
