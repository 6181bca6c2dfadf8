// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
)

// TestPairErrors: each certificate that cannot be used has its place, with and without one in the section itself.
func TestPairErrors(t *testing.T) {
	t.Parallel()
	gone := certs.Pair{Certificate: filepath.Join(t.TempDir(), "gone.pem"), Key: "gone.key"}
	_, err := certs.Open([]certs.Pair{gone, gone})
	for _, test := range []struct {
		own  bool
		want string
	}{
		{true, "web.tls.certificate web.tls.also.0.certificate"},
		{false, "web.tls.also.0.certificate web.tls.also.1.certificate"},
	} {
		var got []string
		for _, err := range PairErrors(err, test.own, "web", "tls") {
			at, ok := errors.AsType[*Error](err)
			if !ok || !errors.Is(at.Err, fs.ErrNotExist) || at.Warning {
				t.Fatalf("got %v", err)
			}
			got = append(got, strings.Join(at.Path, "."))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("own %v: got %v, want %s", test.own, got, test.want)
		}
	}
}

// TestOf: what a service has wrong bears its name and its place; warnings are no mistakes.
func TestOf(t *testing.T) {
	t.Parallel()
	warning := &Error{Err: errURL, Warning: true}
	if err := Of("shop", []error{warning}); err != nil {
		t.Errorf("got %v", err)
	}
	err := Of("shop", []error{warning, PoolError("new", &backend.FileError{Key: "ca", Err: errURL}), errUpdate})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 2 {
		t.Fatalf("got %v", err)
	}
	first, _ := errors.AsType[*Error](joined.Unwrap()[0])
	if first.Service != "shop" || strings.Join(first.Path, ".") != "pools.new.tls.ca" || !errors.Is(first.Err, errURL) {
		t.Errorf("got %+v", first)
	}
	if got := joined.Unwrap()[1].Error(); got != "service shop: "+errUpdate.Error() {
		t.Errorf("got %q", got)
	}
}
