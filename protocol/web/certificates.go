// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/service"
)

func (t *TLS) pairs() []certs.Pair {
	var all []certs.Pair
	if t.Certificate != "" {
		all = append(all, certs.Pair{Certificate: string(t.Certificate), Key: string(t.Key)})
	}
	for _, p := range t.Also {
		all = append(all, certs.Pair{Certificate: string(p.Certificate), Key: string(p.Key)})
	}
	return all
}

// openCertificates loads the certificates of each address that ends TLS.
func (b *builder) openCertificates() (stores []*certs.Store, err error) {
	for a, pairs := range b.pairs {
		slots, err := b.env.ACME.Slots(b.orders[a])
		if err != nil {
			return nil, fmt.Errorf("%v: %w", a, err)
		}
		store, err := certs.Open(pairs, slots...)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", a, err)
		}
		for _, i := range store.Infos() {
			if text := i.Warning(time.Now()); text != "" && !i.End.IsZero() {
				b.env.Log.Warn("certificate needs attention", "certificate", i.Source, "err", text)
			}
		}
		b.tables[a].tls = b.configure(b.tables[a], store)
		stores = append(stores, store)
	}
	return stores, nil
}

// openTickets returns the tickets of the process before, or new ones.
func openTickets(env service.Env) *certs.Tickets {
	if env.Legacy == nil {
		return certs.NewTickets()
	}
	t, err := certs.OpenTickets(env.Legacy)
	if err != nil {
		env.Log.Warn("TLS sessions of before the upgrade are not resumed", "err", err)
		return certs.NewTickets()
	}
	return t
}

// openClients reads whom a service takes certificates from.
func (b *builder) openClients(s *service.Service) error {
	o := s.Options.(*Options) // made by our own Protocol
	if o.TLS == nil || o.TLS.ClientCertificates == nil {
		return nil
	}
	c, err := certs.OpenClients(o.TLS.ClientCertificates.files())
	if err != nil {
		return fmt.Errorf("client-certificates: %w", err)
	}
	b.clients[s.Name] = c
	return nil
}

func (c *ClientCertificates) files() certs.ClientFiles {
	return certs.ClientFiles{CA: string(c.CA), CRL: string(c.CRL), Require: c.Verify == VerifyRequired}
}

// configure returns what an address shakes hands with: an ACME server that wants a name proved gets the proof, and who
// asks for a service has its lowest version, its question for a certificate, and its session tickets.
func (b *builder) configure(t *table, store *certs.Store) *tls.Config {
	base := store.Config("h2", "http/1.1")
	t.terms = &certs.Terms{Base: base, Tickets: b.tickets}
	t.each(func(s *site) {
		if s.passThrough {
			return
		}
		mine := base
		if s.minimum > base.MinVersion {
			mine = base.Clone()
			mine.MinVersion = s.minimum
		}
		s.terms = &certs.Terms{Base: mine, Name: s.name, Clients: s.clients, Tickets: b.tickets}
	})
	config := base.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if proof := b.env.ACME.TLSConfig(hello); proof != nil {
			return proof, nil
		}
		if s := t.named(hello.ServerName); s != nil && s.terms != nil {
			return s.terms.Config(), nil
		}
		return t.terms.Config(), nil
	}
	return config
}

// watch takes changed files of certificates, and of who may come with one, until ctx is done.
func (b *builder) watch(ctx context.Context, stores []*certs.Store) {
	var wg sync.WaitGroup
	for _, s := range stores {
		wg.Go(func() {
			s.Run(ctx, certificatesEvery, func(p certs.Pair, err error) {
				if err == nil {
					b.env.Log.Info("changed certificate taken", "certificate", p.Certificate)
					return
				}
				b.env.Log.Error("changed certificate not taken", "certificate", p.Certificate, "err", err)
			})
		})
	}
	for _, c := range b.clients {
		wg.Go(func() {
			c.Run(ctx, certificatesEvery, func(f certs.ClientFiles, err error) {
				if err == nil {
					b.env.Log.Info("changed authorities of clients taken", "certificate", f.CA)
					return
				}
				b.env.Log.Error("certificates of clients need attention", "certificate", f.CA, "err", err)
			})
		})
	}
	wg.Wait()
}
