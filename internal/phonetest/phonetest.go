// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package phonetest is a telephone in the hand of a test: SIP and RTP over real sockets. It does what real telephones cannot
// be driven to, says exactly what it is told to, and remembers what it hears. It speaks either family, or both.
//
//	Telephone ── Dial, Answered ──▶ Call ── Want, Ask, Reply ──▶ SIP
//	    └─────── Listen ──────────▶ Ear ─── Say, Await ────────▶ RTP and RTCP
//
// Everything waits for an event, and fails the test when it does not come. Copies of messages, which are sent where a machine
// has much to do, are answered as the first was and not shown.
package phonetest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// patience is how long an event may take, on a machine with much to do.
const patience = time.Minute

// Options say what a telephone is to be.
type Options struct {
	Name, Domain, Password string
	Instance               string // what tells the device from others of the same name
	Addrs                  []netip.Addr
	Servers                []netip.AddrPort // the edge, one of each family that it has

	// Do runs a function in the network of the telephone; nil: it is this one.
	Do func(func() error) error
}

// Telephone is one that works until the test ends.
type Telephone struct {
	Options
	t       testing.TB
	lines   map[ip.Family]*line
	inbox   chan *Message
	done    chan struct{}
	readers sync.WaitGroup
	digest  digest.Client
	callID  string // of its registrations
	number  uint32 // of the last
	seen    map[string][]byte
	heard   []string // all that has come
}

// line is a socket for SIP.
type line struct {
	conn   *net.UDPConn
	at     netip.AddrPort
	server netip.AddrPort
}

// Message is a message that has come.
type Message struct {
	sip.Message
	Text   string
	Family ip.Family // that it came over
}

// Body returns its body.
func (m *Message) Body() string { return m.Text[len(m.Head()):] }

// What returns its method or its status.
func (m *Message) What() string {
	if m.Request() {
		return string(m.Method())
	}
	return fmt.Sprint(m.Status())
}

// New starts a telephone, which is not registered yet.
func New(t testing.TB, o Options) *Telephone {
	t.Helper()
	p := &Telephone{Options: o, t: t, lines: make(map[ip.Family]*line), inbox: make(chan *Message), done: make(chan struct{}),
		digest: digest.Client{Username: o.Name, Password: o.Password}, seen: make(map[string][]byte), callID: token()}
	for _, a := range o.Addrs {
		l := &line{conn: p.open(netip.AddrPortFrom(a, 0))}
		l.at = ip.CanonicalPort(l.conn.LocalAddr().(*net.UDPAddr).AddrPort())
		for _, s := range o.Servers {
			if ip.FamilyOf(s.Addr()) == ip.FamilyOf(a) {
				l.server = s
			}
		}
		p.lines[ip.FamilyOf(a)] = l
		p.readers.Go(func() { p.read(l) })
	}
	t.Cleanup(func() {
		close(p.done)
		for _, l := range p.lines {
			l.conn.Close()
		}
		p.readers.Wait()
		if t.Failed() {
			t.Logf("%s at %v has heard:\n%s", o.Name, o.Addrs, strings.Join(p.heard, "\n"))
		}
	})
	return p
}

// In has the telephone report to another test, a part of the one that it was made in.
func (p *Telephone) In(t testing.TB) { p.t = t }

