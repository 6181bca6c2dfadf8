// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command sip measures telephony beside other programs, in one lab. ../README.md says how.
//
//	client, telephones (IPv6) ══ kyozon, Kamailio, a proxy made with sipgo, in turn ══ server
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

	"github.com/kyozon/kyozon/lab"
)

// options are the flags.
type options struct {
	kyozon, sipgo string // paths of the binaries; "" leaves sipgo out
	server4       bool
	rate          float64       // calls a second
	time          time.Duration // of a round
	rounds        int
	phones        int // that register again and again
	registrations int // that stay
	calls         int // that stay
	settle        time.Duration
	profile       string // a folder for profiles of ours; "" takes none
	only          string // name of a work, or the beginning of names; "" means all
}

// number returns how much is done in a round at a rate.
func (o *options) number(rate float64) int { return max(int(rate*o.time.Seconds()), 1) }

const memoryName = "sip-memory"

var errUsage = errors.New("usage")

func main() {
	lab.Main()
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
	f := flag.NewFlagSet("sip", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.kyozon, "kyozon", "bin/kyozon", "`path` of the binary to measure")
	f.StringVar(&o.sipgo, "sipgo", "bin/peers/sipgo", "`path` of the proxy made with sipgo; '' does without it")
	f.BoolVar(&o.server4, "server4", false, "the server of the calls has IPv4, so that ours must relay media")
	f.Float64Var(&o.rate, "rate", 3000, "`calls` a second; registrations are twice as many")
	f.DurationVar(&o.time, "time", 3*time.Second, "how long a program is measured in a round")
	f.IntVar(&o.rounds, "rounds", 7, "paired `rounds`")
	f.IntVar(&o.phones, "phones", 10_000, "`telephones` that register again and again")
	f.IntVar(&o.registrations, "registrations", 1_000_000, "`registrations` that stay")
	f.IntVar(&o.calls, "calls", 20_000, "`calls` that stay")
	f.DurationVar(&o.settle, "settle", 40*time.Second, "how long to wait until transactions have ended")
	f.StringVar(&o.profile, "profile", "", "`folder` to write processor profiles of ours into, one for each work, which are then not measured fairly")
	f.StringVar(&o.only, "only", "", "measure only the works whose `name` begins so: "+strings.Join(names(), ", "))
	f.BoolVar(&quick, "quick", false, "little of everything, one round: shows that it works, measures little")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if quick {
		o.rate, o.time, o.rounds, o.phones, o.registrations, o.calls, o.settle = 200, time.Second/2, 1, 50, 200, 50, 0
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%w: takes no arguments", errUsage)
	case o.rate <= 0 || o.rate > 100_000 || o.time <= 0 || o.time > time.Minute || o.rounds < 1 || o.rounds > 50:
		return o, fmt.Errorf("%w: the rate must be above 0 and at most 100000, the time 1m, the rounds 50", errUsage)
	case min(o.phones, o.registrations, o.calls) < 1 || max(o.registrations, o.calls, o.phones) > 10_000_000:
		return o, fmt.Errorf("%w: telephones, registrations and calls must be 1 to 10000000", errUsage)
	case len(chosen(o.only)) == 0 && !strings.HasPrefix(memoryName, o.only):
		return o, fmt.Errorf("%w: no work is called %q: there are %s", errUsage, o.only, strings.Join(names(), ", "))
	}
	return o, nil
}

func names() (all []string) {
	for _, w := range works() {
		all = append(all, w.name)
	}
	return append(all, memoryName)
}

func chosen(prefix string) (all []work) {
	for _, w := range works() {
		if strings.HasPrefix(w.name, prefix) {
			all = append(all, w)
		}
	}
	return all
}

// run measures what o asks for. Lines go to out as soon as they are there.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	p, err := openPlace(ctx, o, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.lab.Close()) }()
	for _, w := range chosen(o.only) {
		lines, err := p.compare(ctx, w, o)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		for _, l := range lines {
			fmt.Fprintln(out, l)
		}
	}
	if !strings.HasPrefix(memoryName, o.only) {
		return nil
	}
	lines, err := p.memory(ctx, o)
	if err != nil {
		return fmt.Errorf("%s: %w", memoryName, err)
	}
	for _, l := range lines {
		fmt.Fprintln(out, l)
	}
	return nil
}
