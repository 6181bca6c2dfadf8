// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// shake speaks TLS on c, if the target does, and returns nil if that fails. The caller closes both.
func (r *run) shake(ctx context.Context, c net.Conn) net.Conn {
	if r.Target.TLS == nil {
		return c
	}
	s := tls.Client(c, r.Target.TLS)
	if err := s.HandshakeContext(ctx); !r.end(ctx, "tls", Explain(err)) {
		return nil
	}
	return s
}

// accepted waits for what a server says of our certificate. In TLS 1.3 it says so only after the handshake, and if it
// takes it, it says nothing (RFC 8446 §4.4.2.4): then it ends its half when we have ended ours, or we have waited long
// enough.
func (r *run) accepted(ctx context.Context, c net.Conn) {
	s, ok := c.(*tls.Conn)
	if !ok || len(r.Target.TLS.Certificates) == 0 || s.ConnectionState().Version < tls.VersionTLS13 {
		return
	}
	s.CloseWrite()
	if _, err := s.Read(make([]byte, 1)); isAlert(err) {
		r.end(ctx, "tls", Explain(err))
	}
}

// Explain returns an error that says in plain words why a TLS handshake with a server failed, where err says it in
// those of the library: an operator should see whose fault it is. Nil stays nil.
func Explain(err error) error {
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("certificate is for %s, not %s", holders(e.Certificate), e.Host)
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok && e.Cert != nil {
		return fmt.Errorf("certificate was issued by %q, who is not trusted", issuer(e.Cert))
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		if time.Now().Before(e.Cert.NotBefore) {
			return fmt.Errorf("certificate is not valid before %s", e.Cert.NotBefore.UTC().Format(time.DateTime))
		}
		return fmt.Errorf("certificate expired on %s", e.Cert.NotAfter.UTC().Format(time.DateTime))
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return errors.New("the server answers, but not in TLS")
	}
	if isAlert(err) {
		return fmt.Errorf("the server refuses us: %s", strings.TrimPrefix(err.Error(), "remote error: tls: "))
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server has ended the connection in the handshake")
	}
	return err
}

// isAlert says whether the peer has said what is wrong. RFC 8446 §6.2.
func isAlert(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "remote error"
}

// holders names those whom a certificate is for.
func holders(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	switch n := len(names); {
	case n == 0:
		return "nobody"
	case n > 3:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), n-3)
	}
	return strings.Join(names, ", ")
}

// issuer names who has signed a certificate.
func issuer(c *x509.Certificate) string {
	if name := c.Issuer.CommonName; name != "" {
		return name
	}
	return c.Issuer.String()
}
