// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/lab"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/service"
)

// mediaKernel is the relay with its kernel plane, phones on both sides of it and somebody else.
type mediaKernel struct {
	*lab.Lab
	site   string
	client *control.Client
	links  chan error
	kill   func()
}

// call is a call between two phones, with a stranger in each of their networks.
type mediaCall struct {
	control.Call
	phones, strangers [2]*mediaPhone
}

// TestMediaKernel: established streams go on while the relay is killed, and not one packet is lost; a stranger puts nothing into
// them. The relay that comes after it goes on with them and knows what they have carried. One that is stopped in order, or is not to
// have the kernel plane, leaves nothing. Cards that sum nothing have receivers look at each checksum.
func TestMediaKernel(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ sums bool }{"cards that sum": {true}, "cards that do not": {false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, whole := newMediaKernel(t, tt.sums), t
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) { k.cross(t, whole, x) })
			k.leavesNothing(t)
		})
	}
}

func newMediaKernel(t *testing.T, sums bool) *mediaKernel {
	t.Helper()
	k := &mediaKernel{Lab: upLab(t, twoNetworks), site: fmt.Sprintf(mediaSite, t.TempDir())}
	for host, via := range map[string]string{"caller": "2001:db8:200:6::1", "callee": "fd00:1::1"} {
		prefix := map[string]string{"caller": "2001:db8:200:50::/64", "callee": "fd00:50::/64"}[host]
		addRoute(t, k.Host(host), prefix, via)
		addRoute(t, k.Host("stranger"), prefix, via)
	}
	if !sums {
		for host, link := range map[string]string{"caller": "access", "callee": "core", "stranger": "access"} {
			c := k.Host(host).Command(t.Context(), "ethtool", "-K", link, "tx", "off")
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("ethtool on %s: %v: %s", host, err, out)
			}
		}
	}
	k.kill = runMedia(t, k.Host("edge"), k.site)
	dir := k.site[strings.LastIndex(k.site, "directory: ")+len("directory: ") : strings.LastIndex(k.site, "}")]
	k.client, k.links = mediaClient(t, dir)
	awaitLink(t, k.links)
	return k
}

// again kills the relay, has something happen, and starts it.
func (k *mediaKernel) again(t *testing.T, whole *testing.T, meanwhile func()) {
	t.Helper()
	k.kill()
	meanwhile()
	k.kill = runMedia(whole, k.Host("edge"), k.site)
	awaitLink(t, k.links)
}

func (k *mediaKernel) open(t *testing.T, x ip.Crossing) *mediaCall {
	t.Helper()
	opened := make(chan control.Call, 1)
	k.client.Open(control.Opening{Post: func(fn func()) { fn() },
		Spec: control.Spec{Streams: 1, Networks: [2]string{service.MediaName("access", x.Client), service.MediaName("core", x.Backend)}},
		Done: func(call control.Call, err error) {
			if err != nil {
				t.Error(err)
			}
			opened <- call
		}})
	c := &mediaCall{Call: <-opened}
	for side, f := range []ip.Family{x.Client, x.Backend} {
		own := []map[ip.Family]string{{ip.V4: "198.51.100.4", ip.V6: "2001:db8:200:6::4"}, {ip.V4: "10.0.1.11", ip.V6: "fd00:1::11"}}[side][f]
		other := []map[ip.Family]string{{ip.V4: "198.51.100.66", ip.V6: "2001:db8:200:6::66"}, {ip.V4: "10.0.1.66", ip.V6: "fd00:1::66"}}[side][f]
		c.phones[side] = phoneOn(t, k.Host([]string{"caller", "callee"}[side]), own)
		c.strangers[side] = phoneOn(t, k.Host("stranger"), other)
	}
	k.tell(c)
	return c
}

// tell tells the relay who the phones are.
func (k *mediaKernel) tell(c *mediaCall) {
	for side, p := range c.phones {
		k.client.Update(c.ID, control.Remote{Side: control.Side(side), RTP: p.at, DSCP: 46})
	}
}

// ask returns what a call has carried. What was told before has been done by then.
func (k *mediaKernel) ask(t *testing.T, c *mediaCall) control.Stats {
	t.Helper()
	stats := make(chan control.Stats, 1)
	k.client.Stats(c.ID, func(fn func()) { fn() }, func(s control.Stats, err error) {
		if err != nil {
			t.Error(err)
		}
		stats <- s
	})
	return <-stats
}

