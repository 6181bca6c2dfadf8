// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command mail measures mail services beside other programs, in one lab. ../README.md says how.
//
//	client (IPv6) ══ edge: kyozon, nginx, in turn ══ server (IPv4): mailboxes
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

	"github.com/kyozon/kyozon/lab"
)

// options are the flags.
type options struct {
	kyozon   string // path of the binary
	gosmtp   string // path of the proxy made with go-smtp; "" leaves it out
	sessions int
	messages int
	rounds   int
	only     string // name of a work, or the beginning of names; "" means all
}

// maxSessions is what a process can hold with a client and a server for each, if it may open 20,000 files.
const maxSessions = 9900

const (
	maxMessages = 100_000
	maxRounds   = 50
)

var errUsage = errors.New("usage")

func main() {
	lab.Main()
	serveMailboxes()
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
	f := flag.NewFlagSet("mail", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.kyozon, "kyozon", "bin/kyozon", "`path` of the binary to measure")
	f.StringVar(&o.gosmtp, gosmtp, "bin/peers/gosmtp", "`path` of the proxy made with go-smtp; '' does without it")
	f.IntVar(&o.sessions, "sessions", maxSessions, "idle `sessions`")
	f.IntVar(&o.messages, "messages", 4000, "`messages` of a round")
	f.IntVar(&o.rounds, "rounds", 7, "paired `rounds` of messages")
	f.StringVar(&o.only, "only", "", "measure only the works whose `name` begins so: "+strings.Join(names(), ", "))
	f.BoolVar(&quick, "quick", false, "100 sessions or messages, one round: shows that it works, measures little")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if quick {
		o.sessions, o.messages, o.rounds = 100, 100, 1
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%w: takes no arguments", errUsage)
	case o.sessions < 1 || o.sessions > maxSessions:
		return o, fmt.Errorf("%w: sessions must be 1 to %d", errUsage, maxSessions)
	case o.messages < 1 || o.messages > maxMessages || o.rounds < 1 || o.rounds > maxRounds:
		return o, fmt.Errorf("%w: messages must be 1 to %d, rounds 1 to %d", errUsage, maxMessages, maxRounds)
	case len(chosen(o.only)) == 0 && len(chosenSends(o.only)) == 0:
		return o, fmt.Errorf("%w: no work is called %q: there are %s", errUsage, o.only, strings.Join(names(), ", "))
	}
	return o, nil
}

// run measures what o asks for. Lines go to out as soon as they are there.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	p, err := openPlace(ctx, o.kyozon, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.lab.Close()) }()
	for _, w := range chosen(o.only) {
		lines, err := p.idle(ctx, w, o.sessions)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		for _, l := range lines {
			fmt.Fprintln(out, l)
		}
	}
	for _, s := range chosenSends(o.only) {
		lines, err := p.compare(ctx, s, o)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		for _, l := range lines {
			fmt.Fprintln(out, l)
		}
	}
	return nil
}
