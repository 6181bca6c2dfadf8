// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/service"
)

// counted returns the counts of a service in words, those that are not zero.
func (b *bench) counted() (all []string) {
	for _, c := range b.core.counts() {
		if c.Value != 0 {
			all = append(all, fmt.Sprintf("%s %s %d", strings.TrimPrefix(c.Metric.Name, "kyozon_phone_"), strings.Join(c.Values[1:], " "), c.Value))
		}
	}
	slices.Sort(all)
	return all
}

// crossed says how many calls are under way, and have ended, between telephones of a family.
func (b *bench) crossed(f ip.Family) (now, ended int64) {
	for _, s := range b.edge.Status().Services {
		for _, c := range s.Crossings {
			if c.Crossing == (ip.Crossing{Client: f, Backend: f}).String() {
				now, ended = now+c.Sessions, ended+c.SessionsEnded
			}
		}
	}
	return now, ended
}

// What is under way is shown, how far it is and with whom, and can be dropped; what is over is counted.
func TestShown(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b := newBench(t, ", cdr: calls.jsonl")
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		shown := func() (all []string) {
			for _, c := range b.edge.Calls(func(*service.Call) bool { return true }, 10) {
				all = append(all, fmt.Sprintf("%s %s %s>%s %s %s %s %s", c.Service, c.State, c.From, c.To, c.Caller.Network, c.Caller.Family, c.Called.Peer, c.Media))
			}
			return all
		}
		want := func(state, media string) {
			t.Helper()
			want := []string{"phone " + state + " 05010000001>05010000002 access " + f.String() + " 05010000002 " + media}
			if diff := cmp.Diff(want, shown()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
		caller.invite(callee.name)
		came := keep(callee.want("INVITE"))
		want("calling", "")
		callee.response(came, 180, "")
		caller.want("180")
		want("ringing", "")
		callee.response(came, 200, callee.offer())
		heard := keep(caller.want("200"))
		acknowledge(caller, callee, heard, sequence(heard))
		want("answered", "direct")
		name := f.String()
		if diff := cmp.Diff([]string{"calls_active " + name + " " + name + " 1", "media_calls_active direct 1", "registrations_active " + name + " 2"}, b.counted()); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
		if now, ended := b.crossed(f); now != 1 || ended != 0 {
			t.Errorf("%d calls now and %d that have ended", now, ended)
		}
		if got := b.edge.Calls(func(c *service.Call) bool { return c.State == "ringing" }, 10); len(got) > 0 {
			t.Errorf("ringing are %v", got)
		}
		if err := b.edge.DropCall("x"); !errors.Is(err, service.ErrNoCall) {
			t.Errorf("got %v", err)
		}
		id := b.edge.Calls(func(*service.Call) bool { return true }, 10)[0].ID
		if err := b.edge.DropCall(id); err != nil {
			t.Error(err)
		}
		callee.response(keep(callee.want("BYE")), 200, "")
		caller.response(keep(caller.want("BYE")), 200, "")
		if got := shown(); len(got) > 0 {
			t.Errorf("shown are %v", got)
		}

		r := caller.invite(callee.name) // one that nobody has answered
		came = keep(callee.want("INVITE"))
		callee.response(came, 180, "")
		caller.want("180")
		if err := b.edge.DropCall(b.edge.Calls(func(*service.Call) bool { return true }, 10)[0].ID); err != nil {
			t.Error(err)
		}
		caller.send(reply(r, caller.want("480"), "ACK"))
		callee.response(keep(callee.want("CANCEL")), 200, "")
		callee.response(came, 487, "")
		callee.want("ACK")
		if diff := cmp.Diff([]string{"calls_total " + name + "  failed 18 1", "calls_total " + name + " " + name + " answered 31 1",
			"media_calls_total " + name + " " + name + " direct 1",
			"registrations_active " + name + " 2"}, b.counted()); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
		if now, ended := b.crossed(f); now != 0 || ended != 1 {
			t.Errorf("%d calls now and %d that have ended", now, ended)
		}
		callee.unregister()
		for _, r := range b.records() {
			if r.EndedBy != byEdge || r.Reason != "dropped by the operator" {
				t.Errorf("got %+v", r)
			}
		}
	})
}

// Subscribers are shown where they are reached, and by what; also after a restart.
func TestShownSubscribers(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b := newBench(t, "")
		d := b.newDevice("udp", f, "05010000001")
		if status := d.register("Contact: "+d.contact(), "User-Agent: baresip v3"); status != 200 {
			t.Fatalf("got %d", status)
		}
		tcp := b.registered("tcp", f, "05010000002")
		shown := func() (all []string) {
			for _, r := range b.edge.Registrations(func(*service.Registration) bool { return true }, 10) {
				all = append(all, fmt.Sprintf("%s %s %s %s %s %s %s", r.Service, r.Name, r.Network, r.Family, r.Transport, r.Address, r.Agent))
			}
			return all
		}
		one := "phone 05010000001 access " + f.String() + " UDP " + d.local() + " baresip v3"
		two := "phone 05010000002 access " + f.String() + " TCP " + tcp.local() + " "
		if diff := cmp.Diff([]string{one, two}, shown()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		b.end()
		b.start("")
		if diff := cmp.Diff([]string{one}, shown()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"registrations_active " + f.String() + " 1"}, b.counted()); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
	})
}

// Names that strangers invent do not fill the memory.
func TestAgents(t *testing.T) {
	t.Parallel()
	var a agents
	for i := range 2 * mostAgents {
		a.name(fmt.Append(nil, i))
	}
	if len(a.all) != mostAgents || a.name([]byte("7")) != "7" || a.name([]byte("new")) != "" {
		t.Errorf("%d are kept", len(a.all))
	}
	var b agents
	if got := b.name([]byte(strings.Repeat("é", longAgent))); len(got) != longAgent {
		t.Errorf("got %d bytes", len(got))
	}
}
