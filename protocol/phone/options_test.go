// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/service"
)

// TestCheck: what Check finds, and where.
func TestCheck(t *testing.T) {
	t.Parallel()
	o := defaults()
	o.Domain, o.Subscribers.Networks, o.Registration.Min = "voip_example", []string{"access", "elsewhere"}, 2*time.Hour
	s := &service.Service{Listen: []service.Listen{{Name: "access"}}}
	var got []string
	for _, err := range o.Check(s) {
		at, ok := errors.AsType[*service.Error](err)
		if !ok {
			t.Fatalf("%v has no place", err)
		}
		got = append(got, strings.Join(at.Path, ".")+": "+err.Error())
	}
	want := []string{
		"phone.domain: not a domain; write, for example, voip.example.jp",
		"phone.subscribers: say where subscribers are: from: FILE, or database: {url: …}",
		"phone.subscribers.networks.1: no listen has this name; there is access",
		"phone.registration.min: more than max",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	o = defaults()
	o.Domain, o.Subscribers.From, o.Subscribers.Networks = "voip.example.jp", "file", []string{"access"}
	if errs := o.Check(s); errs != nil {
		t.Errorf("got %v", errs)
	}
	o.CDRDatabase = &RecordTable{URL: "host=x", Table: "calls; drop table calls"}
	if errs := o.Check(s); len(errs) != 1 || !errors.Is(errs[0], errTable) {
		t.Errorf("got %v", errs)
	}
	o.CDRDatabase.Table = "billing.calls"
	o.Subscribers.From, o.Subscribers.Database = "", &Database{URL: "host=x", File: "x.db"}
	if errs := o.Check(s); len(errs) != 1 || !errors.Is(errs[0], errSource) {
		t.Errorf("got %v", errs)
	}
	o.Subscribers.From = "file"
	o.Subscribers.Database = &Database{URL: "host=x"}
	if errs := o.Check(s); len(errs) != 1 || !errors.Is(errs[0], errEither) {
		t.Errorf("got %v", errs)
	}
}

// TestCheckNumbers: what Check finds in numbers and routes, and where.
func TestCheckNumbers(t *testing.T) {
	t.Parallel()
	emergency := plan.Route{To: plan.Words{"emergency"}, Via: viaSubscribers}
	for _, test := range []struct {
		numbers plan.Numbers
		routes  []plan.Route
		want    string
	}{
		{plan.Numbers{}, []plan.Route{emergency}, "phone.routes: routes are for numbers: write, for example, numbers: {own: [0501000xxxx], plan: japan}"},
		{plan.Numbers{Plan: "atlantis"}, nil, `phone.numbers.plan: plan: no plan "atlantis": want one of japan`},
		{plan.Numbers{Plan: "japan", Own: plan.Words{"110"}}, []plan.Route{emergency}, "phone.numbers.own.0: 110, an emergency number, cannot be the site's own"},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"moblie"}, Via: viaSubscribers}}, `phone.routes.1: no class "moblie"`},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"mobile"}, Via: "pstn"}}, "phone.routes.1.via: want subscribers or a trunk"},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"mobile"}, Announce: "no"}}, "phone.routes.1.announce: no announcement has this name"},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"mobile"}, Announce: "sorry"}}, "phone.routes.1.announce: the relay of media plays it"},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"mobile"}, Via: "subscribers", Apart: "pstn"}}, "phone.routes.1.apart: want relay, refuse or a trunk"},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"mobile"}, Deny: "No", Apart: "refuse"}}, "phone.routes.1.apart: telephones can be apart; this route goes elsewhere than via: subscribers"},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"mobile"}, Deny: "No", Family: "ipv6"}}, "phone.routes.1.family: media are of calls that go somewhere: write via"},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"mobile"}, Via: "subscribers", Family: "ipv5"}}, "phone.routes.1.family: want ipv4 or ipv6"},
		{plan.Numbers{Plan: "japan"}, []plan.Route{emergency, {To: plan.Words{"mobile"}, Deny: "no\r\nmore"}}, "phone.routes.1.deny: want one line of text"},
	} {
		o := defaults()
		o.Domain, o.Numbers, o.Routes = "voip.example.jp", test.numbers, test.routes
		o.Announcements = map[string]Announcement{"sorry": {}}
		var got []string
		for _, err := range o.Check(&service.Service{}) {
			at, ok := errors.AsType[*service.Error](err)
			if !ok {
				t.Fatalf("%v has no place", err)
			}
			if !at.Warning {
				got = append(got, strings.Join(at.Path, ".")+": "+err.Error())
			}
		}
		if len(got) != 1 || !strings.HasPrefix(got[0], test.want) {
			t.Errorf("got %q, want %s", got, test.want)
		}
	}
}

