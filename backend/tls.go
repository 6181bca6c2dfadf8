// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/probe"
)

// Credentials are what the files of a ClientTLS held when they were read. They are immutable.
//
//	ClientTLS ─Read─▶ Credentials ─NewPool─▶ one tls.Config for each backend, kept in its tally over reloads
//	                                         as long as nothing that it is made of changes
//	                                           ├─ health checks: probe.Target.TLS
//	                                           └─ flows, which may offer protocols in ALPN as well: Pool.Offer
type Credentials struct {
	name   string
	config *tls.Config
	id     string // of all that config is made of
}

// FileError is what is wrong with a file that a ClientTLS names.
type FileError struct {
	Key string // ca, certificate or key
	Err error
}

func (e *FileError) Error() string { return fmt.Sprintf("read tls.%s: %v", e.Key, e.Err) }

// Unwrap returns what is wrong.
func (e *FileError) Unwrap() error { return e.Err }

// Read reads the files that t names. Nil has no credentials. The error is a *FileError.
func (t *ClientTLS) Read() (*Credentials, error) {
	if t == nil {
		return nil, nil
	}
	c := &Credentials{name: t.Name, config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !t.Verify}}
	id := sha256.New()
	fmt.Fprintf(id, "%q %v", t.Name, t.Verify)
	read := func(key, path string) ([]byte, error) {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, &FileError{key, err}
		}
		fmt.Fprintf(id, " %s %d ", key, len(data))
		id.Write(data)
		return data, nil
	}
	if t.CA != "" {
		data, err := read("ca", t.CA)
		if err != nil {
			return nil, err
		}
		all, err := certs.ParseAuthorities(data)
		if err != nil {
			return nil, &FileError{"ca", fmt.Errorf("%s: %w", t.CA, err)}
		}
		c.config.RootCAs = certs.Pool(all)
	}
	if t.Certificate != "" {
		certificate, err := read("certificate", t.Certificate)
		if err != nil {
			return nil, err
		}
		key, err := read("key", t.Key)
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			return nil, &FileError{"certificate", fmt.Errorf("%s with key %s: %w", t.Certificate, t.Key, err)}
		}
		c.config.Certificates = []tls.Certificate{pair}
	}
	c.id = hex.EncodeToString(id.Sum(nil))
	return c, nil
}

// credentials returns what a pool is made of. One whose servers speak TLS must never be spoken to in clear.
func (o *PoolOptions) credentials() *Credentials {
	if o.Spec.TLS != nil && o.TLS == nil {
		return &Credentials{config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}}
	}
	return o.TLS
}

// to returns how TLS is spoken to a server. Sessions are its own: to others they would mean nothing.
func (c *Credentials) to(server netip.AddrPort) *tls.Config {
	config := c.config.Clone()
	config.ServerName = c.name
	if c.name == "" {
		config.ServerName = server.Addr().String() // is looked for among the certificate's addresses: RFC 9525 §4.1
	}
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	return config
}

// client returns how TLS is spoken to the backend of a tally: the same value as long as nothing that it is made of
// changes, so that verdicts and unused connections outlive a reload, and no longer, so that they never outlive what they
// were checked against. Nil credentials are for clear text.
func (b *Book) client(t *tally, c *Credentials, server netip.AddrPort) *tls.Config {
	if c == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if t.tls == nil || t.tlsID != c.id {
		t.tls, t.tlsID = c.to(server), c.id
	}
	return t.tls
}

// Offer has the flows of a pool whose servers are spoken to in TLS offer protocols in ALPN (RFC 7301), the most wanted
// first. Call it while the generation is built; health checks offer none. What the server has chosen is in
// Flow.Conn.TLS: ask there, for a connection that is used again may be older than the offer.
func (p *Pool) Offer(protocols ...string) {
	for i := range p.backends {
		if b := &p.backends[i]; b.offer != nil {
			b.offer = b.secure.Clone()
			b.offer.NextProtos = protocols
		}
	}
}

// StartTLS speaks TLS to the backend from its next byte on: for a protocol that asks for it, where ClientTLS.Asks. It calls
// done on the loop, with a connection that has no handler yet, or with what has closed it, unless somebody else has. A handshake
// that fails is a connect that has failed.
func (f *Flow) StartTLS(limit time.Duration, done func(error)) {
	b := f.Backend
	f.Conn.SetTimeout(limit)
	f.Conn.StartClientTLS(b.secure, func(_ tls.ConnectionState, err error) {
		switch {
		case err == nil:
			b.Connected()
			done(nil)
			return
		case !ours(err):
			b.tally.failed(&b.pool.health, f.loop.Now())
		}
		done(fmt.Errorf("tls: %w", probe.Explain(err)))
	})
}

// Stale says whether the files that the pool's TLS is made of have changed, or can no longer be read.
func (p *Pool) Stale() bool {
	c, err := p.Spec.TLS.Read()
	return err != nil || c != nil && c.id != p.credentials.id
}
