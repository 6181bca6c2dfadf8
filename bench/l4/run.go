// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
)

// comparison is a run of this program.
type comparison struct {
	bench.Flags
	places   map[bool]*place // that of the kernel plane, and that of the others
	out      io.Writer       // the lines
	progress io.Writer
}

// run measures what o asks for. Lines go to out as soon as they are there.
func run(ctx context.Context, o bench.Flags, out, progress io.Writer) (err error) {
	c := &comparison{Flags: o, places: make(map[bool]*place), out: out, progress: progress}
	defer func() {
		for _, p := range c.places {
			err = errors.Join(err, p.close())
		}
	}()
	for _, w := range works() {
		if !o.Chosen(w.name) {
			continue
		}
		if err := c.open(ctx); err != nil {
			return err
		}
		if err := c.compare(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	if o.Chosen(programWork) {
		return c.program(ctx)
	}
	return nil
}

// open brings up the labs and the programs, once.
func (c *comparison) open(ctx context.Context) (err error) {
	if len(c.places) > 0 {
		return nil
	}
	for kernel, name := range map[bool]string{true: "kernel", false: "others"} {
		if c.places[kernel], err = openPlace(ctx, name, c.Kyozon, c.progress); err != nil {
			delete(c.places, kernel)
			return err
		}
	}
	for _, pr := range programs() {
		if pr.daemon == nil {
			continue
		}
		p := c.places[pr.kernel]
		d, err := pr.daemon(p, pr.number)
		if err != nil {
			return fmt.Errorf("prepare %s: %w", pr.name, err)
		}
		if _, err := p.edge.Start(ctx, d); err != nil {
			return err
		}
	}
	return c.places[true].warm(ctx)
}

// compare has the programs do a work in turn, round by round.
func (c *comparison) compare(ctx context.Context, w work) error {
	all := programs()
	var peers []string
	for _, pr := range all[1:] {
		peers = append(peers, pr.name)
	}
	before, err := c.places[true].carried(ctx)
	if err != nil {
		return err
	}
	s := make(bench.Series)
	for round := range c.Rounds {
		first := round % len(all)
		for _, pr := range slices.Concat(all[first:], all[:first]) {
			one, err := c.measure(ctx, w, pr)
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, pr.name, err)
			}
			s[pr.name] = append(s[pr.name], one)
		}
	}
	if after, err := c.places[true].carried(ctx); err != nil || after-before < int64(100*c.Rounds) {
		return errors.Join(fmt.Errorf("%w: %d packets", errElsewhere, after-before), err)
	}
	for _, l := range s.Compare(w.name, ours, []bench.Metric{bench.Rate, bench.CPU}, peers...) {
		fmt.Fprintln(c.out, l)
	}
	return nil
}

func (c *comparison) measure(ctx context.Context, w work, pr program) (bench.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Time+30*time.Second)
	defer cancel()
	one, err := w.do(ctx, c.places[pr.kernel], pr, c.Time)
	if err == nil {
		fmt.Fprintf(c.progress, "%-16s %-8s %12.2f /s %12.2f µs\n", w.name, pr.name, one.Rate, one.CPU)
	}
	return one, err
}

// goal is what the program may take for a packet, in nanoseconds.
func goal(kind string) float64 {
	switch kind {
	case "flows=1":
		return 100
	case "flows=32768":
		return 190
	}
	return 1200
}

var measured = regexp.MustCompile(`(?m)^BenchmarkProgram/(\S+?)/((flows=1|flows=32768|new)(?:/to-server|/to-client)?)-\d+\s.*\s([0-9.]+) ns/packet\b`)

var errNoFigures = errors.New("the benchmark of package kernel has printed no figures")

// program measures what the program takes for a packet. It runs the benchmark in the tree.
func (c *comparison) program(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "./kernel", "-run", "^$", "-bench", "Program", "-benchtime", "655360x")
	cmd.Stderr, cmd.Env = c.progress, append(os.Environ(), "KYOZON_LAB=require")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("run benchmark of package kernel: %w: %s", err, out)
	}
	found := measured.FindAllStringSubmatch(string(out), -1)
	if len(found) == 0 {
		return errNoFigures
	}
	for _, m := range found {
		ns, err := strconv.ParseFloat(m[4], 64)
		if err != nil {
			return err
		}
		g := goal(m[3])
		fmt.Fprintln(c.out, bench.Line{Name: programWork + "-" + m[1] + "-" + strings.ReplaceAll(m[2], "/", "-"), Metric: "ns", Ours: ns, Peer: "goal", Theirs: g, Ratio: ns / g})
	}
	return nil
}
