// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"time"

	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/service"
)

// readFiles says what is wrong with the files that a service names.
func readFiles(s *service.Service) (errs []error) {
	o := s.Options.(*Options) // made by our own Protocol
	if o.TLS == nil || o.TLS.PassThrough {
		return nil
	}
	if pairs := o.TLS.pairs(); len(pairs) > 0 {
		store, err := certs.Open(pairs)
		own := o.TLS.Certificate != ""
		errs = service.PairErrors(err, own, "web", "tls")
		if err == nil {
			errs = service.PairWarnings(store, time.Now(), own, "web", "tls")
		}
	}
	o.TLS.ACME.Read(func(err error, path ...string) {
		errs = append(errs, &service.Error{Path: append([]string{"web", "tls", "acme"}, path...), Err: err, Warning: true})
	})
	if c := o.TLS.ClientCertificates; c != nil {
		if _, err := certs.OpenClients(c.files()); err != nil {
			key := "ca"
			if certs.InCRL(err) {
				key = "crl"
			}
			errs = append(errs, &service.Error{Path: []string{"web", "tls", "client-certificates", key}, Err: err})
		}
	}
	return errs
}
