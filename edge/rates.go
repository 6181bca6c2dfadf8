// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/metrics"
)

// rateWindow is how many seconds a rate is taken over.
const rateWindow = 5

// rates knows how fast the counters have grown of late.
type rates struct {
	mu      sync.Mutex
	samples []map[rateKey]int64 // one a second, the oldest first
}

type rateKey struct {
	service  string
	crossing ip.Crossing
}

// eachSecond does what is done once a second and not per flow: it takes the rates, and logs why clients got no flow and
// who wanted too much.
func (e *Edge) eachSecond(ctx context.Context) {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			e.rates.take(&e.registry)
			if g := e.generation.Load(); g != nil {
				e.logFaults(g)
				e.takeLimited(g)
				e.writeKernelLines(g)
			}
		}
	}
}

// logFaults logs one fault of each route, however many there were: the counters have their number. That a client is
// not allowed in is his fault.
func (e *Edge) logFaults(g *generation) {
	for name, doors := range g.routes {
		for d, r := range doors {
			switch err := r.Fault(); {
			case err == nil:
			case errors.Is(err, backend.ErrDenied):
				e.options.Log.Debug("client refused", "service", name, "client-family", d.Family.String(), "err", err)
			default:
				e.options.Log.Error("clients got no flow", "service", name, "client-family", d.Family.String(), "err", err)
			}
		}
	}
}

func (r *rates) take(registry *metrics.Registry) {
	now := make(map[rateKey]int64)
	for _, s := range registry.Samples() {
		now[rateKey{s.Service, s.Crossing}] = units(s)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, now)
	if len(r.samples) > rateWindow+1 {
		r.samples = r.samples[1:]
	}
}

// units is what the rate of a service counts: requests, or flows where a flow is all there is.
func units(s metrics.Sample) int64 { return max(s.Requests, s.Opened) }

// of returns flows or requests a second.
func (r *rates) of(k rateKey) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.samples)
	if n < 2 {
		return 0
	}
	return float64(r.samples[n-1][k]-r.samples[0][k]) / float64(n-1)
}
