// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/config"
)

// TestExamples: each site file among the examples is right.
func TestExamples(t *testing.T) {
	t.Parallel()
	all, err := filepath.Glob("../../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sites := 0
	for _, name := range all {
		if strings.HasSuffix(name, "-lab.yaml") { // package lab brings those up
			continue
		}
		sites++
		if _, err := config.Load(name, protocols()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if sites < 7 {
		t.Errorf("%d sites among %q", sites, all)
	}
}
