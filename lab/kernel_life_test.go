// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/kyozon/kyozon/ip"
)

// conversations are connections of all crossings that go on and on. None may fail.
type conversations struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	rounds atomic.Int64
}

// converse has some connections for each crossing and transport, in the kernel, go on until stop.
func (p *planes) converse() *conversations {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.ctx)
	v := &conversations{cancel: cancel}
	for _, c := range ip.Crossings() {
		for _, network := range []string{"tcp", "udp"} {
			for range 4 {
				conn := p.inPlane("kernel", network, c, 8000)
				v.wg.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						if _, err := conn.says(fmt.Sprint("word ", n)); err != nil && ctx.Err() == nil {
							p.t.Errorf("%s %v from %v: %v", network, c, conn.LocalAddr(), err)
							return
						}
						v.rounds.Add(1)
					}
				})
			}
		}
	}
	p.t.Cleanup(v.stop)
	return v
}

// more waits until all have gone on.
func (v *conversations) more(t *testing.T) {
	t.Helper()
	n := v.rounds.Load() + 1000
	await(t, "the conversations go on", func() bool { return v.rounds.Load() > n })
}

func (v *conversations) stop() {
	v.cancel()
	v.wg.Wait()
}

// reloadPlanes: a reload that changes everything but a flow's server keeps the flow; one whose server is gone is cut when
// the drain has passed, and not before.
func reloadPlanes(t *testing.T, p *planes) {
	site := strings.ReplaceAll(kernelSite, "PLANE", "kernel")
	v := p.converse()
	reload(p.ctx, t, p.Lab, strings.ReplaceAll(site, "plane: kernel", "plane: kernel, deny: 192.0.2.0/24"))
	v.more(t)
	reload(p.ctx, t, p.Lab, strings.ReplaceAll(site, "plane: kernel", "plane: user"))
	v.more(t)
	if f, ok := p.has(p.inPlane("user", "tcp", ip.Crossing{Client: ip.V4, Backend: ip.V4}, 8000)); !ok || f.Plane != "user" {
		t.Errorf("a new flow after plane: user is %+v", f)
	}
	reload(p.ctx, t, p.Lab, site)
	v.more(t)
	gone := p.inPlane("kernel", "tcp", ip.Crossing{Client: ip.V6, Backend: ip.V6}, 9000)
	v.stop()
	began := time.Now()
	reload(p.ctx, t, p.Lab, strings.ReplaceAll(site, `["[fd00:1::21]:7"]`, `["[fd00:1::22]:7"]`))
	if _, err := gone.says("the drain has not passed"); err != nil && time.Since(began) < time.Second { // drain in kernelSite
		t.Error(err)
	}
	await(t, "a flow whose server is gone is cut", func() bool {
		_, err := gone.says("after it")
		return err != nil
	})
}

// killPlanes: flows go on while no process is there, new ones come for half a minute, and another process takes all over.
func killPlanes(t *testing.T, p *planes) {
	site := strings.ReplaceAll(kernelSite, "PLANE", "kernel")
	v := p.converse()
	for range 3 {
		p.edge.Signal(syscall.SIGKILL)
		<-p.edge.Done()
		v.more(t)
		for _, c := range ip.Crossings() {
			if _, err := p.dial("tcp", c, 8000).says("nobody is there"); err != nil {
				t.Errorf("a new flow %v without a process: %v", c, err)
			}
		}
		p.start(site)
		v.more(t)
	}
	if n := len(p.flows("kernel")); n < 32 {
		t.Errorf("the new process knows %d flows, want all 32 at least", n)
	}

	p.edge.Signal(syscall.SIGKILL)
	<-p.edge.Done()
	p.silence(time.Minute)
	v.more(t)
	for _, c := range ip.Crossings() {
		if _, err := p.try("tcp", c, 8000); err == nil {
			t.Errorf("a new flow %v comes a minute after the process has gone", c)
		}
	}
	v.stop()
	p.start(strings.Replace(site, "tcp-four:", "tcp-other:", 1))
	await(t, "the flows of a service that the file has no more are cut", func() bool { return p.known("tcp-four") == 0 })
	if p.known("tcp-six") == 0 {
		t.Error("the flows of the others are cut too")
	}
}

// known counts the flows of a service in the kernel.
func (p *planes) known(service string) (n int) {
	p.t.Helper()
	for _, f := range p.flows("kernel") {
		if f.Service == service {
			n++
		}
	}
	return n
}

