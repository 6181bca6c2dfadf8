// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/bench/benchtest"
	"github.com/kyozon/kyozon/bench/load"
	"github.com/kyozon/kyozon/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	load.Main()
	os.Exit(m.Run())
}

// TestQuick has the program, and its peers, carry bulk both ways for a moment.
func TestQuick(t *testing.T) {
	lines := benchtest.Quick(t, func(ctx context.Context, kyozon string, out, progress io.Writer) error {
		return run(ctx, bench.Flags{Kyozon: kyozon, Rounds: 1, Time: 200 * time.Millisecond, Only: "l4-bulk"}, out, progress)
	})
	for _, work := range []string{"l4-bulk-up", "l4-bulk-down"} {
		for _, pr := range programs()[1:] {
			benchtest.Line(t, lines, work, "rate", pr.name)
			benchtest.Line(t, lines, work, "cpu_us", pr.name)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		ok   bool
	}{
		{"", true}, {"-quick", true}, {"-rounds 3 -time 5s -only l4-bulk", true}, {"-rounds 0", false}, {"-rounds 51", false},
		{"-time 500ms", false}, {"-time 0s", false}, {"-time 1500ms", false}, {"-time 2m", false}, {"-only web", false}, {"more", false}, {"-x", false},
	} {
		if _, err := parse(strings.Fields(tt.args), io.Discard); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.args, err)
		}
	}
}

// TestMeasured: the figures are found in what go test prints.
func TestMeasured(t *testing.T) {
	t.Parallel()
	const out = "goos: linux\nBenchmarkProgram/6→4/flows=1/to-client-2         \t  655360\t     416 ns/op\t  90.00 ns/least\t        95.47 ns/packet\t  20.00 ns/restore\n" +
		"BenchmarkProgram/6→4/new-16   \t  100000\t 3677 ns/op\t 1531 ns/packet\nPASS\n"
	found := measured.FindAllStringSubmatch(out, -1)
	if len(found) != 2 || found[0][1] != "6→4" || found[0][2] != "flows=1/to-client" || found[0][3] != "flows=1" || found[0][4] != "95.47" ||
		found[1][2] != "new" || found[1][4] != "1531" {
		t.Errorf("found %q", found)
	}
}
