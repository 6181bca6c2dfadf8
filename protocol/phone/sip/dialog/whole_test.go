// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
	"github.com/kyozon/kyozon/protocol/phone/sip/transport"
)

const ms = int64(time.Millisecond)

// packet is one on its way.
type packet struct {
	at   int64
	to   *telephone
	data []byte
}

// network loses, delays and reorders what two telephones say to each other.
type network struct {
	*rand.Rand
	loss    float64
	now     int64
	packets []packet
}

// telephone is a user agent of the parts that this folder has, and nothing else.
type telephone struct {
	t       *testing.T
	net     *network
	peer    *telephone
	way     sip.Way
	table   transaction.Table[string]
	session *dialog.Session
	invite  *transaction.Transaction[string] // that we sent, or that came
	asked   []byte                           // it, as it is written
	final   []byte                           // our 2xx
	ack     []byte                           // our ACK
	branch  int
	count   map[string]int // of what was passed up
}

func newTelephone(t *testing.T, n *network, own, other netip.AddrPort) *telephone {
	p := &telephone{t: t, net: n, way: sip.Way{Local: own, Remote: other}, count: map[string]int{}}
	p.table.Send = func(w sip.Way, b []byte) {
		if w.Local != own || w.Remote != other {
			t.Errorf("sent on %+v", w)
		}
		if n.Float64() >= n.loss {
			n.packets = append(n.packets, packet{n.now + n.Int64N(300)*ms, p.peer, bytes.Clone(b)})
		}
	}
	p.table.Told = func(x *transaction.Transaction[string]) { p.count["told "+x.User]++ }
	p.table.Open(n.now)
	return p
}

func (p *telephone) via() []byte {
	p.branch++
	return transport.Known{}.AppendVia(nil, p.way, fmt.Appendf(nil, "z9hG4bK%v-%d", p.way.Local.Port(), p.branch))
}

func (p *telephone) contact() []byte {
	return sip.AppendField(nil, sip.Contact, transport.Known{}.AppendContact(nil, p.way, sip.SIP, []byte("u")))
}

// request writes one within the dialog, and shows it to the session.
func (p *telephone) request(method string, seq uint32) []byte {
	text := p.session.Append(nil, &dialog.Request{Method: method, Via: p.via(), Seq: seq, Lines: p.contact()})
	p.session.Sent(p.parse(text), p.net.now)
	return text
}

func (p *telephone) parse(text []byte) *sip.Message {
	m := new(sip.Message)
	if v, err := transport.Judge(m, m.Parse(text, nil)); v != transport.Take {
		p.t.Fatalf("%v in %q", err, text)
	}
	return m
}

func (p *telephone) dial() {
	d := dialog.Dialog{CallID: "c", Local: "<sip:a@voip.example.jp>", LocalTag: "a", Remote: "<sip:b@voip.example.jp>", Target: "sip:b@voip.example.jp"}
	p.asked = d.Append(nil, &dialog.Request{Method: "INVITE", Via: p.via(), Lines: p.contact(), Type: "application/sdp", Body: []byte("v=0\r\n")})
	p.invite, _ = p.table.Ask(p.asked, p.way, "INVITE", p.net.now)
}

func (p *telephone) hangUp() {
	if p.session != nil && !p.session.Ended {
		_, _ = p.table.Ask(p.request("BYE", 0), p.way, "BYE", p.net.now)
	}
}

func (p *telephone) got(data []byte) {
	m := p.parse(data)
	if !m.Request() {
		p.response(m)
		return
	}
	h, _ := m.Top()
	w := transport.AnswerWay(&h, sip.Way{Local: p.way.Local, Remote: p.peer.way.Local})
	x, verdict := p.table.Request(m, w, p.net.now)
	switch {
	case verdict == transaction.Acked && p.session != nil:
		p.session.Received(m, p.net.now)
	case verdict == transaction.Stop:
		p.answer(x, 487)
	case verdict != transaction.Fresh:
	case m.Is("INVITE"):
		p.invite, p.asked = x, bytes.Clone(data)
		p.session, _ = dialog.Serve(m, "b", transaction.Timers{})
		p.answer(x, 180)
	case p.session == nil:
		p.table.Answer(x, (&sip.Answer{Status: 481}).Append(nil, m, w.Remote), 481, p.net.now)
	default:
		v := p.session.Received(m, p.net.now)
		status := 200
		if v.Err != nil {
			status = v.Err.Status
		}
		p.count[string(m.Method())]++
		p.table.Answer(x, (&sip.Answer{Status: status}).Append(nil, m, w.Remote), status, p.net.now)
		if p.invite != nil && p.session.Caller { // BYE before the answer that was lost
			p.table.Cancel(p.invite, p.net.now)
		}
	}
}

