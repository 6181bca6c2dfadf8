// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// TestCheckACME finds the mistakes in the section acme, and the place where an ACME server may ask another machine.
func TestCheckACME(t *testing.T) {
	t.Parallel()
	update := &Update{Server: netip.MustParseAddrPort("[2001:db8::53]:53")}
	for _, test := range []struct {
		name   string
		listen string
		hosts  []string
		acme   ACME
		want   []error
		warns  bool
	}{
		{"in front", "192.0.2.1:443", []string{"shop.example"}, ACME{Challenge: acme.HTTP01}, nil, false},
		{"beside", "[2001:db8::1]:443", []string{"shop.example"}, ACME{Challenge: acme.TLSALPN01}, []error{errBeside}, true},
		{"beside, by DNS", "[2001:db8::1]:443", []string{"*.shop.example"}, ACME{Challenge: acme.DNS01, DNS: update}, nil, false},
		{"no hosts", "192.0.2.1:443", nil, ACME{Challenge: acme.HTTP01}, []error{errACMEHosts}, false},
		{"wildcard", "192.0.2.1:443", []string{"*.shop.example"}, ACME{Challenge: acme.HTTP01}, []error{errWildcard}, false},
		{"no server for updates", "192.0.2.1:443", []string{"shop.example"}, ACME{Challenge: acme.DNS01}, []error{errNoUpdate}, false},
		{"updates for nothing", "192.0.2.1:443", []string{"shop.example"}, ACME{Challenge: acme.HTTP01, DNS: update}, []error{errUpdate}, false},
		{"no TLS to the CA", "192.0.2.1:443", []string{"shop.example"}, ACME{Challenge: acme.HTTP01, Directory: "http://ca.example"},
			[]error{errURL}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := &Options{Hosts: test.hosts, TLS: &TLS{ACME: &test.acme}}
			s := &service.Service{Listen: []service.Listen{{Addr: listen.Addr{AddrPort: netip.MustParseAddrPort(test.listen)}}}}
			var got []error
			for _, err := range o.Check(s) {
				at, _ := errors.AsType[*service.Error](err)
				if got = append(got, at.Err); at.Warning != test.warns {
					t.Errorf("%v: warning is %v, want %v", err, at.Warning, test.warns)
				}
			}
			same := cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })
			if d := cmp.Diff(test.want, got, same); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}
