// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command web measures the edge beside HAProxy and nginx: the same work, the same lab, in turn. ../README.md says how.
//
//	client ══ edge: kyozon, HAProxy, nginx, Caddy ══ two IPv4-only servers
//	  │         │
//	  │         └─ processor time and memory, of the one that has work
//	  └─ wrk, h2load, or this program
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/bench/load"
	"github.com/kyozon/kyozon/lab"
)

// options are the flags.
type options struct {
	bench.Flags
	caddy    string // path of Caddy; "" means without
	crossing int    // rounds of one crossing beside another
	idle     int    // connections
	profile  string // directory for profiles of ours; "" means none
	record   string // file for the results; "" means none
	command  string // the flags as they were given, for the record
}

const maxIdle = 100_000

func main() {
	lab.Main()
	load.Main()
	bench.Main(func(ctx context.Context, args []string, out, progress io.Writer) error {
		o, err := parse(args, progress)
		if err != nil {
			return err
		}
		o.command = strings.Join(args, " ")
		return run(ctx, o, out, progress)
	})
}

// parse reads the command line. What it has to say goes to out.
func parse(args []string, out io.Writer) (options, error) {
	o := options{Flags: bench.Flags{Rounds: 15, Time: time.Second}}
	f := flag.NewFlagSet("web", flag.ContinueOnError)
	f.SetOutput(out)
	o.Add(f, names())
	f.StringVar(&o.caddy, "caddy", "bin/peers/caddy", "`path` of Caddy, or nothing to do without it")
	f.IntVar(&o.crossing, "crossing-rounds", 15, "paired `rounds` of 6→4 beside 4→4")
	f.IntVar(&o.idle, "idle", 10_000, "idle `connections`, if the limit on open files allows as many")
	f.StringVar(&o.profile, "profile", "", "`directory` to write profiles of ours to, one for each work")
	f.StringVar(&o.record, "record", "", "`file` to write the results to, with what they were measured on")
	quick := f.Bool("quick", false, "one round and few connections: shows that it works, measures little")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *quick {
		o.Rounds, o.crossing, o.Time, o.idle = 1, 1, time.Second, 500
	}
	switch {
	case o.crossing < 1 || o.crossing > bench.MaxRounds:
		return o, fmt.Errorf("%w: rounds must be 1 to %d", bench.ErrUsage, bench.MaxRounds)
	case o.idle < 1 || o.idle > maxIdle:
		return o, fmt.Errorf("%w: idle must be 1 to %d", bench.ErrUsage, maxIdle)
	}
	return o, o.Check(f, names())
}

// expected returns how long the run will take, if nothing is slow.
func (o options) expected() time.Duration {
	all := 15 * time.Second // for the lab and the programs
	for _, w := range idleWorks() {
		if o.Chosen(w.name) {
			all += 3 * (3*time.Second + time.Duration(o.idle)*200*time.Microsecond)
		}
	}
	one := o.Time + 200*time.Millisecond // and for the client to start
	for _, w := range works() {
		if !o.Chosen(w.name) {
			continue
		}
		n := o.Rounds * (1 + len(w.peers))
		if w.also&latency != 0 {
			n += o.Rounds * 4
		}
		if w.also&crossing != 0 {
			n += o.crossing * 2
		}
		all += time.Duration(n) * one
		if o.profile != "" {
			all += o.profileTime() + 2*time.Second
		}
	}
	return all
}
