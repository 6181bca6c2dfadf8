// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/protocol/phone/sip/target"
	"github.com/kyozon/kyozon/service"
)

// The mistakes in numbers, routes and trunks.
var (
	errRoutes   = errors.New("routes are for numbers: write, for example, numbers: {own: [0501000xxxx], plan: japan}")
	errTrunks   = errors.New("trunks are for numbers: write, for example, numbers: {own: [0501000xxxx], plan: japan}")
	errVia      = errors.New("want subscribers or a trunk")
	errNowhere  = errors.New("media are of calls that go somewhere: write via")
	errNotOurs  = errors.New("telephones can be apart; this route goes elsewhere than via: subscribers")
	errApart    = errors.New("want relay, refuse or a trunk")
	errFamily   = errors.New("want ipv4 or ipv6")
	errAnnounce = errors.New("no announcement has this name")
	errPlayer   = errors.New("the relay of media plays it: write networks, with where media come in, or deny instead")
	errDeny     = errors.New("want one line of text, at most 100 bytes")
	errWord     = errors.New("this word means something else in routes; give the trunk another name")
	errForm     = errors.New("want global or national")
	errNone     = errors.New("want at least one gateway")
	errTwice    = errors.New("a trunk of this network has this gateway already")
	errOnward   = errors.New("no trunk has this name")
	errReach    = errors.New("cannot be reached")
	errClear    = errors.New(`reached in clear, and the trunk has tls; write, for example, "sips:10.0.5.11"`)
	errName     = errors.New("not a name; at most 100 bytes without quotes and backslashes")
	errWithout  = errors.New("want an extension, like 100rel, but for timer")
	errPort     = errors.New("no listen has this port")
)

// viaSubscribers is the word for them in a route.
const viaSubscribers = "subscribers"

// Compile returns the number plan of options that have been checked, or nil if they have no numbers.
func (o *Options) Compile() *plan.Plan {
	country, err := plan.OpenCountry(o.Numbers.Plan)
	if err != nil { // there is none of no name
		return nil
	}
	p, _ := plan.Compile(country, o.Numbers.Own, o.Routes)
	return p
}

// checkNumbers says what is wrong with the numbers and routes.
func (o *Options) checkNumbers(s *service.Service) (errs []error) {
	if o.Numbers.Plan == "" {
		if len(o.Routes) > 0 {
			errs = append(errs, &service.Error{Path: []string{"phone", "routes"}, Err: errRoutes})
		}
		if len(o.Trunks) > 0 {
			errs = append(errs, &service.Error{Path: []string{"phone", "trunks"}, Err: errTrunks})
		}
		return errs
	}
	country, err := plan.OpenCountry(o.Numbers.Plan)
	if err != nil {
		return []error{&service.Error{Path: []string{"phone", "numbers", "plan"}, Err: err}}
	}
	_, findings := plan.Compile(country, o.Numbers.Own, o.Routes)
	for _, f := range findings {
		errs = append(errs, &service.Error{Path: append([]string{"phone"}, f.Path...), Err: errors.New(f.Text), Warning: f.Warning})
	}
	for i := range o.Routes {
		errs = o.checkRoute(errs, s, i)
	}
	return errs
}

func (o *Options) checkRoute(errs []error, s *service.Service, i int) []error {
	r := &o.Routes[i]
	at := func(err error, key string) {
		errs = append(errs, &service.Error{Path: []string{"phone", "routes", index(i), key}, Err: err})
	}
	if _, ok := o.Trunks[r.Via]; r.Via != "" && r.Via != viaSubscribers && !ok {
		at(among(errVia, r.Via, append(slices.Sorted(maps.Keys(o.Trunks)), viaSubscribers)), "via")
	}
	_, out := o.Trunks[r.Apart]
	switch {
	case r.Apart != "" && r.Via != viaSubscribers:
		at(errNotOurs, "apart")
	case r.Apart != "" && r.Apart != plan.Relay && r.Apart != plan.Refuse && !out:
		at(among(errApart, r.Apart, append(slices.Sorted(maps.Keys(o.Trunks)), plan.Relay, plan.Refuse)), "apart")
	}
	switch {
	case r.Family != "" && r.Via == "":
		at(errNowhere, "family")
	case r.Family != "" && familyNamed(r.Family) == 0:
		at(errFamily, "family")
	}
	if _, ok := o.Announcements[r.Announce]; r.Announce != "" {
		switch {
		case !ok:
			at(among(errAnnounce, r.Announce, slices.Sorted(maps.Keys(o.Announcements))), "announce")
		case len(s.Networks) == 0:
			at(errPlayer, "announce")
		}
	}
	if !isPhrase(r.Deny) {
		at(errDeny, "deny")
	}
	return errs
}

