// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
)

// Error is a mistake at a place below the service in the site file.
type Error struct {
	Service string   // whose; empty where one service was asked
	Path    []string // keys and list indices, for example "web", "tls", "certificate"
	Err     error
	Warning bool // it is allowed, but should be looked at
}

func (e *Error) Error() string {
	if e.Service != "" {
		return fmt.Sprintf("service %s: %v", e.Service, e.Err)
	}
	return e.Err.Error()
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// Of returns the mistakes of a service, joined, as those of the service; nil if there are warnings at most.
func Of(service string, errs []error) error {
	var own []error
	for _, err := range errs {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			e = &Error{Err: err}
		}
		if !e.Warning {
			own = append(own, &Error{Service: service, Path: e.Path, Err: e.Err})
		}
	}
	return errors.Join(own...)
}

// ReadAll returns what read finds wrong with any of services.
func ReadAll(services []*Service, read func(*Service) []error) error {
	var errs []error
	for _, s := range services {
		errs = append(errs, Of(s.Name, read(s)))
	}
	return errors.Join(errs...)
}

// PoolError is what is wrong with a file that the TLS of a pool names.
func PoolError(pool string, err error) *Error {
	e := &Error{Path: []string{"pools", pool, "tls"}, Err: err}
	if f, ok := errors.AsType[*backend.FileError](err); ok {
		e.Path, e.Err = append(e.Path, f.Key), f.Err
	}
	return e
}

// PairErrors are what certs.Open says of the certificates of a section `tls`. own: the first of them is in the section itself,
// the others are in its list `also`.
func PairErrors(err error, own bool, section ...string) (all []error) {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{&Error{Path: section, Err: err}}
	}
	for _, one := range joined.Unwrap() {
		e := &Error{Path: section, Err: one}
		if p, ok := errors.AsType[*certs.PairError](one); ok {
			file := p.Pair.Certificate
			e.Path = pairPath(p.Index, own, section)
			if p.InKey {
				file, e.Path[len(e.Path)-1] = p.Pair.Key, "key"
			}
			if e.Err = p.Err; !strings.Contains(p.Err.Error(), file) {
				e.Err = fmt.Errorf("%s: %w", file, p.Err)
			}
		}
		all = append(all, e)
	}
	return all
}

// PairWarnings are what is to be said of the time of such certificates at now.
func PairWarnings(store *certs.Store, now time.Time, own bool, section ...string) (all []error) {
	for i, info := range store.Infos() {
		if text := info.Warning(now); text != "" && !info.End.IsZero() {
			err := fmt.Errorf("%s: %s", info.Source, text)
			all = append(all, &Error{Path: pairPath(i, own, section), Err: err, Warning: true})
		}
	}
	return all
}

// pairPath is the place of a certificate.
func pairPath(i int, own bool, section []string) []string {
	path := slices.Clone(section)
	if own {
		i--
	}
	if i >= 0 {
		path = append(path, "also", strconv.Itoa(i))
	}
	return append(path, "certificate")
}
