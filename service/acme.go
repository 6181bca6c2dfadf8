// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"cmp"
	_ "embed"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/ip"
)

// acmeSource is this file, whose comments describe the keys of the section.
//
//go:embed acme.go
var acmeSource string

// ACMESource returns the source of ACME, for Protocol.Sources.
func ACMESource() string { return acmeSource }

// ACME says from whom certificates come, and how the names are proved to be ours. To use it is to agree to the server's
// terms of service.
type ACME struct {
	// Where the server tells of problems, if it does.
	Email string `yaml:"email"`

	// The URL of the server's directory; Let's Encrypt if left out.
	Directory string `yaml:"directory"`

	// The CAs of the server's own certificate, PEM, for a server of one's own.
	Roots Path `yaml:"roots"`

	// `http-01`: the server asks at port 80. `tls-alpn-01`: it asks at port 443. `dns-01`: it looks into the DNS, which
	// is the only one for wildcards, and for names that do not lead to this machine yet.
	Challenge Challenge `yaml:"challenge,required"`

	// Where records for dns-01 are put.
	DNS *Update `yaml:"dns"`
}

// Update is a DNS server that takes dynamic updates (RFC 2136).
type Update struct {
	// Its address and port.
	Server netip.AddrPort `yaml:"server,required"`

	// The TSIG key, in the file that tsig-keygen writes. Without it updates are not signed.
	Key Path `yaml:"key"`

	// How long secondary servers need to have an update.
	Settle time.Duration `yaml:"settle" range:"0s..10m"`
}

// Challenge is http-01, tls-alpn-01 or dns-01.
type Challenge string

// UnmarshalText reads a challenge.
func (c *Challenge) UnmarshalText(text []byte) error {
	*c = Challenge(text)
	switch *c {
	case acme.HTTP01, acme.TLSALPN01, acme.DNS01:
		return nil
	}
	return errChallenge
}

// The mistakes that ACME.Check finds.
var (
	errChallenge = errors.New("not a challenge; write http-01, tls-alpn-01 or dns-01")
	errWildName  = errors.New("a certificate for a wildcard needs challenge: dns-01")
	errNoUpdate  = errors.New("challenge: dns-01 needs dns: the server that takes the records")
	errUpdate    = errors.New("dns is for challenge: dns-01 only")
	errURL       = errors.New("must be a URL that begins with https://")
	errBeside    = errors.New("the ACME server reaches this service by IPv6 alone: until its AAAA is published it asks another machine; use dns-01 or files until then")
)

// Check says what is wrong with a, which is for the names of a service, and warns if the ACME server may ask another machine:
// each mistake at a key of a.
func (a *ACME) Check(names []string, listens []Listen, at func(err error, key string, warning bool)) {
	if a.Directory != "" && !strings.HasPrefix(a.Directory, "https://") {
		at(errURL, "directory", false)
	}
	if a.Challenge == acme.DNS01 {
		if a.DNS == nil {
			at(errNoUpdate, "challenge", false)
		}
		return
	}
	if a.DNS != nil {
		at(errUpdate, "dns", false)
	}
	if slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "*.") }) {
		at(errWildName, "challenge", false)
	}
	if !slices.ContainsFunc(listens, func(l Listen) bool { return l.Family() == ip.V4 }) {
		at(errBeside, "challenge", true)
	}
}

// Read reads the files that a names: each mistake at a key of a. They are needed when a certificate is, so that a service
// without them may run.
func (a *ACME) Read(at func(err error, path ...string)) {
	if a == nil {
		return
	}
	s := a.settings()
	roots, key := s.Read()
	if roots != nil {
		at(roots, "roots")
	}
	if key != nil {
		at(key, "dns", "key")
	}
}

// Orders returns the orders of certificates for names; none without a.
func (a *ACME) Orders(names []string) (all []acme.Order) {
	if a == nil {
		return nil
	}
	for _, name := range names {
		all = append(all, acme.Order{Name: name, Settings: a.settings()})
	}
	return all
}

func (a *ACME) settings() acme.Settings {
	s := acme.Settings{Directory: cmp.Or(a.Directory, acme.LetsEncrypt), Email: a.Email, Roots: string(a.Roots),
		Challenge: string(a.Challenge)}
	if a.DNS != nil {
		s.DNS = acme.DNS{Server: a.DNS.Server, Key: string(a.DNS.Key), Settle: a.DNS.Settle}
	}
	return s
}
