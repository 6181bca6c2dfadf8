// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"crypto/tls"
	"testing"

	rfc8555 "github.com/mholt/acmez/v3/acme"
)

func challenge(name string) rfc8555.Challenge {
	return rfc8555.Challenge{Token: "token", KeyAuthorization: "token.thumbprint",
		Identifier: rfc8555.Identifier{Type: "dns", Value: name}}
}

func TestChallenge(t *testing.T) {
	t.Parallel()
	var c Client
	s := httpSolver{&c.answers.http}
	ask := func(host, path string) string {
		body, _ := c.Challenge([]byte(host), []byte(path))
		return string(body)
	}
	if got := ask("shop.example", Path+"token"); got != "" {
		t.Errorf("before there is a challenge: %q", got)
	}
	s.Present(t.Context(), challenge("shop.example"))
	for _, test := range []struct{ host, path, want string }{
		{"shop.example", Path + "token", "token.thumbprint"},
		{"Shop.Example", Path + "token", "token.thumbprint"},
		{"other.example", Path + "token", ""},
		{"shop.example", Path + "another", ""},
		{"shop.example", Path, ""},
	} {
		if got := ask(test.host, test.path); got != test.want {
			t.Errorf("%s%s: %q, want %q", test.host, test.path, got, test.want)
		}
	}
	s.CleanUp(t.Context(), challenge("shop.example"))
	if got := ask("shop.example", Path+"token"); got != "" {
		t.Errorf("after the challenge: %q", got)
	}
}

// TestChallengeAllocations holds that anyone may ask, as often as they like, at no cost.
func TestChallengeAllocations(t *testing.T) {
	var c Client
	httpSolver{&c.answers.http}.Present(t.Context(), challenge("shop.example"))
	host, path := []byte("shop.example"), []byte(Path+"token")
	if n := testing.AllocsPerRun(100, func() { c.Challenge(host, path) }); n > 0 {
		t.Errorf("Challenge allocates %v times", n)
	}
}

// TestTLSConfig checks that only an ACME server gets the certificate of a challenge, and only while there is one.
func TestTLSConfig(t *testing.T) {
	t.Parallel()
	var c Client
	s := tlsSolver{&c.answers.tls}
	if err := s.Present(t.Context(), challenge("shop.example")); err != nil {
		t.Fatal(err)
	}
	for _, protocols := range [][]string{nil, {"h2", "http/1.1"}, {"acme-tls/1", "h2"}} {
		if got := c.TLSConfig(&tls.ClientHelloInfo{ServerName: "shop.example", SupportedProtos: protocols}); got != nil {
			t.Errorf("a client that offers %q is taken for an ACME server", protocols)
		}
	}
	certificates := func(name string) int {
		got := c.TLSConfig(&tls.ClientHelloInfo{ServerName: name, SupportedProtos: []string{ALPN}})
		if got == nil {
			t.Fatalf("%s: an ACME server is taken for a client", name)
		}
		return len(got.Certificates)
	}
	if got := certificates("Shop.Example"); got != 1 {
		t.Errorf("%d certificates, want 1", got)
	}
	if got := certificates("other.example"); got != 0 {
		t.Errorf("another name: %d certificates, want 0", got)
	}
	s.CleanUp(t.Context(), challenge("shop.example"))
	if got := certificates("shop.example"); got != 0 {
		t.Errorf("after the challenge: %d certificates, want 0", got)
	}
}
