// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
	"github.com/kyozon/kyozon/media/control"
)

// relayed is a relay that runs, and its calls.
type relayed struct {
	name    string
	program bench.Program // nil for plain routing
	open    func(ctx context.Context, n int) ([2][]netip.AddrPort, error)
	lanes   func() (uint64, error) // of ours: how many the kernel plane has
	stop    func()
}

const (
	ours    = "ours"   // through the process
	lanes   = "kernel" // ours, with the kernel plane
	engine  = "rtpengine"
	routing = "routing"
)

// flows returns the directions of n new calls.
func (p *place) flows(ctx context.Context, r *relayed, n int) (f [2]*flow, err error) {
	to, err := r.open(ctx, n)
	server := p.server4
	if r.program == nil {
		server = p.server6
	}
	return [2]*flow{newFlow(p.client, server, to[0]), newFlow(server, p.client, to[1])}, err
}

// route is no relay: each end sends to the other.
func (p *place) route() *relayed {
	return &relayed{name: routing, stop: func() {}, open: func(_ context.Context, n int) (to [2][]netip.AddrPort, err error) {
		for range n {
			to[0] = append(to[0], p.server6.at)
			to[1] = append(to[1], p.client.at)
		}
		return to, nil
	}}
}

// kyozon starts ours, with networks that have a plane: user or kernel.
func (p *place) kyozon(ctx context.Context, plane string) (*relayed, error) {
	site := fmt.Sprintf("site: bench\nnetworks: {six: {media: \"2001:db8:150::/64\", plane: %s}, four: {media: %s, ports: 10000-59999, plane: %s}}\n"+
		"services: {none: {protocol: tcp, listen: \"127.0.0.1:1\", pools: {p: [\"127.0.0.1:2\"]}, clients: {ipv4: p}}}\n"+
		"state: {directory: %s}\n", plane, edgeOurs, plane, p.dir)
	if err := p.edge.WriteFile("/run/site.yaml", []byte(site)); err != nil {
		return nil, err
	}
	path := filepath.Join(p.dir, "media.sock")
	ready := func(context.Context) error {
		c, err := net.Dial("unixpacket", path)
		if err == nil {
			c.Close()
		}
		return err
	}
	process, program, err := p.start(ctx, "kyozon", ready, p.binary, "media", "/run/site.yaml")
	if err != nil {
		return nil, err
	}
	up := make(chan error, 1)
	c := control.NewClient(control.Options{Path: path, Link: func(err error) {
		select {
		case up <- err:
		default:
		}
	}})
	running, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(running)
	}()
	r := &relayed{name: ours, program: program, stop: func() {
		cancel()
		<-ended
		process.Stop(context.WithoutCancel(ctx))
	}, open: func(_ context.Context, n int) ([2][]netip.AddrPort, error) { return p.openOurs(c, n) }, lanes: func() (uint64, error) { return lanesOf(c) }}
	return r, <-up
}

// awaitLanes waits until the kernel plane has as many lanes, or gets no more, and the process has done with what came to it before: calls do
// not begin all at once.
func (r *relayed) awaitLanes(ctx context.Context, want uint64) error {
	const every, patience, most = 250 * time.Millisecond, 4, 20
	spent, err := cpuOf(r.program)
	if err != nil {
		return err
	}
	for last, idle, turn := uint64(0), 0, 0; idle < patience && turn < most; turn++ {
		if err := bench.Wait(ctx, every); err != nil {
			return err
		}
		n, err := r.lanes()
		if err != nil {
			return err
		}
		now, err := cpuOf(r.program)
		if err != nil {
			return err
		}
		if n >= want && now-spent < every/10 {
			return nil
		}
		if idle++; n > last || now-spent >= every/10 {
			idle = 0
		}
		last, spent = n, now
	}
	return nil
}

// lanesOf asks the relay how many lanes the kernel plane has.
func lanesOf(c *control.Client) (n uint64, err error) {
	done := make(chan struct{})
	c.Survey(func(f *control.Figures, failed error) {
		if err = failed; err == nil {
			n = f.Lanes
		}
		close(done)
	})
	<-done
	return n, err
}

func (p *place) openOurs(c *control.Client, n int) (to [2][]netip.AddrPort, err error) {
	type answer struct {
		call control.Call
		err  error
	}
	answers := make(chan answer, n)
	for range n {
		id := c.Open(control.Opening{Spec: control.Spec{Networks: [2]string{"six/ipv6", "four/ipv4"}, Streams: 1},
			Post: func(fn func()) { fn() }, Done: func(call control.Call, err error) { answers <- answer{call, err} }})
		c.Update(id, control.Remote{Side: control.Caller, RTP: p.client.at}, control.Remote{Side: control.Callee, RTP: p.server4.at})
	}
	for range n {
		a := <-answers
		if a.err != nil {
			return to, a.err
		}
		for side := range to {
			to[side] = append(to[side], a.call.Local[side][0].RTP)
		}
	}
	return to, nil
}

