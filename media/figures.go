// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// counters are what a shard has done.
type counters struct {
	stream.Counts
	carried [len(control.Figures{}.Carried)][4]control.Carried // by who relays and ip.Crossing.Index(): see control.Figures
	streams uint64                                             // that there are
	lanes   uint64                                             // that there are
}

// crossing returns the index of that from one side to the other.
func crossing(from, to *pair) int {
	return ip.Crossing{Client: ip.FamilyOf(from.addr), Backend: ip.FamilyOf(to.addr)}.Index()
}

// figures returns what the shard has and has done. What lanes carry is among it once they have been looked at.
func (h *shard) figures() control.Figures {
	return control.Figures{Calls: uint64(len(h.calls)), Streams: h.count.streams, Lanes: h.count.lanes,
		Carried: h.count.carried, Dropped: h.count.Dropped, Latched: h.count.Latched}
}

// survey tells what all shards have. Each says it on its loop, and the last one tells.
func (p *Plane) survey(tell func(*control.Figures)) {
	parts := make([]control.Figures, len(p.shards))
	var left atomic.Int32
	left.Store(int32(len(parts)))
	for i, h := range p.shards {
		h.loop.Post(func() {
			parts[i] = h.figures()
			if left.Add(-1) > 0 {
				return
			}
			all := new(control.Figures)
			for i := range parts {
				all.Add(&parts[i])
			}
			all.Refused, _ = p.refused.figures()
			all.Passed = p.passed()
			all.Networks = p.occupancies()
			tell(all)
		})
	}
}

// passed returns which packets the kernel plane has left to this one.
func (p *Plane) passed() (all control.Passed) {
	if p.options.Kernel == nil {
		return all
	}
	err := p.options.Kernel.Fates(func(why control.Fate, came ip.Family, n uint64) { *all.Of(why, came) = n })
	if err != nil {
		p.options.Log.Error("count what the kernel plane does not carry", "err", err)
	}
	return all
}

// occupancies returns what of each network is in use, by name.
func (p *Plane) occupancies() (all []control.Occupancy) {
	for _, n := range p.places.Load().current {
		all = append(all, control.Occupancy{Name: n.Name, Media: n.Media, Used: uint64(n.used.Load()), Size: uint64(len(n.taken))})
	}
	slices.SortFunc(all, func(a, b control.Occupancy) int { return cmp.Compare(a.Name, b.Name) })
	return all[:min(len(all), control.MaxNetworks)]
}
