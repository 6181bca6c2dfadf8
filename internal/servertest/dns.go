// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// DNS is a server, over UDP and TCP, that answers out of the records of a zone file, with aliases followed and with
// wildcards not. A name that is not there is denied with the SOA record of its zone, if there is one.
type DNS struct {
	Addr netip.AddrPort

	handle dns.HandlerFunc

	mu      sync.Mutex
	records []dns.RR
	asked   map[dns.Question]int
}

// NewDNS starts a server with records in the form of a zone file, whose names are complete. If handle is not nil it
// answers in its place.
func NewDNS(t testing.TB, f ip.Family, zone string, handle dns.HandlerFunc) *DNS {
	t.Helper()
	d := &DNS{handle: handle, asked: map[dns.Question]int{}}
	d.Set(t, zone)
	l, p := bothPorts(t, f)
	d.Addr = l.Addr().(*net.TCPAddr).AddrPort()
	for _, s := range []*dns.Server{{Listener: l, Handler: d}, {PacketConn: p, Handler: d}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			s.Shutdown()
			<-ended
		})
	}
	return d
}

// bothPorts listens at one port for TCP and UDP.
func bothPorts(t testing.TB, f ip.Family) (l net.Listener, p net.PacketConn) {
	t.Helper()
	number := map[ip.Family]string{ip.V4: "4", ip.V6: "6"}[f]
	for range 100 {
		l, err := net.Listen("tcp"+number, netip.AddrPortFrom(iptest.Loopback(f), 0).String())
		if err != nil {
			t.Fatal(err)
		}
		if p, err := net.ListenPacket("udp"+number, l.Addr().String()); err == nil {
			return l, p
		}
		l.Close()
	}
	t.Fatal("no port is free for both TCP and UDP")
	return nil, nil
}

// Set replaces the records.
func (d *DNS) Set(t testing.TB, zone string) {
	t.Helper()
	var all []dns.RR
	z := dns.NewZoneParser(strings.NewReader(zone), ".", "")
	z.SetDefaultTTL(300)
	for rr, ok := z.Next(); ok; rr, ok = z.Next() {
		all = append(all, rr)
	}
	if err := z.Err(); err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records = all
}

// Asked returns how often a question has been asked over UDP and TCP together.
func (d *DNS) Asked(name string, of uint16) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[dns.Question{Name: dns.Fqdn(name), Qtype: of, Qclass: dns.ClassINET}]
}

// Total returns how many questions have been asked.
func (d *DNS) Total() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, times := range d.asked {
		n += times
	}
	return n
}

// ServeDNS implements dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	d.mu.Lock()
	d.asked[q.Question[0]]++
	d.mu.Unlock()
	if d.handle != nil {
		d.handle(w, q)
		return
	}
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	d.fill(m, q.Question[0].Name)
	if w.LocalAddr().Network() == "udp" {
		m.Truncate(dns.MinMsgSize)
	}
	w.WriteMsg(m)
}

// fill puts into m what there is at a name, behind so many aliases at most.
func (d *DNS) fill(m *dns.Msg, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	there := false
	for again := true; again && len(m.Answer) < 20; {
		again = false
		for _, rr := range d.records {
			h := rr.Header()
			if !strings.EqualFold(h.Name, name) {
				continue
			}
			there = true
			if alias, ok := rr.(*dns.CNAME); ok {
				m.Answer, name, again, there = append(m.Answer, rr), alias.Target, true, false
				break
			}
			if h.Rrtype == m.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	if !there {
		m.Rcode = dns.RcodeNameError
	}
	if last := len(m.Answer) - 1; last >= 0 && m.Answer[last].Header().Rrtype == m.Question[0].Qtype {
		return
	}
	for _, rr := range d.records {
		if soa, ok := rr.(*dns.SOA); ok && dns.IsSubDomain(soa.Hdr.Name, name) {
			m.Ns = append(m.Ns, soa)
		}
	}
}
