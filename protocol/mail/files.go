// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"time"

	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/protocol/mail/users"
	"github.com/kyozon/kyozon/service"
)

// readFiles says what is wrong with the files that a service names.
func readFiles(s *service.Service) (errs []error) {
	o := s.Options.(*Options) // made by our own Protocol
	if o.TLS != nil && !o.TLS.PassThrough {
		errs = o.TLS.readFiles()
	}
	if o.Users != nil && o.Users.File != "" {
		if _, err := users.OpenFile(string(o.Users.File)); err != nil {
			errs = append(errs, &service.Error{Path: []string{"mail", "users", "file"}, Err: err})
		}
	}
	return errs
}

func (t *TLS) readFiles() (errs []error) {
	if pairs := t.pairs(); len(pairs) > 0 {
		store, err := certs.Open(pairs)
		own := t.Certificate != ""
		errs = service.PairErrors(err, own, "mail", "tls")
		if err == nil {
			errs = service.PairWarnings(store, time.Now(), own, "mail", "tls")
		}
	}
	t.ACME.Read(func(err error, path ...string) {
		errs = append(errs, &service.Error{Path: append([]string{"mail", "tls", "acme"}, path...), Err: err, Warning: true})
	})
	return errs
}
