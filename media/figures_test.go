// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
)

// figures asks what the relay has and has done.
func (p *place) figures() *control.Figures {
	p.t.Helper()
	type answer struct {
		f   *control.Figures
		err error
	}
	told := make(chan answer, 1)
	p.client.Survey(func(f *control.Figures, err error) { told <- answer{f, err} })
	a := <-told
	if a.err != nil {
		p.t.Fatal(a.err)
	}
	return a.f
}

// used returns what of a network is in use.
func used(f *control.Figures, network string) uint64 {
	i := slices.IndexFunc(f.Networks, func(o control.Occupancy) bool { return o.Name == network })
	if i < 0 {
		return 1 << 63
	}
	return f.Networks[i].Used
}

// TestFigures: what the relay does is counted by crossing and by reason, and stays when the call has ended.
func TestFigures(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		names := [2]string{inFamily(x.Client), inFamily(x.Backend)}
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		evil := phoneIn(t, x.Client, 3)
		before := p.figures()
		call := p.open(names, 2)
		p.tell(call, phones, 0, nil)
		talk(t, call, phones, 0, 1)
		evil.say(call.Local[0][0].RTP, rtp(1))
		phones[0].say(call.Local[0][0].RTP, []byte("what is this"))
		p.strangers(call.ID, 2)
		f := p.figures()
		if f.Calls != 1 || f.Streams != 2 {
			t.Errorf("%d calls, %d streams", f.Calls, f.Streams)
		}
		there, back := x.Index(), ip.Crossing{Client: x.Backend, Backend: x.Client}.Index()
		want := uint64(5)
		if there == back {
			want = 10
		}
		for _, i := range []int{there, back} {
			got, was := f.Carried[control.User][i], before.Carried[control.User][i]
			if size := uint64(len(rtp(1))); got.Packets-was.Packets != want || got.Bytes-was.Bytes != want*size {
				t.Errorf("crossing %d: carried %+v, before %+v", i, got, was)
			}
		}
		for d, n := range map[control.Drop]uint64{control.Stranger: 1, control.Unknown: 1, control.Misplaced: 0} {
			if got := f.Dropped[d] - before.Dropped[d]; got != n {
				t.Errorf("%v: %d dropped, want %d", d, got, n)
			}
		}
		if got := f.Latched[control.Exactly] - before.Latched[control.Exactly]; got != 2 {
			t.Errorf("%d were heard, want 2", got)
		}
		inUse := map[string]uint64{names[0]: 2}
		inUse[names[1]] += 2
		for name, n := range inUse {
			if got := used(f, name); got != n {
				t.Errorf("network %s: %d in use, want %d", name, got, n)
			}
		}
		p.close(call.ID)
		after := p.figures()
		if after.Calls != 0 || after.Streams != 0 || used(after, names[0]) != 0 || after.Carried != f.Carried {
			t.Errorf("after the call: %+v", after)
		}
		if i := slices.IndexFunc(after.Networks, func(o control.Occupancy) bool { return o.Name == "four" }); after.Networks[i].Size != 500 {
			t.Errorf("there are %d pairs of ports, want 500", after.Networks[i].Size)
		}
	})
	p.nothingLeft(t)
}

// renew asks for the networks that there are now.
func (p *place) renew() error {
	told := make(chan error, 1)
	p.client.Renew(func(err error) { told <- err })
	return <-told
}

// TestRenew: new calls have addresses in the networks of now; those that there are keep theirs, and what nobody uses any more
// goes.
func TestRenew(t *testing.T) {
	now := networks()
	errRead := errors.New("the file is wrong")
	var bad error
	p := open(t, 2, Options{Renew: func() ([]Network, error) { return now, bad }})
	at := func(name string) *Network {
		return &now[slices.IndexFunc(now, func(n Network) bool { return n.Name == name })]
	}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t, now = t, networks()
		names := [2]string{inFamily(x.Client), inFamily(x.Backend)}
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		was := p.open(names, 1)
		p.tell(was, phones, 0, nil)
		at("four").Media, at("six").Media = netip.MustParsePrefix("127.0.0.9/32"), netip.MustParsePrefix("fd00:59::/64")
		bad = errRead
		if err := p.renew(); !errors.Is(err, control.ErrInvalid) {
			t.Errorf("a file that is wrong: %v", err)
		}
		wrong := p.open(names, 1)
		bad = nil
		if err := p.renew(); err != nil {
			t.Fatal(err)
		}
		is := p.open(names, 1)
		p.tell(is, phones, 0, nil)
		talk(t, is, phones, 0, 1)
		talk(t, was, phones, 0, 1)
		for side, name := range names {
			for _, c := range []control.Call{was, wrong, is} {
				prefix := at(name).Media
				if got := prefix.Contains(c.Local[side][0].RTP.Addr()); got != (c.ID == is.ID) {
					t.Errorf("side %d of a call has %v, now it is %v", side, c.Local[side][0].RTP, prefix)
				}
			}
		}
		p.client.Update(is.ID, control.Remote{RTP: was.Local[0][0].RTP}) // that is still ours: packets would go round
		phones[1].say(is.Local[1][0].RTP, rtp(9))
		p.close(was.ID)
		p.close(wrong.ID)
		if s := p.close(is.ID); s.Heard[1][0].Packets != 6 {
			t.Errorf("%+v", s.Heard[1][0])
		}
		for range 2 { // looks
			p.renew()
		}
		if old := p.plane.places.Load().old; len(old) > 0 {
			t.Errorf("%d old networks are left, %s the first", len(old), old[0].Name)
		}
		if isLocal(netip.MustParseAddr("fd00:50::1")) || !isLocal(netip.MustParseAddr("fd00:59::1")) {
			t.Error("the routes are not those of the networks")
		}
		now = networks()
		for range 3 {
			if err := p.renew(); err != nil {
				t.Fatal(err)
			}
		}
	})
	p.nothingLeft(t)
}