const engineControl = "127.0.0.1:2223"

// rtpengine starts rtpengine without its kernel module.
func (p *place) rtpengine(ctx context.Context) (*relayed, error) {
	path, err := bench.Find(engine)
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install --no-install-recommends rtpengine-daemon", errors.Join(lab.ErrMissing, err))
	}
	var c net.Conn
	err = p.edge.Do(func() (err error) {
		c, err = net.Dial("udp4", engineControl)
		return err
	})
	if err != nil {
		return nil, err
	}
	ready := func(context.Context) error {
		_, err := ask(c, "d7:command4:pinge")
		return err
	}
	process, program, err := p.start(ctx, engine, ready, path, "--foreground", "--log-stderr", "--log-level=3", "--table=-1",
		"--interface=six/"+edgeTheirs6, "--interface=four/"+edgeTheirs4, "--listen-ng="+engineControl, "--port-min=10000", "--port-max=59999",
		"--delete-delay=0", "--timeout=3600", "--num-threads=2", "--no-log-timestamps")
	if err != nil {
		return nil, err
	}
	calls := 0
	return &relayed{name: engine, program: program, stop: func() { c.Close(); process.Stop(context.WithoutCancel(ctx)) },
		open: func(_ context.Context, n int) (to [2][]netip.AddrPort, err error) {
			for range n {
				calls++
				a, b, err := p.engineCall(c, calls)
				if err != nil {
					return to, err
				}
				to[0], to[1] = append(to[0], b), append(to[1], a)
			}
			return to, nil
		}}, nil
}

// engineCall opens a call: what the server is offered, and what the client is answered.
func (p *place) engineCall(c net.Conn, n int) (offered, answered netip.AddrPort, err error) {
	describe := func(a netip.AddrPort) string {
		family := map[bool]string{true: "IP4", false: "IP6"}[a.Addr().Is4()]
		return fmt.Sprintf("v=0\r\no=- 1 1 IN %s %s\r\ns=-\r\nc=IN %[1]s %[2]s\r\nt=0 0\r\nm=audio %[3]d RTP/AVP 0\r\n", family, a.Addr(), a.Port())
	}
	word := func(s string) string { return strconv.Itoa(len(s)) + ":" + s }
	common := word("call-id") + word("call"+strconv.Itoa(n))
	offer := "d" + word("ICE") + word("remove") + common + word("command") + word("offer") + word("direction") + "l" + word("six") + word("four") + "e" +
		word("from-tag") + word("a") + word("replace") + "l" + word("origin") + "e" + word("sdp") + word(describe(p.client.at)) + "e"
	if offered, err = askSDP(c, offer); err != nil {
		return offered, answered, err
	}
	answer := "d" + word("ICE") + word("remove") + common + word("command") + word("answer") + word("from-tag") + word("a") + word("sdp") +
		word(describe(p.server4.at)) + word("to-tag") + word("b") + "e"
	answered, err = askSDP(c, answer)
	return offered, answered, err
}

var (
	mediaAddr = regexp.MustCompile(`c=IN IP[46] (\S+)`)
	mediaPort = regexp.MustCompile(`m=audio (\d+)`)
)

func askSDP(c net.Conn, request string) (netip.AddrPort, error) {
	text, err := ask(c, request)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, m := mediaAddr.FindStringSubmatch(text), mediaPort.FindStringSubmatch(text)
	if a == nil || m == nil {
		return netip.AddrPort{}, fmt.Errorf("rtpengine answered %q", text)
	}
	addr, err := netip.ParseAddr(a[1])
	port, bad := strconv.ParseUint(m[1], 10, 16)
	return netip.AddrPortFrom(addr, uint16(port)), errors.Join(err, bad)
}

// ask asks rtpengine something, in bencode after a cookie.
func ask(c net.Conn, request string) (string, error) {
	cookie := strconv.FormatInt(time.Now().UnixNano(), 36) + " "
	if _, err := c.Write([]byte(cookie + request)); err != nil {
		return "", err
	}
	b := make([]byte, 8192)
	for {
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			return "", err
		}
		if text, ok := strings.CutPrefix(string(b[:n]), cookie); ok {
			if strings.Contains(text, "6:result5:error") {
				return "", fmt.Errorf("rtpengine answered %q", text)
			}
			return text, nil
		}
	}
}
