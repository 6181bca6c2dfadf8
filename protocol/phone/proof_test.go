// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// wary is a gateway that wants each request proved.
type wary struct {
	*device
	guard  *digest.Server
	status int    // 401 or 407
	strict bool   // a nonce is good for one request
	asked  int    // challenges
	last   uint32 // number that came
}

func (w *wary) renew() { w.guard = digest.NewServer("carrier", []digest.Key{{byte(w.asked)}}, 10) }

// request is what a message came as.
func (w *wary) request(m *sip.Message) *digest.Request {
	return &digest.Request{Method: m.Method(), URI: m.Target(), Client: addrOf(w.device).Addr(), Now: time.Now()}
}

// fields are the credentials' field and that of challenges.
func (w *wary) fields() (answer sip.Kind, challenge string) {
	if w.status == 407 {
		return sip.ProxyAuthorization, "Proxy-Authenticate: "
	}
	return sip.Authorization, "WWW-Authenticate: "
}

// want returns the next request of a method, when it has been proved.
func (w *wary) want(method string) *sip.Message {
	w.t.Helper()
	secret := new(digest.Secret)
	secret.Add(digest.SHA256, fmt.Sprintf("%x", sha256.Sum256([]byte("edge:carrier:very secret"))))
	answer, challenge := w.fields()
	for range 3 {
		m := keep(w.device.want(method))
		if n := sequence(m); n <= w.last {
			w.t.Errorf("%s has the number %d after %d", method, n, w.last)
		}
		w.last = sequence(m)
		var f digest.Fields
		verdict := digest.Denied
		if m.Has(answer) && f.Parse(m.Get(answer)) == nil {
			verdict = w.guard.Check(&f, w.request(m), secret)
		}
		if verdict == digest.Granted {
			if w.strict {
				w.renew()
			}
			return m
		}
		w.asked++
		w.response(m, w.status, "", challenge+string(w.guard.AppendChallenge(nil, digest.SHA256, w.request(m), verdict == digest.Stale)))
		if method == "INVITE" {
			w.device.want("ACK")
		}
	}
	w.t.Fatalf("%s is not proved", method)
	return nil
}

// wantACK fails unless the next message is the ACK of a 2xx to an INVITE, proved as that was. RFC 3261 §13.2.2.4.
func (w *wary) wantACK(invite *sip.Message) {
	w.t.Helper()
	answer, _ := w.fields()
	if ack := w.device.want("ACK"); string(ack.Get(answer)) != string(invite.Get(answer)) || sequence(ack) != sequence(invite) {
		w.t.Errorf("ACK is\n%sfor\n%s", ack.Head(), invite.Head())
	}
}

func withLogin(gateway *device) string {
	return fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access, "+
		"login: {name: edge, password: password}}}, routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", gateway.local())
}

// eachWary runs a test for a gateway that asks as a server or as a proxy, once or each time, over all crossings.
func eachWary(t *testing.T, test func(t *testing.T, b *bench, w *wary, caller *device)) {
	t.Helper()
	b := newBench(t, "")
	b.write("password", "very secret\n")
	b.relayed("")
	for _, status := range []int{401, 407} {
		for _, strict := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d, strict %v", status, strict), func(t *testing.T) {
				iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
					b.t = t
					w := &wary{device: b.newDevice("udp", x.Backend, "gateway"), status: status, strict: strict}
					w.renew()
					caller := b.registered("udp", x.Client, "05010000001")
					defer caller.unregister()
					b.reload(withLogin(w.device))
					test(t, b, w, caller)
				})
			})
		}
	}
}

// challenged fails unless there were so many challenges: one, or one for each request.
func (w *wary) challenged(requests int) {
	w.t.Helper()
	want := 1
	if w.strict {
		want = requests
	}
	if w.asked != want {
		w.t.Errorf("asked %d times who sends %d requests", w.asked, requests)
	}
}

