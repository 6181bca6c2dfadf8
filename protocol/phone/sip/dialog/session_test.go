// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

const ms = int64(time.Millisecond)

// call is two ends of a call, without a network: each message of one is shown to both at once, or when the test says so.
type call struct {
	t    testing.TB
	now  int64
	a, b *end
}

type end struct {
	*Session
	name string
	last *sip.Message // the INVITE that it got
	log  []Entry
}

const sdp = "application/sdp"

// newCall lets a call b, with the given body in the INVITE, and extra fields.
func newCall(t testing.TB, body string, extra ...string) (*call, *sip.Message) {
	t.Helper()
	c := &call{t: t, now: 1e12, a: &end{name: "a"}, b: &end{name: "b"}}
	d := Dialog{CallID: "c", Local: "<sip:a@example.jp>", Remote: "<sip:b@example.jp>", LocalTag: "a", Target: "sip:b@192.0.2.2"}
	text := d.Append(nil, c.a.request("INVITE", 1, body, extra...))
	invite := parse(t, text)
	c.a.log, c.b.log = []Entry{{c.now, true, text}}, []Entry{{c.now, false, text}}
	c.b.last = invite
	c.a.last = invite // what Dial needs
	var v Verdict
	if c.b.Session, v = Serve(invite, "b", transaction.Timers{}); v.Err != nil {
		t.Fatal(v.Err)
	}
	if v.Offer != (body != "") {
		t.Fatalf("verdict %+v", v)
	}
	return c, invite
}

func (e *end) request(method string, seq uint32, body string, extra ...string) *Request {
	l := "Contact: <sip:" + e.name + "@[2001:db8::1]>\r\n"
	for _, x := range extra {
		l += x + "\r\n"
	}
	return &Request{Method: method, Via: []byte("SIP/2.0/UDP x;branch=z9hG4bK" + fmt.Sprint(method, seq)), Seq: seq, Lines: []byte(l), Type: sdp, Body: []byte(body)}
}

func (c *call) peer(e *end) *end {
	if e == c.a {
		return c.b
	}
	return c.a
}

// sent shows a message to who sent it and returns it as the other gets it.
func (c *call) sent(e *end, text []byte) *sip.Message {
	m := parse(c.t, text)
	if e.Session != nil {
		e.Sent(m, c.now)
	}
	e.log = append(e.log, Entry{c.now, true, text})
	return m
}

// got shows a message to who gets it.
func (c *call) got(e *end, m *sip.Message) Verdict {
	c.t.Helper()
	body, _ := m.Body()
	e.log = append(e.log, Entry{c.now, false, append(append([]byte(nil), m.Head()...), body...)})
	if e.Session == nil {
		var v Verdict
		e.Session, v = Dial(e.last, m, transaction.Timers{}, c.now)
		return v
	}
	if m.Is("INVITE") {
		e.last = m
	}
	return e.Received(m, c.now)
}

// ask sends a request from e and returns what comes of it at the other end.
func (c *call) ask(e *end, method, body string, extra ...string) (*sip.Message, Verdict) {
	c.t.Helper()
	m := c.sent(e, e.Append(nil, e.request(method, 0, body, extra...)))
	return m, c.got(c.peer(e), m)
}

// answer sends a response of e and returns what comes of it at the other end.
func (c *call) answer(e *end, m *sip.Message, status int, body string, extra ...string) Verdict {
	c.t.Helper()
	return c.got(c.peer(e), c.sent(e, e.response(m, status, body, extra...)))
}

func (e *end) response(m *sip.Message, status int, body string, extra ...string) []byte {
	l := "Contact: <sip:" + e.name + "@[2001:db8::2]>\r\n"
	for _, x := range extra {
		l += x + "\r\n"
	}
	a := sip.Answer{Status: status, Tag: []byte(e.name), Dialog: true, Lines: []byte(l), Type: sdp, Body: []byte(body)}
	return a.Append(nil, m, netip.MustParseAddrPort("[2001:db8::9]:5060"))
}

