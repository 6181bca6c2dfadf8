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
	os.Exit(m.Run())
}

// TestQuick is the comparison in a short form, so that it works when somebody wants to know.
func TestQuick(t *testing.T) {
	binary := servertest.Kyozon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var lines bytes.Buffer
	var err error
	for _, only := range []string{"rtp-user", "rtp-kernel"} {
		err = errors.Join(err, run(ctx, options{kyozon: binary, rounds: 1, time: time.Second, streams: 20, only: only}, &lines, t.Output()))
	}
	if (errors.Is(err, lab.ErrRoot) || errors.Is(err, lab.ErrMissing)) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rtp-user", "rtp-user-process", "rtp-kernel"} {
		if n := strings.Count(lines.String(), "bench "+name+" cpu_us ours="); n != 1 {
			t.Errorf("%d lines of %s, want one\n%s", n, name, lines.String())
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		ok   bool
	}{
		{"", true}, {"-quick", true}, {"-rounds 3 -time 5s -only rtp-mem -streams 100", true}, {"-rounds 0", false}, {"-rounds 51", false},
		{"-time 500ms", false}, {"-time 1500ms", false}, {"-time 2m", false}, {"-only web", false}, {"-streams 9", false},
		{"-streams 100000", false}, {"more", false}, {"-x", false},
	} {
		if _, err := parse(strings.Fields(tt.args), io.Discard); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.args, err)
		}
	}
}

// TestDelays: a delay is counted where it is found again, an eighth too low at most.
func TestDelays(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{8, 9, 15, 16, 17, 1000, 12345, time.Millisecond, 20 * time.Millisecond, time.Second, time.Hour} {
		if got := delayOf(slotOf(int64(d))); got > d || float64(got) < float64(d)*7/8 {
			t.Errorf("%v is found as %v", d, got)
		}
	}
	for _, d := range []int64{-1, 0, 1} {
		if got := slotOf(d); got != 0 {
			t.Errorf("%d is in slot %d", d, got)
		}
	}
}
