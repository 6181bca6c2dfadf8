// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/kyozon/kyozon/bench"
)

// work is what is measured in processor time.
type work struct {
	name     string
	programs []program
	rate     func(options) float64
	do       func(ctx context.Context, p *place, o options, measure func(n int, do func() error) error) error
}

func works() []work {
	call := func(o options) float64 { return o.rate }
	register := func(o options) float64 { return 2 * o.rate }
	return []work{
		{"sip-call", []program{{ours, kyozonDaemon}, {kamailio, kamailioDaemon(0)}, {sipgo, sipgoDaemon}}, call, doCalls},
		{"sip-register", []program{{ours, kyozonDaemon}, {kamailio, kamailioDaemon(0)}}, register, doRegisters},
		{"sip-register-digest", []program{{ours, kyozonDaemon}, {kamailio, kamailioDaemon(1)}}, register, doRegisters},
	}
}

// doCalls makes calls: some first, so that the program is warm.
func doCalls(ctx context.Context, p *place, o options, measure func(n int, do func() error) error) error {
	c, err := p.openCalls(false)
	if err != nil {
		return err
	}
	defer c.close()
	n := o.number(o.rate)
	if _, err = c.make(ctx, n/2+1, o.rate); err != nil {
		return err
	}
	return measure(n, func() error {
		_, err := c.make(ctx, n, o.rate)
		return err
	})
}

// doRegisters has telephones register, which have done so before: each has its challenge.
func doRegisters(ctx context.Context, p *place, o options, measure func(n int, do func() error) error) error {
	s, err := p.socket(netip.AddrPortFrom(load6(), portPhones))
	if err != nil {
		return err
	}
	r := openRegisters(s, netip.AddrPortFrom(edge6(), portSIP), o.phones)
	defer r.close()
	if err = r.make(ctx, o.phones, o.rate); err != nil {
		return err
	}
	n := o.number(2 * o.rate)
	return measure(n, func() error { return r.make(ctx, n, 2*o.rate) })
}

// compare has the programs do a work in turn, round by round, each started afresh.
func (p *place) compare(ctx context.Context, w work, o options) ([]bench.Line, error) {
	all := slices.DeleteFunc(slices.Clone(w.programs), func(pr program) bool { return pr.name == sipgo && p.sipgo == "" })
	series := make(bench.Series)
	for round := range o.rounds {
		at := round % len(all)
		for _, pr := range slices.Concat(all[at:], all[:at]) {
			one, err := p.sample(ctx, w, pr, o)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pr.name, err)
			}
			series[pr.name] = append(series[pr.name], one)
			fmt.Fprintf(p.progress, "%-20s %-8s %8.0f /s %8.2f µs\n", w.name, pr.name, one.Rate, one.CPU)
		}
	}
	var peers []string
	for _, pr := range all[1:] {
		peers = append(peers, pr.name)
	}
	return series.Compare(w.name, ours, []bench.Metric{bench.CPU}, peers...), nil
}

// sample has one program do a work.
func (p *place) sample(ctx context.Context, w work, pr program, o options) (one bench.Sample, err error) {
	processes, stop, err := p.start(ctx, pr, o.phones)
	if err != nil {
		return one, err
	}
	defer stop()
	return one, w.do(ctx, p, o, func(n int, do func() error) error {
		before, err := processes.CPU()
		if err != nil {
			return err
		}
		profiled := p.profiles(ctx, pr, w, o)
		began := time.Now()
		err = errors.Join(do(), profiled())
		took := time.Since(began)
		after, cpuErr := processes.CPU()
		one.Rate = float64(n) / took.Seconds()
		one.CPU = float64((after - before).Microseconds()) / float64(n)
		return errors.Join(err, cpuErr)
	})
}
