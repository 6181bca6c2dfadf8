// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/bench/load"
	"github.com/kyozon/kyozon/ip"
)

// comparison is a run of this program.
type comparison struct {
	options
	place    *place
	programs []program
	running  []*running
	lines    []bench.Line
	where    map[string]string // where our processor time goes, by work
	out      io.Writer         // the lines
	progress io.Writer
}

// run measures what o asks for. Lines go to out as soon as they are there.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	if err := installed(o); err != nil {
		return err
	}
	allowFiles(o.idle)
	o.idle = min(o.idle, mostConnections())
	c := &comparison{options: o, programs: programs(o), where: make(map[string]string), out: out, progress: progress}
	c.say("expect about %v; %d idle connections", o.expected().Round(time.Minute/2), o.idle)
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
	for _, w := range idleWorks() {
		if !c.Chosen(w.name) {
			continue
		}
		lines, err := c.place.idle(ctx, w, c.beside([]string{"haproxy", "nginx"}), c.idle)
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
		if !c.Chosen(w.name) {
			continue
		}
		if err := c.compare(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}

// beside returns ours, then those of the peers that there are.
func (c *comparison) beside(peers []string) (all []program) {
	for _, pr := range c.programs {
		if pr.name == ours || slices.Contains(peers, pr.name) {
			all = append(all, pr)
		}
	}
	return all
}

// runners returns the programs that do a work, ours first, when it has seen that each does it right.
func (c *comparison) runners(ctx context.Context, w work) (all []*running, peers []string, err error) {
	for _, pr := range c.beside(w.peers) {
		i := slices.IndexFunc(c.running, func(r *running) bool { return r.name == pr.name })
		if err := c.place.check(ctx, c.running[i], w.at); err != nil {
			return nil, nil, err
		}
		if all = append(all, c.running[i]); pr.name != ours {
			peers = append(peers, pr.name)
		}
	}
	return all, peers, nil
}

// compare has the programs do a work in turn, round by round.
func (c *comparison) compare(ctx context.Context, w work) error {
	runners, peers, err := c.runners(ctx, w)
	if err != nil {
		return err
	}
	s := make(bench.Series)
	for round := range c.Rounds {
		for _, r := range turn(runners, round) {
			one, err := c.measure(ctx, w.name, r.name, func(ctx context.Context) (bench.Sample, error) {
				return w.do(ctx, c.place, r, ip.V6, c.Time)
			})
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", round+1, r.name, err)
			}
			s[r.name] = append(s[r.name], one)
		}
	}
	c.print(s.Compare(w.name, ours, []bench.Metric{bench.Rate, bench.CPU}, peers...)...)
	if w.also&latency != 0 {
		if err := c.latencies(ctx, w, runners); err != nil {
			return err
		}
	}
	if w.also&crossing != 0 {
		if err := c.crossings(ctx, w, runners[0]); err != nil {
			return err
		}
	}
	if c.options.profile != "" {
		if err := c.profile(ctx, w, runners[0]); err != nil {
			return err
		}
	}
	_, _, err = c.runners(ctx, w) // they still do
	return err
}

// turn returns the order of a round: each program is first in its turn, so that none always comes after the same rest.
func turn[T any](all []T, round int) []T {
	first := round % len(all)
	return slices.Concat(all[first:], all[:first])
}

// latencies has the programs do the same requests at the same pace, which is a part of what HAProxy can do in that
// round, asked by the same client.
func (c *comparison) latencies(ctx context.Context, w work, runners []*running) error {
	runners = slices.DeleteFunc(slices.Clone(runners), func(r *running) bool { return r.name == caddy }) // it can not
	pace := slices.IndexFunc(runners, func(r *running) bool { return r.name == "haproxy" })
	s := make(bench.Series)
	ask := func(r *running, rate float64) (bench.Sample, error) {
		what := w.name + " saturated"
		if rate > 0 {
			what = fmt.Sprintf("%s at %.0f/s", w.name, rate)
		}
		return c.measure(ctx, what, r.name, func(ctx context.Context) (bench.Sample, error) {
			plan := load.Plan{Connections: connections, Rate: rate, Time: c.Time}
			return c.place.drive(ctx, r, r.at(ip.V6, w.at.port), plan)
		})
	}
	for round := range c.Rounds {
		most, err := ask(runners[pace], 0)
		if err != nil {
			return fmt.Errorf("find pace, round %d: %w", round+1, err)
		}
		for _, r := range turn(runners, round) {
			one, err := ask(r, part*most.Rate)
			if err != nil {
				return fmt.Errorf("pace, round %d, %s: %w", round+1, r.name, err)
			}
			s[r.name] = append(s[r.name], one)
		}
	}
	c.print(s.Compare(w.name, ours, []bench.Metric{bench.P99}, "haproxy", "nginx")...)
	return nil
}

// crossings has ours do a work for IPv6 clients and for IPv4 clients, in turn. Both end at IPv4 servers. A difference
// of a hundredth needs more rounds than one of a tenth.
func (c *comparison) crossings(ctx context.Context, w work, r *running) error {
	const direct = "4to4"
	s := make(bench.Series)
	names := map[ip.Family]string{ip.V6: ours, ip.V4: direct}
	for round := range c.crossing {
		for _, f := range turn([]ip.Family{ip.V6, ip.V4}, round) {
			one, err := c.measure(ctx, "crossing-"+w.name, names[f], func(ctx context.Context) (bench.Sample, error) {
				return w.do(ctx, c.place, r, f, c.Time)
			})
			if err != nil {
				return fmt.Errorf("crossing, round %d, %s: %w", round+1, names[f], err)
			}
			s[names[f]] = append(s[names[f]], one)
		}
	}
	c.print(s.Compare("crossing-"+w.name, ours, []bench.Metric{bench.Rate, bench.CPU}, direct)...)
	return nil
}

// measure measures once and says what came of it.
func (c *comparison) measure(ctx context.Context, what, who string,
	do func(context.Context) (bench.Sample, error)) (bench.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Time+30*time.Second)
	defer cancel()
	one, err := do(ctx)
	if err == nil {
		c.say("%-32s %-8s %10.2f /s %10.2f µs %10.2f µs p99", what, who, one.Rate, one.CPU, one.P99)
	}
	return one, err
}

func (c *comparison) print(lines ...bench.Line) {
	c.lines = append(c.lines, lines...)
	for _, l := range lines {
		fmt.Fprintln(c.out, l)
	}
}

func (c *comparison) say(format string, a ...any) { fmt.Fprintf(c.progress, format+"\n", a...) }