// cross has a call survive.
func (k *mediaKernel) cross(t, whole *testing.T, x ip.Crossing) {
	c := k.open(t, x)
	k.ask(t, c)
	number := uint16(0)
	speaks := func(packets int, sprayed bool) {
		t.Helper()
		for range packets {
			for side := range c.strangers {
				if sprayed {
					spray(t, c.strangers[side], c.Call, side)
				}
			}
			speak(t, c.Call, c.phones, number)
			number++
		}
	}
	k.counts(t, x)
	speaks(10, false)
	k.again(t, whole, func() { speaks(20, true) })
	if s := k.ask(t, c); !wholeCall(s, c, 30) {
		t.Errorf("after the first end: %+v", s)
	}
	k.again(t, whole, func() { speaks(10, true) }) // by the lanes that were taken over: nobody has spoken since
	speaks(10, true)
	k.tell(c) // nothing new: the lanes are made again
	k.ask(t, c)
	speaks(10, true)
	if s := k.ask(t, c); !wholeCall(s, c, 60) {
		t.Errorf("after the second end: %+v", s)
	}
	k.wantFigures(t, x)
	k.again(t, whole, func() { speaks(10, true) })
	moved := phoneOn(t, k.Host("caller"), c.phones[0].at.Addr().String())
	k.client.Update(c.ID, control.Remote{RTP: moved.at})
	k.ask(t, c)
	was := c.phones[0]
	c.phones[0] = moved
	speaks(10, true)
	if _, err := was.conn.WriteToUDPAddrPort(mediaPacket(6666), c.Local[0][0].RTP); err != nil {
		t.Fatal(err)
	}
	speaks(10, true)
	k.again(t, whole, func() { speaks(10, true) })
	k.ask(t, c)
	closed := make(chan error, 1)
	k.client.Close(c.ID, func(fn func()) { fn() }, func(_ control.Stats, err error) { closed <- err })
	if err := <-closed; err != nil {
		t.Error(err)
	}
	for side := range c.phones {
		c.phones[side].conn.WriteToUDPAddrPort(mediaPacket(6666), c.Local[side][0].RTP)
	}
	k.again(t, whole, func() {
		for side := range c.phones {
			c.phones[side].conn.WriteToUDPAddrPort(mediaPacket(6666), c.Local[side][0].RTP)
		}
	})
	for _, p := range []*mediaPhone{c.phones[0], c.phones[1], was, c.strangers[0], c.strangers[1]} {
		hearsNothing(t, p)
	}
}

// counts has a call lose packets, swap them, repeat them, go over the end of the numbers, begin anew, and have some that only the process
// takes: its record is of all of them, whichever plane has carried which.
func (k *mediaKernel) counts(t *testing.T, x ip.Crossing) {
	t.Helper()
	c := k.open(t, x)
	k.ask(t, c)
	packets, size := uint64(0), uint64(0)
	say := func(source byte, long bool, numbers ...uint16) {
		t.Helper()
		for _, n := range numbers {
			for side, p := range c.phones {
				said := mediaPacket(n)
				if said[11] = source; long {
					said = append(said, make([]byte, 1200)...)
				}
				p.say(t, c.Local[side][0].RTP, said)
				c.phones[1-side].hears(t, said)
				size += uint64(len(said))
			}
			packets++
		}
	}
	say(1, false, 65500, 65501, 65502, 65503, 65504, 65505)
	say(1, false, 65508, 65507, 65510, 65510, 65512) // lost: 65506, 65509, 65511; one came twice
	say(1, true, 65513)                              // only the process takes it
	say(1, false, 65514, 65530, 3, 2, 5)             // lost: 15; 65531 to 1, which are 7; 4
	say(2, false, 40000)
	say(2, false, row(40003, 12)...) // lost: two. It has a lane again
	say(2, false, row(10000, 20)...) // a jump: it has begun anew
	say(2, false, 10021)             // lost: one
	// Who has come twice stands for one that was lost. RFC 3550 §A.3
	const lost = 3 - 1 + 15 + 7 + 1 + 2 + 1
	s := k.ask(t, c)
	for side, heard := range s.Heard {
		if q := heard[0]; q.Packets != packets || 2*q.Bytes != size || q.Lost != lost || !q.Kernel || q.Jitter < 0 || q.MOS < 1 {
			t.Errorf("side %d: %+v, want %d packets, %d bytes, %d lost, and some of them in the kernel", side, q, packets, size/2, lost)
		}
	}
	closed := make(chan error, 1)
	k.client.Close(c.ID, func(fn func()) { fn() }, func(_ control.Stats, err error) { closed <- err })
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// row is so many numbers.
func row(first uint16, n int) (all []uint16) {
	for i := range n {
		all = append(all, first+uint16(i))
	}
	return all
}

// say says a packet, and hears waits for one.
func (p *mediaPhone) say(t *testing.T, to netip.AddrPort, said []byte) {
	t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(said, to); err != nil {
		t.Fatal(err)
	}
}

func (p *mediaPhone) hears(t *testing.T, want []byte) {
	t.Helper()
	b := make([]byte, 2000)
	p.conn.SetReadDeadline(time.Now().Add(patience))
	if n, _, err := p.conn.ReadFromUDPAddrPort(b); err != nil || !bytes.Equal(b[:n], want) {
		t.Fatalf("%v heard %x, want %x: %v", p.at, b[:min(n, 12)], want[:12], err)
	}
}

// wantFigures looks at what a relay says of itself that has taken lanes over and then carried ten packets each way, been told of the
// phones again, and carried ten more.
func (k *mediaKernel) wantFigures(t *testing.T, x ip.Crossing) {
	t.Helper()
	told := make(chan *control.Figures, 1)
	k.client.Survey(func(f *control.Figures, err error) {
		if err != nil {
			t.Error(err)
			f = new(control.Figures)
		}
		told <- f
	})
	f := <-told
	there, back := x.Index(), ip.Crossing{Client: x.Backend, Backend: x.Client}.Index()
	kernel := f.Carried[control.Kernel][there].Packets + f.Carried[control.Kernel][back].Packets
	all := kernel + f.Carried[control.User][there].Packets + f.Carried[control.User][back].Packets
	if there == back {
		kernel, all = kernel/2, all/2
	}
	if f.Lanes < 2 || kernel < 20 || kernel == all || all != 40 {
		t.Errorf("%d lanes; %d packets by the kernel of %d, want more than half of 40", f.Lanes, kernel, all)
	}
}

// wholeCall says whether so many packets have come from each side, and none was lost.
func wholeCall(s control.Stats, c *mediaCall, packets uint64) bool {
	for side, heard := range s.Heard {
		q := heard[0]
		if q.Packets != packets || q.Bytes != packets*172 || q.Lost != 0 || q.From != c.phones[side].at || q.MOS < 1 {
			return false
		}
	}
	return true
}

func hearsNothing(t *testing.T, p *mediaPhone) {
	t.Helper()
	p.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	b := make([]byte, 2000)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(b)
		if err == nil {
			t.Errorf("%v heard %x from %v", p.at, b[:min(n, 12)], from)
		} else if !strings.Contains(err.Error(), "refused") { // told by ICMP that nobody is there
			return
		}
	}
}

