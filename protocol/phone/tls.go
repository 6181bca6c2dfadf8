// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/relay"
)

const (
	// certificatesEvery is how often certificate files are looked at.
	certificatesEvery = 5 * time.Second

	// shakeTime is how long a handshake may take.
	shakeTime = 10 * time.Second
)

// pairs are the certificates.
func (t *TLS) pairs() []certs.Pair {
	all := []certs.Pair{{Certificate: string(t.Certificate), Key: string(t.Key)}}
	for _, p := range t.Also {
		all = append(all, certs.Pair{Certificate: string(p.Certificate), Key: string(p.Key)})
	}
	return all
}

// tlsTerms returns how TLS is spoken to the clients of a service; nil if it has none.
func tlsTerms(store *certs.Store, name string, tickets *certs.Tickets) *certs.Terms {
	if store == nil {
		return nil
	}
	base := store.Config()
	base.ClientAuth = tls.RequestClientCert // what it is worth, the trunk says: see admits
	return &certs.Terms{Base: base, Name: name, Tickets: tickets}
}

// follow takes changed files of certificates until ctx is done.
func (c *core) follow(ctx context.Context, set *settings) {
	if set.store == nil {
		return
	}
	for _, i := range set.store.Infos() {
		if text := i.Warning(time.Now()); text != "" {
			c.log.Warn("certificate needs attention", "certificate", i.Source, "err", text)
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		set.store.Run(ctx, certificatesEvery, func(p certs.Pair, err error) {
			if err == nil {
				c.log.Info("changed certificate taken", "certificate", p.Certificate)
				return
			}
			c.log.Error("changed certificate not taken", "certificate", p.Certificate, "err", err)
		})
	})
	all.Wait()
}

// unshaken waits for a client's ClientHello. A handshake holds a goroutine, and the edge has only so many: who says nothing,
// or something else, takes none.
type unshaken struct {
	flow  *flow
	terms *certs.Terms
	route *backend.Route
}

// Data implements relay.Handler.
func (h *unshaken) Data(c *relay.Conn, p []byte) int {
	_, n, err := certs.ParseHello(p)
	switch {
	case err != nil && !errors.Is(err, certs.ErrName): // a name that is none is taken for no name
		h.route.Count(metrics.TLSFault)
		c.Abort()
		return len(p)
	case err == nil && n == 0:
		return 0
	case !h.route.Admit(limit.Handshakes, c.Remote().Addr(), c.Loop().Now()):
		c.Abort()
		return len(p)
	}
	c.SetHandler(backend.Handshaking{Route: h.route})
	c.StartServerTLS(h.terms.Config(), func(state tls.ConnectionState) {
		if !h.flow.agent.core.settings.Load().admits(h.flow.way, &state) {
			h.route.Count(metrics.TLSRefused)
			c.Abort()
			return
		}
		h.flow.begin(c)
	})
	return 0
}

// Event implements relay.Handler.
func (h *unshaken) Event(c *relay.Conn, e relay.Event) {
	if e == relay.Timeout {
		h.route.Count(metrics.TLSTimeout)
	}
	c.Abort()
}

// Closed implements relay.Handler.
func (h *unshaken) Closed(*relay.Conn, error) {}

// admits says whether who has opened a connection may go on: a gateway of a trunk that requires certificates must have shown
// one.
func (s *settings) admits(w sip.Way, state *tls.ConnectionState) bool {
	g := s.gatewayOf(w)
	if g == nil || !g.trunk.proves {
		return true
	}
	return g.prove(state, x509.ExtKeyUsageClientAuth) == nil
}

// name returns whom the certificate of a gateway must be for: the host that was looked up, and none that the DNS has named.
// RFC 5922 §7.3.
func (g *gateway) name() string {
	return cmp.Or(g.trunk.certified, g.domain)
}

// client returns how TLS is spoken to a gateway, with our certificate if it asks for one. RFC 3261 §26.3.1.
func (s *settings) client(w sip.Way) *tls.Config {
	g := s.gatewayOf(w)
	if g == nil {
		return nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: g.name(), InsecureSkipVerify: true} // of names Go knows others: see prove
	config.VerifyConnection = func(state tls.ConnectionState) error { return g.prove(&state, x509.ExtKeyUsageServerAuth) }
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return s.terms.Base.GetCertificate(&tls.ClientHelloInfo{ServerName: s.options.Domain})
	}
	return config
}

// readAuthorities reads who may sign the certificates of a trunk's gateways; nil is those whom the system trusts.
func readAuthorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all, err := certs.ParseAuthorities(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return certs.Pool(all), nil
}

// isSecure says whether a listen speaks TLS.
func (o *Options) isSecure(at netip.AddrPort) bool { return o.TLS != nil && at.Port() == o.TLS.port() }

func (t *TLS) port() uint16 {
	if t.Port == 0 {
		return sip.TLS.Port()
	}
	return t.Port
}
