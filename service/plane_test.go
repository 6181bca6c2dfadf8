// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/listen"
)

// TestUnread: a listen need not be read if the protocol says so, and if no other service has its address.
func TestUnread(t *testing.T) {
	t.Parallel()
	errNames := errors.New("names are read")
	at := func(texts ...string) (all []Listen) {
		for _, s := range texts {
			all = append(all, Listen{Addr: listen.Addr{AddrPort: netip.MustParseAddrPort(s)}})
		}
		return all
	}
	shop := &Service{Name: "shop", Listen: at("203.0.113.10:443", "[2001:db8::10]:443", "[2001:db8::10]:80")}
	blog := &Service{Name: "blog", Listen: at("[2001:db8::10]:443")}
	port80 := func(_ *Service, l Listen) error {
		if l.AddrPort.Port() == 80 {
			return errNames
		}
		return nil
	}
	for _, tt := range []struct {
		name    string
		kernel  func(*Service, Listen) error
		all     []*Service
		listens []Listen
		why     []string
	}{
		{"a protocol that reads all", nil, nil, nil, []string{"203.0.113.10:443: requests are read in the user plane",
			"[2001:db8::10]:443: requests are read in the user plane", "[2001:db8::10]:80: requests are read in the user plane"}},
		{"one that reads nothing", Whole, []*Service{shop}, shop.Listen, nil},
		{"one that reads a part", port80, []*Service{shop}, shop.Listen[:2], []string{"[2001:db8::10]:80: names are read"}},
		{"an address of two", Whole, []*Service{shop, blog}, append(at("203.0.113.10:443"), at("[2001:db8::10]:80")...),
			[]string{`[2001:db8::10]:443: the name that a client asks for must be read: "blog" has this address too`}},
	} {
		p := &Protocol{Kernel: tt.kernel}
		listens, why := p.Unread(shop, tt.all)
		var texts []string
		for _, err := range why {
			if at, ok := errors.AsType[*Error](err); !ok || len(at.Path) != 2 || at.Path[0] != "listen" {
				t.Errorf("%s: %v has no place", tt.name, err)
			}
			texts = append(texts, err.Error())
		}
		if diff := cmp.Diff(tt.why, texts); diff != "" {
			t.Errorf("%s: why:\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.listens, listens, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("%s: listens:\n%s", tt.name, diff)
		}
	}
}
