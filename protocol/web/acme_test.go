// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// A certificate is for names, which the service must have.
func TestCheckACME(t *testing.T) {
	t.Parallel()
	for _, hosts := range [][]string{nil, {"shop.example"}} {
		o := &Options{Hosts: hosts, TLS: &TLS{ACME: &service.ACME{Challenge: acme.HTTP01}}}
		s := &service.Service{Listen: []service.Listen{{Addr: listen.Addr{AddrPort: netip.MustParseAddrPort("192.0.2.1:443")}}}}
		if got := errors.Join(o.Check(s)...); errors.Is(got, errACMEHosts) != (hosts == nil) {
			t.Errorf("%v: got %v", hosts, got)
		}
	}
}
