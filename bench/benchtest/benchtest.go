// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package benchtest runs comparisons in their shortest form, so that they work when somebody wants to know.
package benchtest

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

// patience is how long a comparison may take on a busy machine.
const patience = 4 * time.Minute

// Quick runs a comparison of the program as it is built, and returns the lines that it prints.
func Quick(t *testing.T, run func(ctx context.Context, kyozon string, out, progress io.Writer) error) string {
	t.Helper()
	kyozon := servertest.Kyozon(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out bytes.Buffer
	err := run(ctx, kyozon, &out, t.Output())
	if (errors.Is(err, lab.ErrRoot) || errors.Is(err, lab.ErrMissing)) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Line fails the test unless there is one line of a work and a metric beside a peer.
func Line(t *testing.T, lines, work, metric, peer string) {
	t.Helper()
	n := 0
	for line := range strings.Lines(lines) {
		if strings.HasPrefix(line, "bench "+work+" "+metric+" ours=") && strings.Contains(line, " "+peer+"=") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d lines of %s, %s beside %s, want one\n%s", n, work, metric, peer, lines)
	}
}