func (c *call) ack(e *end, seq uint32, body string) Verdict {
	c.t.Helper()
	m := c.sent(e, e.Append(nil, e.request("ACK", seq, body)))
	return c.got(c.peer(e), m)
}

func check(t testing.TB, what string, got, want Verdict) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %+v, want %+v", what, got, want)
	}
}

// up is a call that has been answered.
func up(t testing.TB, extra ...string) *call {
	t.Helper()
	c, invite := newCall(t, "o", extra...)
	check(t, "180", c.answer(c.b, invite, 180, ""), Verdict{})
	check(t, "200", c.answer(c.b, invite, 200, "a", extra...), Verdict{Ack: true, Answer: true})
	check(t, "ACK", c.ack(c.a, 1, ""), Verdict{})
	return c
}

func TestCall(t *testing.T) {
	t.Parallel()
	c := up(t)
	check(t, "200 again", c.got(c.a, parse(t, c.b.response(c.b.last, 200, "a"))), Verdict{Ack: true, Copy: true})
	check(t, "ACK again", c.ack(c.a, 1, ""), Verdict{Copy: true})
	if c.a.Target != "sip:b@[2001:db8::2]" || c.b.Target != "sip:a@[2001:db8::1]" {
		t.Errorf("targets %s and %s", c.a.Target, c.b.Target)
	}
	if c.a.Next() != 0 || c.b.Next() != 0 {
		t.Errorf("timers at %d and %d", c.a.Next(), c.b.Next())
	}
	_, v := c.ask(c.b, "INFO", "")
	check(t, "INFO", v, Verdict{})
	late := parse(t, c.b.Append(nil, c.b.request("INFO", c.b.LocalSeq, "")))
	_, v = c.ask(c.b, "BYE", "")
	check(t, "BYE", v, Verdict{})
	check(t, "INFO after BYE", c.got(c.a, late), Verdict{Err: ErrNone})
	if !c.a.Ended || !c.b.Ended {
		t.Error("not ended")
	}
}

// TestOrder: a request that is older than another is not done. RFC 3261 §12.2.2.
func TestOrder(t *testing.T) {
	t.Parallel()
	c := up(t)
	old := parse(t, c.a.Append(nil, c.a.request("INFO", 2, "")))
	c.ask(c.a, "INFO", "")
	c.ask(c.a, "INFO", "")
	check(t, "older", c.got(c.b, old), Verdict{Err: ErrOrder})
	other := parse(t, []byte(strings.Replace(string(c.a.Append(nil, c.a.request("INFO", 9, ""))), "tag=b", "tag=x", 1)))
	check(t, "another dialog", c.got(c.b, other), Verdict{Err: ErrNone})
}

// TestGlare: of two that cross, both are refused and tried again at different times; of two from one side, the second waits.
// RFC 3261 §14.1, §14.2, RFC 3311 §5.2.
func TestGlare(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"INVITE", "UPDATE"} {
		c := up(t)
		ma := c.sent(c.a, c.a.Append(nil, c.a.request(method, 0, "oa")))
		mb := c.sent(c.b, c.b.Append(nil, c.b.request(method, 0, "ob")))
		check(t, method+" of b", c.got(c.a, mb), Verdict{Err: ErrPending})
		check(t, method+" of a", c.got(c.b, ma), Verdict{Err: ErrPending})
		check(t, "491 to a", c.answer(c.b, ma, 491, ""), Verdict{})
		check(t, "491 to b", c.answer(c.a, mb, 491, ""), Verdict{})
		if w := c.a.RetryAt - c.now; w < 2100*ms || w > 4000*ms {
			t.Errorf("%s: a waits %d ms", method, w/ms)
		}
		if w := c.b.RetryAt - c.now; w < 0 || w > 2000*ms {
			t.Errorf("%s: b waits %d ms", method, w/ms)
		}
		if c.a.Next() != c.a.RetryAt || c.a.Time(c.a.RetryAt) != Retry || c.a.Next() != 0 {
			t.Errorf("%s: a has no time to retry at", method)
		}
		m, v := c.ask(c.a, method, "oa")
		check(t, method+" of a again", v, Verdict{Offer: true})
		second := parse(t, c.a.Append(nil, c.a.request(method, 0, "oa")))
		check(t, "a second one", c.got(c.b, second), Verdict{Err: ErrBusy, Again: true})
		check(t, "200", c.answer(c.b, m, 200, "ab"), Verdict{Ack: method == "INVITE", Answer: true})
	}
}

