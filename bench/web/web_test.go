// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/bench/benchtest"
	"github.com/kyozon/kyozon/bench/load"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	load.Main()
	code := m.Run()
	if left := leaked(); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of the goroutines beside this one, once those that are ending have had time to. The one
// that the standard library keeps for signals does not count.
func leaked() (left []string) {
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
		left = slices.DeleteFunc(all[1:], func(s string) bool { return strings.Contains(s, "os/signal.loop") })
		if len(left) == 0 {
			break
		}
	}
	return left
}

// The whole comparison in its shortest form, so that it works when somebody wants to know: every line must come.
func TestQuick(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := options{Flags: bench.Flags{Rounds: 1, Time: 300 * time.Millisecond}, crossing: 1, idle: 100,
		profile: filepath.Join(dir, "profiles"), record: filepath.Join(dir, "result.md")}
	lines := benchtest.Quick(t, func(ctx context.Context, kyozon string, out, progress io.Writer) error {
		o.Kyozon = kyozon
		return run(ctx, o, out, progress)
	})
	compareLines(t, lines)
	record, err := os.ReadFile(o.record)
	if err != nil || !strings.Contains(string(record), lines) {
		t.Errorf("the record lacks the lines: %v\n%s", err, record)
	}
	for _, w := range works() {
		text, err := os.ReadFile(filepath.Join(o.profile, w.name+".txt"))
		if err != nil || !strings.Contains(string(record), string(text)) {
			t.Errorf("where the time of %s goes: %v, %q", w.name, err, text)
		}
	}
}

// compareLines checks that each line is there, once and in order, and that its figures are figures.
func compareLines(t *testing.T, out string) {
	t.Helper()
	var want []string
	for _, w := range idleWorks() {
		for _, figure := range []string{"kb_per_conn haproxy", "kb_per_conn nginx", "kb_per_conn goal", "heap_kb_per_conn goal"} {
			want = append(want, w.name+" "+figure)
		}
	}
	for _, w := range works() {
		for _, peer := range w.peers {
			if peer != caddy {
				want = append(want, w.name+" rate "+peer, w.name+" cpu_us "+peer)
			}
		}
		if w.also&latency != 0 {
			want = append(want, w.name+" p99_us haproxy", w.name+" p99_us nginx")
		}
		if w.also&crossing != 0 {
			want = append(want, "crossing-"+w.name+" rate 4to4", "crossing-"+w.name+" cpu_us 4to4")
		}
	}
	line := regexp.MustCompile(`^bench (\S+ \S+) ours=(-?[0-9.]+) (\w+)=(-?[0-9.]+) ratio=(-?[0-9.]+)(?: quartiles=[0-9.]+)?$`)
	var got []string
	for l := range strings.Lines(out) {
		m := line.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			t.Errorf("not a line: %q", l)
			continue
		}
		got = append(got, m[1]+" "+m[3])
		if figures := m[2] + " " + m[4] + " " + m[5]; !strings.Contains(l, "kb_per_conn") && strings.Contains(figures, "-") {
			t.Errorf("a rate or a time is negative: %s", l)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("lines:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	full := options{Flags: bench.Flags{Kyozon: "bin/kyozon", Rounds: 15, Time: time.Second}, caddy: "bin/peers/caddy", crossing: 15, idle: 10_000}
	quick := full
	quick.Rounds, quick.crossing, quick.idle = 1, 1, 500
	only := full
	only.Only, only.Time = "web-h1", 3*time.Second
	tests := []struct {
		args string
		want options
		err  error
	}{
		{"", full, nil},
		{"-quick", quick, nil},
		{"-only web-h1 -time 3s", only, nil},
		{"-only mail", options{}, bench.ErrUsage},
		{"-rounds 0", options{}, bench.ErrUsage},
		{"-rounds 51", options{}, bench.ErrUsage},
		{"-crossing-rounds 0", options{}, bench.ErrUsage},
		{"-time 500ms", options{}, bench.ErrUsage},
		{"-time 2500ms", options{}, bench.ErrUsage},
		{"-time 2m", options{}, bench.ErrUsage},
		{"-idle 0", options{}, bench.ErrUsage},
		{"-idle 1000000", options{}, bench.ErrUsage},
		{"web", options{}, bench.ErrUsage},
		{"-h", options{}, flag.ErrHelp},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			got, err := parse(strings.Fields(tt.args), io.Discard)
			if !errors.Is(err, tt.err) || err == nil && got != tt.want {
				t.Errorf("parse = %+v, %v; want %+v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for f, want := range map[ip.Family]string{ip.V4: "203.0.113.13", ip.V6: "2001:db8:100::13"} {
		if got := addressOf(f, 2).String(); got != want {
			t.Errorf("the third program has %s, want %s", got, want)
		}
	}
}

func FuzzParseHeap(f *testing.F) {
	f.Add([]byte("# Alloc = 1\n# HeapAlloc = 4096000\n# HeapSys = 2\n"))
	f.Add([]byte("# HeapAlloc = -1\n"))
	f.Add([]byte("# HeapAlloc = 99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, page []byte) {
		n, err := parseHeap(page)
		if n < 0 || (err != nil) == (n != 0) && !bytes.Contains(page, []byte("# HeapAlloc = 0")) {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// TestKernelPlane: what was written by hand stays when the rest is written anew.
func TestKernelPlane(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "RESULTS.md")
	if got := kernelPlane(path); got != "" {
		t.Errorf("no file: %q", got)
	}
	c := &comparison{}
	const text = "## The kernel plane\n\nIt is fast.\n"
	for _, before := range []string{"# Old\n\n" + text, ""} {
		if before != "" {
			if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.write(path); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !strings.HasSuffix(string(got), "\n\n"+text) || strings.Contains(string(got), "# Old") || strings.Count(string(got), text) != 1 {
			t.Errorf("written: %q, %v", got, err)
		}
	}
}
