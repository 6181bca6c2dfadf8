// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"sync"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/service"
)

// quality is how the media of calls went since the process started, and how well those that were relayed came.
type quality struct {
	mu     sync.Mutex
	active [carriers]int64        // answered calls under way
	over   [4][sdp.Loop + 1]int64 // calls that have ended, by the crossing of their media and the last path
	flows  [4][2]flowQuality      // of those that were relayed, by crossing and the side that spoke
}

// carrier is who carries the media of a call.
type carrier uint8

const (
	nobody carrier = iota // it has none, or is not answered, or over
	direct
	relayed
	carriers
)

// flowQuality is how well media came from one side.
type flowQuality struct {
	packets, lost, strangers uint64
	mos, jitter, loss        service.Histogram // of the first stream of each call
}

func newQuality() *quality {
	q := new(quality)
	for x := range q.flows {
		for side := range q.flows[x] {
			// The bounds of MOS are those between degrees of satisfaction in annex B of ITU-T G.107.
			q.flows[x][side] = flowQuality{mos: service.NewHistogram([]float64{2.58, 3.1, 3.6, 4.03, 4.34}),
				jitter: service.NewHistogram([]float64{0.001, 0.005, 0.01, 0.02, 0.05, 0.1}),
				loss:   service.NewHistogram([]float64{0, 0.001, 0.005, 0.01, 0.03, 0.1})}
		}
	}
	return q
}

// carry notes who carries the media of a call from now on.
func (m *media) carry() {
	is := nobody
	switch {
	case !m.live || !m.said():
	case m.path == sdp.Direct:
		is = direct
	default:
		is = relayed
	}
	if is == m.carrier {
		return
	}
	q := m.agent.core.quality
	q.mu.Lock()
	defer q.mu.Unlock()
	q.active[m.carrier]--
	q.active[is]++
	m.carrier = is
}

// relayedIn returns the index of the crossing of what is relayed of a call now, whatever was agreed on since.
func (m *media) relayedIn() int {
	caller, callee := m.call.Local[control.Caller], m.call.Local[control.Callee]
	if len(caller) == 0 || len(callee) == 0 {
		return m.crossing()
	}
	return ip.Crossing{Client: ip.FamilyOf(caller[0].RTP.Addr()), Backend: ip.FamilyOf(callee[0].RTP.Addr())}.Index()
}

// crossing returns the index of that of the media of a call.
func (m *media) crossing() int {
	return ip.Crossing{Client: m.ends[control.Caller].spoken(), Backend: m.ends[control.Callee].spoken()}.Index()
}

// spoken returns the family of the media of an end: as it has described them, or that of its signalling.
func (e *end) spoken() ip.Family {
	if e.family != 0 {
		return e.family
	}
	return ip.FamilyOf(e.signal)
}

// end notes how the media of a call went that is over.
func (q *quality) end(crossing int, path sdp.Path) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.over[crossing][path]++
}

// add adds what the relay has heard in a call that is over, or goes on without it.
func (q *quality) add(crossing int, s *control.Stats) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for side := range s.Heard {
		f := &q.flows[crossing][side]
		for i := range s.Heard[side] {
			h := &s.Heard[side][i]
			f.packets += h.Packets
			f.lost += h.Lost
			f.strangers += h.Strangers
			if i == 0 && h.Packets > 0 && h.MOS > 0 {
				f.mos.Add(float64(h.MOS))
				f.jitter.Add(h.Jitter.Seconds())
				f.loss.Add(float64(h.Lost) / float64(h.Lost+h.Packets))
			}
		}
	}
}

// The metrics of media. to is the end that hears.
var qualities = [...]service.Metric{
	{Name: "kyozon_phone_media_calls_active", Help: "Answered calls under way, by who carries their media: the ends directly, or the relay.",
		Noun: "answered calls with media now", Labels: []string{"service", "media"}},
	{Name: "kyozon_phone_media_calls_total", Help: "Answered calls that have ended, by the families of their media and how they went: direct, or why they were relayed.",
		Noun: "calls with media ended", Labels: []string{"service", "client_family", "backend_family", "path"}},
	{Name: "kyozon_phone_media_packets_total", Help: "Packets of RTP that were relayed in calls, or parts of calls, that have ended.",
		Labels: []string{"service", "client_family", "backend_family", "to"}},
	{Name: "kyozon_phone_media_lost_total", Help: "Packets that have not come to the relay in these calls.",
		Labels: []string{"service", "client_family", "backend_family", "to"}},
	{Name: "kyozon_phone_media_strangers_total", Help: "Packets from strangers that were dropped in these calls.",
		Noun: "packets of strangers in calls", Labels: []string{"service", "client_family", "backend_family", "to"}},
	{Name: "kyozon_phone_media_mos", Help: "Estimated MOS of each relayed call, or part of one, and direction, of the way to the relay.",
		Noun: "directions of calls judged by MOS", Labels: []string{"service", "client_family", "backend_family", "to"}},
	{Name: "kyozon_phone_media_jitter_seconds", Help: "Jitter of each relayed call, or part of one, and direction, as it came to the relay.",
		Labels: []string{"service", "client_family", "backend_family", "to"}},
	{Name: "kyozon_phone_media_loss_ratio", Help: "Part of the packets of each relayed call, or part of one, and direction that have not come to the relay.",
		Labels: []string{"service", "client_family", "backend_family", "to"}},
}

// counts returns what is counted for a service.
func (q *quality) counts(name string) (all []service.Count) {
	q.mu.Lock()
	defer q.mu.Unlock()
	add := func(metric int, value int64, h *service.Histogram, labels ...string) {
		all = append(all, service.Count{Metric: qualities[metric], Values: append([]string{name}, labels...), Value: value, Histogram: h})
	}
	add(0, q.active[direct], nil, "direct")
	add(0, q.active[relayed], nil, "relayed")
	for i, x := range ip.Crossings() {
		from, to := x.Client.String(), x.Backend.String()
		for path := range sdp.Loop {
			add(1, q.over[i][path], nil, from, to, path.String())
		}
		for side, listener := range [...]string{control.Caller: byCalled, control.Callee: byCaller} {
			f := &q.flows[i][side]
			add(2, int64(f.packets), nil, from, to, listener)
			add(3, int64(f.lost), nil, from, to, listener)
			add(4, int64(f.strangers), nil, from, to, listener)
			for n, h := range []*service.Histogram{&f.mos, &f.jitter, &f.loss} {
				add(5+n, h.Count(), h.Clone(), from, to, listener)
			}
		}
	}
	return all
}

// said says whether anything was said of media.
func (m *media) said() bool {
	return m.ends[control.Caller].text != nil || m.ends[control.Callee].text != nil
}

// over notes how the media of a call went that is over, in its record too unless nothing was said of any.
func (m *media) over(r *cdr.Record) {
	m.live = false
	m.carry()
	if !m.said() {
		return
	}
	m.agent.core.quality.end(m.crossing(), m.path)
	r.Caller.Media = m.ends[control.Caller].spoken().String()
	if r.Called != nil {
		r.Called.Media = m.ends[control.Callee].spoken().String()
	}
	if r.Media == nil {
		r.Media = new(cdr.Media)
	}
	if r.Media.Path = m.path.String(); m.path != sdp.Direct {
		r.Media.Relayed = ""
	}
}
