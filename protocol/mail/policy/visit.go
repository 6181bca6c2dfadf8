// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/resolve"
)

// mostNames is how many reverse names of one address are followed: as many as SPF does. RFC 7208 §4.6.4.
const mostNames = 10

// Asker asks the DNS, calls done once, from anywhere, and does not block: resolve.Resolver.Ask.
type Asker func(q resolve.Question, done func(resolve.Answer))

// Visit collects the facts of one client. Its methods are called on one loop, where post brings what is called back; of a
// client that has gone it may bring nothing.
type Visit struct {
	Facts Facts

	policy  *Policy
	ask     Asker
	post    func(func())
	pending int    // questions that are not answered
	then    func() // waits for the last answer
	failed  bool   // something could not be found out
}

// Begin begins to look at a client.
func (p *Policy) Begin(client netip.Addr, ask Asker, post func(func())) *Visit {
	v := &Visit{Facts: Facts{Client: client}, policy: p, ask: ask, post: post}
	if p.Modes[ReverseName] != Off {
		v.question(resolve.Question{Name: resolve.Reverse(client), Type: resolve.PTR}, v.reversed)
	}
	if p.Modes[Listed] != Off {
		for _, zone := range p.Lists {
			v.question(v.listing(zone, resolve.A), func(a resolve.Answer) { v.listed(zone, a) })
		}
	}
	return v
}

// Settle calls done when nothing is being asked any more: before it returns, or later on the loop.
func (v *Visit) Settle(done func()) {
	if v.pending == 0 {
		done()
		return
	}
	v.then = done
}

// Confirmed returns the reverse name that leads back to the client, or "".
func (v *Visit) Confirmed() string {
	if v.Facts.Reverse != Confirmed {
		return ""
	}
	return v.Facts.Name
}

// Failed says whether something could not be found out.
func (v *Visit) Failed() bool { return v.failed }

// question asks one thing and goes on with next on the loop.
func (v *Visit) question(q resolve.Question, next func(resolve.Answer)) {
	v.pending++
	v.ask(q, func(a resolve.Answer) { v.post(func() { v.answered(a, next) }) })
}

func (v *Visit) answered(a resolve.Answer, next func(resolve.Answer)) {
	if errors.Is(a.Err, resolve.ErrFailed) {
		v.failed = true
	}
	next(a) // which may ask more
	if v.pending--; v.pending == 0 && v.then != nil {
		then := v.then
		v.then = nil
		then()
	}
}

// reversed goes on with the names of the address: one that leads back to it will do. RFC 8601 §3.
func (v *Visit) reversed(a resolve.Answer) {
	switch {
	case errors.Is(a.Err, resolve.ErrNoName), errors.Is(a.Err, resolve.ErrNoData):
		v.Facts.Reverse = Missing
		return
	case a.Err != nil:
		return
	}
	names := a.Names[:min(len(a.Names), mostNames)]
	left, unsure := len(names), false
	of := map[ip.Family]resolve.Type{ip.V4: resolve.A, ip.V6: resolve.AAAA}[ip.FamilyOf(v.Facts.Client)]
	for _, name := range names {
		v.question(resolve.Question{Name: name, Type: of}, func(a resolve.Answer) {
			left--
			unsure = unsure || errors.Is(a.Err, resolve.ErrFailed)
			switch {
			case v.Facts.Reverse == Confirmed:
			case slices.Contains(a.Addrs, v.Facts.Client):
				v.Facts.Reverse, v.Facts.Name = Confirmed, name
			case left == 0 && !unsure:
				v.Facts.Reverse, v.Facts.Name = Astray, names[0]
			}
		})
	}
}

// listing is a question to a list. All addresses of an IPv6 client's /64 are one to it, and the first that comes is the one
// that is asked for: lists of IPv6 have networks, not addresses.
func (v *Visit) listing(zone string, t resolve.Type) resolve.Question {
	client := v.Facts.Client
	return resolve.Question{Name: resolve.Below(client, zone), Type: t, As: resolve.Below(ip.ClientPrefix(client).Addr(), "64."+zone)}
}

// listed believes a list that has the client, unless it has everybody: an address that no list may have is asked for too.
// RFC 5782 §5.
func (v *Visit) listed(zone string, a resolve.Answer) {
	if !hit(a) {
		return
	}
	never := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if ip.FamilyOf(v.Facts.Client) == ip.V6 {
		never = netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1})
	}
	v.question(resolve.Question{Name: resolve.Below(never, zone), Type: resolve.A}, func(a resolve.Answer) {
		switch {
		case hit(a) || errors.Is(a.Err, resolve.ErrFailed):
			v.failed = true
		case v.Facts.List == "":
			v.Facts.List = zone
			v.question(v.listing(zone, resolve.TXT), func(a resolve.Answer) {
				if len(a.Texts) > 0 {
					v.Facts.Why = a.Texts[0]
				}
			})
		}
	})
}

// hit says whether an answer of a list says that it has the address: 127.0.0.2 and the like. Lists that will not answer
// say so with 127.255.255.x, and a zone that was given up may have any address. RFC 5782 §2.1, §2.3.
func hit(a resolve.Answer) bool {
	return slices.ContainsFunc(a.Addrs, func(addr netip.Addr) bool {
		b := addr.As4() // of an A record
		return b[0] == 127 && (b[1] != 255 || b[2] != 255)
	})
}
