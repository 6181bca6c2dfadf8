// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestIndex: it has what a map has, whatever comes and goes.
func TestIndex(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	in, all := newIndex[int](), make(map[string]*Transaction[int])
	for n := range 20_000 {
		text := fmt.Sprint(r.IntN(5000))
		x, hash := in.find([]byte(text))
		if x != all[text] {
			t.Fatalf("%d: %q: got %p, want %p", n, text, x, all[text])
		}
		if x == nil {
			x = &Transaction[int]{User: n, key: entry[int]{text: text, hash: hash}}
			in.put(&x.key, x)
			all[text] = x
		} else if r.IntN(2) > 0 {
			in.drop(&x.key)
			in.drop(&x.key) // once more does nothing
			delete(all, text)
		}
		if in.count != len(all) {
			t.Fatalf("%d: %d in it, want %d", n, in.count, len(all))
		}
	}
	if 2*in.count > len(in.slots) {
		t.Errorf("%d slots for %d", len(in.slots), in.count)
	}
	left := make(map[string]bool)
	for x := range in.all {
		if text := x.key.text; all[text] != x || left[text] {
			t.Errorf("%q is there twice, or is not in it", text)
		}
		left[x.key.text] = true
	}
	for text, x := range all {
		if !left[text] {
			t.Errorf("%q is not yielded", text)
		}
		in.drop(&x.key)
	}
	if in.count > 0 {
		t.Errorf("%d are left", in.count)
	}
	for range in.all {
		t.Error("something is yielded of nothing")
	}
}
