// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/kernel"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/service"
)

// TestSlots: the tables of the route and of the program have one size.
func TestSlots(t *testing.T) {
	t.Parallel()
	if backend.Slots != kernel.RingSize {
		t.Errorf("%d slots and %d", backend.Slots, kernel.RingSize)
	}
}

// TestEnds: a /64 is forgotten when its time is up, and not earlier if it was renewed.
func TestEnds(t *testing.T) {
	t.Parallel()
	var s standing
	s.init()
	at := func(minute int) time.Time { return time.Unix(0, 0).Add(time.Duration(minute) * time.Minute) }
	for hi, minute := range map[uint64]int{1: 30, 2: 10, 3: 20, 4: 10} {
		s.keep(hi, at(minute))
	}
	s.keep(4, at(40)) // renewed
	s.keep(3, at(20)) // the same again
	for _, tt := range []struct {
		minute int
		want   []uint64
	}{{9, nil}, {10, []uint64{2}}, {25, []uint64{3}}, {39, []uint64{1}}, {40, []uint64{4}}, {99, nil}} {
		got := s.due(at(tt.minute))
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("minute %d: %v are due, want %v", tt.minute, got, tt.want)
		}
	}
	if len(s.until) != 0 || len(s.ends) != 0 {
		t.Errorf("left are %v and %v", s.until, s.ends)
	}
}

// TestGives: what a flow gives back rests for a minute.
func TestGives(t *testing.T) {
	t.Parallel()
	var g gives
	began := time.Unix(0, 0)
	for i := range 3 {
		g.add(give{listen.TCP, backend.Use{From: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(i))}, began.Add(time.Duration(i) * time.Second)})
	}
	if due := g.due(began.Add(rest - time.Second)); len(due) != 0 {
		t.Errorf("%v are due too early", due)
	}
	if due := g.due(began.Add(rest + time.Second)); len(due) != 2 || due[1].use.From.Port() != 1 {
		t.Errorf("due are %v, want the first two", due)
	}
	if due := g.due(began.Add(rest + time.Hour)); len(due) != 1 || len(g.all) != 0 {
		t.Errorf("due are %v, left %v", due, g.all)
	}
}

// TestClosed: without a kernel plane nothing is shared, taken or told, and the counters say so.
func TestClosed(t *testing.T) {
	t.Parallel()
	p := New(Options{Log: slog.New(slog.DiscardHandler), Registry: new(metrics.Registry), Now: func() int64 { return 0 }})
	ports := p.Ports(listen.TCP)
	a := netip.MustParseAddrPort("10.0.0.1:80")
	if ports.Shares(a) || !ports.Take(backend.Use{From: a, To: a}) {
		t.Error("ports are shared with nobody")
	}
	ports.Give(backend.Use{From: a, To: a})
	p.meet(netip.MustParseAddr("2001:db8::1"))
	if len(p.gives.all) != 0 || len(p.stand.waiting) != 0 || p.Status().Open || p.Verdict("x").Kernel {
		t.Error("something was kept for a plane that is not there")
	}
	p.Close(true) // removes nothing: it was never open
}

// TestSums: a service's counters are those of its flows that live and that have ended; who leaves the list is no longer active.
func TestSums(t *testing.T) {
	t.Parallel()
	r := new(metrics.Registry)
	p := New(Options{Log: slog.New(slog.DiscardHandler), Registry: r})
	for _, c := range ip.Crossings() {
		k := key{"game", c}
		p.tell(map[key]sum{k: {active: 2, opened: 3, toServer: 100, toClient: 1000}})
		f := kernel.Flow{Service: "game", Crossing: c, ToServer: kernel.Traffic{Packets: 1, Bytes: 10}, ToClient: kernel.Traffic{Bytes: 20}}
		p.ended(f)
		p.tell(map[key]sum{k: {active: 1, opened: 2, toServer: 70, toClient: 700}})
		check := func(active, opened, toServer, toClient int64) {
			t.Helper()
			s := r.Samples()[c.Index()]
			if s.Active != active || s.Kernel != active || s.Opened != opened || s.ToServer != toServer || s.ToClient != toClient {
				t.Errorf("%v: counted %+v", c, s)
			}
		}
		check(1, 3, 80, 720)
		p.tell(nil)
		check(0, 1, 10, 20)
	}
}

// TestWhy: a service that is read says why it is not in the kernel, unless that is what its protocol is for.
func TestWhy(t *testing.T) {
	t.Parallel()
	names := errors.New("[2001:db8::1]:443: the name is read")
	read := fmt.Errorf("[2001:db8::1]:80: %w", service.ErrRead)
	listens := []service.Listen{{}}
	for _, tt := range []struct {
		name string
		Service
		want string // "" if it can be in the kernel
		note string
	}{
		{"nothing is read", Service{Listens: listens}, "", note},
		{"a part is", Service{Listens: listens, Read: []error{read}}, "", note + "; not [2001:db8::1]:80: requests are read in the user plane"},
		{"all is, as everybody knows", Service{Read: []error{read}}, errUnasked.Error(), ""},
		{"all is, which must be said", Service{Read: []error{read, names}}, names.Error(), ""},
	} {
		tt.Service.Service = new(service.Service)
		got := ""
		if err := tt.never(); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if text := tt.Service.note(); tt.note != "" && text != tt.note {
			t.Errorf("%s: note %q, want %q", tt.name, text, tt.note)
		}
	}
}

// TestFault: what is said of the plane, and of the services that it was to carry, stands in sentences that name it already.
func TestFault(t *testing.T) {
	t.Parallel()
	s := &state{verdicts: map[string]Verdict{"shop": {Kernel: true}, "mail": {Reason: "words are read"}}}
	const cause = "interface lo is of type \"loopback\", not Ethernet"
	next := s.allUser(fmt.Errorf("%w: %s", kernel.ErrUnsupported, cause))
	if next.fault != cause || next.verdicts["shop"] != (Verdict{Reason: cause}) || next.verdicts["mail"].Reason != "words are read" {
		t.Errorf("got %q, %+v", next.fault, next.verdicts)
	}
}
