// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/lab"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/service"
)

// twoNetworks has a phone in each of two networks, and somebody else in both.
const twoNetworks = `
lab: media
links: {access: {}, core: {}}
hosts:
  caller: {links: {access: [198.51.100.4/24, "2001:db8:200:6::4/64"]}}
  callee: {links: {core: [10.0.1.11/24, "fd00:1::11/64"]}}
  edge: {links: {access: [198.51.100.1/24, "2001:db8:200:6::1/64"], core: [10.0.1.1/24, "fd00:1::1/64"]}}
  stranger: {links: {access: [198.51.100.66/24, "2001:db8:200:6::66/64"], core: [10.0.1.66/24, "fd00:1::66/64"]}}
`

const mediaSite = `site: media
networks:
  access: {media: [198.51.100.1, "2001:db8:200:50::/64"], ports: 20000-20099}
  core: {media: [10.0.1.1, "fd00:50::/64"], ports: 20000-20099}
services:
  any: {protocol: tcp, listen: "198.51.100.1:80", pools: {p: ["10.0.1.11:80"]}, clients: {ipv4: p}}
state: {directory: %s}
`

// runMedia runs the relay on a host. The function that it returns kills it.
func runMedia(t *testing.T, h *lab.Host, site string) (kill func()) {
	t.Helper()
	kill, _ = startMedia(t, h, site)
	return kill
}

// startMedia is runMedia; stop has it end in order.
func startMedia(t *testing.T, h *lab.Host, site string) (kill, stop func()) {
	t.Helper()
	if err := h.WriteFile("/run/site.yaml", []byte(site)); err != nil {
		t.Fatal(err)
	}
	run := kyozonOn(h, "media", "--loops", "2", "/run/site.yaml")
	run.Stderr = t.Output()
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := sync.OnceFunc(func() {
		run.Process.Kill()
		run.Wait()
	})
	t.Cleanup(ended)
	return ended, func() {
		run.Process.Signal(syscall.SIGTERM)
		if err := run.Wait(); err != nil {
			t.Errorf("end in order: %v", err)
		}
	}
}

// mediaClient connects to the relay whose state is in dir, and goes on connecting.
func mediaClient(t *testing.T, dir string) (c *control.Client, links chan error) {
	t.Helper()
	links = make(chan error, 100)
	c = control.NewClient(control.Options{Path: filepath.Join(dir, "media.sock"), Link: func(err error) { links <- err }})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return c, links
}

// awaitLink waits until the client has connected.
func awaitLink(t *testing.T, links chan error) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case err := <-links:
			if err == nil {
				return
			}
		case <-late:
			t.Fatal("waited in vain for the relay")
		}
	}
}

// mediaPhone is a socket on a host of a lab.
type mediaPhone struct {
	conn *net.UDPConn
	at   netip.AddrPort
}

func phoneOn(t *testing.T, h *lab.Host, a string) *mediaPhone {
	t.Helper()
	at := netip.AddrPortFrom(netip.MustParseAddr(a), 0)
	var c *net.UDPConn
	err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp"+strings.TrimPrefix(ip.FamilyOf(at.Addr()).String(), "ipv"), net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &mediaPhone{c, ip.CanonicalPort(c.LocalAddr().(*net.UDPAddr).AddrPort())}
}

func mediaPacket(n uint16) []byte {
	p := make([]byte, 172)
	p[0] = 0x80
	binary.BigEndian.PutUint16(p[2:], n)
	binary.BigEndian.PutUint32(p[4:], uint32(n)*160)
	return p
}

// speak has each phone say one packet, which the other must be the next to hear.
func speak(t *testing.T, call control.Call, phones [2]*mediaPhone, n uint16) {
	t.Helper()
	for side, p := range phones {
		if _, err := p.conn.WriteToUDPAddrPort(mediaPacket(n), call.Local[side][0].RTP); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2000)
		other := phones[1-side].conn
		other.SetReadDeadline(time.Now().Add(patience))
		size, from, err := other.ReadFromUDPAddrPort(b)
		if err != nil || !bytes.Equal(b[:size], mediaPacket(n)) || from.Port() != call.Local[1-side][0].RTP.Port() {
			t.Fatalf("side %d heard %x from %v, want packet %d from %v: %v", 1-side, b[:min(size, 12)], from, n, call.Local[1-side][0].RTP, err)
		}
	}
}

// spray sends packets to all ports that the relay may have, at its addresses, and to those of the call.
func spray(t *testing.T, s *mediaPhone, call control.Call, side int) {
	t.Helper()
	send := func(to netip.AddrPort, p []byte) {
		if _, err := s.conn.WriteToUDPAddrPort(p, to); err != nil && !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
	}
	at := call.Local[side][0]
	for range 10 {
		send(at.RTP, mediaPacket(6666))
		send(at.RTCP, []byte{0x80, 200, 0, 6, 1, 2, 3, 4, 0, 0, 0, 0})
	}
	for port := uint16(20000); port < 20100; port++ {
		send(netip.AddrPortFrom(at.RTP.Addr(), port), mediaPacket(6666))
	}
}

