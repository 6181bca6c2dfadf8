// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/controltest"
)

// TestMain fails if a goroutine or a descriptor is left behind.
func TestMain(m *testing.M) { servertest.Main(m) }

func at(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// now posts by calling.
func now(fn func()) { fn() }

// result is what a request came to.
type result struct {
	call  control.Call
	stats control.Stats
	err   error
}

// client is a client that runs, and tells when its link changes.
type client struct {
	*control.Client
	links   chan error
	results chan result
	ended   chan control.Stats
	stop    func()
}

func newClient(path string) *client {
	c := &client{links: make(chan error, 100), results: make(chan result, 100), ended: make(chan control.Stats, 100)}
	c.Client = control.NewClient(control.Options{Path: path, Link: func(err error) { c.links <- err }})
	return c
}

func (c *client) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	c.stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(func() { c.stop() })
}

// connect starts a client and waits until it has connected.
func connect(t *testing.T, path string) *client {
	t.Helper()
	c := newClient(path)
	c.run(t)
	if err := <-c.links; err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *client) opened(call control.Call, err error) { c.results <- result{call: call, err: err} }
func (c *client) told(s control.Stats, err error)     { c.results <- result{stats: s, err: err} }

func (c *client) open(t *testing.T, s control.Spec) control.Call {
	t.Helper()
	id := c.Open(control.Opening{Spec: s, Post: now, Done: c.opened, Ended: func(s control.Stats) { c.ended <- s }})
	r := <-c.results
	if r.err != nil || r.call.ID != id {
		t.Fatalf("opened %+v, want the ID %v", r, id)
	}
	return r.call
}

func networks() map[string]netip.Addr {
	return map[string]netip.Addr{"access4": netip.MustParseAddr("203.0.113.11"), "access6": netip.MustParseAddr("2001:db8::11")}
}

func network(f ip.Family) string { return map[ip.Family]string{ip.V4: "access4", ip.V6: "access6"}[f] }

// A call is opened, told of remotes, asked about, given another family, and closed.
func TestCall(t *testing.T) {
	relay := controltest.Open(t, networks())
	c := connect(t, relay.Path)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		spec := control.Spec{Networks: [2]string{network(x.Client), network(x.Backend)}, Streams: 2}
		call := c.open(t, spec)
		for side, f := range []ip.Family{x.Client, x.Backend} {
			if l := call.Local[side]; len(l) != 2 || ip.FamilyOf(l[1].RTP.Addr()) != f || l[1].RTCP.Port() != l[1].RTP.Port()+1 {
				t.Errorf("side %d has %v", side, l)
			}
		}
		want := []control.Remote{
			{Side: control.Callee, Stream: 1, RTP: at("192.0.2.1:4000"), RTCP: at("192.0.2.1:4005"), Signal: netip.MustParseAddr("192.0.2.9"),
				Clock: 48000, DSCP: 46, Mux: true, Held: true, Opaque: true, Learn: true},
			{Side: control.Caller, RTP: at("[2001:db8::5]:4000")},
		}
		c.Update(call.ID, want[0])
		c.Update(call.ID, want[1])
		relay.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls[call.ID]) == 2 })
		relay.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool {
			if diff := cmp.Diff(want, calls[call.ID], cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); diff != "" {
				t.Errorf("remotes (-want +got):\n%s", diff)
			}
			return true
		})
		spec.Networks[1], spec.Streams = "access4", 1
		c.Reshape(call.ID, spec, now, c.opened)
		if r := <-c.results; r.err != nil || len(r.call.Local[1]) != 1 || !r.call.Local[1][0].RTP.Addr().Is4() || r.call.Local[0][0] != call.Local[0][0] {
			t.Errorf("reshaped to %+v", r)
		}
		c.Stats(call.ID, now, c.told)
		if r := <-c.results; r.err != nil || len(r.stats.Heard[0]) != 1 || r.stats.Heard[1][0].Packets != 99 {
			t.Errorf("told %+v", r)
		}
		c.Close(call.ID, now, c.told)
		if r := <-c.results; r.err != nil || r.stats.Heard[0][0].MOS != 4.4 {
			t.Errorf("closed: %+v", r)
		}
		c.Stats(call.ID, now, c.told)
		if r := <-c.results; !errors.Is(r.err, control.ErrGone) {
			t.Errorf("after the end: %v, want %v", r.err, control.ErrGone)
		}
	})
}

// What cannot be is refused, by the client or by the relay, and the call is not there.
func TestRefused(t *testing.T) {
	relay := controltest.Open(t, networks())
	c := connect(t, relay.Path)
	for _, tt := range []struct {
		spec control.Spec
		want error
	}{
		{control.Spec{Networks: [2]string{"access4", "nowhere"}, Streams: 1}, control.ErrNetwork},
		{control.Spec{Networks: [2]string{"access4", ""}, Streams: 1}, control.ErrInvalid},
		{control.Spec{Networks: [2]string{"access4", "access6"}}, control.ErrInvalid},
		{control.Spec{Networks: [2]string{"access4", "access6"}, Streams: control.MaxStreams + 1}, control.ErrInvalid},
	} {
		id := c.Open(control.Opening{Spec: tt.spec, Post: now, Done: c.opened})
		if r := <-c.results; !errors.Is(r.err, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.spec, r.err, tt.want)
		}
		if _, _, ok := c.Saved(id); ok {
			t.Errorf("%+v is there", tt.spec)
		}
	}
}