// TestGlareAlone: each reason to refuse is one by itself.
func TestGlareAlone(t *testing.T) {
	t.Parallel()
	c := up(t)
	c.sent(c.a, c.a.Append(nil, c.a.request("INVITE", 0, "")))
	check(t, "INVITE that meets one without an offer", c.got(c.a, parse(t, c.b.Append(nil, c.b.request("INVITE", 0, "")))), Verdict{Err: ErrPending})
	c = up(t)
	c.sent(c.a, c.a.Append(nil, c.a.request("UPDATE", 0, "o")))
	check(t, "INVITE that meets an offer", c.got(c.a, parse(t, c.b.Append(nil, c.b.request("INVITE", 0, "")))), Verdict{Err: ErrPending})
	for _, method := range []string{"INVITE", "UPDATE"} {
		c = up(t)
		c.ask(c.a, method, "")
		_, v := c.ask(c.a, method, "")
		check(t, method+" before the last is answered", v, Verdict{Err: ErrBusy, Again: true})
	}
	c = up(t)
	m, _ := c.ask(c.a, "INVITE", "o")
	c.answer(c.b, m, 200, "a")
	if c.b.Next() == 0 {
		t.Error("a 2xx is not sent again")
	}
	_, v := c.ask(c.a, "INVITE", "o")
	check(t, "INVITE instead of ACK", v, Verdict{Offer: true})
	if c.b.Next() != 0 {
		t.Error("a 2xx is still sent again")
	}
	c = up(t)
	c.b.Sent(parse(t, c.b.response(c.b.last, 200, "a")), c.now)
	if c.b.Next() != 0 {
		t.Error("a 2xx that was acknowledged is sent again")
	}
}

