// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/kyozon/kyozon/config"
)

//go:generate go test -run ^TestDocument$ . -update

var update = flag.Bool("update", false, "rewrite docs/config.md")

// TestDocument holds that docs/config.md says what the comments of the site file's types say, those of the protocols'
// own sections too. go generate writes it.
func TestDocument(t *testing.T) {
	t.Parallel()
	const path = "../../docs/config.md"
	example, err := txtar.ParseFile("../../config/testdata/good/document.txtar")
	if err != nil {
		t.Fatal(err)
	}
	got, err := config.Document(protocols(), example.Files[0].Data)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/config.md is stale; run make generate (-file +comments):\n%s", diff)
	}
}
