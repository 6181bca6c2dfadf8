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
	"strconv"
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
	most     map[string]float64 // streams that each program has borne, with lateness
}

const (
	settle  = 1500 * time.Millisecond // until each stream goes as it will
	allowed = 0.001                   // loss
)

// work is one thing that is measured.
type work struct {
	name string
	do   func(*comparison, context.Context) error
}

func works() []work {
	return []work{
		{"rtp-user", (*comparison).user}, {"rtp-kernel", (*comparison).kernel}, {"rtp-streams", (*comparison).streamsBorne},
		{"rtp-jitter", (*comparison).jitter}, {"rtp-memory", (*comparison).memory}, {"rtp-program", (*comparison).program},
	}
}

func names() (all []string) {
	for _, w := range works() {
		all = append(all, w.name)
	}
	return all
}

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
	for _, w := range works() {
		if named[w.name] {
			if err := w.do(c, ctx); err != nil {
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
		return c.place.kyozon(ctx, "user")
	case lanes:
		return c.place.kyozon(ctx, "kernel")
	case engine:
		return c.place.rtpengine(ctx)
	}
	return c.place.route(), nil
}

// once has a fresh relay carry n streams.
func (c *comparison) once(ctx context.Context, name string, n int) (result, error) {
	return c.carry(ctx, name, n, settle, c.time)
}

// carry is once for a time, after another until each stream goes as it will.
func (c *comparison) carry(ctx context.Context, name string, n int, settle, d time.Duration) (r result, err error) {
	relay, err := c.fresh(ctx, name)
	if err != nil {
		return r, err
	}
	defer relay.stop()
	flows, err := c.place.flows(ctx, relay, n)
	if err != nil {
		return r, err
	}
	l := load{flows: flows, settle: settle, d: d}
	if name == lanes {
		l.settled = func(ctx context.Context) error { return relay.awaitLanes(ctx, uint64(2*n)) }
	}
	if err := l.prove(ctx); err != nil {
		return r, fmt.Errorf("%s, before the load: %w", name, err)
	}
	if r, err = exert(ctx, l, relay.program); err != nil {
		return r, err
	}
	fmt.Fprintf(c.progress, "%-10s %5d streams: %8d packets, loss %.3f %%, with what was late %.3f %%, %6.2f µs of the machine, %6.2f µs of the relay, p50 %v, p99 %v\n",
		name, n, r.received, 100*r.loss(), 100*r.lossInTime(), each(r.cpu, r), each(r.process, r), r.p50, r.p99)
	if relay.lanes != nil {
		if r.lanes, err = relay.lanes(); err != nil {
			return r, err
		}
	}
	if r.loss() <= allowed {
		if err := l.prove(ctx); err != nil {
			return r, fmt.Errorf("%s, after the load: %w", name, err)
		}
	}
	return r, nil
}

// each is time for each packet that arrived, in µs.
func each(d time.Duration, r result) float64 { return d.Seconds() * 1e6 / float64(max(r.received, 1)) }

// user compares what a packet costs above plain routing, by the clock of the whole machine; and by the relay's own.
func (c *comparison) user(ctx context.Context) error {
	machine, own, err := c.costs(ctx, ours)
	if err == nil {
		c.print(machine, "rtp-user", bench.CPU)
		c.print(own, "rtp-user-process", bench.CPU)
	}
	return err
}

// kernel is user for the kernel plane.
func (c *comparison) kernel(ctx context.Context) error {
	machine, _, err := c.costs(ctx, lanes)
	if err == nil {
		c.print(machine, "rtp-kernel", bench.CPU)
	}
	return err
}

var errNotInKernel = errors.New("the kernel plane does not carry the streams: look for its reason in what kyozon has written")

// mostLost is what may be lost where it is measured what a packet costs: those that are lost cost less.
const mostLost = 0.5

var errLost = errors.New("too many packets are lost")

// costs measures what a packet costs with one of ours and with rtpengine.
func (c *comparison) costs(ctx context.Context, which string) (machine, own bench.Series, err error) {
	machine, own = make(bench.Series), make(bench.Series)
	for range c.rounds {
		floor, err := c.once(ctx, routing, c.streams)
		if err != nil {
			return nil, nil, err
		}
		for of, name := range map[string]string{ours: which, engine: engine} {
			r, err := c.once(ctx, name, c.streams)
			if err != nil {
				return nil, nil, err
			}
			if r.loss() > mostLost {
				return nil, nil, fmt.Errorf("%w: %.1f %% with %s", errLost, 100*r.loss(), name)
			}
			if most := 2 * c.streams; name == lanes && r.lanes < uint64(most-most/20) { // a few may have only begun
				return nil, nil, fmt.Errorf("%w: it has %d lanes, not %d", errNotInKernel, r.lanes, most)
			}
			machine[of] = append(machine[of], bench.Sample{CPU: each(r.cpu, r) - each(floor.cpu, floor)})
			own[of] = append(own[of], bench.Sample{CPU: each(r.process, r)})
		}
	}
	return machine, own, nil
}

func (c *comparison) print(s bench.Series, name string, m bench.Metric) {
	for _, l := range s.Compare(name, ours, []bench.Metric{m}, engine) {
		fmt.Fprintln(c.out, l)
	}
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
	const n = 4000
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
		values[name] = grown / n / 1024
	}
	fmt.Fprintln(c.out, bench.Line{Name: "rtp-memory", Metric: "kb_per_call", Ours: values[ours], Peer: engine, Theirs: values[engine],
		Ratio: values[ours] / values[engine]})
	return nil
}

// grown returns how much n calls add.
func (c *comparison) grown(ctx context.Context, r *relayed, n int) (float64, error) {
	few, err := c.place.flows(ctx, r, 500) // what there is but once
	if err == nil {
		_, err = exert(ctx, load{flows: few, settle: settle, d: time.Second}, r.program)
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
	if _, err := exert(ctx, load{flows: flows, settle: settle, d: time.Second}, r.program); err != nil {
		return 0, err
	}
	after, err := r.program.Memory()
	return float64(after - before), err
}

// programGoal is what the program may take for a packet of one of 32,768 streams, in nanoseconds.
const programGoal = 180

var measured = regexp.MustCompile(`(?m)^BenchmarkStreams/(\S+?)/streams=32768-\d+\s.*\s([0-9.]+) ns/packet\b`)

var errNoFigures = errors.New("the benchmark of package kernel has printed no figures")

// program measures what the program of the kernel plane takes for a packet. It runs the benchmark in the tree.
func (c *comparison) program(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "./kernel", "-run", "^$", "-bench", "Streams", "-benchtime", "655360x")
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
		ns, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.out, bench.Line{Name: "rtp-program-" + m[1], Metric: "ns", Ours: ns, Peer: "goal", Theirs: programGoal, Ratio: ns / programGoal})
	}
	return nil
}
