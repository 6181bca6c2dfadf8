// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// each calls fn on the loop of each agent.
func (b *bench) each(fn func(a *agent)) {
	for _, a := range b.core.agents {
		done := make(chan bool)
		a.loop.Post(func() {
			fn(a)
			close(done)
		})
		<-done
	}
}

// claims returns how many INVITEs have an owner.
func (o *owners) claims() (n int) {
	for i := range o {
		o[i].mu.Lock()
		n += len(o[i].all)
		o[i].mu.Unlock()
	}
	return n
}

// A call lives on the loop that its INVITE came to. A copy of it by another way, and CANCEL, find it from any loop, and nothing
// is known of it when its transaction has ended.
func TestOwner(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 4, "")
	b.each(func(a *agent) { a.busy = func() bool { return false } })
	ahead := time.Duration(0)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		caller.silent = true // no offer, for whose sake it might be refused
		invite := caller.invite("05010000002")
		ringing := keep(callee.want("INVITE"))
		callee.response(ringing, 180, "")
		caller.want("180")
		b.each(func(a *agent) {
			if here := a.loop == b.core.sockets.Load().at(b.at[x.Client]).Loop(); here != (len(a.calls) == 1) {
				t.Errorf("%v: loop %d has %d calls, and the socket: %t", x, a.loop.ID(), len(a.calls), here)
			}
		})
		var others []*device
		for range 8 { // on all loops, most likely
			others = append(others, b.newDevice("tcp", x.Client, "05010000001"))
		}
		for i, d := range others {
			d.send(strings.Replace(invite, "branch=z9hG4bK", fmt.Sprintf("branch=z9hG4bKcopy%d", i), 1))
			d.want("482")
		}
		others[0].send(reply(invite, nil, "CANCEL"))
		others[0].want("200")
		m := caller.want("487")
		caller.send(reply(invite, m, "ACK"))
		callee.response(keep(callee.want("CANCEL")), 200, "")
		callee.response(ringing, 487, "")
		callee.want("ACK")
		ahead += 100 * time.Second // when all has ended
		b.each(func(a *agent) {
			if a.opened {
				a.table.Advance(a.loop.Now() + int64(ahead))
			}
		})
		if n := b.core.owners.claims(); n > 0 {
			t.Errorf("%v: %d INVITEs have an owner at the end", x, n)
		}
	})
}

// Whoever is busy lets the others have new calls, which go on as all do.
func TestBusy(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 3, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		callee := b.registered("udp", f, "05010000002")
		defer callee.unregister()
		gateway := b.newDevice("udp", f, "one")
		b.reload(withTrunk("global", gateway, b.newDevice("udp", f, "two")))
		gateway.from = "<sip:+81312345678@10.0.5.11;user=phone>"
		owned := make(map[int]bool)
		for i := range 3 {
			gateway.callID = fmt.Sprintf("%v-%d", f, i)
			b.each(func(a *agent) { a.busy = func() bool { return true } })
			gateway.bring("+815010000002")
			invite := keep(callee.want("INVITE"))
			b.each(func(a *agent) {
				if len(a.calls) > 0 {
					owned[a.loop.ID()] = true
				}
			})
			callee.response(invite, 200, callee.offer())
			heard := keep(gateway.want("200"))
			seq, _ := heard.Sequence()
			gateway.send(gateway.within(heard, "ACK", seq.Number))
			callee.want("ACK")
			hangUp(gateway, callee, heard, seq.Number+1)
		}
		if len(owned) < 3 {
			t.Errorf("%v: all calls went to %v", f, owned)
		}
	})
}

// A token names its agent, whatever is around it; what is not ours goes to the same agent each time.
func TestNamed(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 3, "")
	for i, a := range b.core.agents {
		token := a.token()
		if got := b.core.named([]byte(token), nil); got != a {
			t.Errorf("%q is not of agent %d", token, i)
		}
		var m sip.Message
		via := a.viaTo(sip.Way{Local: b.at[ip.V6], Remote: b.at[ip.V6]}, "sip:1@x")
		text := fmt.Sprintf("SIP/2.0 200 OK\r\nVia: %s\r\nCall-ID: x\r\n\r\n", via)
		if err := m.Parse([]byte(text), nil); err != nil {
			t.Fatal(err)
		}
		for _, from := range b.core.agents {
			if to, claimed := from.owner(&m); to != a || claimed != 0 {
				t.Errorf("a response to agent %d goes to %s", i, to.mark)
			}
		}
	}
	for _, token := range []string{"", "0", "zz9", "-1x", "+1x", "client1", "\xff\xff\xff"} {
		if got, again := b.core.named([]byte(token), []byte("id")), b.core.named([]byte(token), []byte("id")); got != again {
			t.Errorf("%q goes to %s, and then to %s", token, got.mark, again.mark)
		}
	}
}

// TestOwners is the table alone.
func TestOwners(t *testing.T) {
	t.Parallel()
	var o owners
	if _, ok := o.find(7); ok {
		t.Error("nobody's INVITE is found")
	}
	if by := o.claim(7, 1); by != 1 {
		t.Errorf("claimed for %d", by)
	}
	if by := o.claim(7, 2); by != 1 {
		t.Errorf("claimed once more for %d", by)
	}
	o.settle(7)
	if by := o.claim(7, 2); by != 2 {
		t.Error("a claim outlives settle")
	}
	o.hold(7, 2)
	o.hold(7, 2)
	o.settle(7)
	o.release(7)
	if by, ok := o.find(7); !ok || by != 2 {
		t.Error("one of two INVITEs is not found")
	}
	if o.release(7); o.claims() > 0 {
		t.Error("an INVITE has not been forgotten")
	}
}
