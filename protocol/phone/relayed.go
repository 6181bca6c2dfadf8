// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/service"
)

// relays is the client of the relay. It outlives the generations.
type relays struct {
	client atomic.Pointer[control.Client] // nil if nothing is relayed

	mu      sync.Mutex
	holders int // generations
	stop    context.CancelFunc
	over    sync.WaitGroup
}

// openRelay makes the client of the relay, once.
func (c *core) openRelay(path string) {
	c.relays.client.CompareAndSwap(nil, control.NewClient(control.Options{Path: path, Link: func(err error) {
		if err != nil {
			c.log.Error("calls between networks or families that do not reach each other are refused: there is no media relay", "err", err)
			return
		}
		c.log.Info("media relay is there")
		c.renew() // it may have gone on while the file changed
	}}))
}

// mediaOf says whether media can be relayed from and to a network, over IPv4 and IPv6.
func mediaOf(all []service.Network, name string) (can [2]bool) {
	for i := range all {
		if all[i].Name == name {
			for _, p := range all[i].Media {
				can[familyIndex(p.Addr())] = true
			}
		}
	}
	return can
}

// places are all addresses that media come to.
func places(all []service.Network) ip.Prefixes {
	var prefixes []netip.Prefix
	for i := range all {
		prefixes = append(prefixes, all[i].Media...)
	}
	return ip.NewPrefixes(prefixes...)
}

// hold keeps a connection to the relay from the first generation on.
func (r *relays) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holders++
	c := r.client.Load()
	if c == nil || r.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.over.Go(func() { c.Run(ctx) })
}

// release gives it up after the last.
func (r *relays) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holders--; r.holders == 0 && r.stop != nil {
		r.stop()
		r.over.Wait()
		r.stop = nil
	}
}

// reserve has the relay give addresses for an offer, if it has not.
func (m *media) reserve(from control.Side, s *sdp.Session) int {
	if m.busy {
		return patient
	}
	if err := m.fault; err != nil {
		m.fault = nil
		if errors.Is(err, control.ErrDown) || errors.Is(err, control.ErrFull) || errors.Is(err, control.ErrStopped) {
			return 503
		}
		return unrelayed
	}
	spec, ok := m.shape(from, s)
	if !ok || m.agent.core.relays.client.Load() == nil {
		return unrelayed
	}
	if m.call.Spec == spec {
		return passed
	}
	m.ask(spec)
	return patient
}

// ask asks the relay for addresses, or for others.
func (m *media) ask(spec control.Spec) {
	c, post := m.agent.core.relays.client.Load(), m.agent.loop.Post
	m.busy = true
	if m.id == 0 {
		m.id = c.Open(control.Opening{Spec: spec, Post: post, Done: m.opened, Ended: m.gone})
	} else {
		c.Reshape(m.id, spec, post, m.opened)
	}
}

// opened is called when the relay has given addresses, or has none.
func (m *media) opened(call control.Call, err error) {
	m.busy = false
	switch m.fault = err; {
	case err == nil:
		m.call = call
	case m.call.Streams == 0:
		m.id = 0
	}
	switch {
	case m.users == 0: // nobody wants them any more
		m.leave()
	case m.path == sdp.Direct && !m.open && len(m.waiting) == 0: // they were agreed to be direct meanwhile
		m.part(sdp.Direct)
	}
	waiting := m.waiting
	m.waiting = nil
	for _, f := range waiting {
		f()
	}
	m.agent.wind()
}

// later has f called when what pass has said to wait for is there.
func (m *media) later(f func()) { m.waiting = append(m.waiting, f) }

// gone is called when the relay has given up the call: nobody has sent anything for long, or it could not be made again.
func (m *media) gone(s control.Stats) {
	crossing := m.relayedIn()
	m.id, m.call = 0, control.Call{}
	switch {
	case m.ended != nil:
		m.ended()
	case m.leg != nil && m.leg.record != nil:
		m.carried(m.leg.record, crossing, m.path, &s)
		m.leg.unheardOf()
	}
}

func (m *media) update(all []control.Remote) {
	if m.id != 0 && !m.busy {
		m.agent.core.relays.client.Load().Update(m.id, all...)
	}
}

// leave gives the addresses back.
func (m *media) leave() { m.close(nil) }

// close is leave, and tells what was carried.
func (m *media) close(done func(control.Stats, error)) {
	if m.id == 0 || m.busy {
		if done != nil {
			done(control.Stats{}, control.ErrGone)
		}
		return
	}
	id := m.id
	m.id, m.call = 0, control.Call{}
	m.agent.core.relays.client.Load().Close(id, m.agent.loop.Post, done)
}

func (m *media) hold() { m.users++ }

// drop gives the addresses back when nobody needs them any more.
func (m *media) drop() {
	if m.users--; m.users == 0 {
		m.leave()
	}
}
