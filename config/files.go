// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"maps"
	"slices"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/service"
)

// written is the file that a Config was read from, so that what is found out later has a place in it too. It is immutable
// once there is a Config.
type written struct {
	report *report
	root   *node
}

// ReadFiles reads the files that the site file names, as whoever runs it does, and returns every mistake, joined, each an
// *Error, as Load does; and what should be looked at. It asks nobody and writes nothing.
func (c *Config) ReadFiles(protocols []service.Protocol) (warnings []*Error, _ error) {
	var mistakes []*Error
	add := func(err error, path ...string) {
		at, ok := errors.AsType[*service.Error](err)
		switch {
		case ok && at.Warning:
			warnings = append(warnings, c.written.at(err, append(path, at.Path...)))
		case ok:
			mistakes = append(mistakes, c.written.at(at.Err, append(path, at.Path...)))
		default:
			mistakes = append(mistakes, c.written.at(err, path))
		}
	}
	if name := c.Log.Access; name != "" && name != accesslog.Stderr {
		if err := accesslog.Writable(name); err != nil {
			add(err, "log", "access")
		}
	}
	for _, s := range c.Services {
		for _, name := range slices.Sorted(maps.Keys(s.Pools)) {
			if _, err := s.Pools[name].TLS.Read(); err != nil {
				add(service.PoolError(name, err), "services", s.Name)
			}
		}
		i := slices.IndexFunc(protocols, func(p service.Protocol) bool { return p.Name == s.Protocol })
		if i < 0 || protocols[i].Read == nil {
			continue
		}
		for _, err := range protocols[i].Read(s) {
			add(err, "services", s.Name)
		}
	}
	slices.SortStableFunc(mistakes, inOrder)
	slices.SortStableFunc(warnings, inOrder)
	return warnings, Join(mistakes)
}

// Placed returns err with the places of the mistakes that it consists of, as Load returns them, if it consists of nothing but
// mistakes of services (service.Of); otherwise err itself.
func (c *Config) Placed(err error) error {
	var mistakes []*Error
	for _, one := range leaves(err) {
		at, ok := errors.AsType[*service.Error](one)
		if !ok || at.Service == "" || c.written.root == nil {
			return err
		}
		mistakes = append(mistakes, c.written.at(at.Err, append([]string{"services", at.Service}, at.Path...)))
	}
	slices.SortStableFunc(mistakes, inOrder)
	return Join(mistakes)
}

// leaves returns what an error consists of.
func leaves(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		if err == nil {
			return nil
		}
		return []error{err}
	}
	for _, one := range joined.Unwrap() {
		all = append(all, leaves(one)...)
	}
	return all
}

// at returns an error at a path of the file.
func (w written) at(err error, path []string) *Error {
	return w.report.at(w.root.find(path).place(), err)
}
