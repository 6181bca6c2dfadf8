// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	serveMailboxes()
	os.Exit(m.Run())
}

// TestQuick is the comparison in its shortest form, so that it works when somebody wants to know.
func TestQuick(t *testing.T) {
	binary := servertest.Kyozon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var lines bytes.Buffer
	err := run(ctx, options{kyozon: binary, sessions: 10, messages: 20, rounds: 1}, &lines, t.Output())
	if (errors.Is(err, lab.ErrRoot) || errors.Is(err, lab.ErrMissing)) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sends() {
		for _, m := range s.metrics {
			if !strings.Contains(lines.String(), "bench "+s.name+" "+string(m)+" ours=") {
				t.Errorf("no line of %s, %s\n%s", s.name, m, lines.String())
			}
		}
	}
	for _, w := range works() {
		for _, want := range []string{"kb_per_session ours= nginx=", "kb_per_session ours= goal=", "heap_kb_per_session ours= goal="} {
			metric, rest, _ := strings.Cut(want, " ")
			_, peer, _ := strings.Cut(rest, " ")
			n := 0
			for line := range strings.Lines(lines.String()) {
				if strings.HasPrefix(line, "bench "+w.name+" "+metric+" ours=") && strings.Contains(line, " "+peer) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d lines of %s, %s, want one\n%s", n, w.name, want, lines.String())
			}
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		ok   bool
	}{
		{"", true}, {"-quick", true}, {"-sessions 5 -only mail-imap-idle-tls", true}, {"-sessions 0", false}, {"-sessions 9901", false}, {"-messages 0", false}, {"-rounds 51", false},
		{"-only web", false}, {"more", false}, {"-x", false},
	} {
		if _, err := parse(strings.Fields(tt.args), io.Discard); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.args, err)
		}
	}
}
