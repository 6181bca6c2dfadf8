// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/listen"
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
		{"wildcard", "192.0.2.1:443", []string{"*.shop.example"}, ACME{Challenge: acme.HTTP01}, []error{errWildName}, false},
		{"no server for updates", "192.0.2.1:443", []string{"shop.example"}, ACME{Challenge: acme.DNS01}, []error{errNoUpdate}, false},
		{"updates for nothing", "192.0.2.1:443", []string{"shop.example"}, ACME{Challenge: acme.HTTP01, DNS: update}, []error{errUpdate}, false},
		{"no TLS to the CA", "192.0.2.1:443", []string{"shop.example"}, ACME{Challenge: acme.HTTP01, Directory: "http://ca.example"},
			[]error{errURL}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			listens := []Listen{{Addr: listen.Addr{AddrPort: netip.MustParseAddrPort(test.listen)}}}
			var got []error
			test.acme.Check(test.hosts, listens, func(err error, _ string, warning bool) {
				if got = append(got, err); warning != test.warns {
					t.Errorf("%v: warning is %v, want %v", err, warning, test.warns)
				}
			})
			same := cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })
			if d := cmp.Diff(test.want, got, same); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}
