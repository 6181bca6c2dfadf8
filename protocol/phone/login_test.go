// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// A gateway that asks who calls is told, by the better algorithm that it puts first; what it does not believe is told once
// more, and no more.
func TestLogin(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.write("password", "very secret\nand a remark\n")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		gateway, caller := b.newDevice("udp", x.Backend, "gateway"), b.registered("udp", x.Client, "05010000001")
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access, "+
			"login: {name: edge, password: password}}}, routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", gateway.local()))
		if !b.carried(caller, x) {
			return
		}
		guard := digest.NewServer("carrier", []digest.Key{{1}}, 10)
		secret := new(digest.Secret)
		secret.Add(digest.SHA256, fmt.Sprintf("%x", sha256.Sum256([]byte("edge:carrier:very secret"))))
		for _, status := range []int{401, 407} {
			challenge, field := "WWW-Authenticate: ", sip.Authorization
			if status == 407 {
				challenge, field = "Proxy-Authenticate: ", sip.ProxyAuthorization
			}
			ask := func(m *sip.Message) {
				at := &digest.Request{Client: addrOf(caller).Addr(), Now: time.Now()}
				gateway.response(m, status, "", challenge+"Basic realm=x", challenge+string(guard.AppendChallenge(nil, digest.SHA256, at, false)))
				gateway.want("ACK")
			}
			caller.invite("0312345678")
			first := keep(gateway.want("INVITE"))
			ask(first)
			second := keep(gateway.want("INVITE"))
			var f digest.Fields
			if err := f.Parse(second.Get(field)); err != nil {
				t.Fatalf("%v in %s", err, second.Head())
			}
			if v := guard.Check(&f, &digest.Request{Method: []byte("INVITE"), URI: second.Target(), Client: addrOf(caller).Addr(), Now: time.Now()}, secret); v != digest.Granted {
				t.Errorf("%s is %v", second.Get(field), v)
			}
			one, _ := first.Sequence()
			two, _ := second.Sequence()
			if two.Number != one.Number+1 || string(first.Get(sip.CallID)) != string(second.Get(sip.CallID)) || string(first.Get(sip.Via)) == string(second.Get(sip.Via)) {
				t.Errorf("the second INVITE is\n%s", second.Head())
			}
			gateway.response(second, 200, gateway.offer())
			answer := keep(caller.want("200"))
			seq, _ := answer.Sequence()
			caller.send(caller.within(answer, "ACK", seq.Number))
			ack := gateway.want("ACK")
			if n, _ := ack.Sequence(); n.Number != two.Number {
				t.Errorf("ACK of %d, want %d", n.Number, two.Number)
			}
			caller.send(caller.within(answer, "BYE", seq.Number+1))
			caller.want("200")
			gateway.response(keep(gateway.want("BYE")), 200, "")

			r := caller.invite("0312345678")
			for range 1 + mostProofs {
				ask(keep(gateway.want("INVITE")))
			}
			caller.send(reply(r, caller.want("480"), "ACK"))
		}
	})
}

// Who proves to call for a trunk does, wherever he is in its network; in another network, and as himself, he is nobody.
func TestCallers(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.write("callers", fmt.Sprintf("partner:%s:%x\n", domain, sha256.Sum256([]byte("partner:"+domain+":secret"))))
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		callee := b.registered("udp", f, "05010000002")
		defer callee.unregister()
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {carrier: {gateways: [%q], network: access, callers: callers}}, "+
			"routes: [{to: own, via: subscribers}, {to: emergency, via: carrier}]", b.newDevice("udp", f, "gateway").local()))
		d := b.newDevice("udp", f, "partner")
		d.from = "<sip:+81312345678@carrier.example;user=phone>"
		first := d.bring("+815010000002")
		m := keep(d.want("401"))
		d.send(reply(first, m, "ACK"))
		for value, i := m.Field(sip.WWWAuthenticate, 0); value != nil; value, i = m.Field(sip.WWWAuthenticate, i) {
			if strings.Contains(string(value), "SHA-256") {
				if err := d.digest.Take(value); err != nil {
					t.Fatal(err)
				}
			}
		}
		target := "sip:+815010000002@" + domain + ";user=phone"
		r := d.bring("+815010000002", "P-Asserted-Identity: <tel:+81398765432>",
			"Authorization: "+string(d.digest.Append(nil, "INVITE", target, [8]byte{1})))
		invite := keep(callee.want("INVITE"))
		if got := string(invite.Get(sip.PAssertedIdentity)); got != "<sip:0398765432@"+domain+">" {
			t.Errorf("got P-Asserted-Identity %s", got)
		}
		callee.response(invite, 486, "")
		callee.want("ACK")
		d.send(reply(r, d.want("486"), "ACK"))
		d.from = ""
		if status := d.registerBy(digest.SHA256, "Contact: "+d.contact()); status != 403 {
			t.Errorf("a partner registers: %d", status)
		}
	})
}

// TestReadLogins: what is wrong with the files is said.
func TestReadLogins(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, dir: t.TempDir()}
	b.write("empty", "\nsecret\n")
	b.write("callers", fmt.Sprintf("a:%s:%x\n", domain, sha256.Sum256(nil)))
	at := func(name string) string { return filepath.Join(b.dir, name) }
	if _, err := readPassword(at("empty")); !errors.Is(err, errPassword) {
		t.Errorf("got %v", err)
	}
	if _, err := readPassword(at("none")); err == nil {
		t.Error("a file that is not there has a password")
	}
	s := &settings{options: &Options{Domain: domain}, partners: make(map[string]partner), subscribers: map[string]*subscriber{"a": {}}}
	callers, errs := readSubscribers(at("callers"), domain)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	if err := s.takeLogins(&trunk{}, &Trunk{}, trunkFiles{callers: callers}); !errors.Is(err, errBoth) {
		t.Errorf("got %v", err)
	}
	if isName(`a"`) || isName("") || !isName("edge@carrier") {
		t.Error("what a name is")
	}
}
