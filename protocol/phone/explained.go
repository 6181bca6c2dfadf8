// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strings"
	"time"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// decision is what was decided of an offer.
type decision struct {
	at      uint32 // Unix seconds
	from    control.Side
	path    sdp.Path
	refused refusedBy
}

// refusedBy is why an offer was not carried.
type refusedBy uint8

const (
	byNobody refusedBy = iota
	byRoute            // which does not let media go so
	byRelay            // which has no addresses for them, or is not there
	byRule             // they may never go so
)

// maxDecisions bounds how many are remembered of a call, the last ones.
const maxDecisions = 8

// note remembers a decision.
func (m *media) note(from control.Side, path sdp.Path, refused refusedBy) {
	if len(m.made) == maxDecisions {
		m.made = append(m.made[:0], m.made[1:]...)
	}
	m.made = append(m.made, decision{uint32(time.Now().Unix()), from, path, refused})
}

// explain returns why a call under way, named by its ID or by a Call-ID of either leg, goes as it does. Returns
// service.ErrNoCall.
func (c *core) explain(key string) (*service.Explanation, error) {
	type explained struct {
		*service.Explanation
		relayed control.ID
	}
	found := make(chan explained, len(c.agents))
	c.loops.Do(func(l *relay.Loop) {
		if x, relayed := c.agents[l.ID()].explain(key); x != nil {
			found <- explained{x, relayed}
		}
	})
	if len(found) == 0 {
		return nil, service.ErrNoCall
	}
	x := <-found
	x.Number = c.settings.Load().whyThere(x.Explanation)
	if x.relayed != 0 {
		b := &x.Branches[0]
		b.Steps = append(b.Steps, c.howHeard(x.relayed)...)
	}
	return x.Explanation, nil
}

// explain looks for a call of this loop, and for what the relay has of it if it was answered.
func (a *agent) explain(key string) (_ *service.Explanation, relayed control.ID) {
	named := func(r *cdr.Record) bool {
		return r.ID == key || r.Caller.CallID == key || r.Called != nil && r.Called.CallID == key
	}
	for c := range a.calls {
		ours := named(c.record)
		for _, b := range c.branches {
			ours = ours || b.leg != nil && b.leg.CallID == key
		}
		if !ours {
			continue
		}
		x := &service.Explanation{Call: a.core.show(c.record, c.state(), nil), Dialled: c.record.Dialled}
		for _, b := range c.branches {
			x.Branches = append(x.Branches, b.explain())
		}
		return x, 0
	}
	for _, l := range a.legs {
		if r := l.record; l.near && r != nil && named(r) {
			x := &service.Explanation{Call: a.core.show(r, "answered", l.media), Dialled: r.Dialled}
			b := service.Branch{State: "answered", Steps: l.media.explain()}
			if r.Called != nil {
				b.Called = showLeg(r.Called)
				b.Steps = append(a.core.whyWell(r.Called), b.Steps...)
			}
			x.Branches = append(x.Branches, b)
			if l.media != nil {
				relayed = l.media.id
			}
			return x, relayed
		}
	}
	return nil, 0
}

// explain says what becomes of a branch.
func (b *branch) explain() service.Branch {
	x := service.Branch{State: "waiting for addresses of media"}
	if b.media != nil {
		x.Steps = b.media.explain()
	}
	switch {
	case b.x != nil && b.heard:
		x.State = "ringing"
	case b.x != nil:
		x.State = "calling"
	case b.status != 0:
		x.State = fmt.Sprintf("failed with %d", b.status)
	}
	if b.leg != nil {
		x.Called = showLeg(b.leg)
		x.Steps = append(b.call.agent.core.whyWell(b.leg), x.Steps...)
	}
	return x
}

// whyWell says what is known of a gateway that a leg goes to or comes from; nothing of a telephone.
func (c *core) whyWell(l *cdr.Leg) []string {
	set := c.settings.Load()
	t := set.trunks[l.Peer]
	if t == nil {
		return nil
	}
	text := "trunk " + t.name + ", gateway " + l.Address.String()
	silent := false
	c.dead.Lock()
	for at := range c.dead.down {
		silent = silent || at.Addr == l.Address
	}
	c.dead.Unlock()
	if silent {
		text += ", which does not answer when it is asked whether it is there"
	}
	var profile []string
	if t.foreign {
		profile = append(profile, "foreign")
	}
	if t.plain {
		profile = append(profile, "plain")
	}
	if t.national {
		profile = append(profile, "national numbers")
	}
	if len(t.without) > 0 {
		profile = append(profile, "without "+strings.Join(t.without, ", "))
	}
	if len(profile) > 0 {
		text += "; " + strings.Join(profile, "; ")
	}
	return []string{text}
}

