// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/ip"
)

// work is something that a program is given to do.
type work struct {
	name string
	do   load
	also bool // measured, too, by ours alone, for IPv6 clients beside IPv4 ones
}

// load gives a program work from clients of a family, for about d, and measures it.
type load func(ctx context.Context, p *place, r *running, f ip.Family, d time.Duration) (bench.Sample, error)

// connections is how many clients ask for small things at once.
const connections = 64

// works returns all there is to do.
func works() []work {
	return []work{
		{"tcp-keepalive", requests(portTCP, "http"), true},
		{"tcp-bulk-1", bulk(1), true},
		{"tcp-bulk-8", bulk(8), false},
		{"web-h1-keepalive", requests(portWeb, "http"), true},
		{"web-h1-close", requests(portWeb, "http", "Connection: close"), false},
		{"web-tls-keepalive", requests(portTLS, "https"), false},
	}
}

// idleWork is the one that is measured in bytes.
const idleWork = "tcp-idle"

// names returns the names of all works.
func names() []string {
	all := []string{idleWork}
	for _, w := range works() {
		all = append(all, w.name)
	}
	return all
}

// chosen returns the names that begin with only.
func chosen(only string) map[string]bool {
	found := make(map[string]bool)
	for _, name := range names() {
		if strings.HasPrefix(name, only) {
			found[name] = true
		}
	}
	return found
}

// requests asks for 1 KB, over and over.
func requests(port uint16, scheme string, headers ...string) load {
	return func(ctx context.Context, p *place, r *running, f ip.Family, d time.Duration) (bench.Sample, error) {
		url := fmt.Sprintf("%s://%s:%d/", scheme, nameOf(f, r.name), port)
		w := bench.Wrk{URL: url, Connections: connections, Time: d,
			Headers: append([]string{"Host: " + host}, headers...)}
		used, err := r.meter()
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
		a, err := bench.ParseWrk(out)
		if err != nil {
			return bench.Sample{}, err
		}
		return bench.Sample{Rate: a.Rate, CPU: micros(cpu) / float64(a.Requests)}, nil
	}
}

// bulk downloads over n connections. Its unit is the GB, of 10⁹ bytes.
func bulk(n int) load {
	return func(ctx context.Context, p *place, r *running, f ip.Family, d time.Duration) (bench.Sample, error) {
		s, err := openSink(ctx, p.client, r.at(f, portBulk), n)
		if err != nil {
			return bench.Sample{}, err
		}
		defer s.close()
		if err := wait(ctx, settle); err != nil {
			return bench.Sample{}, err
		}
		used, err := r.meter()
		if err != nil {
			return bench.Sample{}, err
		}
		bytes, took, err := s.moved(ctx, d)
		if err != nil {
			return bench.Sample{}, err
		}
		cpu, err := used()
		if err != nil {
			return bench.Sample{}, err
		}
		gb := float64(bytes) / 1e9
		return bench.Sample{Rate: gb / took.Seconds(), CPU: micros(cpu) / gb}, nil
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

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// family returns the network of a stream to at: "tcp4" or "tcp6".
func family(at netip.AddrPort) string {
	if ip.FamilyOf(at.Addr()) == ip.V4 {
		return "tcp4"
	}
	return "tcp6"
}
