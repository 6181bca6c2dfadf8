// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"slices"

	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/service"
)

// shared checks services that share a listen. What happens there before it is known which of them a client is for is
// the same for all, so they must say the same about it.
func (c *checker) shared() {
	var before []*serviceFile
	for i := range c.file.Services.entries {
		f := &c.file.Services.entries[i].value
		if f.kind == nil || f.kind.Share == nil || f.node.bad {
			continue
		}
		if !slices.ContainsFunc(before, func(first *serviceFile) bool { return first.kind.Name == f.kind.Name && c.share(first, f) }) { // one is enough
			before = append(before, f)
		}
	}
}

// share reports what two services with the same listen do not agree on, at the first of those where they do not, and
// says whether there is one.
func (c *checker) share(first, second *serviceFile) bool {
	known := len(c.mistakes)
	for _, l := range second.service.Listen {
		if slices.Contains(first.service.Listen, l) && len(c.mistakes) == known {
			c.shareAt(l, first, second)
		}
	}
	return len(c.mistakes) > known
}

func (c *checker) shareAt(l service.Listen, first, second *serviceFile) {
	if !sameDoor(first.service.Limits, second.service.Limits) {
		c.fail(second.key("limits"), "%q listens to %s too, and a connection is counted before it is known whom it is for; "+
			"write the same connections, open, wider and mode in both", first.service.Name, l.AddrPort)
	}
	if !sameNetworks(first.ProxyFrom, second.ProxyFrom) {
		c.fail(second.key("proxy-from"), "%q listens to %s too, and a PROXY header is read before it is known whom the connection is "+
			"for; write the same proxy-from in both", first.service.Name, l.AddrPort)
	}
	for _, err := range second.kind.Share(first.service, second.service, l) {
		c.optionsError(second.node, err)
	}
}

// key returns where a key of the service is written, or the service's name if it is not.
func (f *serviceFile) key(name string) *node {
	if n := f.node.get(name); n != nil {
		return n.name()
	}
	return f.node.name()
}

// sameNetworks says whether two lists have the same networks.
func sameNetworks(a, b networks) bool {
	sorted := func(f networks) (all []netip.Prefix) {
		for _, p := range f.list {
			all = append(all, p.value.Masked())
		}
		slices.SortFunc(all, netip.Prefix.Compare)
		return slices.Compact(all)
	}
	return slices.Equal(sorted(a), sorted(b))
}

// sameDoor says whether two rules are the same for who has just connected.
func sameDoor(a, b limit.Rules) bool {
	if !limited(a) && !limited(b) {
		return true
	}
	return a.Rates[limit.Connections] == b.Rates[limit.Connections] && a.Open == b.Open && a.Observe == b.Observe &&
		slices.Equal(a.Wider4, b.Wider4) && slices.Equal(a.Wider6, b.Wider6)
}

func limited(r limit.Rules) bool { return r.Limits(limit.Connections) || r.Limits(limit.Open) }
