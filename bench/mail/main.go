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

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

// options are the flags.
type options struct {
	bench.Flags
	gosmtp   string // path of the proxy made with go-smtp; "" leaves it out
	sessions int
	messages int
}

// maxSessions is what a process can hold with a client and a server for each, if it may open 20,000 files.
const maxSessions = 9900

const maxMessages = 100_000

func main() {
	lab.Main()
	serveMailboxes()
	bench.Main(func(ctx context.Context, args []string, out, progress io.Writer) error {
		o, err := parse(args, progress)
		if err != nil {
			return err
		}
		return run(ctx, o, out, progress)
	})
}

// parse reads the command line. What it has to say goes to out.
func parse(args []string, out io.Writer) (options, error) {
	o := options{Flags: bench.Flags{Rounds: 7}}
	f := flag.NewFlagSet("mail", flag.ContinueOnError)
	f.SetOutput(out)
	o.Add(f, names())
	f.StringVar(&o.gosmtp, gosmtp, "bin/peers/gosmtp", "`path` of the proxy made with go-smtp; '' does without it")
	f.IntVar(&o.sessions, "sessions", maxSessions, "idle `sessions`")
	f.IntVar(&o.messages, "messages", 4000, "`messages` of a round")
	quick := f.Bool("quick", false, "100 sessions or messages, one round: shows that it works, measures little")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *quick {
		o.sessions, o.messages, o.Rounds = 100, 100, 1
	}
	switch {
	case o.sessions < 1 || o.sessions > maxSessions:
		return o, fmt.Errorf("%w: sessions must be 1 to %d", bench.ErrUsage, maxSessions)
	case o.messages < 1 || o.messages > maxMessages:
		return o, fmt.Errorf("%w: messages must be 1 to %d", bench.ErrUsage, maxMessages)
	}
	return o, o.Check(f, names())
}

// run measures what o asks for. Lines go to out as soon as they are there.
func run(ctx context.Context, o options, out, progress io.Writer) (err error) {
	p, err := openPlace(ctx, o.Kyozon, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.lab.Close()) }()
	for _, w := range works() {
		if !o.Chosen(w.name) {
			continue
		}
		lines, err := p.idle(ctx, w, o.sessions)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		for _, l := range lines {
			fmt.Fprintln(out, l)
		}
	}
	for _, s := range sends() {
		if !o.Chosen(s.name) {
			continue
		}
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
