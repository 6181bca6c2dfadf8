// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command rtp measures the relay of media: the same streams between an IPv6 client and an IPv4-only server, in turn by ours
// and by rtpengine in user space, and, as what cannot be beaten, routed to a server that has IPv6. ../README.md says how.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/kyozon/kyozon/lab"
)

// options are the flags.
type options struct {
	kyozon  string // path of the binary
	rounds  int
	time    time.Duration // of one measurement
	streams int
	only    string // name of a work, or the beginning of names; "" means all
}

// processors is how many of Go's there are at least: those who send hold on to theirs while they wait.
const processors = 8

const (
	maxRounds  = 50
	maxTime    = time.Minute
	maxStreams = 20_000 // of 25,000 pairs of ports
)

var errUsage = errors.New("usage")

func main() {
	lab.Main()
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), processors))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if err == nil {
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
	f := flag.NewFlagSet("rtp", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.kyozon, "kyozon", "bin/kyozon", "`path` of the binary to measure")
	f.IntVar(&o.rounds, "rounds", 9, "paired `rounds` of each work")
	f.DurationVar(&o.time, "time", 3*time.Second, "length of one measurement, in whole seconds")
	f.IntVar(&o.streams, "streams", 1000, "`calls` of one stream, with 50 packets a second each way")
	f.StringVar(&o.only, "only", "", "measure only the works whose `name` begins so: "+strings.Join(names(), ", "))
	f.BoolVar(&quick, "quick", false, "one round of a second with 200 streams: shows that it works, measures little")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if quick {
		o.rounds, o.time, o.streams = 1, time.Second, 200
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%w: takes no arguments", errUsage)
	case o.rounds < 1 || o.rounds > maxRounds:
		return o, fmt.Errorf("%w: rounds must be 1 to %d", errUsage, maxRounds)
	case o.time < time.Second || o.time > maxTime || o.time%time.Second != 0:
		return o, fmt.Errorf("%w: time must be 1s to %v, in whole seconds", errUsage, maxTime)
	case o.streams < 10 || o.streams > maxStreams:
		return o, fmt.Errorf("%w: streams must be 10 to %d", errUsage, maxStreams)
	case len(chosen(o.only)) == 0:
		return o, fmt.Errorf("%w: no work is called %q: there are %s", errUsage, o.only, strings.Join(names(), ", "))
	}
	return o, nil
}