// The relay ends a call by itself.
func TestEnded(t *testing.T) {
	relay := controltest.Open(t, networks())
	c := connect(t, relay.Path)
	call := c.open(t, control.Spec{Networks: [2]string{"access4", "access6"}, Streams: 1})
	relay.End(call.ID)
	if s := <-c.ended; s.Heard[0][0].Packets != 99 {
		t.Errorf("ended with %+v", s)
	}
	if _, _, ok := c.Saved(call.ID); ok {
		t.Error("the call is still there")
	}
}

// The relay goes and comes back: the client tells it of its calls, but of none that ended meanwhile. Nobody waits for it.
func TestRelayRestarts(t *testing.T) {
	relay := controltest.Open(t, networks())
	c := connect(t, relay.Path)
	spec := control.Spec{Networks: [2]string{"access4", "access6"}, Streams: 1}
	stays, goes := c.open(t, spec), c.open(t, spec)
	remote := control.Remote{RTP: at("192.0.2.1:4000")}
	c.Update(stays.ID, remote)
	relay.Stop()
	if err := <-c.links; err == nil {
		t.Fatal("still connected")
	}
	c.Open(control.Opening{Spec: spec, Post: now, Done: c.opened})
	if r := <-c.results; !errors.Is(r.err, control.ErrDown) {
		t.Errorf("open while the relay is down: %v, want %v", r.err, control.ErrDown)
	}
	c.Close(goes.ID, now, c.told)
	if r := <-c.results; !errors.Is(r.err, control.ErrDown) {
		t.Errorf("close while the relay is down: %v, want %v", r.err, control.ErrDown)
	}
	held := control.Remote{Side: control.Callee, RTP: at("[2001:db8::5]:4000"), Held: true}
	c.Update(stays.ID, held)
	relay.Start()
	if err := <-c.links; err != nil {
		t.Fatal(err)
	}
	relay.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == 1 })
	relay.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool {
		if got := calls[stays.ID]; len(got) != 2 || got[0] != remote || got[1] != held {
			t.Errorf("restored with %v", got)
		}
		return true
	})
}

// Signalling goes and comes back: it finds its calls again by what it has saved.
func TestClientRestarts(t *testing.T) {
	relay := controltest.Open(t, networks())
	c := connect(t, relay.Path)
	call := c.open(t, control.Spec{Networks: [2]string{"access4", "access6"}, Streams: 1})
	c.Update(call.ID, control.Remote{RTP: at("192.0.2.1:4000")})
	saved, remotes, ok := c.Saved(call.ID)
	if !ok || saved.Local[0][0] != call.Local[0][0] || len(remotes) != 1 {
		t.Fatalf("saved %+v %v %v", saved, remotes, ok)
	}
	c.stop()
	again := newClient(relay.Path)
	again.Restore(saved, remotes, now, func(s control.Stats) { again.ended <- s })
	again.run(t)
	if err := <-again.links; err != nil {
		t.Fatal(err)
	}
	again.Stats(call.ID, now, again.told)
	if r := <-again.results; r.err != nil {
		t.Error(r.err)
	}
	relay.End(call.ID) // it has a new owner
	<-again.ended
}

// A client of another version, or one that talks nonsense, is cut.
func TestStrangeClients(t *testing.T) {
	relay := controltest.Open(t, networks())
	for _, tt := range [][]string{{"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"}, {"nonsense"}, {"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02", "nonsense"}} {
		c, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: relay.Path, Net: "unixpacket"})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range tt {
			c.Write([]byte(m))
		}
		var b [100]byte
		for err == nil {
			n := 0
			if n, err = c.Read(b[:]); n == 0 && err == nil {
				break
			}
		}
		c.Close()
	}
}

// The relay is asked what it does, and to look at its networks again; and so it is when nobody is there.
func TestSurvey(t *testing.T) {
	relay := controltest.Open(t, networks())
	c := connect(t, relay.Path)
	c.open(t, control.Spec{Networks: [2]string{"access4", "access6"}, Streams: 2})
	type answer struct {
		f   *control.Figures
		err error
	}
	answers := make(chan answer, 1)
	survey := func() answer {
		c.Survey(func(f *control.Figures, err error) { answers <- answer{f, err} })
		return <-answers
	}
	renew := func() error {
		c.Renew(func(err error) { answers <- answer{err: err} })
		return (<-answers).err
	}
	if a := survey(); a.err != nil || a.f.Calls != 1 || a.f.Streams != 2 || len(a.f.Networks) != 2 || a.f.Networks[0].Used != 2 {
		t.Errorf("got %+v", a)
	}
	if err := renew(); err != nil || relay.Renewed() != 1 {
		t.Errorf("%v, asked %d times", err, relay.Renewed())
	}
	relay.Stop()
	<-c.links
	if a := survey(); !errors.Is(a.err, control.ErrDown) {
		t.Errorf("got %+v", a)
	}
	if err := renew(); !errors.Is(err, control.ErrDown) {
		t.Errorf("got %v", err)
	}
}

// Nobody is there: the client says so once and goes on trying.
func TestNobody(t *testing.T) {
	c := newClient(filepath.Join(t.TempDir(), "none.sock"))
	c.run(t)
	if err := <-c.links; err == nil {
		t.Error("connected to nobody")
	}
	if c.Up() {
		t.Error("it is up")
	}
}

// TestLock: a second relay does not come in the place of one that runs, and does when that has ended.
func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "media.sock")
	first, err := control.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Lock(path); !errors.Is(err, control.ErrRuns) {
		t.Errorf("the second one: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	after, err := control.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	after.Close()
}
