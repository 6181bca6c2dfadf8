// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// TestMaglev: shares are as the weights, and a seat that goes moves little more than its slots.
func TestMaglev(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int{{1}, {1, 1}, {3, 1}, {1, 99}, {5, 5, 5, 5, 5, 5, 5, 5, 5, 5}} {
		var seats []seat
		total := 0
		for i, w := range weights {
			seats = append(seats, seat{number: uint32(i + 1), key: ip.Mix(uint64(i)), weight: w})
			total += w
		}
		ring := make([]uint32, RingSize)
		maglev(seats, ring)
		for i, w := range weights {
			got := 0
			for _, n := range ring {
				if n == uint32(i+1) {
					got++
				}
			}
			if want := RingSize * w / total; got < want-want/50-1 || got > want+want/50+1 {
				t.Errorf("weights %v: seat %d has %d slots, want about %d", weights, i+1, got, want)
			}
		}
		if len(seats) < 3 {
			continue
		}
		without, moved := make([]uint32, RingSize), 0
		maglev(seats[1:], without)
		for i := range ring {
			if ring[i] != 1 && ring[i] != without[i] {
				moved++
			}
		}
		if moved > RingSize*3/100 {
			t.Errorf("weights %v: %d other slots moved", weights, moved)
		}
	}
}

// TestFlood: a flood of first packets evicts no flow that both sides have spoken of.
func TestFlood(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := opened(t, c)
		p := question(c, []byte("and on"))
		r.forwards(p) // the word after the reply
		for i := range 2000 {
			flood := p
			flood.from = netip.AddrPortFrom(p.from.Addr(), uint16(1024+i))
			r.forwards(flood)
		}
		got := r.forwardsBack(reply(c, []byte("still here")))
		expect(t, "reply", got, answered(c, reply(c, []byte("still here"))))
	})
}

// TestStandIn: a prefix without a stand-in passes to the user plane, also when its packet comes again; so does any new flow
// while the process is silent, but not one that is there.
func TestStandIn(t *testing.T) {
	c := crossing64()
	r := opened(t, c)
	stranger := question(c, nil)
	stranger.from = netip.MustParseAddrPort("[2001:db8:6:1::2]:40000")
	for range 2 {
		if verdict, _ := r.from(true, stranger.bytes()); verdict != actUnspec {
			t.Fatalf("stranger: verdict %d", int32(verdict))
		}
		r.must(r.Lease(stranger.from.Addr(), netip.MustParseAddr("100.64.0.18")))
	}
	r.counted(Reason(forwardReasonPASSED_NO_STAND_IN))
	r.counted(Reason(forwardReasonPASSED_USER))
	r.must(r.objects.Control.Put(uint32(0), forwardControl{Heartbeat: second() - 31}))
	r.forwards(question(c, nil))
	stranger.from = netip.MustParseAddrPort("[2001:db8:6:1::2]:40001")
	if verdict, _ := r.from(true, stranger.bytes()); verdict != actUnspec {
		t.Fatalf("without heartbeat: verdict %d", int32(verdict))
	}
	r.counted(Reason(forwardReasonPASSED_HEARTBEAT))
	r.must(r.beat())
	r.forwards(stranger)
}

// TestPorts: two hosts of one /64 with one port get two; a port that the user plane has is not given.
func TestPorts(t *testing.T) {
	c := crossing64()
	r := opened(t, c)
	other := question(c, nil)
	other.from = netip.MustParseAddrPort("[2001:db8:6::99]:40000")
	if got, ok := parseModel(r.forwards(other)); !ok || got.from.Addr() != sourceOf(c).Addr() || got.from.Port() == clientPort {
		t.Errorf("the other host has %v", got.from)
	}
	if err := r.Reserve(listen.UDP, sourceOf(c), serverOf(ip.V4)); !errors.Is(err, ErrTaken) {
		t.Errorf("reserve a port that is taken: %v", err)
	}
	mine := netip.AddrPortFrom(sourceOf(c).Addr(), 50000)
	r.must(r.Reserve(listen.UDP, mine, serverOf(ip.V4)))
	other.from = netip.MustParseAddrPort("[2001:db8:6::99]:50000")
	if got, ok := parseModel(r.forwards(other)); !ok || got.from == mine {
		t.Errorf("the other host has the port %v of the user plane", got.from)
	}
	r.must(r.Release(listen.UDP, mine, serverOf(ip.V4)))
	other.from = netip.MustParseAddrPort("[2001:db8:6::98]:50000")
	if got, ok := parseModel(r.forwards(other)); !ok || got.from != mine {
		t.Errorf("the next host has %v, want %v", got.from, mine)
	}
}

