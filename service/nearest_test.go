// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"strings"
	"testing"
)

// TestNearest: a word with a few wrong letters is found.
func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"listen", "pools", "protocol", "health"}
	for text, want := range map[string]string{
		"lisen": "listen", "listne": "listen", "Listen": "listen", "pool": "pools", "protocl": "protocol",
		"x": "", "heath": "health", "clients": "", strings.Repeat("p", 100): "", "": "",
	} {
		if got := Nearest(text, known); got != want {
			t.Errorf("nearest(%q) = %q, want %q", text, got, want)
		}
	}
}
