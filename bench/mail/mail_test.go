// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/bench/benchtest"
	"github.com/kyozon/kyozon/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	serveMailboxes()
	os.Exit(m.Run())
}

// TestQuick has the program, and its peers, hold a few sessions and carry a few messages.
func TestQuick(t *testing.T) {
	lines := benchtest.Quick(t, func(ctx context.Context, kyozon string, out, progress io.Writer) error {
		return run(ctx, options{Flags: bench.Flags{Kyozon: kyozon, Rounds: 1}, sessions: 10, messages: 20}, out, progress)
	})
	for _, s := range sends() {
		for _, m := range s.metrics {
			benchtest.Line(t, lines, s.name, string(m), "haproxy")
		}
	}
	for _, w := range works() {
		benchtest.Line(t, lines, w.name, "kb_per_session", "nginx")
		benchtest.Line(t, lines, w.name, "kb_per_session", "goal")
		benchtest.Line(t, lines, w.name, "heap_kb_per_session", "goal")
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
