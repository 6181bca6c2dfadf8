// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// ErrFailed means that the lab came up, but not every attempt was good.
var ErrFailed = errors.New("lab: attempts failed")

// Options are how a lab is run.
type Options struct {
	Out    io.Writer // progress and the table; nil means silence
	Kyozon string    // path of the kyozon binary that hosts run; "" means this program
	Hold   bool      // Run keeps the lab up until ctx is done, and says how to enter a host
}

// Run brings up the lab, tries every attempt, writes the table, and takes the lab down. Returns ErrFailed, and what
// Up returns.
func Run(ctx context.Context, f *File, o Options) (err error) {
	l, err := Up(ctx, f, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	results := l.TryAll(ctx)
	l.say("")
	if o.Out != nil {
		if err := WriteTable(o.Out, results); err != nil {
			return err
		}
	}
	if o.Hold {
		l.hold(ctx)
	}
	for _, r := range results {
		if !r.OK {
			l.sayEnded()
			return ErrFailed
		}
	}
	if o.Hold {
		return nil // it was to be interrupted
	}
	return ctx.Err()
}

// hold keeps the lab up until ctx is done.
func (l *Lab) hold(ctx context.Context) {
	l.say("\nThe lab is up until you interrupt it. To enter a host:")
	for _, h := range l.sorted() {
		l.say("  %-12s nsenter --net=%[2]s/%[3]d --mount=%[2]s/%[4]d --uts=%[2]s/%[5]d", h.name,
			fmt.Sprintf("/proc/%d/fd", os.Getpid()), h.net.Fd(), h.mnt.Fd(), h.uts.Fd())
	}
	<-ctx.Done()
}

// sayEnded shows the last words of daemons that should be running.
func (l *Lab) sayEnded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.daemons {
		select {
		case <-p.done:
			l.say("\n%s ended: %v\n%s", p, p.err, indent(p.Log()))
		default:
		}
	}
}

// WriteTable writes one line for each result.
func WriteTable(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CROSSING\tFROM\tTO\tRESULT")
	for _, r := range results {
		crossing, verdict := "-", "FAILED"
		if !r.Attempt.Crossing.IsZero() {
			crossing = r.Attempt.Crossing.String()
		}
		if r.OK {
			verdict = "ok"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s  %s\n", crossing, r.Attempt.From, r.Attempt.to(), verdict, r.Detail)
	}
	return t.Flush()
}
