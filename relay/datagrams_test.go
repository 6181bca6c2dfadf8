// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// openDatagrams opens a socket at the loopback address of f, or at all addresses, and returns where it is reached.
func openDatagrams(t *testing.T, ls *Loops, f ip.Family, wildcard bool, receive func(Datagram)) (*Datagrams, netip.AddrPort) {
	t.Helper()
	bound := iptest.Loopback(f)
	if wildcard {
		bound = map[ip.Family]netip.Addr{ip.V4: netip.IPv4Unspecified(), ip.V6: netip.IPv6Unspecified()}[f]
	}
	fd, at := listenUDP(t, bound)
	d, err := ls.OpenDatagrams(fd, func(*Datagrams) func(Datagram) { return receive })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d, netip.AddrPortFrom(iptest.Loopback(f), at.Port())
}

// What comes in at one socket leaves by the other, from any loop, and the answer from where the client has sent to.
func TestDatagrams(t *testing.T) {
	ls := startLoops(t, 2)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		server := servertest.UDPEcho(t, x.Backend)
		for _, wildcard := range []bool{false, true} {
			for _, sender := range ls.loops {
				var last atomic.Pointer[Datagram]
				front, at := openDatagrams(t, ls, x.Client, wildcard, nil)
				back, _ := openDatagrams(t, ls, x.Backend, wildcard, nil)
				front.Redirect(func(d Datagram) {
					last.Store(&Datagram{From: d.To, To: d.From})
					if d.To != at {
						t.Errorf("got a packet for %v, want %v", d.To, at)
					}
					payload := bytes.Clone(d.Payload)
					sender.Post(func() { back.Send(sender, Datagram{To: server, Payload: payload}) })
				})
				back.Redirect(func(d Datagram) {
					if d.From != server {
						t.Errorf("an answer from %v", d.From)
					}
					answer := *last.Load()
					answer.Payload = d.Payload
					front.Send(back.Loop(), answer)
				})
				c := dialUDP(t, at) // connected: an answer from another address does not arrive
				for i := range 3 {
					ask(t, c, fmt.Appendf(nil, "packet %d", i))
				}
				ask(t, c, nil)
				ask(t, c, make([]byte, 60_000))
			}
		}
	})
}

// More packets than one batch holds leave in one round, and all arrive.
func TestDatagramsMany(t *testing.T) {
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		const many = 3*packetBatchSize + 1
		d, at := openDatagrams(t, ls, f, false, nil)
		d.Redirect(func(p Datagram) {
			for i := range many {
				d.Send(d.Loop(), Datagram{To: p.From, Payload: []byte{byte(i)}})
			}
		})
		c := dialUDP(t, at)
		c.Write([]byte("go"))
		for i := range many {
			var b [2]byte
			if n, err := c.Read(b[:]); err != nil || n != 1 || b[0] != byte(i) {
				t.Fatalf("packet %d: got %v, %v", i, b[:n], err)
			}
		}
	})
}

// What comes during a pause waits; what is sent after the end goes nowhere.
func TestDatagramsPause(t *testing.T) {
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		got := make(chan string, 10)
		d, at := openDatagrams(t, ls, f, false, func(p Datagram) { got <- string(p.Payload) })
		c := dialUDP(t, at)
		d.Pause()
		c.Write([]byte("waits"))
		ls.loops[0].do(func() {}) // a round has passed
		if len(got) > 0 {
			t.Error("read during a pause")
		}
		if err := d.Resume(); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != "waits" {
			t.Errorf("got %q", s)
		}
		d.Close()
		ls.loops[0].do(func() {
			d.Send(d.Loop(), Datagram{To: c.LocalAddr().(*net.UDPAddr).AddrPort(), Payload: []byte("lost")})
			if len(d.Loop().ending) > 0 {
				t.Error("a closed socket still sends")
			}
		})
	})
}

func TestDatagramAllocations(t *testing.T) {
	ls := startLoops(t, 1)
	d, at := openDatagrams(t, ls, ip.V6, true, nil)
	d.Redirect(func(p Datagram) { d.Send(d.Loop(), Datagram{From: p.To, To: p.From, Payload: p.Payload}) })
	c := dialUDP(t, at)
	payload, answer := []byte("sixteen bytes 16"), make([]byte, 100)
	ask(t, c, payload)
	if n := testing.AllocsPerRun(200, func() {
		c.Write(payload)
		c.Read(answer)
	}); n >= 1 {
		t.Errorf("%v allocations a packet", n)
	}
}

// What comes while nobody reads waits in the socket, far more than the kernel gives room for by itself.
func TestDatagramsRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may go beyond the machine's limit")
	}
	const many = 5000
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		var n atomic.Int64
		all := make(chan bool)
		d, at := openDatagrams(t, ls, f, false, func(Datagram) {
			if n.Add(1) == many {
				close(all)
			}
		})
		d.Pause()
		c := dialUDP(t, at)
		for range many {
			if _, err := c.Write(make([]byte, 400)); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.Resume(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-all:
		case <-time.After(patience):
			t.Errorf("%d of %d packets were there", n.Load(), many)
		}
	})
}
