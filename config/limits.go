// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"slices"
	"strconv"

	"github.com/invopop/jsonschema"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/service"
)

func (f *rateFile) shape(d *decoder, n *node) {
	if n.kind == scalar {
		d.value(n, reflect.ValueOf(&f.Rate).Elem())
		return
	}
	d.structure(n, reflect.ValueOf(f).Elem())
}

func (f *rateFile) schema(s *schemer) *jsonschema.Schema {
	return anyOf(s.of(reflect.ValueOf(new(limit.Rate)).Elem()), s.object(reflect.ValueOf(f).Elem()))
}

// tiersFile is the wider prefixes of one family, or none.
type tiersFile struct {
	node  *node
	tiers []tierFile
}

// tierFile is one length, and how many times a client's budget prefixes of that length have.
type tierFile struct {
	key   *node
	bits  int // 0 if it is not a number
	times int
}

func (f *tiersFile) shape(d *decoder, n *node) {
	f.node = n
	if n.kind == scalar && n.text == "none" || !d.is(n, mapping) {
		return
	}
	if len(n.pairs) == 0 {
		d.fail(n, "must not be empty; write none")
	}
	for _, p := range d.unique(n) {
		t := tierFile{key: p.key}
		t.bits, _ = strconv.Atoi(p.key.text)
		times := reflect.ValueOf(&t.times).Elem()
		d.value(p.value, times)
		d.limit(p.value, times, "1.."+strconv.Itoa(limit.MaxTimes))
		f.tiers = append(f.tiers, t)
	}
}

func (f *tiersFile) schema(*schemer) *jsonschema.Schema {
	one := uint64(1)
	lengths := &jsonschema.Schema{Type: "object", Title: "a mapping from lengths to numbers", MinProperties: &one,
		PropertyNames:        &jsonschema.Schema{Pattern: `^[0-9]{1,2}$`},
		AdditionalProperties: &jsonschema.Schema{Type: "integer", Minimum: "1", Maximum: "100000"}}
	return anyOf(lengths, &jsonschema.Schema{Type: "string", Enum: []any{"none"}, Title: "`none`"})
}

// wider returns the wider prefixes of a family as they are written, or those that there are where nothing is.
func (f *tiersFile) wider(family ip.Family) []limit.Wider {
	if f.node == nil {
		return limit.DefaultWider(family)
	}
	var all []limit.Wider
	for _, t := range f.tiers {
		all = append(all, limit.Wider{Bits: t.bits, Times: t.times})
	}
	slices.SortFunc(all, func(a, b limit.Wider) int { return b.Bits - a.Bits })
	return all
}

// rules returns what the section says.
func (f *limitsFile) rules() (r limit.Rules) {
	if f == nil {
		return r
	}
	for k, rate := range map[limit.Kind]*rateFile{limit.Requests: f.Requests, limit.Connections: f.Connections,
		limit.Handshakes: f.Handshakes, limit.FailedLogins: f.FailedLogins} {
		if rate == nil {
			continue
		}
		r.Rates[k] = rate.Rate.value
		if rate.Burst.node != nil {
			r.Rates[k].Burst = rate.Burst.value
		}
	}
	r.Open, r.Observe = f.Open.value, f.Mode.value == modeObserve
	r.Wider4, r.Wider6 = f.Wider.IPv4.wider(ip.V4), f.Wider.IPv6.wider(ip.V6)
	return r
}

// limits checks what clients may have.
func (c *checker) limits(f *serviceFile) {
	if f.Limits == nil || f.node.get("limits").bad {
		return
	}
	n := f.node.get("limits")
	c.counts(f, n)
	c.wider(&f.Limits.Wider.IPv6, 16, ip.ClientBits-1)
	c.wider(&f.Limits.Wider.IPv4, 8, 31)
}

// counts checks that something is limited, and that the protocol can count it.
func (c *checker) counts(f *serviceFile, n *node) {
	if f.service.Limits.IsZero() {
		c.fail(n.name(), "limits nothing; say how much a client may have, for example connections: 50/s, or remove it")
		return
	}
	if f.kind == nil {
		return
	}
	for _, k := range limit.Kinds() {
		at := n.get(k.String())
		if at == nil || slices.Contains(f.kind.Counts, k) {
			continue
		}
		if len(f.kind.Counts) == 0 {
			c.fail(n.name(), "%s has no limits: its clients prove no address, and who forges one would use up another's budget; remove it",
				f.kind.Name)
			return
		}
		c.fail(at.name(), "%s does not count %s; limit %s, or remove it", f.kind.Name, k, enumerate(countable(f.kind), "or"))
	}
}

// countable returns the kinds that a protocol counts.
func countable(p *service.Protocol) (all []string) {
	for _, k := range p.Counts {
		all = append(all, k.String())
	}
	return all
}

// wider checks the wider prefixes of one family, whose lengths are from low to high.
func (c *checker) wider(f *tiersFile, low, high int) {
	if f.node == nil || f.node.bad {
		return
	}
	if len(f.tiers) > limit.MaxWider {
		c.fail(f.tiers[limit.MaxWider].key, "more than %d lengths; each costs every client a look-up", limit.MaxWider)
	}
	sorted := slices.SortedFunc(slices.Values(f.tiers), func(a, b tierFile) int { return b.bits - a.bits })
	for i, t := range sorted {
		switch {
		case t.bits < low || t.bits > high:
			c.fail(t.key, "%q is no length of a wider prefix; write a number from %d to %d", t.key.text, low, high)
		case i > 0 && t.times < sorted[i-1].times:
			c.fail(t.key, "a /%d holds whole /%ds and would have less than one of them; give it %d times or more", t.bits,
				sorted[i-1].bits, sorted[i-1].times)
		}
	}
}
