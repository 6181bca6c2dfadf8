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
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/kyozon/kyozon/bench/load"
	"github.com/kyozon/kyozon/lab"
)

// options are the flags.
type options struct {
	kyozon   string // path of the binary
	caddy    string // path of Caddy; "" means without
	rounds   int
	crossing int           // rounds of one crossing beside another
	time     time.Duration // of one measurement
	only     string        // name of a work, or the beginning of names; "" means all
	idle     int           // connections
	profile  string        // directory for profiles of ours; "" means none
	record   string        // file for the results; "" means none
	command  string        // the flags as they were given, for the record
}

// within bounds what the flags can ask of a machine.
const (
	maxRounds = 50
	maxTime   = time.Minute
	maxIdle   = 100_000
)

var errUsage = errors.New("usage")

func main() {
	lab.Main()
	load.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if o.command = strings.Join(os.Args[1:], " "); err == nil {
		err = run(ctx, o, os.Stdout, os.Stderr)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parse reads the command line. What it has to say goes to out.
func parse(args []string, out io.Writer) (options, error) {
	var o options
	var quick bool
	f := flag.NewFlagSet("web", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.kyozon, "kyozon", "bin/kyozon", "`path` of the binary to measure")
	f.StringVar(&o.caddy, "caddy", "bin/peers/caddy", "`path` of Caddy, or nothing to do without it")
	f.IntVar(&o.rounds, "rounds", 15, "paired `rounds` of each work")
	f.IntVar(&o.crossing, "crossing-rounds", 15, "paired `rounds` of 6→4 beside 4→4")
	f.DurationVar(&o.time, "time", time.Second, "length of one measurement, in whole seconds")
	f.StringVar(&o.only, "only", "", "measure only the works whose `name` begins so: "+strings.Join(names(), ", "))
	f.IntVar(&o.idle, "idle", 10_000, "idle `connections`, if the limit on open files allows as many")
	f.StringVar(&o.profile, "profile", "", "`directory` to write profiles of ours to, one for each work")
	f.StringVar(&o.record, "record", "", "`file` to write the results to, with what they were measured on")
	f.BoolVar(&quick, "quick", false, "one round and few connections: shows that it works, measures little")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if quick {
		o.rounds, o.crossing, o.time, o.idle = 1, 1, time.Second, 500
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%w: takes no arguments", errUsage)
	case min(o.rounds, o.crossing) < 1 || max(o.rounds, o.crossing) > maxRounds:
		return o, fmt.Errorf("%w: rounds must be 1 to %d", errUsage, maxRounds)
	case o.time < time.Second || o.time > maxTime || o.time%time.Second != 0:
		return o, fmt.Errorf("%w: time must be 1s to %v, in whole seconds", errUsage, maxTime)
	case o.idle < 1 || o.idle > maxIdle:
		return o, fmt.Errorf("%w: idle must be 1 to %d", errUsage, maxIdle)
	case len(chosen(o.only)) == 0:
		return o, fmt.Errorf("%w: no work is called %q: there are %s", errUsage, o.only, strings.Join(names(), ", "))
	}
	return o, nil
}

// expected returns how long the run will take, if nothing is slow.
func (o options) expected() time.Duration {
	names, all := chosen(o.only), 15*time.Second // for the lab and the programs
	for _, w := range idleWorks() {
		if names[w.name] {
			all += 3 * (3*time.Second + time.Duration(o.idle)*200*time.Microsecond)
		}
	}
	one := o.time + 200*time.Millisecond // and for the client to start
	for _, w := range works() {
		if !names[w.name] {
			continue
		}
		n := o.rounds * (1 + len(w.peers))
		if w.also&latency != 0 {
			n += o.rounds * 4
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
