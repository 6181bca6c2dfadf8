// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mholt/acmez/v3"
	rfc8555 "github.com/mholt/acmez/v3/acme"
)

// ALPN is the protocol that an ACME server asks for to prove a name, and speaks no word of. RFC 8737 §6.2.
const ALPN = "acme-tls/1"

// Path is what the path of each request for http-01 begins with. RFC 8555 §8.3.
const Path = "/.well-known/acme-challenge/"

// Challenge returns what to answer with status 200 to a GET for a path that begins with Path, and a host without its
// port; not ok if nothing is to be proved there, so that the request is one as any other. It takes no lock and does
// not allocate. The caller must not change body.
func (c *Client) Challenge(host, path []byte) (body []byte, ok bool) {
	a, ok := c.answers.http.get(path)
	if !ok || !bytes.EqualFold(host, a.host) {
		return nil, false
	}
	return a.body, true
}

// TLSConfig returns what to shake hands with if the client is an ACME server that wants a name proved, and nil for all
// others. It is to be asked by tls.Config.GetConfigForClient. After the handshake the protocol is ALPN, and the
// connection is to be closed: nothing else may be done with it. RFC 8737 §3.
func (c *Client) TLSConfig(hello *tls.ClientHelloInfo) *tls.Config {
	if !slices.Equal(hello.SupportedProtos, []string{ALPN}) {
		return nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{ALPN}, SessionTicketsDisabled: true}
	if cert, ok := c.answers.tls.get([]byte(strings.ToLower(hello.ServerName))); ok {
		config.Certificates = []tls.Certificate{*cert}
	} else {
		// With nothing at all crypto/tls takes the configuration for incomplete. This makes it say unrecognized_name.
		config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	}
	return config
}

// answers are those to the challenges under way.
type answers struct {
	http board[httpAnswer]       // by path
	tls  board[*tls.Certificate] // by name
}

// httpAnswer is the answer to one path, at one host.
type httpAnswer struct{ host, body []byte }

// board is where answers hang. It is read by loops and seldom written.
type board[V any] struct {
	mu  sync.Mutex // for writing
	now atomic.Pointer[map[string]V]
}

func (b *board[V]) get(key []byte) (v V, ok bool) {
	if m := b.now.Load(); m != nil {
		v, ok = (*m)[string(key)]
	}
	return v, ok
}

func (b *board[V]) change(f func(m map[string]V)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := make(map[string]V)
	if old := b.now.Load(); old != nil {
		maps.Copy(m, *old)
	}
	f(m)
	b.now.Store(&m)
}

func (b *board[V]) put(key string, v V) { b.change(func(m map[string]V) { m[key] = v }) }
func (b *board[V]) remove(key string)   { b.change(func(m map[string]V) { delete(m, key) }) }

// httpSolver answers http-01.
type httpSolver struct{ board *board[httpAnswer] }

func (s httpSolver) Present(_ context.Context, c rfc8555.Challenge) error {
	s.board.put(c.HTTP01ResourcePath(), httpAnswer{[]byte(c.Identifier.Value), []byte(c.KeyAuthorization)})
	return nil
}

func (s httpSolver) CleanUp(_ context.Context, c rfc8555.Challenge) error {
	s.board.remove(c.HTTP01ResourcePath())
	return nil
}

// tlsSolver answers tls-alpn-01.
type tlsSolver struct{ board *board[*tls.Certificate] }

func (s tlsSolver) Present(_ context.Context, c rfc8555.Challenge) error {
	cert, err := acmez.TLSALPN01ChallengeCert(c)
	if err != nil {
		return err
	}
	s.board.put(c.Identifier.Value, cert)
	return nil
}

func (s tlsSolver) CleanUp(_ context.Context, c rfc8555.Challenge) error {
	s.board.remove(c.Identifier.Value)
	return nil
}
