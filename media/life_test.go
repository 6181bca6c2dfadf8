// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/relay"
)

// Ten thousand calls come and go, many at once, over each crossing: no address and no port is left.
func TestChurn(t *testing.T) {
	p := open(t, 2, Options{})
	const calls, atOnce = 2500, 100
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		var wg sync.WaitGroup
		for range atOnce {
			wg.Go(func() {
				for i := range calls / atOnce {
					r := p.try([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
					if r.err != nil {
						t.Error(r.err)
						return
					}
					p.client.Update(r.call.ID, control.Remote{RTP: r.call.Local[0][0].RTP})
					if i%3 == 0 {
						p.reshape(r.call.ID, [2]string{"four", "six"}, 2)
					}
					p.close(r.call.ID)
				}
			})
		}
		wg.Wait()
	})
	p.nothingLeft(t)
}

// awaitCalls waits until the plane has n calls.
func (p *place) awaitCalls(n int) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); p.plane.Calls() != n; {
		if time.Now().After(deadline) {
			p.t.Fatalf("%d calls, want %d", p.plane.Calls(), n)
		}
	}
}

// awaitOrphans waits until n calls are nobody's, and only wait for their end.
func (p *place) awaitOrphans(n int64) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		var got atomic.Int64
		p.loops.Do(func(l *relay.Loop) {
			for _, c := range p.plane.shards[l.ID()].calls {
				if c.orphan != 0 {
					got.Add(1)
				}
			}
		})
		if got.Load() == n {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%d calls are nobody's, want %d", got.Load(), n)
		}
	}
}

// age makes everything in the plane older, and has it look after its calls.
func (p *place) age(d time.Duration) {
	p.loops.Do(func(l *relay.Loop) {
		h := p.plane.shards[l.ID()]
		for _, c := range h.calls {
			c.since -= int64(d)
			if c.orphan != 0 {
				c.orphan -= int64(d)
			}
			for i := range c.streams {
				for side := range c.streams[i].Ends {
					if e := &c.streams[i].Ends[side]; e.Heard != 0 {
						e.Heard -= int64(d)
					}
				}
			}
		}
		h.sweep()
	})
}

// A call in which nothing is heard ends, and its client is told; not so one that is held, nor one in which one side speaks.
func TestIdle(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		names := [2]string{inFamily(x.Client), inFamily(x.Backend)}
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		held, silent, spoken := p.open(names, 1), p.open(names, 1), p.open(names, 1)
		p.open(names, 1) // nobody uses it
		for _, c := range []control.Call{held, silent, spoken} {
			p.tell(c, phones, 0, func(r *control.Remote) { r.Held = c.ID == held.ID && r.Side == control.Callee })
			talk(t, c, phones, 0, 1)
		}
		p.age(DefaultIdle / 2)
		phones[0].say(spoken.Local[0][0].RTP, rtp(6))
		phones[1].hear()
		p.age(DefaultIdle/2 + time.Second)
		if s := <-p.ended; s.Heard[0][0].Packets != 5 {
			t.Errorf("ended: %+v", s)
		}
		p.awaitCalls(3)
		p.close(spoken.ID)
		p.age(DefaultUnused)
		if s := <-p.ended; s.Heard[0][0].Packets != 0 {
			t.Errorf("ended: %+v", s)
		}
		p.awaitCalls(1)
		p.stats(held.ID)
		p.close(held.ID)
	})
	p.nothingLeft(t)
}