// TestProofs: whatever an end asks a gateway within a call is proved, and so is what the edge asks by itself; a nonce that
// goes on being good is used again.
func TestProofs(t *testing.T) {
	t.Parallel()
	eachWary(t, func(t *testing.T, b *bench, w *wary, caller *device) {
		caller.invite("0312345678", "Supported: 100rel", "Allow: UPDATE")
		invite := w.want("INVITE")
		w.response(invite, 183, w.offer(), "Require: 100rel", "RSeq: 7")
		early := keep(caller.want("183"))
		n := sequence(early)
		caller.send(strings.Replace(caller.within(early, "PRACK", n+1), "Contact:", fmt.Sprintf("RAck: 7 %d INVITE\r\nContact:", n), 1))
		prack := w.want("PRACK")
		if got, want := string(prack.Get(sip.RAck)), fmt.Sprintf("7 %d INVITE", sequence(invite)); got != want {
			t.Errorf("got RAck %q, want %q", got, want)
		}
		w.response(prack, 200, "")
		caller.want("200")
		w.response(invite, 200, "", "Allow: UPDATE")
		heard := keep(caller.want("200"))
		caller.send(caller.within(heard, "ACK", n))
		w.wantACK(invite)

		for i, method := range []string{"INFO", "UPDATE", "REFER", "OPTIONS"} {
			lines := ""
			if method == "REFER" {
				lines = "Refer-To: <sip:0398765432@" + domain + ">\r\n"
			}
			caller.send(strings.Replace(caller.within(heard, method, n+2+uint32(i)), "Contact:", lines+"Contact:", 1))
			w.response(w.want(method), 200, "")
			caller.want("200")
		}
		b.legs(func(l *leg) {
			if !l.near {
				l.session.Timer.Refresh = l.agent.loop.Now()
			}
		})
		w.response(w.want("UPDATE"), 200, "")
		b.until(func() bool { // until then a re-INVITE is refused
			answered := true
			b.legs(func(l *leg) { answered = answered && l.own == nil })
			return answered
		})

		caller.send(withBody(caller.within(heard, "INVITE", n+6), caller.offer()))
		again := w.want("INVITE")
		w.response(again, 200, w.offer())
		caller.want("200")
		caller.send(caller.within(heard, "ACK", n+6))
		w.wantACK(again)
		caller.send(caller.within(heard, "BYE", n+7))
		caller.want("200")
		w.response(w.want("BYE"), 200, "")
		w.challenged(9)
	})
}

// TestProofsOfTheEdge: what the edge ends by itself is proved too, to a gateway that has called.
func TestProofsOfTheEdge(t *testing.T) {
	t.Parallel()
	eachWary(t, func(t *testing.T, b *bench, w *wary, callee *device) {
		w.from = "<sip:+81312345678@10.0.5.11;user=phone>"
		w.bring("+815010000001")
		came := keep(callee.want("INVITE"))
		callee.response(came, 200, callee.offer())
		answer := keep(w.device.want("200"))
		w.send(w.within(answer, "ACK", sequence(answer)))
		callee.want("ACK")
		callee.send(withBody(callee.within(came, "INVITE", 1), callee.offer()))
		again := w.want("INVITE")
		w.response(again, 200, w.offer())
		callee.want("200")
		callee.send(callee.within(came, "ACK", 1))
		w.wantACK(again)
		b.legs(func(l *leg) { l.session.Timer.Expire = l.agent.loop.Now() })
		callee.response(keep(callee.want("BYE")), 200, "")
		w.response(w.want("BYE"), 200, "")
		w.challenged(2)
	})
}

// TestProofCancelled: a change that its end has taken back is not proved.
func TestProofCancelled(t *testing.T) {
	t.Parallel()
	eachWary(t, func(t *testing.T, b *bench, w *wary, caller *device) {
		w.strict = true
		caller.invite("0312345678")
		invite := w.want("INVITE")
		w.response(invite, 200, w.offer())
		heard := keep(caller.want("200"))
		n := sequence(heard)
		caller.send(caller.within(heard, "ACK", n))
		w.wantACK(invite)
		w.renew()
		change := withBody(caller.within(heard, "INVITE", n+1), caller.offer())
		caller.send(change)
		came := keep(w.device.want("INVITE"))
		w.response(came, 180, "")
		caller.want("180")
		caller.send(reply(change, nil, "CANCEL"))
		caller.want("200")
		w.response(keep(w.device.want("CANCEL")), 200, "")
		_, challenge := w.fields()
		w.response(came, w.status, "", challenge+string(w.guard.AppendChallenge(nil, digest.SHA256, w.request(came), true)))
		w.device.want("ACK")
		caller.send(reply(change, caller.want("487"), "ACK"))
		caller.send(caller.within(heard, "BYE", n+2))
		caller.want("200")
		w.last = sequence(came)
		w.response(w.want("BYE"), 200, "")
	})
}
