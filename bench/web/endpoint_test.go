// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/bench/load"
)

// A program that answers something else, or in another way than the others, must not be measured.
func TestJudge(t *testing.T) {
	t.Parallel()
	handshake := func(suite uint16, curve tls.CurveID, key x509.PublicKeyAlgorithm, resumed bool) *tls.ConnectionState {
		return &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: suite, CurveID: curve, DidResume: resumed,
			PeerCertificates: []*x509.Certificate{{PublicKeyAlgorithm: key}}}
	}
	good := handshake(tls.TLS_AES_128_GCM_SHA256, tls.X25519, x509.ECDSA, false)
	plain, secret := endpoint{portWeb, "http", 1}, endpoint{portTLS, "https", 2}
	tests := []struct {
		name   string
		at     endpoint
		status int
		major  int
		tls    *tls.ConnectionState
		body   string
		want   error
	}{
		{"fine", plain, 200, 1, nil, body(), nil},
		{"fine over TLS", secret, 200, 2, good, body(), nil},
		{"status", plain, 503, 1, nil, body(), errWrong},
		{"version", plain, 200, 2, nil, body(), errWrong},
		{"one byte less", plain, 200, 1, nil, body()[1:], errWrong},
		{"another byte", plain, 200, 1, nil, strings.Replace(body(), "x", "y", 1), errWrong},
		{"no TLS", secret, 200, 2, nil, body(), errWrong},
		{"TLS", plain, 200, 1, good, body(), errWrong},
		{"suite", secret, 200, 2, handshake(tls.TLS_AES_256_GCM_SHA384, tls.X25519, x509.ECDSA, false), body(), load.ErrSuite},
		{"group", secret, 200, 2, handshake(tls.TLS_AES_128_GCM_SHA256, tls.CurveP256, x509.ECDSA, false), body(), load.ErrSuite},
		{"key", secret, 200, 2, handshake(tls.TLS_AES_128_GCM_SHA256, tls.X25519, x509.RSA, false), body(), load.ErrSuite},
		{"resumed", secret, 200, 2, handshake(tls.TLS_AES_128_GCM_SHA256, tls.X25519, x509.ECDSA, true), body(), load.ErrSuite},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			answer := &http.Response{StatusCode: tt.status, ProtoMajor: tt.major, TLS: tt.tls}
			if err := tt.at.judge(answer, []byte(tt.body)); !errors.Is(err, tt.want) {
				t.Errorf("judge = %v, want %v", err, tt.want)
			}
		})
	}
}