// answer answers the INVITE that came.
func (p *telephone) answer(x *transaction.Transaction[string], status int) {
	a := sip.Answer{Status: status, Tag: []byte("b"), Lines: p.contact()}
	if status == 200 {
		a.Type, a.Body = "application/sdp", []byte("v=0\r\n")
	}
	text := a.Append(nil, p.parse(p.asked), p.way.Remote)
	p.session.Sent(p.parse(text), p.net.now)
	p.table.Answer(x, text, status, p.net.now)
	if status == 200 {
		p.final = text
	}
}

func (p *telephone) response(m *sip.Message) {
	x, pass := p.table.Response(m, p.net.now)
	if !pass {
		return
	}
	p.count[fmt.Sprint(x.User, " ", m.Status())]++
	to, _, _ := sip.ParseAddress(m.Get(sip.To))
	var v dialog.Verdict
	switch {
	case p.session != nil:
		v = p.session.Received(m, p.net.now)
	case to.Tag() != nil:
		p.session, v = dialog.Dial(p.parse(p.asked), m, transaction.Timers{}, p.net.now)
	}
	if v.Ack {
		if !v.Copy {
			p.ack = p.request("ACK", p.session.Ours.Seq)
		}
		p.table.Send(p.way, p.ack)
	}
}

// tick lets time pass.
func (p *telephone) tick() {
	p.table.Advance(p.net.now)
	if p.session == nil {
		return
	}
	due := p.session.Time(p.net.now)
	if due&dialog.AgainFinal > 0 {
		p.table.Answer(p.invite, p.final, 200, p.net.now)
	}
	if due&dialog.NoACK > 0 {
		p.hangUp()
	}
}

// TestWhole lets two telephones call each other over a network of each family that loses some packets, or most, and
// delivers them in any order. If it loses some, there is a call. However it goes, both sides agree at the end that there
// is none any more, and hold nothing.
func TestWhole(t *testing.T) {
	t.Parallel()
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		at := map[ip.Family][2]string{ip.V4: {"192.0.2.1:5060", "192.0.2.2:5060"}, ip.V6: {"[2001:db8::1]:5060", "[2001:db8::2]:5060"}}[f]
		for seed := range uint64(120) {
			n := &network{Rand: rand.New(rand.NewPCG(seed, uint64(f))), loss: []float64{0, 0.1, 0.3, 0.8}[seed%4], now: 1e12}
			a := newTelephone(t, n, netip.MustParseAddrPort(at[0]), netip.MustParseAddrPort(at[1]))
			b := newTelephone(t, n, netip.MustParseAddrPort(at[1]), netip.MustParseAddrPort(at[0]))
			a.peer, b.peer = b, a
			a.dial()
			play(n, a, b)
			if c := a.count; n.loss < 0.5 && (c["INVITE 200"] == 0 || c["BYE 200"] != 1 || b.count["BYE"] != 1 || b.session.Theirs.Waits) {
				t.Errorf("%v, seed %d, loss %.1f: no call: a %v, b %v", f, seed, n.loss, a.count, b.count)
			}
			if a.session != nil && !a.session.Ended || b.session != nil && !b.session.Ended && a.count["told BYE"] == 0 {
				t.Errorf("%v, seed %d, loss %.1f: a call is left: a %v, b %v", f, seed, n.loss, a.count, b.count)
			}
			for _, p := range []*telephone{a, b} {
				if c, s := p.table.Len(); c+s > 0 {
					t.Errorf("%v, seed %d, loss %.1f: %d clients and %d servers are left: a %v, b %v", f, seed, n.loss, c, s, a.count, b.count)
				}
			}
		}
	}
}

// play lets b answer after 2 s, and a hang up, or give up, after 100 s.
func play(n *network, a, b *telephone) {
	start := n.now
	for n.now < start+250_000*ms {
		n.now += 25 * ms
		var due, later []packet
		for _, p := range n.packets {
			if p.at <= n.now {
				due = append(due, p)
			} else {
				later = append(later, p)
			}
		}
		n.packets = later
		for _, p := range due {
			p.to.got(p.data)
		}
		switch {
		case b.invite != nil && b.final == nil && !b.session.Ended && n.now >= start+2000*ms:
			b.answer(b.invite, 200)
		case n.now == start+100_000*ms && a.session != nil && a.session.Confirmed:
			a.hangUp()
		case n.now == start+100_000*ms:
			a.table.Cancel(a.invite, n.now)
		}
		a.tick()
		b.tick()
	}
}
