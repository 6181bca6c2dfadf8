// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command l4 measures the kernel plane: the same streams from IPv6 clients to IPv4-only servers, in turn by the kernel plane,
// the user plane, HAProxy and nginx, and, as what cannot be beaten, routed to a server that has IPv6. ../README.md says how.
//
//	client ══ edge: kernel plane ══ two IPv4-only servers      one lab, whose edge has the program at its interfaces
//	client ══ edge: user plane, HAProxy, nginx, the kernel's own routing ══ the same, and a server with IPv6      another
package main

import (
	"context"
	"flag"
	"io"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/bench/load"
	"github.com/kyozon/kyozon/lab"
)

func main() {
	lab.Main()
	load.Main()
	bench.Main(func(ctx context.Context, args []string, out, progress io.Writer) error {
		o, err := parse(args, progress)
		if err != nil {
			return err
		}
		return run(ctx, o, out, progress)
	})
}

// parse reads the command line. What it has to say goes to out.
func parse(args []string, out io.Writer) (bench.Flags, error) {
	o := bench.Flags{Rounds: 9, Time: 3 * time.Second}
	f := flag.NewFlagSet("l4", flag.ContinueOnError)
	f.SetOutput(out)
	o.Add(f, names())
	quick := f.Bool("quick", false, "one round of a second: shows that it works, measures little")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if *quick {
		o.Rounds, o.Time = 1, time.Second
	}
	return o, o.Check(f, names())
}