// TestEdgePorts: a flow from the edge's own address has a port that no socket of the host gets by itself; the client's, if it
// is none of those.
func TestEdgePorts(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newRig(t, Options{Flows: 100, Pending: 1000, StandIns: 10})
		own := address(c.Backend, "10.1.0.1", "fd00:1::1")
		r.must(r.Apply([]Service{{Name: "shop", Fronts: []Front{{Addr: listen.Addr{Transport: listen.UDP, AddrPort: frontOf(c.Client)},
			Backends: []Backend{{Addr: serverOf(c.Backend), Weight: 1, Source: SourceEdge, Sources: []netip.Addr{own}}}}}}}))
		low, high := r.locals.first, r.locals.first+r.locals.count-1
		for i, port := range []uint16{1024, low - 1, low, low + 1, high - 1, high, high + 1, 65535} {
			p := question(c, nil)
			p.from = netip.AddrPortFrom(p.from.Addr(), port)
			p.protocol = protocolUDP
			got, ok := parseModel(r.forwards(p))
			inside := port >= low && port <= high
			if !ok || got.from.Addr() != own || (got.from.Port() == port) == inside || got.from.Port() >= low && got.from.Port() <= high || got.from.Port() < lowestPort {
				t.Errorf("flow %d: port %d of the client became %v; the host has %d to %d", i, port, got.from, low, high)
			}
		}
	})
}

// TestSlots: a front whose table is given has it: a client goes to the backend of his slot, or to the user plane.
func TestSlots(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newRig(t, Options{Flows: 100, Pending: 1000, StandIns: 100})
		other := netip.AddrPortFrom(serverOf(c.Backend).Addr(), serverPort+1)
		f := Front{Addr: listen.Addr{Transport: listen.UDP, AddrPort: frontOf(c.Client)}, Sticky: true, Slots: make([]int32, RingSize)}
		for _, a := range []netip.AddrPort{serverOf(c.Backend), other} {
			f.Backends = append(f.Backends, Backend{Addr: a, Weight: 1, Source: SourceClient, Prefix: prefix96()})
		}
		for i := range f.Slots {
			f.Slots[i] = int32(i%3) - 1
		}
		r.must(r.Apply([]Service{{Name: "shop", Fronts: []Front{f}}}))
		for i := range 30 {
			p := question(c, nil)
			p.protocol = protocolUDP
			p.from = netip.AddrPortFrom(address(c.Client, "10.6.0."+strconv.Itoa(10+i), "2001:db8:6:"+strconv.Itoa(i)+"::2"), 40000)
			if c.Client == ip.V6 {
				r.must(r.Lease(p.from.Addr(), netip.AddrFrom4([4]byte{100, 64, 1, byte(i)})))
			}
			r.neighbour(r.clients, p.from.Addr(), clientMAC())
			verdict, out := r.from(true, p.bytes())
			switch want := f.Slots[ip.Key(p.from.Addr())%RingSize]; {
			case want < 0:
				if verdict != actUnspec {
					t.Errorf("client %v: verdict %d, want that it passes", p.from, int32(verdict))
				}
			default:
				if got, ok := parseModel(out); !ok || got.to != f.Backends[want].Addr {
					t.Errorf("client %v goes to %v, want %v; %s", p.from, got.to, f.Backends[want].Addr, r.reasons())
				}
			}
		}
	})
}