// open opens a socket in the network of the telephone.
func (p *Telephone) open(at netip.AddrPort) (c *net.UDPConn) {
	p.t.Helper()
	network := map[bool]string{true: "udp4", false: "udp6"}[at.Addr().Is4()]
	do := p.Do
	if do == nil {
		do = func(fn func() error) error { return fn() }
	}
	if err := do(func() (err error) {
		c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(at))
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// read takes what comes at a line until it is closed.
func (p *Telephone) read(l *line) {
	for b := make([]byte, 64<<10); ; {
		n, _, err := l.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		m := &Message{Text: string(b[:n]), Family: ip.FamilyOf(l.at.Addr())}
		if m.Parse([]byte(m.Text), nil) != nil {
			continue // a packet to keep the way open
		}
		select {
		case p.inbox <- m:
		case <-p.done:
			return
		}
	}
}

// hear returns the next message that is no copy.
func (p *Telephone) hear() *Message {
	p.t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		select {
		case m := <-p.inbox:
			p.heard = append(p.heard, m.Text)
			key := keyOf(m)
			said, copied := p.seen[key]
			if !copied {
				p.seen[key] = nil
				return m
			}
			if said != nil {
				p.send(m.Family, said)
			}
		case <-late.C:
			p.t.Fatalf("%s at %v hears nothing", p.Name, p.Addrs)
		}
	}
}

// keyOf is what the copies of a message have in common.
func keyOf(m *Message) string {
	seq, _ := m.Sequence()
	if m.Request() {
		return fmt.Sprintf("%s %s", m.Method(), m.Get(sip.Via))
	}
	return fmt.Sprintf("%d %s %d %s %s", m.Status(), m.Get(sip.CallID), seq.Number, seq.Method, m.Get(sip.To))
}

// Want returns the next message, which must be what is said: a method or a status.
func (p *Telephone) Want(what string) *Message {
	p.t.Helper()
	for {
		m := p.hear()
		switch got := m.What(); {
		case got == what:
			return m
		case got == "100":
		case got == "OPTIONS":
			p.reply(m, &sip.Answer{Status: 200})
		default:
			p.t.Fatalf("%s at %v got %s, want %s:\n%s", p.Name, p.Addrs, got, what, m.Text)
		}
	}
}

// Heard returns all that has come so far, and forgets it.
func (p *Telephone) Heard() []string {
	all := p.heard
	p.heard = nil
	return all
}

func (p *Telephone) send(f ip.Family, text []byte) {
	p.t.Helper()
	l := p.lines[f]
	if _, err := l.conn.WriteToUDPAddrPort(text, l.server); err != nil {
		p.t.Fatal(err)
	}
}

// reply answers a request, and its copies.
func (p *Telephone) reply(m *Message, a *sip.Answer) {
	p.t.Helper()
	text := a.Append(nil, &m.Message, p.lines[m.Family].server)
	p.seen[keyOf(m)] = text
	p.send(m.Family, text)
}

// contact is where the telephone is reached over a family.
func (p *Telephone) contact(f ip.Family) string {
	return fmt.Sprintf("<sip:%s@%v>", p.Name, p.lines[f].at)
}

// via is the Via of a request of its own.
func (p *Telephone) via(f ip.Family) string {
	return fmt.Sprintf("SIP/2.0/UDP %v;rport;branch=z9hG4bK%s", p.lines[f].at, token())
}

// Register binds the telephone over each family that it has, for so many seconds; 0 takes the bindings away.
func (p *Telephone) Register(seconds int) {
	p.t.Helper()
	for _, a := range p.Addrs {
		contact := fmt.Sprintf("Contact: %s;expires=%d", p.contact(ip.FamilyOf(a)), seconds)
		if p.Instance != "" {
			contact += fmt.Sprintf(`;+sip.instance="<urn:uuid:%s>"`, p.Instance)
		}
		p.prove(ip.FamilyOf(a), contact)
	}
}

// Clear takes away the bindings of all who have the number of the telephone.
func (p *Telephone) Clear() {
	p.t.Helper()
	p.prove(ip.FamilyOf(p.Addrs[0]), "Contact: *", "Expires: 0")
}

// prove sends a REGISTER, and proves whose it is.
func (p *Telephone) prove(f ip.Family, lines ...string) {
	p.t.Helper()
	m := p.register(f, lines...)
	if m.Status() == 401 {
		p.learn(m)
		m = p.register(f, append(lines, p.proof("REGISTER", "sip:"+p.Domain))...)
	}
	if m.Status() != 200 {
		p.t.Fatalf("%s cannot register: %s", p.Name, m.Text)
	}
}

func (p *Telephone) register(f ip.Family, lines ...string) *Message {
	p.t.Helper()
	p.number++
	address := fmt.Sprintf("<sip:%s@%s>", p.Name, p.Domain)
	p.send(f, write("REGISTER", "sip:"+p.Domain, append([]string{"Via: " + p.via(f), "From: " + address + ";tag=" + token(), "To: " + address,
		"Call-ID: " + p.callID + f.String(), fmt.Sprintf("CSeq: %d REGISTER", p.number)}, lines...), "", ""))
	for {
		if m := p.hear(); m.Status() == 401 || m.Status() == 200 {
			return m
		}
	}
}

// learn takes the challenge of a 401 that MD5 answers.
func (p *Telephone) learn(m *Message) {
	p.t.Helper()
	for value, i := m.Field(sip.WWWAuthenticate, 0); value != nil; value, i = m.Field(sip.WWWAuthenticate, i) {
		if strings.Contains(string(value), "algorithm=MD5,") {
			if err := p.digest.Take(value); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// proof is the Authorization of a request.
func (p *Telephone) proof(method, target string) string {
	p.number++
	return "Authorization: " + string(p.digest.Append(nil, method, target, [8]byte{1, byte(p.number >> 8), byte(p.number)}))
}

// write writes a request.
func write(method, target string, lines []string, kind, body string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s SIP/2.0\r\nMax-Forwards: 70\r\n", method, target)
	for _, l := range lines {
		b.WriteString(l + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", cmp.Or(kind, SDP))
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return []byte(b.String())
}

// token is a word that nothing else has.
func token() string { return fmt.Sprintf("%016x", rand.Uint64()) }
