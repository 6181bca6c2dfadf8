// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package statetest

import (
	"errors"
	"testing"

	"github.com/kyozon/kyozon/state"
)

func TestVolatile(t *testing.T) {
	t.Parallel()
	Conformance(t, func(t *testing.T) (state.Store, func() state.Store) {
		v := NewVolatile()
		return v, func() state.Store { return v.Restart() }
	})
}

func TestCrash(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		moment Moment
		want   []string
	}{
		{"before", Before, []string{"a=1"}},
		{"written", Written, []string{"a=1"}},
		{"synced", Synced, []string{"a=2", "b=2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := NewVolatile()
			apply(t, v, put("a", "1", 0))
			v.Hook(func(m Moment) error {
				if m == tt.moment {
					v.Crash()
				}
				return nil
			})
			if err := v.Apply(t.Context(), put("a", "2", state.Any), put("b", "2", 0)); !errors.Is(err, ErrCrashed) {
				t.Errorf("Apply: %v, want ErrCrashed", err)
			}
			want(t, v.Restart(), "", tt.want...)
		})
	}
}

// A hook's error is a store that fails; only at Synced has it written all the same.
func TestHookError(t *testing.T) {
	t.Parallel()
	full := errors.New("disk full")
	for moment, values := range map[Moment][]string{Before: nil, Written: nil, Synced: {"a=1"}} {
		v := NewVolatile()
		v.Hook(func(m Moment) error {
			if m == moment {
				return full
			}
			return nil
		})
		if err := v.Apply(t.Context(), put("a", "1", 0)); !errors.Is(err, full) {
			t.Errorf("Apply: %v, want the hook's error", err)
		}
		want(t, v, "", values...)
		v.Hook(nil)
		apply(t, v, put("a", "2", state.Any))
		want(t, v.Restart(), "", "a=2")
	}
}
