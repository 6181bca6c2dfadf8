// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"crypto/x509"
	"testing"
	"time"
)

// TestRenewAt looks when a certificate is renewed if the server suggests a time, and if it does not.
func TestRenewAt(t *testing.T) {
	t.Parallel()
	begin := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	leaf := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(90 * 24 * time.Hour)}
	var i renewal
	if got, want := i.at(leaf), begin.Add(60*24*time.Hour); !got.Equal(want) {
		t.Errorf("without a suggestion at %v, want %v", got, want)
	}
	i.SuggestedWindow.Start, i.SuggestedWindow.End = begin, begin.Add(time.Hour)
	i.SelectedTime = begin.Add(time.Minute)
	if got := i.at(leaf); !got.Equal(i.SelectedTime) {
		t.Errorf("with a suggestion at %v, want %v", got, i.SelectedTime)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	p := NewClient("", nil).pace
	failures := 0
	for total := time.Duration(0); total < time.Hour; failures++ {
		total += p.backoff(failures)
	}
	if failures > 5 {
		t.Errorf("%d failures in the first hour, more than Let's Encrypt allows", failures)
	}
	if got := p.backoff(1000); got != time.Hour {
		t.Errorf("after a thousand failures %v, want an hour", got)
	}
}
