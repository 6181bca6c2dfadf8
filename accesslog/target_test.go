// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWritable: a file that could be made is well and is not made; one in no folder, or that is a folder, is not.
func TestWritable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "log")
	if err := Writable(file); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it was made")
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Writable(file); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{dir, filepath.Join(dir, "gone", "log"), filepath.Join(file, "log")} {
		if Writable(bad) == nil {
			t.Errorf("%s is well", bad)
		}
	}
}
