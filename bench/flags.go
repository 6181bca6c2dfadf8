// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Flags is what comparisons have in common on their command lines.
type Flags struct {
	Kyozon string // path of the binary
	Rounds int
	Time   time.Duration // of one measurement; 0 where the works are not measured by time
	Only   string        // name of a work, or the beginning of names; "" means all
}

// What the flags can ask of a machine.
const (
	MaxRounds = 50
	MaxTime   = time.Minute
)

// ErrUsage means that the command line is wrong.
var ErrUsage = errors.New("usage")

// Main runs a comparison as a program, until it is interrupted.
func Main(run func(ctx context.Context, args []string, out, progress io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// Add adds the flags to f, with what they are as the defaults. There is no -time without one.
func (o *Flags) Add(f *flag.FlagSet, works []string) {
	f.StringVar(&o.Kyozon, "kyozon", "bin/kyozon", "`path` of the binary to measure")
	f.IntVar(&o.Rounds, "rounds", o.Rounds, "paired `rounds` of each work")
	if o.Time != 0 {
		f.DurationVar(&o.Time, "time", o.Time, "length of one measurement, in whole seconds")
	}
	f.StringVar(&o.Only, "only", "", "measure only the works whose `name` begins so: "+strings.Join(works, ", "))
}

// Check returns what is wrong with the command line that f has read: ErrUsage.
func (o *Flags) Check(f *flag.FlagSet, works []string) error {
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("%w: takes no arguments", ErrUsage)
	case o.Rounds < 1 || o.Rounds > MaxRounds:
		return fmt.Errorf("%w: rounds must be 1 to %d", ErrUsage, MaxRounds)
	case f.Lookup("time") != nil && (o.Time < time.Second || o.Time > MaxTime || o.Time%time.Second != 0):
		return fmt.Errorf("%w: time must be 1s to %v, in whole seconds", ErrUsage, MaxTime)
	case !slices.ContainsFunc(works, o.Chosen):
		return fmt.Errorf("%w: no work is called %q: there are %s", ErrUsage, o.Only, strings.Join(works, ", "))
	}
	return nil
}

// Chosen says whether a work is to be measured.
func (o *Flags) Chosen(work string) bool { return strings.HasPrefix(work, o.Only) }

// Micros returns a time in microseconds.
func Micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
