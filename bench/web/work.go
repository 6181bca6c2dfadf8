// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/bench/load"
	"github.com/kyozon/kyozon/ip"
)

// work is something that a program is given to do.
type work struct {
	name  string
	at    endpoint
	do    task
	peers []string
	also  also
}

// task gives a program work from clients of a family, for about d, and measures it.
type task func(ctx context.Context, p *place, r *running, f ip.Family, d time.Duration) (bench.Sample, error)

// also is what else is measured with a work.
type also uint8

const (
	crossing also = 1 << iota // by ours alone, for IPv6 clients beside IPv4 ones
	latency                   // at a part of what HAProxy can do
)

const (
	connections = 64   // clients that ask for small things at once
	manyClients = 1000 // with a /64 each
	multiplexed = 4    // connections of HTTP/2
	inEach      = 25   // streams of each: 100 in all
	part        = 0.7  // of what HAProxy can do, where latency is measured
)

// works returns all there is to do.
func works() []work {
	proxies, and := []string{"haproxy", "nginx"}, []string{"haproxy", "nginx", caddy}
	tcp, h1, tls := endpoint{portTCP, "http", 1}, endpoint{portWeb, "http", 1}, endpoint{portTLS, "https", 1}
	h2, h2s := endpoint{portH2, "http", 2}, endpoint{portTLS, "https", 2}
	own, bytes := endpoint{portClient, "http", 1}, endpoint{port: portBulk}
	return []work{
		{"tcp-keepalive", tcp, requests(tcp), proxies, crossing},
		{"tcp-bulk-1", bytes, bulk(1), proxies, crossing},
		{"tcp-bulk-8", bytes, bulk(8), proxies, 0},
		{"web-h1-keepalive", h1, requests(h1), and, crossing | latency},
		{"web-h1-close", h1, requests(h1, "Connection: close"), proxies, 0},
		{"web-tls-keepalive", tls, requests(tls), and, 0},
		{"web-tls-handshake", tls, driven(tls, load.Plan{Connections: connections, Handshakes: true}), proxies, 0},
		{"web-h2", h2, streams(h2), and, 0},
		{"web-h2-tls", h2s, streams(h2s), and, 0},
		{"web-source-client", own, driven(own, from(1, connections)), proxies[:1], 0},
		{"web-source-client-1000", own, driven(own, from(manyClients, manyClients)), proxies[:1], 0},
	}
}

// names returns the names of all works.
func names() (all []string) {
	for _, w := range idleWorks() {
		all = append(all, w.name)
	}
	for _, w := range works() {
		all = append(all, w.name)
	}
	return all
}

// requests has wrk ask for 1 KB, over and over.
func requests(at endpoint, headers ...string) task {
	return func(ctx context.Context, p *place, r *running, f ip.Family, d time.Duration) (bench.Sample, error) {
		w := bench.Wrk{URL: at.url(f, r.name), Connections: connections, Time: d,
			Headers: append([]string{"Host: " + host}, headers...)}
		return p.tool(ctx, r, w.Args(), bench.ParseWrk)
	}
}

// streams has h2load ask for 1 KB again and again.
func streams(at endpoint) task {
	return func(ctx context.Context, p *place, r *running, f ip.Family, d time.Duration) (bench.Sample, error) {
		h := bench.H2load{URL: at.url(f, r.name), Connections: multiplexed, Streams: inEach, Time: d}
		return p.tool(ctx, r, h.Args(), bench.ParseH2load)
	}
}

// tool runs a client and reads its report.
func (p *place) tool(ctx context.Context, r *running, args []string,
	parse func([]byte, int) (bench.Answers, error)) (bench.Sample, error) {
	used, err := r.meter()
	if err != nil {
		return bench.Sample{}, err
	}
	out, err := p.client.Command(ctx, args...).Output()
	if err != nil {
		return bench.Sample{}, fmt.Errorf("run %s: %w", args[0], err)
	}
	cpu, err := used()
	if err != nil {
		return bench.Sample{}, err
	}
	a, err := parse(out, len(body()))
	if err != nil {
		return bench.Sample{}, err
	}
	return bench.Sample{Rate: a.Rate, CPU: bench.Micros(cpu) / float64(a.Requests)}, nil
}

// from is a plan of connections that stay, from the subscribers of some /64s.
func from(sources, connections int) load.Plan {
	return load.Plan{From: subscribers(), Sources: sources, Connections: connections}
}

// driven has our own client ask for 1 KB.
func driven(at endpoint, plan load.Plan) task {
	return func(ctx context.Context, p *place, r *running, f ip.Family, d time.Duration) (bench.Sample, error) {
		plan := plan
		plan.Time = d
		return p.drive(ctx, r, r.at(f, at.port), plan)
	}
}

// drive runs our own client. Its connections are open when the measurement begins.
func (p *place) drive(ctx context.Context, r *running, to netip.AddrPort, plan load.Plan) (bench.Sample, error) {
	plan.To, plan.Host, plan.Body = to, host, body()
	args, err := plan.Args()
	if err != nil {
		return bench.Sample{}, err
	}
	var used func() (time.Duration, error)
	var cpu time.Duration
	begin := func() (err error) {
		used, err = r.meter()
		return err
	}
	end := func() (err error) {
		cpu, err = used()
		return err
	}
	client, complaint := p.client.Command(ctx, args...), new(bytes.Buffer)
	client.Stderr = complaint
	answers, err := load.Drive(ctx, client, begin, end)
	if err != nil {
		return bench.Sample{}, fmt.Errorf("run client: %w: %s", err, bytes.TrimSpace(complaint.Bytes()))
	}
	return bench.Sample{Rate: answers.Rate(), CPU: bench.Micros(cpu) / float64(answers.Requests), P99: bench.Micros(answers.P99)}, nil
}

// bulk downloads over n connections. Its unit is the GB, of 10⁹ bytes.
func bulk(n int) task {
	return func(ctx context.Context, p *place, r *running, f ip.Family, d time.Duration) (bench.Sample, error) {
		s, err := bench.OpenSink(ctx, p.client, r.at(f, portBulk), n)
		if err != nil {
			return bench.Sample{}, err
		}
		defer s.Close()
		if err := bench.Wait(ctx, bench.Settle); err != nil {
			return bench.Sample{}, err
		}
		used, err := r.meter()
		if err != nil {
			return bench.Sample{}, err
		}
		bytes, took, err := s.Moved(ctx, d)
		if err != nil {
			return bench.Sample{}, err
		}
		cpu, err := used()
		if err != nil {
			return bench.Sample{}, err
		}
		gb := float64(bytes) / 1e9
		return bench.Sample{Rate: gb / took.Seconds(), CPU: bench.Micros(cpu) / gb}, nil
	}
}

// meter begins to measure the processor time of a program. The function that it returns says how much it has used since.
func (r *running) meter() (used func() (time.Duration, error), err error) {
	p, err := r.open()
	if err != nil {
		return nil, err
	}
	before, err := p.CPU()
	return func() (time.Duration, error) {
		after, err := p.CPU()
		return after - before, err
	}, err
}
