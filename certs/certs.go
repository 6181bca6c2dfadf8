// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package certs is what the edge needs for TLS before and around crypto/tls: certificates from files, taken again
// when the files change, and from elsewhere (package acme); who may come with a certificate of its own; the keys of
// session tickets; and the name a client asks for, read without ending its TLS.
//
//	files ──Open──▶ Store ──Config──▶ *tls.Config ──▶ each handshake: SNI, what the client supports ─▶ certificate
//	  │            ▲  ▲
//	  │            │  └─ Slots, which package acme fills
//	  └─ looked at by Run, which swaps the whole table when a pair has changed
//
//	its Config ─┐
//	Clients ────┼─▶ Terms ──Config──▶ *tls.Config for one handshake
//	Tickets ────┘
//
//	bytes of a client ──ParseHello──▶ Hello (SNI, ALPN, versions) ──▶ choose a backend, pass the bytes on
//
// RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 6066 §3 (server name), RFC 7301 (ALPN), RFC 9525 (wildcards),
// RFC 5280 (revocation lists).
package certs

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// ErrNoPairs means that Open was given neither files nor slots.
var ErrNoPairs = errors.New("certs: no certificates")

// Soon is how long before its end a certificate is called near its end; a quarter of its life, if that is less.
const Soon = 14 * 24 * time.Hour

// Pair names the files of one certificate, PEM encoded.
type Pair struct {
	Certificate string // the certificate, then those that signed it
	Key         string // its private key
}

// String returns, for example, "shop.pem with key shop.key".
func (p Pair) String() string { return p.Certificate + " with key " + p.Key }

// Store holds certificates and chooses among them. It is safe for use by many goroutines.
type Store struct {
	pairs []*pair // owned by Run once that is called
	slots []*Slot
	table atomic.Pointer[table]
}

// Open loads all pairs. The first is the default, for clients that ask for no name or for one that no certificate
// has; without pairs, the first slot is. For a name that both have, a slot comes before a pair once it is filled, so
// that files bridge the time until then. The error consists of a *PairError for each pair that cannot be used.
//
// A certificate whose time is over is loaded: an expired certificate is a fault to report, no service at all a worse
// one. Infos tells.
func Open(pairs []Pair, slots ...*Slot) (*Store, error) {
	if len(pairs) == 0 && len(slots) == 0 {
		return nil, ErrNoPairs
	}
	s := &Store{slots: slots}
	var errs []error
	for i, files := range pairs {
		p := &pair{files: files, taken: stampOf(files)} // before reading: a change meanwhile is seen later
		var err error
		if p.cert, err = load(files); err != nil {
			if e, ok := errors.AsType[*PairError](err); ok {
				e.Index = i
			}
			errs = append(errs, err)
		}
		s.pairs = append(s.pairs, p)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	s.publish()
	return s, nil
}

// PairError is why a pair cannot be used.
type PairError struct {
	Pair  Pair
	Index int  // of the pair, as it was given to Open
	InKey bool // the fault is in the file of the key
	Err   error
}

func (e *PairError) Error() string { return fmt.Sprintf("load certificate %s: %v", e.Pair, e.Err) }

// Unwrap returns the reason.
func (e *PairError) Unwrap() error { return e.Err }

// load reads and checks one pair. The error is a *PairError.
func load(p Pair) (*tls.Certificate, error) {
	chain, err := os.ReadFile(p.Certificate)
	if err != nil {
		return nil, &PairError{Pair: p, Err: err}
	}
	key, err := os.ReadFile(p.Key)
	if err != nil {
		return nil, &PairError{Pair: p, InKey: true, Err: err}
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		text := strings.TrimPrefix(err.Error(), "tls: ")
		inKey := strings.Contains(text, "key input") || strings.Contains(text, "private key")
		return nil, &PairError{Pair: p, InKey: inKey, Err: errors.New(text)}
	}
	return &cert, nil
}

// Config returns a configuration for servers: TLS 1.2 or later, with the protocols offered in ALPN, most wanted
// first. Its certificates are those of the store at each handshake; a client for whose name there is none yet gets the
// alert unrecognized_name. The caller owns it.
func (s *Store) Config(alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: alpn,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return s.table.Load().choose(hello), nil
		},
	}
}

