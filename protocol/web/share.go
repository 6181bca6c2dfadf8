// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/kyozon/kyozon/service"
)

// share says what is wrong with two services at one address. They must agree on what happens before the host is known,
// and no request may be for both.
func share(first, second *service.Service, at service.Listen) (errs []error) {
	a, b := first.Options.(*Options), second.Options.(*Options) // made by our own Protocol
	fail := func(format string, path ...string) {
		errs = append(errs, &service.Error{Path: append([]string{"web"}, path...),
			Err: fmt.Errorf(format, first.Name, at.AddrPort)})
	}
	const same = "; write the same in both"
	if a.plain(at.AddrPort.Port()) != b.plain(at.AddrPort.Port()) {
		fail("of %q and this service, which share %s, one speaks TLS there and one does not; an address speaks one of both", "tls")
	}
	if a.Limits != b.Limits {
		fail("%q listens to %s too, and a head is read before it is known whom it is for"+same, "limits")
	}
	if a.Timeouts.Request != b.Timeouts.Request {
		fail("%q listens to %s too, and the time of a request begins before it is known whom it is for"+same, "timeouts", "request")
	}
	if a.Timeouts.KeepAlive != b.Timeouts.KeepAlive {
		fail("%q listens to %s too, and nobody knows whom the next request will be for"+same, "timeouts", "keep-alive")
	}
	if len(a.Hosts) == 0 && len(b.Hosts) == 0 {
		fail("%q at %s takes the requests that no other service takes, too; give hosts to one of them")
	}
	for i, h := range b.Hosts {
		if slices.Contains(a.Hosts, h) {
			fail("%q has this host at %s too", "hosts", strconv.Itoa(i))
		}
	}
	return errs
}
