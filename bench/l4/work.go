// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/kyozon/kyozon/bench"
)

// work is something that a program is given to do.
type work struct {
	name string
	do   func(ctx context.Context, p *place, pr program, d time.Duration) (bench.Sample, error)
}

const connections = 64 // clients that ask for small things at once

func works() []work {
	return []work{
		{"l4-keepalive", requests()},
		{"l4-close", requests("Connection: close")},
		{"l4-bulk-up", up},
		{"l4-bulk-down", down},
	}
}

// programWork is measured without a lab, by a benchmark of package kernel.
const programWork = "l4-program"

func names() (all []string) {
	for _, w := range works() {
		all = append(all, w.name)
	}
	return append(all, programWork)
}

// requests has wrk ask for 1 KB, over and over. The processor time is that of the whole machine.
func requests(headers ...string) func(context.Context, *place, program, time.Duration) (bench.Sample, error) {
	return func(ctx context.Context, p *place, pr program, d time.Duration) (bench.Sample, error) {
		w := bench.Wrk{URL: fmt.Sprintf("http://%v/", pr.at(portTCP)), Connections: connections, Time: d, Headers: headers}
		used, err := bench.Busy()
		if err != nil {
			return bench.Sample{}, err
		}
		out, err := p.client.Command(ctx, w.Args()...).Output()
		if err != nil {
			return bench.Sample{}, fmt.Errorf("run wrk: %w", err)
		}
		cpu, err := used()
		if err != nil {
			return bench.Sample{}, err
		}
		a, err := bench.ParseWrk(out, len(body()))
		if err != nil {
			return bench.Sample{}, err
		}
		return bench.Sample{Rate: a.Rate, CPU: bench.Micros(cpu) / float64(a.Requests)}, nil
	}
}

// down downloads over one connection. Its unit is the GB, of 10⁹ bytes.
func down(ctx context.Context, p *place, pr program, d time.Duration) (bench.Sample, error) {
	s, err := bench.OpenSink(ctx, p.client, pr.at(portDown), 1)
	if err != nil {
		return bench.Sample{}, err
	}
	defer s.Close()
	return stream(ctx, s.Moved, d)
}

// up uploads over one connection.
func up(ctx context.Context, p *place, pr program, d time.Duration) (bench.Sample, error) {
	c, err := p.client.DialContext(ctx, bench.Network(pr.at(portUp)), pr.at(portUp).String())
	if err != nil {
		return bench.Sample{}, err
	}
	drain := p.drains[pr.daemon == nil]
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		fill(c)
	}()
	defer func() {
		c.Close()
		<-sent
	}()
	return stream(ctx, drain.Moved, d)
}

func fill(c net.Conn) {
	for data := bench.BulkData(); ; {
		if _, err := c.Write(data); err != nil {
			return
		}
	}
}

// stream measures what moves, once it has reached its pace.
func stream(ctx context.Context, moved func(context.Context, time.Duration) (int64, time.Duration, error), d time.Duration) (bench.Sample, error) {
	if err := bench.Wait(ctx, bench.Settle); err != nil {
		return bench.Sample{}, err
	}
	used, err := bench.Busy()
	if err != nil {
		return bench.Sample{}, err
	}
	n, took, err := moved(ctx, d)
	if err != nil {
		return bench.Sample{}, err
	}
	cpu, err := used()
	gb := float64(n) / 1e9
	return bench.Sample{Rate: gb / took.Seconds(), CPU: bench.Micros(cpu) / gb}, err
}
