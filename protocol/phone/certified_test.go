// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
)

// TestProve: whom a certificate is for is what its sip URIs say, and its DNS names if it has none.
func TestProve(t *testing.T) {
	t.Parallel()
	ours, others := servertest.NewAuthority(t, "carrier"), servertest.NewAuthority(t, "other")
	pool := x509.NewCertPool()
	pool.AddCert(ours.Certificate)
	for _, test := range []struct {
		name  string
		shown tls.Certificate
		want  bool
	}{
		{"DNS name", ours.IssueFor("gw.example.jp"), true},
		{"in other letters", ours.IssueFor("GW.Example.JP"), true},
		{"another", ours.IssueFor("other.example.jp"), false},
		{"wildcard", ours.IssueFor("*.example.jp"), false},
		{"URI", ours.IssueFor("west.example.jp", "sip:gw.example.jp"), true},
		{"one of the URIs", ours.IssueFor("west.example.jp", "sip:a.example.jp", "sip:GW.example.jp;transport=tls"), true},
		{"URI of another", ours.IssueFor("gw.example.jp", "sip:other.example.jp"), false},
		{"URI of a user", ours.IssueFor("west.example.jp", "sip:a@gw.example.jp"), false},
		{"URIs that say nothing", ours.IssueFor("gw.example.jp", "https://other.example.jp/", "sips:other.example.jp", "sip:a@other.example.jp"), true},
		{"of another authority", others.IssueFor("gw.example.jp", "sip:gw.example.jp"), false},
		{"not for a server", ours.Issue("gw.example.jp"), false},
	} {
		g := &gateway{domain: "gw.example.jp", trunk: &trunk{authorities: pool}}
		err := g.prove(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{test.shown.Leaf}}, x509.ExtKeyUsageServerAuth)
		if (err == nil) != test.want {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
	g := &gateway{trunk: &trunk{authorities: pool, certified: "192.0.2.1"}}
	if g.prove(&tls.ConnectionState{}, x509.ExtKeyUsageServerAuth) == nil {
		t.Error("no certificate is enough")
	}
	leaf := *ours.IssueFor("192.0.2.1").Leaf
	if certifiedAddr(&leaf, netip.MustParseAddr("192.0.2.1")) == nil {
		t.Error("a name is taken for an address")
	}
	leaf.IPAddresses = append(leaf.IPAddresses, netip.MustParseAddr("192.0.2.1").AsSlice())
	if err := certifiedAddr(&leaf, netip.MustParseAddr("192.0.2.1")); err != nil {
		t.Error(err)
	}
}