// TestAccess: the most precise prefix decides, and what is denied stays so.
func TestAccess(t *testing.T) {
	prefix := netip.MustParsePrefix
	for _, tt := range []struct {
		name        string
		allow, deny []netip.Prefix
		want        bool
	}{
		{"anyone", nil, nil, true},
		{"allowed", []netip.Prefix{prefix("10.6.0.0/24")}, nil, true},
		{"others", []netip.Prefix{prefix("10.7.0.0/24")}, nil, false},
		{"denied", nil, []netip.Prefix{prefix("10.6.0.2/32")}, false},
		{"denied within", []netip.Prefix{prefix("10.0.0.0/8")}, []netip.Prefix{prefix("10.6.0.0/24")}, false},
		{"allowed within denied", []netip.Prefix{prefix("10.6.0.0/24")}, []netip.Prefix{prefix("10.0.0.0/8")}, false},
	} {
		c := crossing46()
		r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
		r.serveAs(c, Service{Name: "shop", Allow: tt.allow, Deny: tt.deny})
		if verdict, _ := r.from(true, question(c, nil).bytes()); verdict == actRedirect != tt.want {
			t.Errorf("%s: verdict %d; %s", tt.name, int32(verdict), r.reasons())
		}
	}
}

// TestApply: a backend that drains keeps its flows and gets no new ones; the list is complete.
func TestApply(t *testing.T) {
	c := crossing64()
	r := opened(t, c)
	r.forwards(question(c, nil))
	r.must(r.Apply(nil))
	expect(t, "a flow that was there", r.forwards(question(c, nil)), sent(c, question(c, nil)))
	other := question(c, nil)
	other.from = netip.AddrPortFrom(other.from.Addr(), 50000)
	if verdict, _ := r.from(true, other.bytes()); verdict != actUnspec {
		t.Errorf("a new flow of a service that is gone: verdict %d", int32(verdict))
	}
	if n, err := r.Cut(func(f Flow) bool { return f.Backend == serverOf(ip.V4) }); n != 1 || err != nil {
		t.Errorf("cut %d flows, %v", n, err)
	}
	if verdict, _ := r.from(true, question(c, nil).bytes()); verdict != actUnspec {
		t.Errorf("a flow that was cut: verdict %d", int32(verdict))
	}
}

// TestShared: a backend that one service has as fallback only, and another one sends flows to, is up, whichever comes first.
func TestShared(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
		r.must(r.Lease(clientAt(ip.V6).Addr(), netip.MustParseAddr("100.64.0.17")))
		b := Backend{Addr: serverOf(c.Backend), Weight: 1, Source: SourceClient, Prefix: prefix96()}
		front := func(port uint16, b Backend) []Front {
			at := netip.AddrPortFrom(frontOf(c.Client).Addr(), port)
			return []Front{{Addr: listen.Addr{Transport: listen.UDP, AddrPort: at}, Backends: []Backend{b}}}
		}
		idle := b
		idle.Weight = 0
		shop, blog := Service{Name: "shop", Fronts: front(frontPort, b)}, Service{Name: "blog", Fronts: front(81, idle)}
		for i, services := range [][]Service{{shop, blog}, {blog, shop}, {shop, blog}} {
			r.must(r.Apply(services))
			p := question(c, nil)
			p.protocol, p.from = protocolUDP, netip.AddrPortFrom(p.from.Addr(), uint16(50000+i))
			r.forwards(p)
		}
		r.must(r.Apply([]Service{blog}))
		p := question(c, nil)
		p.protocol, p.to = protocolUDP, netip.AddrPortFrom(p.to.Addr(), 81)
		if verdict, _ := r.from(true, p.bytes()); verdict != actUnspec {
			t.Errorf("a backend that nobody has up takes a flow: verdict %d", int32(verdict))
		}
	})
}

// TestReasons: each reason of the program has a word.
func TestReasons(t *testing.T) {
	t.Parallel()
	if slices.Contains(reasons[:], "") {
		t.Errorf("reasons without a word: %q", reasons)
	}
}
