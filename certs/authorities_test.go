// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
)

// TestParseAuthorities takes all certificates of a file or none.
func TestParseAuthorities(t *testing.T) {
	t.Parallel()
	one, two := servertest.NewAuthority(t, "one").PEM(), servertest.NewAuthority(t, "two").PEM()
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")})
	other := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("of somebody")})
	for _, tt := range []struct {
		name string
		data []byte
		want []string
		err  error // nil with no names: any
	}{
		{"one", one, []string{"one"}, nil},
		{"two, with text", slices.Concat([]byte("# ours\n"), one, []byte("\n# theirs\n"), two, []byte("end\n")), []string{"one", "two"}, nil},
		{"with a key", slices.Concat(other, one), []string{"one"}, nil},
		{"nothing", nil, nil, errNoCA},
		{"text", []byte("no PEM at all"), nil, errNoCA},
		{"a key alone", other, nil, errNoCA},
		{"cut off", slices.Concat(one, two[:len(two)/2]), nil, errAfter},
		{"no certificate", slices.Concat(one, broken), nil, nil},
	} {
		all, err := ParseAuthorities(tt.data)
		var got []string
		for _, c := range all {
			got = append(got, c.Subject.CommonName)
		}
		if !slices.Equal(got, tt.want) || tt.err != nil && !errors.Is(err, tt.err) || (err == nil) != (tt.want != nil) {
			t.Errorf("%s: got %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// FuzzParseAuthorities holds what is read to what the standard library reads, which passes over what it cannot read.
func FuzzParseAuthorities(f *testing.F) {
	one, two := servertest.NewAuthority(f, "one").PEM(), servertest.NewAuthority(f, "two").PEM()
	f.Add(one)
	f.Add(slices.Concat([]byte("text\n"), one, two))
	f.Add(slices.Concat(one, two[:len(two)/2]))
	f.Add(bytes.ReplaceAll(one, []byte("CERTIFICATE"), []byte("X509 CRL")))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ParseAuthorities(data)
		if (err == nil) != (len(all) > 0) {
			t.Fatalf("got %d certificates, %v", len(all), err)
		}
		if err != nil {
			return
		}
		library := x509.NewCertPool()
		if !library.AppendCertsFromPEM(data) {
			t.Fatal("the standard library finds none")
		}
		ours := Pool(all)
		for _, c := range all { // it leaves out blocks with headers, which ours must not hide
			if c.Raw == nil {
				t.Fatal("a certificate of nothing")
			}
		}
		if withHeaders(data) || library.Equal(ours) {
			return
		}
		t.Fatalf("got %d certificates, the standard library others", len(all))
	})
}

func withHeaders(data []byte) bool {
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return false
		}
		if data = rest; len(block.Headers) > 0 {
			return true
		}
	}
}
