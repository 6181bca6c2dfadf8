// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/ip"
)

// comparison is a run of this program.
type comparison struct {
	options
	place    *place
	programs []program
	running  []*running
	lines    []bench.Line
	noise    map[string]float64 // spread of our CPU over the rounds, by work
	out      io.Writer          // the lines
	progress io.Writer
}

// run measures what o asks for. Lines go to out as soon as they are there.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	if err := installed(); err != nil {
		return err
	}
	c := &comparison{options: o, programs: programs(o.kyozon), noise: make(map[string]float64), out: out,
		progress: progress}
	if c.place, err = openPlace(ctx, c.programs, progress); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.place.close()) }()
	if err := c.all(ctx); err != nil {
		return err
	}
	if o.record != "" {
		return c.write(o.record)
	}
	return nil
}

func (c *comparison) all(ctx context.Context) error {
	names := chosen(c.only)
	if names[idleWork] {
		c.idle = min(c.idle, mostConnections())
		c.say("%s: %d connections", idleWork, c.idle)
		lines, err := c.place.idle(ctx, c.programs, c.idle)
		if err != nil {
			return err
		}
		c.print(lines...)
	}
	for _, pr := range c.programs {
		r, err := c.place.start(ctx, pr)
		if err != nil {
			return err
		}
		c.running = append(c.running, r)
	}
	for _, w := range works() {
		if !names[w.name] {
			continue
		}
		if err := c.compare(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// compare has all programs do a work in turn, round by round.
func (c *comparison) compare(ctx context.Context, w work) error {
	s := make(bench.Series)
	for round := range c.rounds {
		for _, r := range c.running {
			if err := c.measure(ctx, s, r.name, w, r, ip.V6); err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, r.name, err)
			}
		}
	}
	c.noise[w.name] = bench.Spread(cpus(s[ours]))
	c.print(s.Compare(w.name, ours, c.peers()...)...)
	if c.options.profile != "" {
		if err := c.profile(ctx, w); err != nil {
			return err
		}
	}
	if !w.also {
		return nil
	}
	return c.crossings(ctx, w)
}

// crossings has ours do a work for IPv6 clients and for IPv4 clients, in turn. Both end at IPv4 servers. A difference
// of a hundredth needs more rounds than one of a tenth.
func (c *comparison) crossings(ctx context.Context, w work) error {
	const direct = "4to4"
	s := make(bench.Series)
	clients := []ip.Family{ip.V6, ip.V4}
	for round := range c.crossing {
		for _, f := range clients {
			name := map[ip.Family]string{ip.V6: ours, ip.V4: direct}[f]
			if err := c.measure(ctx, s, name, w, c.running[0], f); err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, name, err)
			}
		}
		slices.Reverse(clients) // who comes second gains nothing by it
	}
	c.print(s.Compare("crossing-"+w.name, ours, direct)...)
	return nil
}

// measure adds a sample to the series.
func (c *comparison) measure(ctx context.Context, s bench.Series, name string, w work, r *running, f ip.Family) error {
	ctx, cancel := context.WithTimeout(ctx, c.time+30*time.Second)
	defer cancel()
	one, err := w.do(ctx, c.place, r, f, c.time)
	if err != nil {
		return err
	}
	s[name] = append(s[name], one)
	c.say("%-18s %-8s %10.2f /s %10.2f µs", w.name, name, one.Rate, one.CPU)
	return nil
}

// profile has ours do the work once more and writes what its processors did.
func (c *comparison) profile(ctx context.Context, w work) error {
	done := make(chan error, 1)
	var page []byte
	go func() {
		var err error
		page, err = c.place.profile(ctx, c.time)
		done <- err
	}()
	r := c.running[0]
	_, err := w.do(ctx, c.place, r, ip.V6, c.time)
	if err := errors.Join(err, <-done); err != nil {
		return fmt.Errorf("take profile: %w", err)
	}
	if err := os.MkdirAll(c.options.profile, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.options.profile, w.name+".pprof"), page, 0o644)
}

func (c *comparison) peers() (names []string) {
	for _, pr := range c.programs[1:] {
		names = append(names, pr.name)
	}
	return names
}

func (c *comparison) print(lines ...bench.Line) {
	c.lines = append(c.lines, lines...)
	for _, l := range lines {
		fmt.Fprintln(c.out, l)
	}
}

func (c *comparison) say(format string, a ...any) { fmt.Fprintf(c.progress, format+"\n", a...) }

func cpus(samples []bench.Sample) (all []float64) {
	for _, s := range samples {
		all = append(all, s.CPU)
	}
	return all
}