// checkTrunks says what is wrong with the trunks.
func (o *Options) checkTrunks(s *service.Service) (errs []error) {
	seen, networks := make(map[string]string), o.networks(s)
	for _, name := range slices.Sorted(maps.Keys(o.Trunks)) {
		t := o.Trunks[name]
		at := func(err error, path ...string) {
			errs = append(errs, &service.Error{Path: append([]string{"phone", "trunks", name}, path...), Err: err})
		}
		if name == viaSubscribers || name == plan.Relay || name == plan.Refuse {
			at(errWord)
		}
		if t.Numbers != "" && t.Numbers != "global" && t.Numbers != national {
			at(errForm, "numbers")
		}
		for i, word := range t.Without {
			if !isLabel(word) || word == "timer" {
				at(errWithout, "without", index(i))
			}
		}
		if t.Login != nil && !isName(t.Login.Name) {
			at(errName, "login", "name")
		}
		if len(t.Gateways) == 0 {
			at(errNone, "gateways")
		}
		if !hasListen(s, t.Network) {
			at(among(errNetwork, t.Network, listens(s)), "network")
			continue
		}
		for i := range t.Gateways {
			key := t.Network + " " + t.Gateways[i].At.where()
			found, missing, err := target.Locate(&t.Gateways[i].At.uri, networks[t.Network].reach(), &target.Answers{})
			switch {
			case seen[key] != "":
				at(fmt.Errorf("%w: %s", errTwice, seen[key]), "gateways", index(i))
			case err != nil, len(missing) == 0 && !networks[t.Network].local(found[0].Transport, found[0].Addr.Addr()).IsValid():
				at(unreached(t.Network, &t.Gateways[i].At), "gateways", index(i))
			case t.TLS != nil && !t.Gateways[i].At.isTLS():
				at(errClear, "gateways", index(i))
			}
			if seen[key] == "" {
				seen[key] = name
			}
		}
		for i, other := range t.Onward {
			if _, ok := o.Trunks[other]; !ok {
				at(among(errOnward, other, slices.Sorted(maps.Keys(o.Trunks))), "onward", index(i))
			}
		}
	}
	return errs
}

// unreached says what a network does not have that a gateway needs.
func unreached(network string, p *Place) error {
	what := ""
	if a := p.uri.Host.Addr; a.IsValid() {
		what = ip.FamilyOf(a).String()
	}
	if p.isTLS() {
		what = strings.TrimSpace(what + " TLS")
	}
	if what == "" {
		return errReach
	}
	return fmt.Errorf("%w: the network %q has no %s listen", errReach, network, what)
}

// among returns err with the word that was probably meant, or with those that there are.
func among(err error, word string, words []string) error {
	if like := service.Nearest(word, words); like != "" {
		return fmt.Errorf("%w; did you mean %q?", err, like)
	}
	if len(words) == 0 || len(words) > mostTold {
		return err
	}
	return fmt.Errorf("%w; there is %s", err, strings.Join(words, ", "))
}

// mostTold bounds the words that among lists.
const mostTold = 20

// listens returns the names of the listens of a service.
func listens(s *service.Service) (all []string) {
	for _, l := range s.Listen {
		if !slices.Contains(all, l.Name) {
			all = append(all, l.Name)
		}
	}
	return all
}

// isPhrase says whether a text can be what an answer says of itself. RFC 3261 §25.1: Reason-Phrase.
func isPhrase(s string) bool {
	return len(s) <= 100 && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