// TestOffers: each body is an offer, an answer, or neither, as the message says that it is in.
func TestOffers(t *testing.T) {
	t.Parallel()
	none, offer, ans := Verdict{}, Verdict{Offer: true}, Verdict{Answer: true}
	t.Run("offerless", func(t *testing.T) {
		t.Parallel()
		c, invite := newCall(t, "")
		check(t, "200", c.answer(c.b, invite, 200, "o"), Verdict{Ack: true, Offer: true})
		_, v := c.ask(c.a, "UPDATE", "o")
		check(t, "UPDATE that crosses", v, Verdict{Err: ErrPending})
		c.answer(c.b, parse(t, c.a.Append(nil, c.a.request("UPDATE", c.a.LocalSeq, "o"))), 491, "")
		check(t, "ACK", c.ack(c.a, 1, "a"), ans)
	})
	t.Run("early", func(t *testing.T) {
		t.Parallel()
		c, invite := newCall(t, "o", "Supported: 100rel")
		rel := []string{"Require: 100rel", "RSeq: 17"}
		check(t, "unreliable 183 with a preview", c.answer(c.b, invite, 183, "p"), none)
		check(t, "183", c.answer(c.b, invite, 183, "a", rel...), Verdict{Answer: true, Prack: true})
		_, v := c.ask(c.a, "PRACK", "o2", "RAck: 17 1 INVITE")
		check(t, "PRACK with another offer", v, offer)
		check(t, "its 200", c.answer(c.b, parse(t, c.a.Append(nil, c.a.request("PRACK", c.a.LocalSeq, "o2"))), 200, "a2"), ans)
		m, v := c.ask(c.b, "UPDATE", "o3")
		check(t, "early UPDATE", v, offer)
		check(t, "its 200", c.answer(c.a, m, 200, "a3"), ans)
		check(t, "200 says it again", c.answer(c.b, invite, 200, "a"), Verdict{Ack: true})
		check(t, "ACK", c.ack(c.a, 1, ""), none)
	})
	t.Run("offer in 183", func(t *testing.T) {
		t.Parallel()
		c, invite := newCall(t, "", "Supported: 100rel")
		check(t, "183", c.answer(c.b, invite, 183, "o", "Require: 100rel", "RSeq: 1"), Verdict{Offer: true, Prack: true})
		_, v := c.ask(c.a, "PRACK", "a", "RAck: 1 1 INVITE")
		check(t, "PRACK", v, ans)
		check(t, "200 says it again", c.answer(c.b, invite, 200, "o"), Verdict{Ack: true})
		check(t, "ACK", c.ack(c.a, 1, "x"), none)
		m, v := c.ask(c.a, "INVITE", "o")
		check(t, "re-INVITE", v, offer)
		check(t, "its 183", c.answer(c.b, m, 183, "a", "Require: 100rel", "RSeq: 1"), Verdict{Answer: true, Prack: true})
	})
	t.Run("another fails", func(t *testing.T) {
		t.Parallel()
		c := up(t)
		c.ask(c.a, "UPDATE", "o")
		c.answer(c.b, parse(t, c.a.Append(nil, c.a.request("UPDATE", 0, ""))), 500, "")
		if c.a.Offer.By != ours || c.b.Offer.By != theirs {
			t.Error("the failure of another forgets an offer")
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		c := up(t)
		m, v := c.ask(c.a, "INVITE", "o")
		check(t, "re-INVITE", v, offer)
		check(t, "488", c.answer(c.b, m, 488, ""), none)
		if c.a.Ended || c.b.Ended {
			t.Error("a refused re-INVITE ends the call")
		}
		m, v = c.ask(c.b, "UPDATE", "o")
		check(t, "UPDATE", v, offer)
		check(t, "200", c.answer(c.a, m, 200, "a"), ans)
	})
}

// TestProvisional: reliable provisionals come in order, once, and are sent until PRACK comes. RFC 3262 §3, §4.
func TestProvisional(t *testing.T) {
	t.Parallel()
	c, invite := newCall(t, "o", "Supported: 100rel")
	rel := func(n int) []string { return []string{"Require: 100rel", fmt.Sprint("RSeq: ", n)} }
	check(t, "183", c.answer(c.b, invite, 183, "", rel(5)...), Verdict{Prack: true})
	check(t, "again", c.got(c.a, parse(t, c.b.response(invite, 183, "", rel(5)...))), Verdict{Copy: true, Prack: true})
	check(t, "one is missing", c.got(c.a, parse(t, c.b.response(invite, 183, "", rel(7)...))), Verdict{Err: sip.ErrCSeq})
	check(t, "no number", c.got(c.a, parse(t, c.b.response(invite, 183, "", rel(0)...))), Verdict{Err: sip.ErrCSeq})
	var at []string
	for until := c.now + 40_000*ms; c.b.Next() > 0 && c.b.Next() <= until; {
		n := c.b.Next()
		at = append(at, fmt.Sprint((n-c.now)/ms, ":", c.b.Time(n)))
		if len(at) == 3 {
			break
		}
	}
	if got := strings.Join(at, " "); got != "500:2 1500:2 3500:2" {
		t.Errorf("sent at %s", got)
	}
	for _, rack := range []string{"6 1 INVITE", "5 2 INVITE", "5 1 BYE", "5 1", ""} {
		_, v := c.ask(c.a, "PRACK", "", "RAck: "+rack)
		check(t, "PRACK "+rack, v, Verdict{Err: ErrRAck})
	}
	if !c.b.Prov.Waits() {
		t.Error("does not wait")
	}
	_, v := c.ask(c.a, "PRACK", "", "RAck: 5 1 INVITE")
	check(t, "PRACK", v, Verdict{})
	if c.b.Prov.Waits() || c.b.Next() != 0 {
		t.Error("still waits")
	}
	check(t, "the next", c.answer(c.b, invite, 183, "", rel(6)...), Verdict{Prack: true})
	other, invite2 := newCall(t, "o", "Supported: 100rel")
	other.answer(other.b, invite2, 183, "", rel(6)...)
	other.answer(other.b, invite2, 200, "a")
	if other.b.Prov.Waits() {
		t.Error("waits for PRACK after the answer")
	}
	var last Due
	for c.b.Next() > 0 {
		last = c.b.Time(c.b.Next())
	}
	if last != NoPRACK {
		t.Errorf("at the end %v, want NoPRACK", last)
	}
}

// TestFinal: a 2xx is sent until ACK comes, and then BYE. RFC 3261 §13.3.1.4.
func TestFinal(t *testing.T) {
	t.Parallel()
	c, invite := newCall(t, "o")
	c.answer(c.b, invite, 200, "a")
	var at []string
	for c.b.Next() > 0 {
		n := c.b.Next()
		at = append(at, fmt.Sprint((n-c.now)/ms, ":", c.b.Time(n)))
	}
	if got := strings.Join(at, " "); got != "500:1 1500:1 3500:1 7500:1 11500:1 15500:1 19500:1 23500:1 27500:1 31500:1 32000:4" {
		t.Errorf("got %s", got)
	}
}

// TestSessionTimer: who refreshes, when, and what is too short. RFC 4028 §7 to §10.
func TestSessionTimer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		extra            string
		aRefresh, bRef   int64 // seconds; 0: the other does
		aExpire, bExpire int64
	}{
		{"Session-Expires: 1800;refresher=uac", 900, 0, 1768, 1768},
		{"x: 90 ; Refresher=uas", 0, 45, 60, 60},
		{"Supported: timer", 0, 0, 0, 0},
	} {
		c := up(t, test.extra)
		got := [4]int64{c.a.Timer.Refresh, c.b.Timer.Refresh, c.a.Timer.Expire, c.b.Timer.Expire}
		want := [4]int64{test.aRefresh, test.bRef, test.aExpire, test.bExpire}
		for i := range got {
			if got[i] > 0 {
				got[i] = (got[i] - c.now) / (1000 * ms)
			}
		}
		if got != want {
			t.Errorf("%s: got %v, want %v", test.extra, got, want)
		}
	}
	c := up(t, "Session-Expires: 1800;refresher=uac")
	c.now = c.a.Next()
	if d := c.a.Time(c.now); d != Refresh || c.b.Time(c.now) != 0 {
		t.Errorf("due %v", d)
	}
	m, v := c.ask(c.a, "UPDATE", "", "Session-Expires: 600;refresher=uac")
	check(t, "UPDATE", v, Verdict{})
	c.answer(c.b, m, 200, "", "Session-Expires: 600;refresher=uac")
	if got := c.b.Next() - c.now; got != 568_000*ms {
		t.Errorf("b waits %d ms", got/ms)
	}
	if d := c.b.Time(c.b.Next()); d != Expired || c.b.Next() != 0 {
		t.Errorf("due %v", d)
	}
	_, v = c.ask(c.a, "UPDATE", "", "Session-Expires: 89", "Supported: timer")
	check(t, "too short", v, Verdict{Err: ErrBrief})
	m = parse(t, c.a.Append(nil, c.a.request("UPDATE", c.a.LocalSeq, "")))
	c.answer(c.b, m, 422, "", "Min-SE: 300")
	if c.a.Timer.Least != 300 {
		t.Errorf("least %d", c.a.Timer.Least)
	}
	_, v = c.ask(c.a, "UPDATE", "", "Session-Expires: 89")
	check(t, "from one who does not know 422", v, Verdict{})

	c, invite := newCall(t, "o", "Session-Expires: 100")
	c.answer(c.b, invite, 200, "a")
	if c.a.Timer.Refresh == 0 || c.b.Timer.Expire != 0 {
		t.Errorf("a peer without timers: %+v and %+v", c.a.Timer, c.b.Timer)
	}
}

