// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/state"
)

// stored waits until the store has, or has not, the bindings of a subscriber.
func (b *bench) stored(name string, want bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	key := bindingKey + "sip:" + name + "@" + domain
	if !want { // what is not there is not watched
		b.core.homes.write(ctx)
	}
	there := false
	err := b.core.homes.store.Each([]byte(key), func(state.Entry) error { there = true; return nil })
	if err == nil && there != want {
		err = b.core.homes.store.Watch(ctx, []byte(key), func(e state.Entry) {
			if there = e.Value != nil; there == want {
				cancel()
			}
		})
	}
	if there != want || err != nil && !errors.Is(err, context.Canceled) {
		b.t.Fatalf("the store has %s: %v, want %v: %v", name, there, want, err)
	}
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
		b.core.homes.write(t.Context())
		revision := func() (n uint64) {
			if err := b.core.homes.store.Each([]byte(bindingKey), func(e state.Entry) error { n = e.Revision; return nil }); err != nil {
				t.Fatal(err)
			}
			return n
		}
		was := revision()
		for range 3 {
			d.register("Contact: " + d.contact())
		}
		b.core.homes.write(t.Context())
		if now := revision(); now != was {
			t.Errorf("revision %d became %d", was, now)
		}
		d.register("Contact: " + strings.Replace(d.contact(), ">", ">;q=0.5", 1))
		b.core.homes.write(t.Context())
		if now := revision(); now == was {
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
	homes := bindings{table: location.New(), names: new(agents), directory: b.core.homes.directory, changed: make(map[string]bool)}
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
	return b.store != nil
}