// TestCheckTrunks: what Check finds in trunks, and where.
func TestCheckTrunks(t *testing.T) {
	t.Parallel()
	at := func(s ...string) (all []Gateway) {
		for _, a := range s {
			var g Gateway
			if err := g.UnmarshalText([]byte(a)); err != nil {
				t.Fatal(err)
			}
			all = append(all, g)
		}
		return all
	}
	o := defaults()
	o.Domain, o.Numbers.Plan, o.TLS = "voip.example.jp", "japan", &TLS{}
	o.Routes = []plan.Route{{To: plan.Words{"emergency"}, Via: "a"}}
	o.Trunks = map[string]Trunk{
		"a":           {Network: "core", Gateways: at("10.0.5.11:5060", "[2001:db8::1]:5060", "sip:10.0.5.11;transport=tcp"), Onward: []string{"b", "e"}},
		"b":           {Network: "elsewhere", Gateways: at("10.0.5.11:5060")},
		"c":           {Network: "core", Numbers: "local", Without: []string{"100rel", "timer", "a b"}, Login: &Login{Name: `"`}},
		"d":           {Network: "core", Gateways: at("10.0.5.13:5060", "sips:10.0.5.13"), TLS: &TrunkTLS{}},
		"subscribers": {Network: "core", Gateways: at("10.0.5.12:5060")},
	}
	var got []string
	for _, err := range o.Check(&service.Service{Listen: []service.Listen{{Name: "core", Addr: listen.Addr{AddrPort: netip.MustParseAddrPort("10.0.5.2:5060")}}}}) {
		if e, ok := errors.AsType[*service.Error](err); ok && !e.Warning {
			got = append(got, strings.Join(e.Path, ".")+": "+err.Error())
		}
	}
	want := []string{
		"phone.tls: no listen has this port",
		"phone.trunks.a.gateways.1: cannot be reached: the network \"core\" has no ipv6 listen",
		"phone.trunks.a.gateways.2: a trunk of this network has this gateway already: a",
		"phone.trunks.a.onward.1: no trunk has this name; there is a, b, c, d, subscribers",
		"phone.trunks.b.network: no listen has this name; there is core",
		"phone.trunks.c.numbers: want global or national",
		"phone.trunks.c.without.1: want an extension, like 100rel, but for timer",
		"phone.trunks.c.without.2: want an extension, like 100rel, but for timer",
		"phone.trunks.c.login.name: not a name; at most 100 bytes without quotes and backslashes",
		"phone.trunks.c.gateways: want at least one gateway",
		"phone.trunks.d.gateways.0: reached in clear, and the trunk has tls; write, for example, \"sips:10.0.5.11\"",
		"phone.trunks.d.gateways.1: cannot be reached: the network \"core\" has no ipv4 TLS listen",
		"phone.trunks.subscribers: this word means something else in routes; give the trunk another name",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	o.Numbers.Plan, o.Routes, o.TLS = "", nil, nil
	o.Trunks = map[string]Trunk{"a": {Network: "core", Gateways: at("10.0.5.11:5060")}}
	if errs := o.Check(&service.Service{Listen: []service.Listen{{Name: "core", Addr: listen.Addr{AddrPort: netip.MustParseAddrPort("10.0.5.2:5060")}}}}); len(errs) != 1 || !errors.Is(errs[0], errTrunks) {
		t.Errorf("got %v", errs)
	}
}

// TestSubscribers: a mistake in the file is found with its line.
func TestSubscribers(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, dir: t.TempDir()}
	name := filepath.Join(b.dir, "subscribers")
	md5, sha256 := strings.Repeat("0a", 16), strings.Repeat("0A", 32)
	for _, test := range []struct {
		text string
		want error
	}{
		{"# nobody\n\n", nil},
		{"a:x.jp:" + md5 + "\na:x.jp:" + sha256 + "\n", nil},
		{"\na:x.jp\n", errLine},
		{"\n:x.jp:" + md5, errLine},
		{"\na:X.jp:" + md5, errRealm},
		{"\na:x.jp:" + md5[1:], errHash},
		{"\na:x.jp:" + strings.Repeat("x", 32), errHash},
		{"a:x.jp:" + md5 + "\na:x.jp:" + md5, errAgain},
	} {
		b.write("subscribers", test.text)
		_, errs := readSubscribers(name, "x.jp")
		err := errors.Join(errs...)
		if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), "subscribers:2: ") {
			t.Errorf("%q: got %v, want %v", test.text, err, test.want)
		}
	}
	if _, errs := readSubscribers(name+"x", "x.jp"); len(errs) == 0 {
		t.Error("there is no such file")
	}
}

// TestPlaceError: what is said of a gateway that is written wrong can be written in its place.
func TestPlaceError(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.5.11":                `there is no port; write "10.0.5.11:5060"`,
		"2001:db8::11":             `there is no port; write "[2001:db8::11]:5060"`,
		"[2001:db8::11]":           `there is no port; write "[2001:db8::11]:5060"`,
		"2001:db8::11:5060":        `write "[2001:db8::11]:5060"`,
		"10.0.5.11:506000":         `506000 is no port; write one from 1 to 65535, like "10.0.5.11:5060"`,
		"[2001:db8::11]:0":         `0 is no port; write one from 1 to 65535, like "[2001:db8::11]:5060"`,
		"sip:2001:db8::11":         errPlace.Error(),
		"sip:a@carrier.example.jp": errPlace.Error(),
		"":                         errPlace.Error(),
	} {
		if err := new(Place).UnmarshalText([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}
