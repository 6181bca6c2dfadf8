// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/service"
)

// What has no room, or cannot be written, is counted and said; a file that was moved away is made anew.
func TestRecorder(t *testing.T) {
	t.Parallel()
	said := new(bytes.Buffer)
	c := &core{log: slog.New(slog.NewTextHandler(said, nil)), records: recorder{wake: make(chan struct{}, 1)}}
	name := filepath.Join(t.TempDir(), "calls.jsonl")
	use := func(name string) { c.settings.Store(&settings{options: &Options{CDR: service.Path(name)}}) }
	lines := func(name string) int {
		t.Helper()
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(text, []byte("\n"))
	}
	use(name)
	one := record{line: []byte("{}\n")}
	for range 2 {
		c.records.add(one)
	}
	c.write()
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	c.records.add(one)
	c.write()
	if old, fresh := lines(name+".1"), lines(name); old != 2 || fresh != 1 || said.Len() > 0 {
		t.Errorf("%d and %d lines, want 2 and 1; said %s", old, fresh, said)
	}
	for range maxRecords + 3 {
		c.records.add(one)
	}
	c.write()
	if n := lines(name); n != maxRecords+1 || !strings.Contains(said.String(), "lost=3 ") {
		t.Errorf("%d lines, said %s", n, said)
	}
	said.Reset()
	use(filepath.Join(name, "x"))
	c.records.add(one)
	c.write()
	if !strings.Contains(said.String(), "lost=1 ") || !strings.Contains(said.String(), "not a directory") {
		t.Errorf("said %s", said)
	}
}

// A file that cannot be written is refused at once.
func TestRecorderRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.write("file", "")
	if err := b.edge.Reload(b.parse(", cdr: file/calls.jsonl")); err == nil || !strings.Contains(err.Error(), "file/calls.jsonl: not a directory") {
		t.Errorf("got %v", err)
	}
}