// Signalling dies. Its calls go on; the one that comes after it finds those that it knows, and the others end.
func TestSignallingDies(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		names := [2]string{inFamily(x.Client), inFamily(x.Backend)}
		first := connect(t, p.path)
		results := make(chan result, 1)
		open := func() control.Call {
			first.client.Open(control.Opening{Spec: control.Spec{Networks: names, Streams: 1}, Post: now,
				Done: func(c control.Call, err error) { results <- result{c, err} }})
			r := <-results
			if r.err != nil {
				t.Fatal(r.err)
			}
			return r.call
		}
		call, forgotten := open(), open()
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		for side, ph := range phones {
			first.client.Update(call.ID, control.Remote{Side: control.Side(side), RTP: ph.at})
		}
		first.client.Stats(call.ID, now, func(control.Stats, error) { results <- result{} })
		<-results // it has been told
		talk(t, call, phones, 0, 1)
		saved, remotes, _ := first.client.Saved(call.ID)
		first.stop()
		talk(t, call, phones, 0, 6)
		second := connect(t, p.path, func(c *control.Client) { c.Restore(saved, remotes, now, nil) })
		talk(t, call, phones, 0, 11)
		p.client, second.client = second.client, p.client
		defer func() { p.client = second.client }()
		p.awaitOrphans(1)
		p.age(DefaultGrace / 2)
		p.awaitCalls(2)
		p.age(DefaultGrace)
		p.awaitCalls(1) // forgotten is gone
		if s := p.close(call.ID); s.Heard[0][0].Packets != 15 {
			t.Errorf("%+v", s)
		}
		told := make(chan error, 1)
		p.client.Restore(forgotten, nil, now, nil)
		p.client.Stats(forgotten.ID, now, func(_ control.Stats, err error) { told <- err })
		if err := <-told; !errors.Is(err, control.ErrGone) {
			t.Errorf("the forgotten call: %v, want %v", err, control.ErrGone)
		}
	})
	p.nothingLeft(t)
}

// The relay dies. The one that comes after it has the calls again, at the addresses that they had, with as many loops or
// with others.
func TestRelayDies(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		const calls = 6
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		var all []control.Call
		for range calls {
			call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
			p.tell(call, phones, 0, nil)
			talk(t, call, phones, 0, 1)
			all = append(all, call)
		}
		for i, loops := range []int{2, 5, 3, 1, 2} {
			p.stop()
			p.start(loops, Options{})
			p.awaitCalls(calls)
			for _, call := range all {
				p.stats(call.ID)
				talk(t, call, phones, 0, uint16(6+5*i))
			}
		}
		for _, call := range all {
			p.close(call.ID)
		}
	})
	p.nothingLeft(t)
}

type running struct {
	client *control.Client
	stop   func()
}

// connect starts another client.
func connect(t *testing.T, path string, before ...func(*control.Client)) *running {
	t.Helper()
	up := make(chan error, 100)
	r := &running{client: control.NewClient(control.Options{Path: path, Link: func(err error) { up <- err }})}
	for _, fn := range before {
		fn(r.client)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { r.client.Run(ctx) })
	r.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(r.stop)
	if err := <-up; err != nil {
		t.Fatal(err)
	}
	return r
}

// What is sent carries the code point of the side that it is sent to, in either family.
func TestDSCP(t *testing.T) {
	p := open(t, 1, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		p.tell(call, phones, 0, func(r *control.Remote) { r.DSCP = [2]uint8{46, 0}[r.Side] })
		for side, want := range []byte{46 << 2, 0} {
			if got := phones[side].class(func() { phones[1-side].say(call.Local[1-side][0].RTP, rtp(1)) }); got != want {
				t.Errorf("side %d: traffic class %#x, want %#x", side, got, want)
			}
		}
		p.close(call.ID)
	})
}

// class returns the traffic class of the next packet.
func (p *phone) class(send func()) byte {
	p.t.Helper()
	raw, err := p.conn.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
	})
	send()
	p.conn.SetReadDeadline(time.Now().Add(patience))
	b, control := make([]byte, 1000), make([]byte, 100)
	_, n, _, _, err := p.conn.ReadMsgUDPAddrPort(b, control)
	if err != nil {
		p.t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		p.t.Fatalf("%v, %v", messages, err)
	}
	return messages[0].Data[0]
}

// TestAllocations: a packet costs no memory, whatever its way is.
func TestAllocations(t *testing.T) {
	p := open(t, 1, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		p.tell(call, phones, 0, nil)
		packet, answer := rtp(1), make([]byte, 1000)
		to := call.Local[0][0].RTP
		say := func() {
			phones[0].conn.WriteToUDPAddrPort(packet, to)
			phones[1].conn.ReadFromUDPAddrPort(answer)
		}
		say()
		if n := testing.AllocsPerRun(20, say); n >= 1 {
			t.Errorf("%v allocations a packet", n)
		}
		p.close(call.ID)
	})
}