// whyThere says why a call goes where it goes, by the file of now.
func (s *settings) whyThere(x *service.Explanation) []string {
	if s.plan == nil {
		return []string{"calls go by the names of subscribers: there are no numbers"}
	}
	return s.options.explain(s.plan, x.Dialled, x.Call.From)
}

// reason says what a path means, in a sentence.
func reason(p sdp.Path) string {
	return [...]string{
		sdp.Direct:       "the ends share a network and a family, and say where they are",
		sdp.OtherNetwork: "the ends are in networks that do not reach each other",
		sdp.OtherFamily:  "the ends speak different address families",
		sdp.NoAddress:    "an end names no address that the other could send to",
		sdp.Translated:   "an end's address is that of a translator, or behind one",
		sdp.BehindNAT:    "an end's address is behind a NAT",
		sdp.Loop:         "an end names an address of this machine",
	}[p]
}

// explain says step by step how media go, and why.
func (m *media) explain() (steps []string) {
	if m == nil {
		return []string{"nobody looks at media: the process before this one has saved nothing of them, or the file names no networks now"}
	}
	add := func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	for side, who := range whoIs {
		add("%s: %s", who, m.ends[side].explain())
	}
	if t := m.terms.explain(); t != "" {
		add("its route: %s", t)
	}
	for _, d := range m.made {
		add("%s: offer of the %s: %s: %s", time.Unix(int64(d.at), 0).Format(time.TimeOnly), whoIs[d.from], d.verdict(), reason(d.path))
	}
	switch {
	case m.ends[0].text == nil && m.ends[1].text == nil && !m.open:
		add("nothing has been agreed on media yet")
	case m.open:
		add("the last offer is not answered yet")
	case m.path == sdp.Direct:
		add("media are direct: %s", reason(m.path))
	default:
		add("media are relayed (%v): %s", m.path, reason(m.path))
	}
	return append(steps, m.explainRelay()...)
}

// verdict says what has become of an offer.
func (d *decision) verdict() string {
	switch {
	case d.refused == byRoute:
		return "refused, as the route has it"
	case d.refused == byRelay:
		return "refused, since the relay has no addresses for it"
	case d.refused == byRule:
		return "refused"
	case d.path == sdp.Direct:
		return "direct"
	}
	return "relayed"
}

var whoIs = [...]string{control.Caller: "caller", control.Callee: "called"}

// explainRelay says what the relay has for the call.
func (m *media) explainRelay() (steps []string) {
	c := m.agent.core.relays.client.Load()
	switch {
	case c == nil:
		return []string{"there is no relay: the file names no networks"}
	case !c.Up():
		steps = append(steps, "the relay does not answer now")
	case m.busy:
		steps = append(steps, "the relay is asked for addresses")
	}
	for side, who := range whoIs {
		for i, l := range m.call.Local[side] {
			steps = append(steps, fmt.Sprintf("the relay hears the %s at %v, stream %d", who, l.RTP, i))
		}
	}
	return steps
}

// explain says what a route lets be done.
func (t *terms) explain() string {
	var all []string
	if t.out != "" {
		all = append(all, "out by "+t.out+", not to the telephones: "+reason(t.why))
	}
	if t.apart != "" {
		all = append(all, "apart: "+t.apart)
	}
	if t.family != 0 {
		all = append(all, "family: "+t.family.String())
	}
	return strings.Join(all, ", ")
}

// explain says what is known of an end.
func (e *end) explain() string {
	var text strings.Builder
	name := "a network that has gone"
	if e.network != nil && e.network.name != "" {
		name = "network " + e.network.name
	}
	fmt.Fprintf(&text, "in %s, signals from %v", name, e.signal)
	if e.behind {
		text.WriteString(", registered from behind a NAT")
	}
	if e.network != nil && e.network.media == [2]bool{} {
		text.WriteString("; nothing is relayed there")
	}
	said := e.offer
	if said == nil {
		said = e.text
	}
	s := new(sdp.Session)
	if said == nil || s.Parse(said, &sdp.Limits{}) != nil {
		text.WriteString("; has said nothing of media")
		return text.String()
	}
	for i := range s.Len() {
		switch d := s.Media(i); {
		case d.Port == 0:
			fmt.Fprintf(&text, "; %s is not wanted", s.Name(i))
		default:
			fmt.Fprintf(&text, "; %s at %v port %d over %v, an address that is %v", s.Name(i), d.Addr, d.Port, d.Family, d.Kind)
		}
		if s.Media(i).Held() {
			text.WriteString(", on hold")
		}
	}
	return text.String()
}