// TestMedia: the relay as it is run, between phones in networks of their own. Somebody in a third place, who sends packets to
// every port before the call, when it is answered and when it is spoken, puts nothing into it and gets nothing out. The
// relay is killed, and goes on where it was.
func TestMedia(t *testing.T) {
	t.Parallel()
	l, dir, whole := upLab(t, twoNetworks), t.TempDir(), t
	for host, prefix := range map[string]string{"caller": "2001:db8:200:50::/64", "callee": "fd00:50::/64"} {
		via := map[string]string{"caller": "2001:db8:200:6::1", "callee": "fd00:1::1"}[host]
		addRoute(t, l.Host(host), prefix, via)
		addRoute(t, l.Host("stranger"), prefix, via)
	}
	site := fmt.Sprintf(mediaSite, dir)
	kill := runMedia(t, l.Host("edge"), site)
	c, links := mediaClient(t, dir)
	awaitLink(t, links)
	addresses := [2]map[ip.Family]string{{ip.V4: "198.51.100.4", ip.V6: "2001:db8:200:6::4"}, {ip.V4: "10.0.1.11", ip.V6: "fd00:1::11"}}
	strange := [2]map[ip.Family]string{{ip.V4: "198.51.100.66", ip.V6: "2001:db8:200:6::66"}, {ip.V4: "10.0.1.66", ip.V6: "fd00:1::66"}}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		families := [2]ip.Family{x.Client, x.Backend}
		opened := make(chan control.Call, 1)
		c.Open(control.Opening{Post: func(fn func()) { fn() },
			Spec: control.Spec{Streams: 1, Networks: [2]string{service.MediaName("access", x.Client), service.MediaName("core", x.Backend)}},
			Done: func(call control.Call, err error) {
				if err != nil {
					t.Error(err)
				}
				opened <- call
			}})
		call := <-opened
		if t.Failed() {
			return
		}
		var phones, strangers [2]*mediaPhone
		for side, host := range []string{"caller", "callee"} {
			phones[side] = phoneOn(t, l.Host(host), addresses[side][families[side]])
			strangers[side] = phoneOn(t, l.Host("stranger"), strange[side][families[side]])
			spray(t, strangers[side], call, side)
		}
		stats := make(chan control.Stats, 1)
		ask := func() control.Stats {
			c.Stats(call.ID, func(fn func()) { fn() }, func(s control.Stats, err error) {
				if err != nil {
					t.Error(err)
				}
				stats <- s
			})
			return <-stats
		}
		for side, p := range phones {
			c.Update(call.ID, control.Remote{Side: control.Side(side), RTP: p.at, DSCP: 46})
		}
		ask() // it has been told
		for n := range uint16(10) {
			for side := range strangers {
				spray(t, strangers[side], call, side)
			}
			speak(t, call, phones, n)
		}
		s := ask()
		for side, heard := range s.Heard {
			if heard[0].Packets != 10 || heard[0].From != phones[side].at || heard[0].Strangers == 0 {
				t.Errorf("side %d: %+v", side, heard[0])
			}
		}
		kill()
		kill = runMedia(whole, l.Host("edge"), site)
		awaitLink(t, links)
		ask() // the call is there again
		for n := range uint16(10) {
			for side := range strangers {
				spray(t, strangers[side], call, side)
			}
			speak(t, call, phones, n)
		}
		for side, p := range [][2]*mediaPhone{phones, strangers} {
			for _, ph := range p {
				ph.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
				b := make([]byte, 2000)
				if n, from, err := ph.conn.ReadFromUDPAddrPort(b); err == nil {
					t.Errorf("%d: heard %x from %v", side, b[:min(n, 12)], from)
				}
			}
		}
		c.Close(call.ID, nil, nil)
	})
	renewMedia(t, l.Host("edge"), c, dir)
}

// renewMedia has the file name other networks, and signalling say so: new calls have addresses of those.
func renewMedia(t *testing.T, h *lab.Host, c *control.Client, dir string) {
	t.Helper()
	site := strings.Replace(fmt.Sprintf(mediaSite, dir), "core: {media: [10.0.1.1, ", "core: {media: [10.0.1.200, ", 1)
	if err := h.WriteFile("/run/site.yaml", []byte(site)); err != nil {
		t.Fatal(err)
	}
	renewed := make(chan error, 1)
	c.Renew(func(err error) { renewed <- err })
	if err := <-renewed; err != nil {
		t.Fatal(err)
	}
	opened := make(chan control.Call, 1)
	core := service.MediaName("core", ip.V4)
	c.Open(control.Opening{Post: func(fn func()) { fn() }, Spec: control.Spec{Streams: 1, Networks: [2]string{core, core}},
		Done: func(call control.Call, err error) {
			if err != nil {
				t.Error(err)
			}
			opened <- call
		}})
	call := <-opened
	for side, local := range call.Local {
		if want := netip.MustParseAddr("10.0.1.200"); len(local) == 0 || local[0].RTP.Addr() != want {
			t.Errorf("side %d has %v, want an address %v", side, local, want)
		}
	}
	c.Close(call.ID, nil, nil)
}
