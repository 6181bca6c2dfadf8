// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/mholt/acmez/v3"
	rfc8555 "github.com/mholt/acmez/v3/acme"
)

// server is an ACME server and our account there.
type server struct {
	client   *Client
	settings Settings

	mu      sync.Mutex // held while an account is opened: the others wait for it
	acmez   *acmez.Client
	account rfc8555.Account
}

// opened returns the server's client and our account, which is registered at the first call that succeeds. To ask for
// an account that exists already is to find it. RFC 8555 §7.3.1. Using it is to agree to the terms of service.
func (s *server) opened(ctx context.Context) (*acmez.Client, rfc8555.Account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acmez != nil {
		return s.acmez, s.account, nil
	}
	key, err := s.client.accountKey(s.settings)
	if err != nil {
		return nil, rfc8555.Account{}, err
	}
	transport, err := s.transport()
	if err != nil {
		return nil, rfc8555.Account{}, err
	}
	c := &acmez.Client{Client: &rfc8555.Client{Directory: s.settings.Directory, UserAgent: "kyozon",
		HTTPClient: &http.Client{Transport: transport, Timeout: time.Minute}},
		ChallengeSolvers: map[string]acmez.Solver{s.settings.Challenge: s.solver()}}
	account := rfc8555.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if s.settings.Email != "" {
		account.Contact = []string{"mailto:" + s.settings.Email}
	}
	account, err = c.NewAccount(ctx, account)
	if err != nil {
		transport.CloseIdleConnections()
		return nil, rfc8555.Account{}, fmt.Errorf("register account: %w", err)
	}
	s.acmez, s.account = c, account
	return c, account, nil
}

// transport returns a way to the server that trusts its CAs.
func (s *server) transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = atOnce
	if s.settings.Roots == "" {
		return t, nil
	}
	roots, err := readRoots(s.settings.Roots)
	if err != nil {
		return nil, fmt.Errorf("read roots: %w", err)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	return t, nil
}

// readRoots reads the CAs of a server.
func readRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return roots, nil
}

// Read reads the files of s, and says what is wrong with either: orders fail as long as it is.
func (s *Settings) Read() (roots, key error) {
	if s.Roots != "" {
		_, roots = readRoots(s.Roots)
	}
	if s.DNS.Key != "" {
		_, key = readTSIGKey(s.DNS.Key)
	}
	return roots, key
}

// solver returns what answers the challenges of the kind that the settings name.
func (s *server) solver() acmez.Solver {
	switch s.settings.Challenge {
	case HTTP01:
		return httpSolver{&s.client.answers.http}
	case TLSALPN01:
		return tlsSolver{&s.client.answers.tls}
	}
	return dnsSolver{s.settings.DNS}
}

// obtain orders a certificate, saves it and fills the slot of w. RFC 8555 §7.1.
func (s *server) obtain(ctx context.Context, w *want) error {
	c, account, err := s.opened(ctx)
	if err != nil {
		return err
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	request, err := acmez.NewCSR(key, []string{w.slot.Name})
	if err != nil {
		return fmt.Errorf("request certificate: %w", err)
	}
	params, err := acmez.OrderParametersFromCSR(account, request)
	if err != nil {
		return fmt.Errorf("request certificate: %w", err)
	}
	if old := w.slot.Certificate(); old != nil && w.info.HasWindow() {
		params.Replaces = old.Leaf // RFC 9773 §5
	}
	chains, err := c.ObtainCertificate(ctx, params)
	switch {
	case err != nil:
		return fmt.Errorf("order certificate: %w", err)
	case len(chains) == 0:
		return errors.New("order certificate: the server sent none")
	}
	cert, err := save(w, key, chains[0].ChainPEM)
	if cert != nil {
		w.slot.Fill(cert) // in use even if it could not be saved
	}
	return err
}

// renewalInfo asks when a certificate should be renewed.
func (s *server) renewalInfo(ctx context.Context, leaf *x509.Certificate) (rfc8555.RenewalInfo, error) {
	c, _, err := s.opened(ctx)
	if err != nil {
		return rfc8555.RenewalInfo{}, err
	}
	return c.GetRenewalInfo(ctx, leaf)
}

func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acmez != nil {
		s.acmez.HTTPClient.CloseIdleConnections()
	}
}
