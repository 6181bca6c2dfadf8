// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// TestPace: a socket is busy from 2,000 packets a second and until they are fewer than 1,000.
func TestPace(t *testing.T) {
	t.Parallel()
	p := pace{since: 1e9}
	now := int64(1e9)
	for i, step := range []struct {
		packets, every int // so many packets, in milliseconds
		want           bool
	}{
		{1, 5000, false}, {50, 32, false}, {70, 32, true}, {40, 32, true}, {3, 16, true}, {35, 16, true}, {20, 32, false}, {40, 32, false},
		{10_000, 32, true}, {0, 32, false}, {10_000, 20_000, false},
	} {
		was := p.busy
		now += int64(step.every) * int64(time.Millisecond)
		if changed := p.count(step.packets, now); p.busy != step.want || changed != (was != step.want) {
			t.Errorf("step %d: busy %v, changed %v", i, p.busy, changed)
		}
	}
}

// A socket at which much comes is looked at by the clock, loses nothing by that, and is waited for again when little comes.
func TestPaced(t *testing.T) {
	for _, kind := range []string{"io_uring", "plain"} {
		t.Run(kind, func(t *testing.T) {
			ls := startLoops(t, 1)
			if kind == "plain" {
				ls.loops[0].do(func() { ls.loops[0].round.ring = nil })
			}
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				var busy atomic.Bool
				d, at := openDatagrams(t, ls, f, false, nil)
				d.Redirect(func(p Datagram) {
					busy.Store(d.pace.busy)
					d.Send(d.Loop(), Datagram{From: p.To, To: p.From, Payload: p.Payload})
				})
				c := dialUDP(t, at)
				c.SetDeadline(time.Now().Add(time.Minute))
				until := func(many int, want bool) {
					for busy.Load() != want {
						for i := range many {
							c.Write([]byte{byte(i)})
						}
						for i := range many {
							var b [2]byte
							if n, err := c.Read(b[:]); err != nil || n != 1 || b[0] != byte(i) {
								t.Fatalf("packet %d: got %v, %v", i, b[:n], err)
							}
						}
					}
				}
				until(100, true)
				until(1, false)
				until(100, true)
				d.Pause()
				c.Write([]byte("w"))
				if err := d.Resume(); err != nil {
					t.Fatal(err)
				}
				if n, err := c.Read(make([]byte, 2)); n != 1 || err != nil {
					t.Errorf("after a pause: %d, %v", n, err)
				}
				until(100, true)
				d.Close()
				ls.loops[0].do(func() {
					if n := len(ls.loops[0].paced); n > 0 {
						t.Errorf("%d sockets are looked at after the end", n)
					}
				})
			})
		})
	}
}