// Names returns all names that the certificates are for, sorted, wildcards as "*.example.jp".
func (s *Store) Names() []string {
	var names []string
	for _, i := range s.Infos() {
		names = append(names, i.Names...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Info is what is to be known about a certificate in use.
type Info struct {
	Source     string   // its file, or the directory of the ACME server
	Names      []string // host names, as in the certificate but in lower case
	Algorithm  string   // of the key: "ECDSA", "RSA" or "Ed25519"
	Issuer     string
	Begin, End time.Time // when it is valid; zero if there is no certificate yet
	Fault      string    // why there is no newer one: what is wrong with the files, or what the ACME server said
}

// State says in a word how the certificate is at now: valid, ending (see Soon), early, expired, or missing.
func (i Info) State(now time.Time) string {
	life := i.End.Sub(i.Begin)
	switch {
	case i.End.IsZero():
		return "missing"
	case now.Before(i.Begin):
		return "early"
	case now.After(i.End):
		return "expired"
	case i.End.Sub(now) < min(Soon, life/4):
		return "ending"
	}
	return "valid"
}

// Warning says what is wrong with the certificate's time at now, or is about to be; "" if nothing is.
func (i Info) Warning(now time.Time) string {
	switch i.State(now) {
	case "missing":
		return "there is none yet"
	case "early":
		return "not valid before " + i.Begin.UTC().Format(time.RFC3339)
	case "expired":
		return "expired on " + i.End.UTC().Format(time.RFC3339)
	case "ending":
		return "expires on " + i.End.UTC().Format(time.RFC3339)
	}
	return ""
}

// Infos returns one Info for each pair and then for each slot, in the order given to Open.
func (s *Store) Infos() []Info {
	infos := slices.Clone(s.table.Load().infos)
	for _, slot := range s.slots {
		infos = append(infos, slot.Info())
	}
	return infos
}

// publish makes a new table of the pairs and puts it in place of the old one.
func (s *Store) publish() { s.table.Store(newTable(s.pairs, s.slots)) }

// table is an immutable set of certificates, in the forms in which it is asked for.
type table struct {
	exact    map[string][]*tls.Certificate // by host name
	wildcard map[string][]*tls.Certificate // by what follows "*."
	fallback []*tls.Certificate            // the first pair's, and those for a name of its
	infos    []Info                        // of the pairs
	slots    map[string]*Slot              // by name, with wildcards as they are written
	first    *Slot                         // nil if there is none
}

func newTable(pairs []*pair, slots []*Slot) *table {
	t := &table{exact: map[string][]*tls.Certificate{}, wildcard: map[string][]*tls.Certificate{}, slots: map[string]*Slot{}}
	for _, s := range slots {
		t.slots[s.Name] = s
		t.first = slots[0]
	}
	for _, p := range pairs {
		info := p.info()
		t.infos = append(t.infos, info)
		for _, name := range info.Names {
			if parent, ok := strings.CutPrefix(name, "*."); ok {
				t.wildcard[parent] = append(t.wildcard[parent], p.cert)
			} else {
				t.exact[name] = append(t.exact[name], p.cert)
			}
		}
		if len(t.fallback) == 0 || sharesName(t.infos[0], info) {
			t.fallback = append(t.fallback, p.cert)
		}
	}
	for _, named := range []map[string][]*tls.Certificate{t.exact, t.wildcard, {"": t.fallback}} {
		for _, certs := range named {
			slices.SortStableFunc(certs, byCost)
		}
	}
	return t
}

func sharesName(a, b Info) bool {
	return slices.ContainsFunc(a.Names, func(name string) bool { return slices.Contains(b.Names, name) })
}

// byCost puts the certificates whose signatures cost us least first: RSA last, by an order of magnitude.
func byCost(a, b *tls.Certificate) int { return cmp.Compare(cost(a), cost(b)) }

func cost(c *tls.Certificate) int {
	if _, ok := c.Leaf.PublicKey.(*rsa.PublicKey); ok {
		return 1
	}
	return 0
}

// choose returns the certificate for a client: of those for exactly the name it asks for, else of those with a
// wildcard for it, which stands for one label (RFC 9525 §6.3), else of the default; among these the first that it
// can use. If that is not what the client wants, the client knows best what to say. It returns nil only if the
// certificate is one that is still to come.
func (t *table) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	_, parent, _ := strings.Cut(name, ".")
	exact, wild := t.slots[name], t.slots["*."+parent]
	if c := exact.Certificate(); c != nil {
		return c
	}
	certs := t.exact[name]
	if len(certs) == 0 && wild.Certificate() != nil {
		return wild.Certificate()
	}
	if len(certs) == 0 {
		certs = t.wildcard[parent]
	}
	if len(certs) == 0 && (exact != nil || wild != nil || len(t.fallback) == 0) {
		return cmp.Or(exact, wild, t.first).ask()
	}
	if len(certs) == 0 {
		certs = t.fallback
	}
	if len(certs) == 1 {
		return certs[0]
	}
	nameless := *hello // SupportsCertificate would ask for the name too, which the default may well not have
	nameless.ServerName = ""
	for _, c := range certs {
		if nameless.SupportsCertificate(c) == nil {
			return c
		}
	}
	return certs[0]
}

// infoOf returns what a certificate says of itself.
func infoOf(leaf *x509.Certificate) Info {
	i := Info{Algorithm: algorithm(leaf), Issuer: leaf.Issuer.String(), Begin: leaf.NotBefore, End: leaf.NotAfter}
	for _, name := range leaf.DNSNames {
		i.Names = append(i.Names, strings.ToLower(name))
	}
	return i
}

// algorithm names the algorithm of the key of c.
func algorithm(c *x509.Certificate) string {
	switch c.PublicKey.(type) {
	case *rsa.PublicKey:
		return "RSA"
	case *ecdsa.PublicKey:
		return "ECDSA"
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return c.PublicKeyAlgorithm.String()
}
