// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// maxShown bounds what a client may show, in bytes of DER: it is kept as long as the connection, and handed on to
// servers, which refuse longer fields.
const maxShown = 16 << 10

// The reasons for which a client's certificate is not taken though its signatures are good, and the mistakes of a
// revocation list.
var (
	errRevoked = errors.New("certs: certificate is revoked")
	errTooLong = errors.New("certs: certificate is too long")

	errNoCRL    = errors.New("holds no revocation list in PEM form")
	errStranger = errors.New("has a list that none of the authorities in ca has signed")
)

// crlError is what is wrong with the file of the revocation lists.
type crlError struct{ error }

// Unwrap returns it.
func (e crlError) Unwrap() error { return e.error }

// InCRL says whether it is the file of the revocation lists that OpenClients says something is wrong with.
func InCRL(err error) bool {
	_, ok := errors.AsType[crlError](err)
	return ok
}

// Admission is who may come with a certificate of its own, as the files had it at one time. It is immutable.
type Admission struct {
	id          [sha256.Size]byte // of the authorities
	require     bool
	authorities []*x509.Certificate
	pool        *x509.CertPool
	revoked     map[serial]bool
	due         time.Time // when the first of the lists should have been followed by another; zero if there is none
}

// serial tells a certificate from all others. RFC 5280 §4.1.2.2.
type serial struct{ issuer, number string }

// readAdmission reads the files.
func readAdmission(f ClientFiles) (*Admission, error) {
	data, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("read ca: %w", err)
	}
	a := &Admission{id: sha256.Sum256(data), require: f.Require, revoked: make(map[serial]bool)}
	if a.authorities, err = ParseAuthorities(data); err != nil {
		return nil, fmt.Errorf("read ca: %s: %w", f.CA, err)
	}
	a.pool = Pool(a.authorities)
	if f.CRL == "" {
		return a, nil
	}
	if data, err = os.ReadFile(f.CRL); err != nil {
		return nil, crlError{fmt.Errorf("read crl: %w", err)}
	}
	if err := a.revoke(data); err != nil {
		return nil, crlError{fmt.Errorf("read crl: %s: %w", f.CRL, err)}
	}
	return a, nil
}

// revoke reads revocation lists, PEM. Each must be signed by one of the authorities: RFC 5280 §6.3.3.
func (a *Admission) revoke(data []byte) error {
	found := false
	rest, err := eachBlock(data, "X509 CRL", func(der []byte) error {
		found = true
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return err
		}
		if !a.signed(list) {
			return errStranger
		}
		issuer := string(list.RawIssuer) // once for what may be very many
		for _, r := range list.RevokedCertificateEntries {
			a.revoked[serial{issuer, r.SerialNumber.String()}] = true
		}
		if end := list.NextUpdate; !end.IsZero() && (a.due.IsZero() || end.Before(a.due)) {
			a.due = end
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case !found:
		return errNoCRL
	case bytes.Contains(rest, []byte("-----BEGIN")):
		return errAfter
	}
	return nil
}

func (a *Admission) signed(list *x509.RevocationList) bool {
	for _, c := range a.authorities {
		if bytes.Equal(c.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(c) == nil {
			return true
		}
	}
	return false
}

// Required says whether a client must have a certificate.
func (a *Admission) Required() bool { return a.require }

// Chain returns the first of the chains of a client's certificate, as the handshake has verified them, that ends in one
// of the authorities and of which nothing is revoked; nil if there is none. It begins with the client's own certificate.
func (a *Admission) Chain(verified [][]*x509.Certificate) []*x509.Certificate {
	for _, chain := range verified {
		if a.trusts(chain[len(chain)-1]) && !a.revokes(chain) {
			return chain
		}
	}
	return nil
}

func (a *Admission) trusts(root *x509.Certificate) bool {
	for _, c := range a.authorities {
		if c.Equal(root) {
			return true
		}
	}
	return false
}

func (a *Admission) revokes(chain []*x509.Certificate) bool {
	for _, c := range chain {
		if len(a.revoked) > 0 && a.revoked[serial{string(c.RawIssuer), c.SerialNumber.String()}] {
			return true
		}
	}
	return false
}

// Follows says whether a client without a certificate, who was asked for one by before, need not be asked again.
func (a *Admission) Follows(before *Admission) bool { return !a.require && a.id == before.id }

// configure has a server ask for certificates.
func (a *Admission) configure(c *tls.Config) {
	c.ClientCAs, c.ClientAuth = a.pool, tls.VerifyClientCertIfGiven
	if a.require {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	c.VerifyConnection = func(s tls.ConnectionState) error { return a.check(s.VerifiedChains) }
}

// check is asked also when a session is resumed, whose certificate may have been revoked meanwhile.
func (a *Admission) check(verified [][]*x509.Certificate) error {
	if len(verified) == 0 {
		return nil // whether there must be one, crypto/tls knows
	}
	chain := a.Chain(verified)
	if chain == nil {
		return errRevoked
	}
	size := 0
	for _, c := range chain {
		size += len(c.Raw)
	}
	if size > maxShown {
		return errTooLong
	}
	return nil
}

// Warning says what is wrong with the revocation lists at now; "" if nothing is. RFC 5280 §6.3.3 would have a list that
// should have been followed by another say nothing, so that nobody could come; we go on with it, for what it revokes is
// revoked, and its successor may only be late.
func (a *Admission) Warning(now time.Time) string {
	if a.due.IsZero() || now.Before(a.due) {
		return ""
	}
	return "a newer revocation list was due on " + a.due.UTC().Format(time.RFC3339)
}