// TestTimerAnswer: a 2xx says who refreshes, so that both know. RFC 4028 §9.
func TestTimerAnswer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		extra string
		want  uint32
		got   string
	}{
		{"Session-Expires: 1800;refresher=uas\r\nSupported: timer", 0, "Session-Expires: 1800;refresher=uas\r\n"},
		{"Session-Expires: 1800\r\nSupported: timer", 0, "Require: timer\r\nSession-Expires: 1800;refresher=uac\r\n"},
		{"Session-Expires: 1800\r\nSupported: timer\r\nMin-SE: 700", 600, "Require: timer\r\nSession-Expires: 700;refresher=uac\r\n"},
		{"Session-Expires: 1800", 600, "Session-Expires: 600;refresher=uas\r\n"},
		{"Supported: timer", 600, "Require: timer\r\nSession-Expires: 600;refresher=uac\r\n"},
		{"X: y", 600, "Session-Expires: 600;refresher=uas\r\n"},
		{"X: y", 30, "Session-Expires: 90;refresher=uas\r\n"},
		{"X: y", 0, ""},
	} {
		d := Dialog{CallID: "c", Local: "<sip:a>", Remote: "<sip:b>", Target: "sip:b"}
		m := parse(t, d.Append(nil, (&end{name: "a"}).request("INVITE", 1, "", test.extra)))
		var timer Timer
		if got := string(timer.AppendAnswer(nil, m, Wish{Interval: test.want})); got != test.got {
			t.Errorf("%q, %d: got %q, want %q", test.extra, test.want, got, test.got)
		}
	}
}

