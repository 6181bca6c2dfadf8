// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/relay"
)

// pingTime is how long a gateway may take to answer OPTIONS, if it is not asked again before. No call waits, so nobody needs
// to wait for timer F.
const pingTime = 4 * time.Second

var errNoAnswer = errors.New("no answer to OPTIONS")

// ping is a question to a gateway: whether it is there.
type ping struct {
	agent   *agent
	gateway *gateway
	timer   relay.Timer
	over    bool
}

// watch asks the gateways of the trunks that want it, until ctx is done. Each address is asked by itself, so that a family
// that is down is known to be.
func (c *core) watch(ctx context.Context, set *settings) {
	var all sync.WaitGroup
	for _, t := range set.trunks {
		if t.health > 0 {
			all.Go(func() { c.watchTrunk(ctx, set, t) })
		}
	}
	all.Wait()
}

func (c *core) watchTrunk(ctx context.Context, set *settings, t *trunk) {
	tick := time.NewTicker(t.health)
	defer tick.Stop()
	for {
		for i, g := range t.order(c, set.directory.Load().answers, 0) {
			a := c.agents[i%len(c.agents)]
			a.loop.Post(func() { a.ping(g) })
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ping asks a gateway whether it is there. RFC 3261 §11.1.
func (a *agent) ping(g *gateway) {
	a.open()
	p := &ping{agent: a, gateway: g}
	p.timer.Func = func() { p.ended(errNoAnswer) }
	text := fmt.Appendf(a.rendered[:0], "OPTIONS %s:%s SIP/2.0\r\nVia: %s\r\nMax-Forwards: 70\r\nFrom: <sip:%s>;tag=%s\r\nTo: <sip:%s>\r\n"+
		"Call-ID: %s\r\nCSeq: 1 OPTIONS\r\nContact: %s\r\nAccept: application/sdp\r\nContent-Length: 0\r\n\r\n",
		g.scheme, g.host, a.via(g.way), g.trunk.domain, a.token(), g.host, a.token(), a.contact(g.way, schemeOf(g.scheme+":")))
	a.rendered = text
	if _, err := a.ask(text, course{Way: g.way}, user{ping: p}); err != nil {
		return // so many questions are open that this one says nothing
	}
	a.loop.SetTimer(&p.timer, min(pingTime, g.trunk.health))
	a.wind()
}

// answered takes a response. Whatever it says, somebody is there, but one who takes nothing is not: RFC 3261 §21.5.4.
func (p *ping) answered(m *sip.Message) {
	switch status := m.Status(); {
	case status < 200:
	case status == 503, status == 408: // 408 is of a proxy before it
		p.ended(fmt.Errorf("OPTIONS is answered with %d", status))
	default:
		p.ended(nil)
	}
}

// ended notes how it went, and says so when that is new.
func (p *ping) ended(err error) {
	if p.over {
		return
	}
	p.over = true
	p.agent.loop.StopTimer(&p.timer)
	c, g := p.agent.core, p.gateway
	c.dead.Lock()
	was := c.dead.down[g.target]
	if err != nil {
		c.dead.down[g.target] = true
	} else {
		delete(c.dead.down, g.target)
	}
	c.dead.Unlock()
	switch {
	case err != nil && !was:
		c.log.Warn("gateway is asked after the others", "trunk", g.trunk.name, "backend", g.target.Addr, "err", err)
	case err == nil && was:
		c.log.Info("gateway answers again", "trunk", g.trunk.name, "backend", g.target.Addr)
	}
}