// silence makes the kernel plane believe that no process has been there for so long.
func (p *planes) silence(d time.Duration) {
	p.t.Helper()
	pins, err := filepath.Glob(fmt.Sprintf("/proc/%d/root/sys/fs/bpf/kyozon/net-*/control", p.box.init.Process.Pid))
	if err != nil || len(pins) != 1 {
		p.t.Fatalf("found %v, %v", pins, err)
	}
	m, err := ebpf.LoadPinnedMap(pins[0], nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer m.Close()
	value := make([]byte, m.ValueSize())
	err = m.Lookup(uint32(0), value)
	beat := binary.NativeEndian.Uint32(value) // the first word: struct control in kernel/bpf/maps.h
	binary.NativeEndian.PutUint32(value, beat-uint32(d/time.Second))
	if err := errors.Join(err, m.Put(uint32(0), value)); err != nil {
		p.t.Fatal(err)
	}
}

// upgradePlanes: the process that takes over has the plane, and no flow of either plane is lost.
func upgradePlanes(t *testing.T, p *planes) {
	v := p.converse()
	for range 2 {
		ask(p.ctx, t, p.Lab, "upgrade")
		v.more(t)
		for _, c := range ip.Crossings() {
			if _, err := p.inPlane("kernel", "tcp", c, 8000).says("hello"); err != nil {
				t.Errorf("a new flow %v after an upgrade: %v", c, err)
			}
		}
	}
}

// detachPlanes: what stop leaves behind goes on, and --detach removes all of it, with and without a process.
func detachPlanes(t *testing.T, p *planes) {
	site := strings.ReplaceAll(kernelSite, "PLANE", "kernel")
	c := ip.Crossing{Client: ip.V6, Backend: ip.V4}
	conn := p.inPlane("kernel", "tcp", c, 8000)
	ask(p.ctx, t, p.Lab, "stop")
	<-p.edge.Done()
	if _, err := conn.says("it goes on"); err != nil {
		t.Error(err)
	}
	if _, err := p.try("tcp", c, 8000); err == nil {
		t.Error("a new flow comes after a stop")
	}
	if out := ask(p.ctx, t, p.Lab, "stop", "--detach"); !strings.Contains(out, "removed") || p.pins() != "" {
		t.Errorf("said %q, left %s", out, p.pins())
	}
	if _, err := conn.says("it is cut"); err == nil {
		t.Error("a flow goes on without the kernel plane")
	}

	p.start(site)
	conn = p.inPlane("kernel", "tcp", c, 8000)
	ask(p.ctx, t, p.Lab, "stop", "--detach")
	<-p.edge.Done()
	if _, err := conn.says("it is cut"); err == nil || p.pins() != "" {
		t.Errorf("a flow goes on, or there are pins: %s", p.pins())
	}
	p.start(site)
	p.inPlane("kernel", "tcp", c, 8000)
}

// changeInterfaces: an interface that goes is let go, and one that comes in its place carries packets, without a reload.
func changeInterfaces(t *testing.T, p *planes) {
	c := ip.Crossing{Client: ip.V6, Backend: ip.V4}
	p.inPlane("kernel", "tcp", c, 8000)
	run := func(argv ...string) {
		t.Helper()
		if out, err := p.Host("edge").Command(p.ctx, argv...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	if pins := p.pins(); !strings.Contains(pins, "servers") {
		t.Fatalf("the interface has no program: %s", pins)
	}
	run("ip", "link", "del", "servers")
	await(t, "the interface is let go", func() bool { return !strings.Contains(p.pins(), "servers") })
	bridges, err := netlink.NewHandleAt(netns.NsHandle(p.bridges.net.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer bridges.Close()
	bridge, err := bridges.LinkByName("servers")
	if err != nil {
		t.Fatal(err)
	}
	if err := veth(p.bridges.net, "again", p.Host("edge").net, "servers", 0, &netlink.Bridge{LinkAttrs: *bridge.Attrs()}); err != nil {
		t.Fatal(err)
	}
	run("ip", "addr", "add", "10.0.1.5/24", "dev", "servers")
	run("ip", "addr", "add", "fd00:1::5/64", "dev", "servers", "nodad")
	run("ip", "link", "set", "servers", "up")
	for _, c := range ip.Crossings() {
		await(t, "clients reach servers again", func() bool {
			conn, err := p.try("tcp", c, 8000)
			if err != nil {
				return false
			}
			_, err = conn.says("again?")
			return err == nil
		})
		for _, network := range []string{"tcp", "udp"} {
			p.inPlane("kernel", network, c, 8000)
		}
	}
}

// pins lists what is pinned.
func (p *planes) pins() string {
	p.t.Helper()
	out, err := p.Host("edge").Command(p.ctx, "find", "/sys/fs/bpf", "-mindepth", "2").CombinedOutput()
	if err != nil {
		p.t.Fatalf("find: %v: %s", err, out)
	}
	return string(out)
}

// refusePlanes: who may not come in does not, in either plane.
func refusePlanes(t *testing.T, p *planes) {
	for _, plane := range []string{"kernel", "user"} {
		site := strings.ReplaceAll(kernelSite, "PLANE", plane+`, deny: [198.51.100.2, "2001:db8:200:6::/64"]`)
		for _, c := range ip.Crossings() {
			reload(p.ctx, t, p.Lab, strings.ReplaceAll(kernelSite, "PLANE", plane))
			p.inPlane(plane, "tcp", c, 8000)
			reload(p.ctx, t, p.Lab, site)
			conn, err := p.try("tcp", c, 8000)
			if err == nil {
				_, err = conn.says("let me in")
			}
			if err == nil {
				t.Errorf("%s: %v is let in", plane, c)
			}
		}
	}
}
