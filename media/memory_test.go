// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"net/netip"
	"runtime"
	"testing"

	"github.com/kyozon/kyozon/media/control"
)

// heldOfCall is how many bytes a call may hold, of one stream, between a prefix and ports. What the process adds to its resident
// memory is more: there is what waits for the collector, and between what is in use.
const heldOfCall = 1150

func TestMemory(t *testing.T) {
	p := open(t, 2, Options{})
	const calls = 400
	opened := make(chan error, calls)
	begin := func(first, n int) {
		for i := range n {
			id := control.ID(first + i)
			p.plane.Do(nil, control.Request{What: control.Open, Call: control.Call{ID: id, Spec: control.Spec{Networks: [2]string{"six", "four"}, Streams: 1}},
				Remotes: []control.Remote{{Side: control.Caller, RTP: netip.MustParseAddrPort("[2001:db8::1]:4000")}, {Side: control.Callee, RTP: netip.MustParseAddrPort("192.0.2.1:4000")}},
				Done:    func(_ control.Call, err error) { opened <- err }})
		}
		for range n {
			if err := <-opened; err != nil {
				t.Fatal(err)
			}
		}
	}
	begin(1, 50) // what there is but once
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin(1001, calls)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := int64(after.HeapAlloc-before.HeapAlloc) / calls; n > heldOfCall {
		t.Errorf("a call holds %d bytes, want at most %d", n, heldOfCall)
	} else {
		t.Logf("a call holds %d bytes", n)
	}
}