// FuzzSession: whatever a peer sends into a call, nothing panics, and the log gives the same once more.
func FuzzSession(f *testing.F) {
	c := up(f)
	for _, method := range []string{"INVITE", "UPDATE", "PRACK", "ACK", "BYE"} {
		f.Add(c.a.Append(nil, c.a.request(method, 0, "x", "RAck: 1 1 INVITE", "Session-Expires: 90")), c.b.response(c.b.last, 200, "x"))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		c := up(t)
		for _, data := range [][]byte{first, second} {
			var m sip.Message
			if m.Parse(data, nil) != nil || m.Check() != nil {
				return
			}
			c.now += 100 * ms
			c.b.log = append(c.b.log, Entry{c.now, false, data})
			c.b.Received(&m, c.now)
			c.now += 40_000 * ms
			c.b.log = append(c.b.log, Entry{At: c.now})
			c.b.Time(c.now)
		}
		s, _, err := Replay(c.b.log, transaction.Timers{})
		if err != nil || !cmp.Equal(s, c.b.Session) {
			t.Fatalf("%v: %s", err, cmp.Diff(c.b.Session, s))
		}
	})
}

// TestFailures: what ends a call, and what does not. RFC 3261 §12.2.1.2.
func TestFailures(t *testing.T) {
	t.Parallel()
	for status, ends := range map[int]bool{403: false, 408: true, 481: true, 500: false} {
		c := up(t)
		m, _ := c.ask(c.a, "INFO", "")
		c.answer(c.b, m, status, "")
		if c.a.Ended != ends {
			t.Errorf("%d: ended %v, want %v", status, c.a.Ended, ends)
		}
	}
	c, invite := newCall(t, "o")
	c.answer(c.b, invite, 180, "")
	c.answer(c.b, invite, 486, "")
	if !c.a.Ended || !c.b.Ended {
		t.Error("486 does not end a call")
	}
}

