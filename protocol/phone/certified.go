// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

var errUncertified = errors.New("no certificate")

// prove says what is wrong with the certificates of a gateway's end of a connection, or nil: they must be signed by who may,
// and be for the gateway. RFC 5922 §7.3, §7.4.
func (g *gateway) prove(state *tls.ConnectionState, usage x509.ExtKeyUsage) error {
	if len(state.PeerCertificates) == 0 {
		return errUncertified
	}
	leaf := state.PeerCertificates[0]
	o := x509.VerifyOptions{Roots: g.trunk.authorities, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(o); err != nil {
		return err
	}
	if at, err := netip.ParseAddr(g.name()); err == nil {
		return certifiedAddr(leaf, at)
	}
	found := identities(leaf)
	for _, name := range found {
		if strings.EqualFold(name, g.name()) { // RFC 5922 §7.2: the whole name, and no wildcards
			return nil
		}
	}
	return fmt.Errorf("certificate is for %q, not for %s", found, g.name())
}

// identities returns the SIP domains of a certificate: those of sip URIs without a user or, where it has none of these, its DNS
// names. RFC 5922 §7.1; the common name, which §7.1 lets count where there is nothing else, does not.
func identities(c *x509.Certificate) (names []string) {
	for _, u := range c.URIs {
		parsed, err := sip.ParseURI([]byte(u.String()))
		if err == nil && parsed.Scheme == sip.SIP && parsed.User == nil {
			names = append(names, string(parsed.Host.Name))
		}
	}
	if names == nil {
		return c.DNSNames
	}
	return names
}

// certifiedAddr says whether a certificate is for an address, which RFC 5922 says nothing of: gateways may be written so.
func certifiedAddr(c *x509.Certificate, at netip.Addr) error {
	for _, a := range c.IPAddresses {
		if own, ok := netip.AddrFromSlice(a); ok && ip.Canonical(own) == at {
			return nil
		}
	}
	return fmt.Errorf("certificate is for %v, not for %v", c.IPAddresses, at)
}
