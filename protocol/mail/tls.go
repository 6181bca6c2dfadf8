// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"context"
	"crypto/tls"
	"sync"
	"time"

	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// certificatesEvery is how often certificate files are looked at.
const certificatesEvery = 5 * time.Second

// accept begins to serve a client.
func (f *front) accept(c *relay.Conn) {
	switch t := f.current.Load(); {
	case t.passes():
		t.pass(c)
	case t.dialect.secure:
		t.shake(c, func() { t.dialect.speak(f, t, c) })
	default:
		t.dialect.speak(f, t, c)
	}
}

// shake speaks TLS to a client from its next byte on, and calls ready when that is done, with a handler that is to be
// replaced.
func (t *table) shake(c *relay.Conn, ready func()) {
	c.SetHandler(&unshaken{table: t, ready: ready})
	c.SetTimeout(t.options.Timeouts.Command)
	c.Resume() // shows it what the handler before has left
}

// openTLS loads the certificates of a service; nil if there are none.
func (b *builder) openTLS(name string, o *TLS, orders []acme.Order) (*certs.Terms, error) {
	if o == nil || o.PassThrough {
		return nil, nil
	}
	slots, err := b.env.ACME.Slots(orders)
	if err != nil {
		return nil, err
	}
	b.orders = append(b.orders, orders...)
	store, err := certs.Open(o.pairs(), slots...)
	if err != nil {
		return nil, err
	}
	for _, i := range store.Infos() {
		if text := i.Warning(time.Now()); text != "" && !i.End.IsZero() {
			b.env.Log.Warn("certificate needs attention", "certificate", i.Source, "err", text)
		}
	}
	b.stores = append(b.stores, store)
	base := store.Config()
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return b.env.ACME.TLSConfig(hello), nil // nil for all but who wants a name proved
	}
	return &certs.Terms{Base: base, Name: name, Tickets: b.kept.tickets}, nil
}

func (t *TLS) pairs() (all []certs.Pair) {
	if t.Certificate != "" {
		all = append(all, certs.Pair{Certificate: string(t.Certificate), Key: string(t.Key)})
	}
	for _, p := range t.Also {
		all = append(all, certs.Pair{Certificate: string(p.Certificate), Key: string(p.Key)})
	}
	return all
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

// watch takes changed files of certificates until ctx is done.
func (b *builder) watch(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range b.stores {
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
	wg.Wait()
}
