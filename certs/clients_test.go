// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
)

// files writes who may come, and what they have revoked, if that is not nil.
func files(t testing.TB, ca, crl []byte) ClientFiles {
	t.Helper()
	f := ClientFiles{CA: filepath.Join(t.TempDir(), "ca.pem")}
	write := func(path string, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(f.CA, ca)
	if crl != nil {
		f.CRL = filepath.Join(t.TempDir(), "ca.crl")
		write(f.CRL, crl)
	}
	return f
}

// TestClientFiles tells what is wrong with files, and of lists that are late.
func TestClientFiles(t *testing.T) {
	t.Parallel()
	one, two := servertest.NewAuthority(t, "one"), servertest.NewAuthority(t, "two")
	branch := one.Below("branch")
	due := time.Now().Add(time.Hour)
	list := one.CRL(due)
	for _, tt := range []struct {
		name    string
		ca, crl []byte
		want    string // the end of the error
	}{
		{"no list", one.PEM(), nil, ""},
		{"its list", one.PEM(), list, ""},
		{"the list of one below", slices.Concat(one.PEM(), branch.PEM()), slices.Concat(list, branch.CRL(due)), ""},
		{"another's list", one.PEM(), two.CRL(due), "ca.crl: has a list that none of the authorities in ca has signed"},
		{"a list of the same name", servertest.NewAuthority(t, "one").PEM(), list, "ca.crl: has a list that none of the authorities in ca has signed"},
		{"no list in it", one.PEM(), one.PEM(), "ca.crl: holds no revocation list in PEM form"},
		{"a list cut off", one.PEM(), slices.Concat(list, list[:len(list)/2]), "ca.crl: is no PEM after the last certificate"},
		{"no authorities", nil, nil, "ca.pem: holds no certificate in PEM form"},
	} {
		_, err := OpenClients(files(t, tt.ca, tt.crl))
		if got := errText(err); !strings.HasSuffix(got, tt.want) || (tt.want == "") != (err == nil) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	if _, err := OpenClients(ClientFiles{CA: "nowhere.pem"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
	late, err := OpenClients(files(t, slices.Concat(one.PEM(), two.PEM()), slices.Concat(one.CRL(due), two.CRL(due.Add(-2*time.Hour)))))
	if err != nil {
		t.Fatal(err)
	}
	if got := late.Admission().Warning(time.Now()); !strings.HasPrefix(got, "a newer revocation list was due on ") {
		t.Errorf("a list that is late: got %q", got)
	}
	if got := late.Admission().Warning(due.Add(-3 * time.Hour)); got != "" {
		t.Errorf("before: got %q", got)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestChain finds the chain of which nothing is revoked, up to one of the authorities.
func TestChain(t *testing.T) {
	t.Parallel()
	one, two := servertest.NewAuthority(t, "one"), servertest.NewAuthority(t, "two")
	branch := one.Below("branch")
	alice, bob := one.Issue("alice").Leaf, branch.Issue("bob").Leaf
	carol := two.Issue("carol").Leaf // has the serial number of branch
	short, long := []*x509.Certificate{alice, one.Certificate}, []*x509.Certificate{bob, branch.Certificate, one.Certificate}
	due := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name     string
		crl      []byte
		verified [][]*x509.Certificate
		want     []*x509.Certificate
	}{
		{"no list", nil, [][]*x509.Certificate{short}, short},
		{"nothing revoked", one.CRL(due), [][]*x509.Certificate{long}, long},
		{"another is revoked", one.CRL(due, alice), [][]*x509.Certificate{long}, long},
		{"revoked", one.CRL(due, alice), [][]*x509.Certificate{short}, nil},
		{"one between is revoked", one.CRL(due, branch.Certificate), [][]*x509.Certificate{long}, nil},
		{"another way is not", one.CRL(due, alice), [][]*x509.Certificate{short, long}, long},
		{"another's number", one.CRL(due, branch.Certificate, carol), [][]*x509.Certificate{{carol, two.Certificate}}, nil}, // two is not trusted
		{"no chain", nil, nil, nil},
	} {
		c, err := OpenClients(files(t, one.PEM(), tt.crl))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Admission().Chain(tt.verified); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %d certificates, want %d", tt.name, len(got), len(tt.want))
		}
	}
}

// TestClientsLook takes changed files, and keeps what it has while they are not good.
func TestClientsLook(t *testing.T) {
	t.Parallel()
	one := servertest.NewAuthority(t, "one")
	f := files(t, one.PEM(), one.CRL(time.Now().Add(time.Hour)))
	c, err := OpenClients(f)
	if err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) {
		if err := os.WriteFile(f.CRL+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(f.CRL+".new", f.CRL); err != nil {
			t.Fatal(err)
		}
	}
	look := func(what string, wantChanged bool, wantErr string) {
		t.Helper()
		if changed, err := c.look(); changed != wantChanged || !strings.Contains(errText(err), wantErr) || (wantErr == "") != (err == nil) {
			t.Errorf("%s: got %v, %v", what, changed, err)
		}
	}
	first := c.Admission()
	look("nothing has changed", false, "")
	put([]byte("half a fi"))
	look("not good", false, "")
	look("still not", true, "holds no revocation list")
	look("and told once", false, "")
	if c.Admission() != first {
		t.Error("files that are not good were taken")
	}
	alice := one.Issue("alice").Leaf
	put(one.CRL(time.Now().Add(time.Hour), alice))
	look("good again", true, "")
	if c.Admission().Chain([][]*x509.Certificate{{alice, one.Certificate}}) != nil {
		t.Error("alice is not revoked")
	}
	look("nothing has changed", false, "")
	put(one.CRL(time.Now().Add(-time.Minute), alice))
	look("a list that is late is taken", true, "")
	look("and it is told that it is", true, "a newer revocation list was due on ")
	look("once", false, "")
	if c.Admission().Chain([][]*x509.Certificate{{alice, one.Certificate}}) != nil {
		t.Error("alice is not revoked by a list that is late")
	}
	put(one.CRL(time.Now().Add(-time.Second)))
	look("the next one too", true, "")
	look("of which it is told as well", true, "a newer revocation list was due on ")
}

// FuzzRevoke reads lists that may be anything: it takes none that it cannot read to the end.
func FuzzRevoke(f *testing.F) {
	one := servertest.NewAuthority(f, "one")
	alice := one.Issue("alice").Leaf
	list := one.CRL(time.Now().Add(time.Hour), alice)
	f.Add(list)
	f.Add(slices.Concat(list, list[:len(list)/2]))
	f.Add(slices.Concat([]byte("text\n"), list, one.PEM()))
	f.Add([]byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a := &Admission{authorities: []*x509.Certificate{one.Certificate}, revoked: make(map[serial]bool)}
		err := a.revoke(data)
		if len(a.revoked) > 0 && !a.revoked[serial{string(alice.RawIssuer), alice.SerialNumber.String()}] {
			t.Error("revoked what the authority has not")
		}
		if err == nil && a.due.IsZero() {
			t.Error("took a list without a list")
		}
	})
}
