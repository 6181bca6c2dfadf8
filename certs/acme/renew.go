// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	rfc8555 "github.com/mholt/acmez/v3/acme"
)

// renewal is what a server has said about when to renew a certificate. RFC 9773.
type renewal struct {
	rfc8555.RenewalInfo
	ask   time.Time // when to ask again; zero if it was not asked yet
	never bool      // the server does not say
}

// nextLook returns when w is to be looked at next: to renew it, if that is in the past or now.
func (r *run) nextLook(ctx context.Context, s *server, w *want) time.Time {
	leaf := w.slot.Certificate().Leaf
	now := time.Now()
	if !w.info.never && !now.Before(w.info.ask) {
		w.info.refresh(ctx, s, leaf, r.client.pace.ask)
	}
	at := w.info.at(leaf)
	if w.info.never || at.Before(w.info.ask) {
		return at
	}
	return w.info.ask
}

// at returns when to renew: at the time picked from the window that the server suggests, or else when a third of the
// certificate's life is left.
func (i *renewal) at(leaf *x509.Certificate) time.Time {
	if i.HasWindow() {
		return i.SelectedTime
	}
	return leaf.NotAfter.Add(-leaf.NotAfter.Sub(leaf.NotBefore) / 3)
}

// refresh asks the server. If it gives no answer, what it said before holds. RFC 9773 §4.3.
func (i *renewal) refresh(ctx context.Context, s *server, leaf *x509.Certificate, pause time.Duration) {
	i.ask = time.Now().Add(pause)
	info, err := s.renewalInfo(ctx, leaf)
	switch {
	case errors.Is(err, rfc8555.ErrUnsupported):
		i.never = true
	case err != nil:
	case info.SameWindow(i.RenewalInfo): // the time picked from it stands: one more draw each time would bring it forward
	default:
		i.RenewalInfo = info
	}
	if err == nil && info.RetryAfter != nil && info.RetryAfter.After(time.Now()) {
		i.ask = *info.RetryAfter
	}
}
