// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/md5"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/relay"
)

// prove returns a REGISTER with the password, for which d must have been challenged.
func (d *device) prove(lines ...string) string {
	target := "sip:" + domain
	return d.request("REGISTER", target, append(lines, "Authorization: "+string(d.digest.Append(nil, "REGISTER", target, [8]byte{byte(d.seq)})))...)
}

// A REGISTER whose answer was lost comes again: it is answered as it was, though its proof is good once, and changes nothing.
func TestRegisterAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, ", registration: {min: 2m}")
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		d, other := b.newDevice("udp", f, "05010000005"), b.newDevice("udp", f, "05010000005")
		d.copies, other.copies = true, true
		contact := "Contact: " + d.contact()
		if got := d.register(contact); got != 200 {
			t.Fatalf("got %d", got)
		}
		for _, test := range []struct {
			what     string
			line     string
			status   int
			contacts int
		}{
			{"it is renewed", contact, 200, 1},
			{"a second one", "Contact: <sip:second@192.0.2.1>", 200, 2},
			{"too short", contact + ";expires=1", 423, 0},
			{"it only asks", "Subject: who is there", 200, 2},
			{"one is removed", contact + ";expires=0", 200, 1},
			{"all are removed", "Contact: *\r\nExpires: 0", 200, 0},
		} {
			message := d.prove(test.line)
			for range 3 {
				d.send(message)
				if m := d.hear(); m.Status() != test.status || len(contacts(m)) != test.contacts {
					t.Errorf("%v: %s: got %d, %q", f, test.what, m.Status(), contacts(m))
				}
			}
		}
		message := d.prove(contact)
		d.send(message)
		d.hear()
		other.send(message)
		if m := other.hear(); m.Status() != 401 {
			t.Errorf("%v: who has overheard it got %d, %q", f, m.Status(), contacts(m))
		}
		if got := d.register("Contact: *", "Expires: 0"); got != 200 {
			t.Errorf("%v: got %d", f, got)
		}
	}
}

// All subscribers of a prefix come at once, as after a failure of their power, and strangers with them: nobody is refused, and
// nothing is kept of who does not prove himself.
func TestStorm(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	const together, rounds = 40, 100
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		d := b.newDevice(transport, f, "05010000006")
		if got := d.register("Contact: " + d.contact()); got != 200 {
			t.Fatalf("got %d", got)
		}
		statuses := make(map[int]int)
		for range rounds {
			for i := range together {
				message := d.prove("Contact: " + d.contact())
				if i%2 > 0 {
					message = strings.Replace(message, "Authorization", "X-Authorization", 1)
				}
				d.send(message)
			}
			for range together {
				statuses[d.hear().Status()]++
			}
		}
		if want := together * rounds / 2; statuses[200] != want || statuses[401] != want {
			t.Errorf("got %v, want %d of 200 and of 401", statuses, want)
		}
		if n := b.held(); n != 0 {
			t.Errorf("%d transactions are kept", n)
		}
	})
}

// held returns how many requests that came are kept.
func (b *bench) held() (n int) {
	for _, a := range b.core.agents {
		counted := make(chan int)
		a.loop.Post(func() {
			_, servers := a.table.Len()
			counted <- servers
		})
		n += <-counted
	}
	return n
}

