// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/phone/location"
)

// stored waits until the journal has, or has not, the bindings of a subscriber.
func (b *bench) stored(name string, want bool) {
	b.t.Helper()
	b.until(func() bool {
		b.core.homes.write()
		return b.core.homes.record("sip:"+name+"@"+domain) != 0 == want
	})
}

// record returns the record of an address of record, or 0.
func (b *bindings) record(aor string) journal.ID {
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.kept[aor]
}

// After a restart subscribers are reached without registering again, but over connections, which have ended.
func TestBindings(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		callee, connected := b.registered("udp", f, "05010000002"), b.registered("tcp", f, "05010000003")
		b.stored(callee.name, true)
		b.end()
		b.start("")
		caller := b.newDevice("udp", f, "05010000001")
		r := caller.invite(callee.name)
		callee.response(callee.want("INVITE"), 486, "")
		callee.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
		r = caller.invite(connected.name)
		caller.send(reply(r, caller.want("480"), "ACK"))
		if status := callee.register("Contact: " + callee.contact()); status != 200 { // with the numbers that follow
			t.Errorf("got %d", status)
		}
		callee.unregister()
		b.stored(callee.name, false)
	})
}

// Who refreshes a binding changes nothing in the store.
func TestBindingsRefreshed(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		d := b.registered("udp", f, "05010000001")
		b.stored(d.name, true)
		b.core.homes.write()
		record := func() journal.ID { return b.core.homes.record("sip:" + d.name + "@" + domain) }
		was := record()
		for range 3 {
			d.register("Contact: " + d.contact())
		}
		b.core.homes.write()
		if now := record(); now != was {
			t.Errorf("record %d became %d", was, now)
		}
		d.register("Contact: " + strings.Replace(d.contact(), ">", ">;q=0.5", 1))
		b.core.homes.write()
		if now := record(); now == was {
			t.Error("another q is not written")
		}
		d.unregister()
	})
}

// A process that takes over has all bindings; if it fails, what has changed meanwhile is written.
func TestBindingsLeave(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	d := b.registered("udp", ip.V6, "05010000001")
	b.core.leave()
	homes := newBindings(b.core.homes.directory, location.New(), new(agents), slog.New(slog.DiscardHandler))
	if n, err := homes.read(now()); n != 1 || err != nil {
		t.Errorf("%d are left: %v", n, err)
	}
	homes.close()
	d.unregister() // which says that the edge goes on
	b.until(b.core.homes.isOpen)
	b.stored(d.name, false)
}

func (b *bindings) isOpen() bool {
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.journal != nil
}
