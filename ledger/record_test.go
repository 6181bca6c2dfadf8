// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/state"
	"github.com/kyozon/kyozon/state/statetest"
)

func TestRecord(t *testing.T) {
	t.Parallel()
	want := lease{hi: 0x20010db812340000, bits: 48, use: shared, first: 1, last: 1 << 31}
	standIn, got, err := decodeLease(leaseKey(0x64400007), want.encode())
	if err != nil || standIn != 0x64400007 || got != want {
		t.Errorf("lease %x %+v, %v", standIn, got, err)
	}
	until, standIn, got, err := decodePast(pastKey(7, 9), want.encode())
	if err != nil || until != 7 || standIn != 9 || got != want {
		t.Errorf("past %d %d %+v, %v", until, standIn, got, err)
	}
	if diff := cmp.Diff("2001:db8:1234::/48", want.prefix().String()); diff != "" {
		t.Error(diff)
	}
}

func TestRecordErrors(t *testing.T) {
	t.Parallel()
	good := lease{hi: 1<<32 | 1, bits: 64}.encode()
	with := func(at int, b byte) []byte {
		v := bytes.Clone(good)
		v[at] = b
		return v
	}
	key := leaseKey(0x64400007)
	tests := []struct {
		name       string
		key, value []byte
	}{
		{"short key", key[:len(key)-1], good},
		{"short", key, good[1:]},
		{"long", key, append(bytes.Clone(good), 0)},
		{"version", key, with(0, 2)},
		{"use", key, with(1, 3)},
		{"kept for a prefix", key, with(1, byte(kept))},
		{"bits", key, with(2, 63)},
		{"bits beyond the prefix", key, with(2, 32)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, _, err := decodeLease(tt.key, tt.value); !errors.Is(err, errRecord) {
				t.Errorf("decodeLease: %v", err)
			}
			store := statetest.NewVolatile()
			if err := store.Apply(t.Context(), state.Op{Key: tt.key, Value: tt.value}); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(store, options(), quiet()); !errors.Is(err, errRecord) {
				t.Errorf("Open: %v", err)
			}
		})
	}
	for _, m := range []string{"{", `{"version":2}`, `{"version":1,"pool":"x"}`} {
		store := statetest.NewVolatile()
		if err := store.Apply(t.Context(), state.Op{Key: []byte(metaKey), Value: []byte(m)}); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(store, options(), quiet()); err == nil {
			t.Errorf("Open with meta %s: no error", m)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, l := range []lease{{}, {hi: 1 << 32, bits: 64, first: 1, last: 2}, {bits: 32, use: shared}, {use: kept}} {
		f.Add(leaseKey(7), l.encode())
		f.Add(pastKey(7, 9), l.encode())
	}
	f.Fuzz(func(t *testing.T, key, v []byte) {
		if standIn, l, err := decodeLease(key, v); err == nil {
			if k := leaseKey(standIn); !bytes.Equal(k[len(leasePrefix):], key[len(leasePrefix):]) {
				t.Errorf("key %x becomes %x", key, k)
			}
			if !bytes.Equal(l.encode(), v) {
				t.Errorf("value %x becomes %x", v, l.encode())
			}
			if l.use != kept && l.prefix() != l.prefix().Masked() {
				t.Errorf("value %x is of %v", v, l.prefix())
			}
		}
		if until, standIn, l, err := decodePast(key, v); err == nil {
			if k := pastKey(until, standIn); !bytes.Equal(k[len(pastPrefix):], key[len(pastPrefix):]) ||
				!bytes.Equal(l.encode(), v) {
				t.Errorf("%x %x becomes %x %x", key, v, k, l.encode())
			}
		}
	})
}