// TestRegisterAllocs: who renews a registration makes us allocate nothing.
func TestRegisterAllocs(t *testing.T) {
	const many = 300
	a, all := loneAgent(t, 1)
	messages := a.renewals(t, all, many)
	a.take(messages[0], a.way())
	i := 0
	if n := testing.AllocsPerRun(many-2, func() {
		i++
		a.take(messages[i], a.way())
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if !strings.HasPrefix(string(a.heard), "SIP/2.0 200 ") {
		t.Errorf("got %s", a.heard)
	}
}

// BenchmarkRegister is a REGISTER of one of many subscribers, who have proved themselves before, without the network.
func BenchmarkRegister(b *testing.B) {
	a, all := loneAgent(b, 10_000)
	messages := a.renewals(b, all, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	for _, m := range messages {
		a.take(m, a.way())
	}
	b.StopTimer()
	if !strings.HasPrefix(string(a.heard), "SIP/2.0 200 ") {
		b.Errorf("got %s", a.heard)
	}
}

// renewals returns many REGISTERs of telephones in turn, each of which is challenged first.
func (a *lone) renewals(tb testing.TB, all []phone, many int) [][]byte {
	messages := make([][]byte, many)
	for i := range messages {
		p := &all[i%len(all)]
		if i < len(all) {
			a.take([]byte(p.request("")), a.way())
			p.challenged(tb, a.heard)
		}
		messages[i] = []byte(p.request("Authorization: " + string(p.digest.Append(nil, "REGISTER", "sip:"+domain, [8]byte{byte(i)})) + "\r\n"))
	}
	return messages
}

// phone is who registers in a benchmark.
type phone struct {
	name   string
	seq    int
	digest digest.Client
}

func (p *phone) request(line string) string {
	p.seq++
	return fmt.Sprintf("REGISTER sip:%[1]s SIP/2.0\r\nVia: SIP/2.0/UDP [2001:db8::1]:5063;branch=z9hG4bK%[2]s.%[3]d;rport\r\nMax-Forwards: 70\r\n"+
		"From: <sip:%[2]s@%[1]s>;tag=t\r\nTo: <sip:%[2]s@%[1]s>\r\nCall-ID: %[2]s@bench\r\nCSeq: %[3]d REGISTER\r\n"+
		"Contact: <sip:%[2]s@[2001:db8::1]:5063>;expires=3600\r\n%[4]sContent-Length: 0\r\n\r\n", domain, p.name, p.seq, line)
}

func (p *phone) challenged(tb testing.TB, answer []byte) {
	var m sip.Message
	if err := m.Parse(answer, nil); err != nil || m.Status() != 401 {
		tb.Fatalf("got %q, %v", answer, err)
	}
	for value, i := m.Field(sip.WWWAuthenticate, 0); value != nil; value, i = m.Field(sip.WWWAuthenticate, i) {
		if strings.Contains(string(value), "MD5") {
			if err := p.digest.Take(value); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// lone is an agent without a network: what it sends is heard.
type lone struct {
	*agent
	at, from netip.AddrPort
	heard    []byte
}

func (a *lone) way() sip.Way { return sip.Way{Local: a.at, Remote: a.from} }

// loneAgent makes one, with so many subscribers.
func loneAgent(tb testing.TB, subscribers int) (*lone, []phone) {
	loops, err := relay.Open(1)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(loops.Close)
	c := newCore(slog.New(slog.DiscardHandler), loops, tb.TempDir(), "", "")
	a := &lone{agent: c.agents[0], at: netip.MustParseAddrPort("[2001:db8:100::10]:5060"), from: netip.MustParseAddrPort("[2001:db8::1]:5063")}
	a.table.Send = func(_ sip.Way, b []byte) { a.heard = append(a.heard[:0], b...) }
	o := defaults()
	o.Domain = domain
	set := &settings{options: o, networks: map[netip.AddrPort]*network{a.at: {subscribers: true, routes: [2]*backend.Route{{}, {}}}},
		guard: c.guardOf(domain), subscribers: make(map[string]*subscriber)}
	set.publish(c.answers.Load())
	c.settings.Store(set)
	all := make([]phone, subscribers)
	for i := range all {
		name := fmt.Sprintf("0501%07d", i)
		all[i] = phone{name: name, digest: digest.Client{Username: name, Password: "secret"}}
		line := fmt.Sprintf("%s:%s:%x", name, domain, md5.Sum([]byte(name+":"+domain+":secret")))
		if err := addSubscriber(set.subscribers, line, domain); err != nil {
			tb.Fatal(err)
		}
	}
	return a, all
}