// TestReplay lets two ends do at random what they may and may not, in messages that cross. Whatever came of it, the log of
// each end gives the same state and the same verdicts once more, also through JSON in the middle.
func TestReplay(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		c, invite := newCall(t, []string{"", "o"}[r.IntN(2)], "Supported: timer, 100rel", "Session-Expires: 120")
		outcomes := map[*end][]Outcome{}
		c.answerAt(r, outcomes, c.b, invite)
		type flight struct {
			to *end
			m  *sip.Message
		}
		var wire []flight
		for range 60 {
			e := []*end{c.a, c.b}[r.IntN(2)]
			c.now += r.Int64N(3000) * ms
			switch n := r.IntN(10); {
			case len(wire) > 0 && n < 5:
				f := wire[0]
				wire = wire[1:]
				v := c.got(f.to, f.m)
				outcomes[f.to] = append(outcomes[f.to], Outcome{Verdict: v})
				if f.m.Request() && !f.m.Is("ACK") {
					status := []int{200, 488, 183}[r.IntN(3)]
					if v.Err != nil {
						status = v.Err.Status
					}
					wire = append(wire, flight{c.peer(f.to), c.sent(f.to, f.to.response(f.m, status, []string{"", "x"}[r.IntN(2)], "Require: 100rel", "RSeq: 1", "Session-Expires: 100;refresher=uas"))})
				}
			case n < 8 && e.Session != nil:
				method := []string{"INVITE", "UPDATE", "PRACK", "INFO", "ACK"}[r.IntN(5)]
				seq := uint32(0)
				if method == "ACK" {
					seq = e.Ours.Seq
				}
				text := e.Append(nil, e.request(method, seq, []string{"", "x"}[r.IntN(2)], "RAck: 1 1 INVITE", "Supported: timer", "Session-Expires: 100"))
				wire = append(wire, flight{c.peer(e), c.sent(e, text)})
			case e.Session != nil:
				e.log = append(e.log, Entry{At: c.now})
				outcomes[e] = append(outcomes[e], Outcome{Due: e.Time(c.now)})
			}
		}
		for _, e := range []*end{c.a, c.b} {
			s, got, err := Replay(e.log, transaction.Timers{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(e.Session, s); diff != "" {
				t.Fatalf("seed %d, %s (-was +is):\n%s", seed, e.name, diff)
			}
			if diff := cmp.Diff(outcomes[e], got, cmp.Comparer(func(a, b *sip.Error) bool { return a == b })); diff != "" {
				t.Fatalf("seed %d, %s (-was +is):\n%s", seed, e.name, diff)
			}
			saved, err := json.Marshal(s)
			var back Session
			if err != nil || json.Unmarshal(saved, &back) != nil {
				t.Fatalf("saved as %s, %v", saved, err)
			}
			if diff := cmp.Diff(s, &back); diff != "" {
				t.Fatalf("seed %d, %s, saved (-was +is):\n%s", seed, e.name, diff)
			}
		}
	}
	if _, _, err := Replay([]Entry{{At: 1}}, transaction.Timers{}); !errors.Is(err, ErrLog) {
		t.Errorf("nothing: %v", err)
	}
}

// answerAt answers the first INVITE, so that both ends have a session.
func (c *call) answerAt(r *rand.Rand, outcomes map[*end][]Outcome, e *end, invite *sip.Message) {
	c.t.Helper()
	v := c.answer(e, invite, []int{180, 183, 200}[r.IntN(3)], []string{"", "x"}[r.IntN(2)], "Require: 100rel", "RSeq: 1")
	outcomes[c.peer(e)] = []Outcome{{Verdict: v}}
	outcomes[e] = []Outcome{{Verdict: Verdict{Offer: hasSDP(invite)}}}
}
