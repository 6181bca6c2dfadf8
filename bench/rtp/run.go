// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

// comparison is a run of this program.
type comparison struct {
	options
	place    *place
	out      io.Writer // the lines
	progress io.Writer
	most     map[string]float64 // streams that each program has borne
}

const (
	settle  = 1500 * time.Millisecond // until each stream has been heard
	allowed = 0.001                   // loss
	step    = 1.2                     // between the numbers of streams that are tried
)

func names() []string { return []string{"rtp-user", "rtp-streams", "rtp-jitter", "rtp-memory"} }

// chosen returns the names that begin with only.
func chosen(only string) map[string]bool {
	found := make(map[string]bool)
	for _, name := range names() {
		if strings.HasPrefix(name, only) {
			found[name] = true
		}
	}
	return found
}

// run measures what o asks for. Lines go to out as soon as they are there.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	c := &comparison{options: o, out: out, progress: progress, most: make(map[string]float64)}
	if c.place, err = openPlace(ctx, o.kyozon, lab.Options{Out: progress}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.place.close()) }()
	named := chosen(o.only)
	for _, w := range []struct {
		name string
		do   func(context.Context) error
	}{{"rtp-user", c.user}, {"rtp-streams", c.streamsBorne}, {"rtp-jitter", c.jitter}, {"rtp-memory", c.memory}} {
		if named[w.name] {
			if err := w.do(ctx); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	return nil
}

// fresh starts a relay afresh, by its name.
func (c *comparison) fresh(ctx context.Context, name string) (*relayed, error) {
	switch name {
	case ours:
		return c.place.kyozon(ctx)
	case engine:
		return c.place.rtpengine(ctx)
	}
	return c.place.route(), nil
}

// once has a fresh relay carry n streams.
func (c *comparison) once(ctx context.Context, name string, n int) (r result, err error) {
	relay, err := c.fresh(ctx, name)
	if err != nil {
		return r, err
	}
	defer relay.stop()
	flows, err := c.place.flows(ctx, relay, n)
	if err != nil {
		return r, err
	}
	r, err = exert(ctx, flows, relay.program, settle, c.time)
	if err == nil {
		fmt.Fprintf(c.progress, "%-10s %5d streams: %8d packets, loss %.3f %%, %6.2f µs of the machine, %6.2f µs of the relay, p50 %v, p99 %v\n", name, n,
			r.received, 100*r.loss(), each(r.cpu, r), each(r.process, r), r.p50, r.p99)
	}
	return r, err
}

// each is time for each packet that arrived, in µs.
func each(d time.Duration, r result) float64 { return d.Seconds() * 1e6 / float64(r.received) }

// user compares what a packet costs above plain routing, by the clock of the whole machine; and by the relay's own.
func (c *comparison) user(ctx context.Context) error {
	machine, own := make(bench.Series), make(bench.Series)
	for range c.rounds {
		floor, err := c.once(ctx, routing, c.streams)
		if err != nil {
			return err
		}
		for _, name := range []string{ours, engine} {
			r, err := c.once(ctx, name, c.streams)
			if err != nil {
				return err
			}
			machine[name] = append(machine[name], bench.Sample{CPU: each(r.cpu, r) - each(floor.cpu, floor)})
			own[name] = append(own[name], bench.Sample{CPU: each(r.process, r)})
		}
	}
	c.print(machine, "rtp-user", bench.CPU)
	c.print(own, "rtp-user-process", bench.CPU)
	return nil
}

func (c *comparison) print(s bench.Series, name string, m bench.Metric) {
	for _, l := range s.Compare(name, ours, []bench.Metric{m}, engine) {
		fmt.Fprintln(c.out, l)
	}
}

// streamsBorne compares how many streams are carried with almost no loss.
func (c *comparison) streamsBorne(ctx context.Context) error {
	s := make(bench.Series)
	for _, name := range []string{ours, engine} {
		for n := float64(c.streams); n <= maxStreams; n *= step {
			r, err := c.once(ctx, name, int(n))
			if err != nil {
				return err
			}
			if r.loss() > allowed {
				if r, err = c.once(ctx, name, int(n)); err != nil { // something else may have run
					return err
				}
			}
			if r.loss() > allowed {
				break
			}
			c.most[name] = n
		}
		s[name] = []bench.Sample{{Rate: max(c.most[name], 1)}}
	}
	c.print(s, "rtp-streams", bench.Rate)
	return nil
}

// jitter compares how long 99 of 100 packets take at 70 % of what rtpengine can bear, or at the number that was asked for.
func (c *comparison) jitter(ctx context.Context) error {
	n, s := c.streams, make(bench.Series)
	if most := c.most[engine]; most > 0 {
		n = int(0.7 * most)
	}
	for range c.rounds {
		for _, name := range []string{ours, engine, routing} {
			r, err := c.once(ctx, name, n)
			if err != nil {
				return err
			}
			s[name] = append(s[name], bench.Sample{P99: float64(r.p99) / 1e3})
		}
	}
	for _, l := range s.Compare("rtp-jitter", ours, []bench.Metric{bench.P99}, engine, routing) {
		fmt.Fprintln(c.out, l)
	}
	return nil
}

// memory compares what each call adds to the resident memory of a fresh relay.
func (c *comparison) memory(ctx context.Context) error {
	values := make(map[string]float64)
	n := min(4*c.streams, maxStreams)
	for _, name := range []string{ours, engine} {
		relay, err := c.fresh(ctx, name)
		if err != nil {
			return err
		}
		grown, err := c.grown(ctx, relay, n)
		relay.stop()
		if err != nil {
			return err
		}
		values[name] = grown / float64(n) / 1024
	}
	fmt.Fprintln(c.out, bench.Line{Name: "rtp-memory", Metric: "kb_per_call", Ours: values[ours], Peer: engine, Theirs: values[engine],
		Ratio: values[ours] / values[engine]})
	return nil
}

// grown returns how much n calls add.
func (c *comparison) grown(ctx context.Context, r *relayed, n int) (float64, error) {
	few, err := c.place.flows(ctx, r, 500) // what there is but once
	if err == nil {
		_, err = exert(ctx, few, r.program, settle, time.Second)
	}
	if err != nil {
		return 0, err
	}
	before, err := r.program.Memory()
	if err != nil {
		return 0, err
	}
	flows, err := c.place.flows(ctx, r, n)
	if err != nil {
		return 0, err
	}
	if _, err := exert(ctx, flows, r.program, settle, time.Second); err != nil {
		return 0, err
	}
	after, err := r.program.Memory()
	return float64(after - before), err
}
