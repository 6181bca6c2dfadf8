// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"sync"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
)

// owners is who has the INVITEs that have begun calls, by a hash of their Call-ID: they may come again, and CANCEL may follow,
// on any loop. What comes later names its agent itself, in the tag or the branch that it has from there: see token.
//
// A call belongs to the loop that it came to, unless that is busy. To hand a message to another loop costs as much as to
// answer it: two system calls, and a switch of threads.
type owners [64]struct {
	mu  sync.Mutex
	all map[uint64]owner
}

// owner is an agent, by its place, and how many INVITEs with one Call-ID it has: one that was answered with 401 comes again.
type owner struct{ agent, invites uint32 }

// claim returns who has an INVITE. If nobody has it, it is by's, until settle at the latest, unless it calls hold before.
func (o *owners) claim(mark uint64, by uint32) uint32 {
	p := &o[mark%uint64(len(o))]
	p.mu.Lock()
	defer p.mu.Unlock()
	if has, ok := p.all[mark]; ok {
		return has.agent
	}
	if p.all == nil {
		p.all = make(map[uint64]owner)
	}
	p.all[mark] = owner{agent: by}
	return by
}

// find is claim for what begins nothing.
func (o *owners) find(mark uint64) (by uint32, ok bool) {
	p := &o[mark%uint64(len(o))]
	p.mu.Lock()
	defer p.mu.Unlock()
	has, ok := p.all[mark]
	return has.agent, ok
}

// hold says that an INVITE is by's until release.
func (o *owners) hold(mark uint64, by uint32) {
	p := &o[mark%uint64(len(o))]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[mark] = owner{by, p.all[mark].invites + 1}
}

// release says that an INVITE is nobody's any more.
func (o *owners) release(mark uint64) {
	p := &o[mark%uint64(len(o))]
	p.mu.Lock()
	defer p.mu.Unlock()
	if has := p.all[mark]; has.invites > 1 {
		p.all[mark] = owner{has.agent, has.invites - 1}
	} else {
		delete(p.all, mark)
	}
}

// settle forgets an INVITE that was claimed and that nobody holds.
func (o *owners) settle(mark uint64) {
	p := &o[mark%uint64(len(o))]
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all[mark].invites == 0 {
		delete(p.all, mark)
	}
}

// owner returns the agent that a message which has come to the loop of a belongs to; and the mark of an INVITE that begins a
// call, which has been claimed for him, or 0.
func (a *agent) owner(m *sip.Message) (to *agent, claimed uint64) {
	c, id := a.core, m.Get(sip.CallID)
	if to := c.strays.find(id); to != nil {
		return to, 0
	}
	if !m.Request() {
		h, _ := m.Top()
		token := h.Branch[bytes.LastIndexByte(h.Branch, '-')+1:] // viaTo
		token, _ = bytes.CutPrefix(token, []byte(cookie))
		return c.named(token, id), 0
	}
	party, _, _ := m.Address(sip.To)
	if tag := party.Tag(); tag != nil {
		return c.named(tag, id), 0
	}
	switch {
	case m.Is("INVITE"):
		mark := max(maphash.Bytes(c.seed, id), 1)
		return c.agents[c.owners.claim(mark, a.taker())], mark
	case m.Is("CANCEL"), m.Is("ACK"):
		if by, ok := c.owners.find(max(maphash.Bytes(c.seed, id), 1)); ok {
			return c.agents[by], 0
		}
	}
	return a, 0 // who begins no call has nothing to do with one agent more than with another
}

// named returns the agent that a tag or the rest of a branch names; else that of a Call-ID.
func (c *core) named(token, callID []byte) *agent {
	if len(token) > 2 {
		if i, err := strconv.ParseUint(string(token[:2]), 36, 16); err == nil && i < uint64(len(c.agents)) {
			return c.agents[i]
		}
	}
	return c.agentOf(callID)
}

// agentOfLeg returns the agent that requests in a dialog lead to.
func (c *core) agentOfLeg(s *dialog.Session) *agent {
	return c.named([]byte(s.LocalTag), []byte(s.CallID))
}

// taker returns which agent a new call goes to: a, or each in turn if a is busy.
func (a *agent) taker() uint32 {
	if !a.busy() {
		return uint32(a.loop.ID())
	}
	a.turn++
	return a.turn % uint32(len(a.core.agents))
}

// token returns what nobody can guess: a tag or a part of a branch. It begins with the place of a, in two digits. RFC 3261
// §19.3.
func (a *agent) token() string { return string(a.appendToken(make([]byte, 0, 32))) }

func (a *agent) appendToken(dst []byte) []byte {
	dst = strconv.AppendUint(append(dst, a.mark...), rand.Uint64(), 36)
	return strconv.AppendUint(dst, rand.Uint64(), 36)
}

// markOf returns two digits for a place among the agents.
func markOf(place int) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	return string([]byte{digits[place/36%36], digits[place%36]})
}