// leavesNothing has the relay end in order, and come again without a kernel plane after it was killed with one.
func (k *mediaKernel) leavesNothing(t *testing.T) {
	t.Helper()
	pins := func() string {
		out, err := k.Host("edge").Command(t.Context(), "find", "/sys/fs/bpf/kyozon", "-mindepth", "1").CombinedOutput()
		if err != nil {
			t.Errorf("find: %v: %s", err, out)
		}
		return string(out)
	}
	if got := pins(); !strings.Contains(got, "/link-access\n") || !strings.Contains(got, "/lanes\n") {
		t.Errorf("while it runs there is\n%s", got)
	}
	k.changes(t, pins)
	k.kill()
	if got := pins(); !strings.Contains(got, "/lanes\n") {
		t.Errorf("after it was killed there is\n%s", got)
	}
	k.detaches(t, pins)
	k.kill()
	k.kill = runMedia(t, k.Host("edge"), strings.NewReplacer(`0:50::/64"],`, `0:50::/64"], plane: user,`, `fd00:50::/64"],`, `fd00:50::/64"], plane: user,`).Replace(k.site))
	awaitLink(t, k.links)
	if got := pins(); got != "" {
		t.Errorf("where networks say plane: user there is\n%s", got)
	}
	k.kill()
	_, stop := startMedia(t, k.Host("edge"), k.site)
	awaitLink(t, k.links)
	if got := pins(); !strings.Contains(got, "/lanes\n") {
		t.Errorf("when it runs again there is\n%s", got)
	}
	stop()
	if got := pins(); got != "" {
		t.Errorf("after an end in order there is\n%s", got)
	}
}

// detaches has `kyozon stop --detach` remove what a killed relay has left, and nothing of one that runs.
func (k *mediaKernel) detaches(t *testing.T, pins func() string) {
	t.Helper()
	stop := func(want string) {
		t.Helper()
		c := k.Host("edge").Command(t.Context(), servertest.Kyozon(t), "stop", "--detach", "--control", filepath.Join(t.TempDir(), "nobody"))
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("stop --detach: %v: it says %q, want %q", err, out, want)
		}
	}
	stop("is removed\n")
	if got := pins(); got != "" {
		t.Errorf("after stop --detach there is\n%s", got)
	}
	k.kill = runMedia(t, k.Host("edge"), k.site)
	awaitLink(t, k.links)
	stop("kyozon media runs")
	second := k.Host("edge").Command(t.Context(), servertest.Kyozon(t), "media", "/run/site.yaml")
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), control.ErrRuns.Error()) {
		t.Errorf("a second relay: %v: it says %q", err, out)
	}
	if got := pins(); !strings.Contains(got, "/link-access\n") || !strings.Contains(got, "/lanes\n") {
		t.Errorf("of a relay that runs, stop --detach has left only\n%s", got)
	}
}

// changes has an interface come and go, which the program must follow.
func (k *mediaKernel) changes(t *testing.T, pins func() string) {
	t.Helper()
	for _, step := range []struct {
		argv string
		want bool
	}{{"ip link add late type veth peer name later", true}, {"ip link del late", false}} {
		if out, err := k.Host("edge").Command(t.Context(), strings.Fields(step.argv)...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", step.argv, err, out)
		}
		for deadline := time.Now().Add(patience); strings.Contains(pins(), "/link-late\n") != step.want; {
			if time.Now().After(deadline) {
				t.Fatalf("after %s there is\n%s", step.argv, pins())
			}
		}
	}
}
