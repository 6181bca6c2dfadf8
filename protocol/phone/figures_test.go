// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// gauge returns what the status says of a metric, by its name and the values of its labels in the order of their names.
func (b *bench) gauge(metric string, labels ...string) int64 {
	b.t.Helper()
next:
	for _, c := range b.edge.Status().Counts {
		if c.Metric != metric || len(c.Labels) != len(labels) {
			continue
		}
		for _, l := range labels {
			if name, value, _ := strings.Cut(l, "="); c.Labels[name] != value {
				continue next
			}
		}
		return c.Value
	}
	return -1
}

// TestRelayFigures: what the relay says of itself is with the figures of the edge, and that it does not answer is one too.
func TestRelayFigures(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	if got := b.gauge("kyozon_media_up"); got != -1 {
		t.Errorf("without networks there are figures of a relay: %d", got)
	}
	r := b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		heard, _ := b.call(caller, callee, nil, nil)
		used := int64(1)
		if x.Client == x.Backend {
			used = 2
		}
		for metric, want := range map[string]int64{"kyozon_media_up": 1, "kyozon_media_calls_active": 1} {
			if got := b.gauge(metric); got != want {
				t.Errorf("%s is %d, want %d", metric, got, want)
			}
		}
		from, to := "from_family="+x.Client.String(), "to_family="+x.Backend.String()
		if got := b.gauge("kyozon_media_packets_total", from, to, "plane=user"); got != 99*used {
			t.Errorf("%d packets, want %d", got, 99*used)
		}
		if got := b.gauge("kyozon_media_lanes_passed_total", "reason=source", "family="+x.Client.String()); got != 3*used {
			t.Errorf("%d packets have passed, want %d", got, 3*used)
		}
		if got := b.gauge("kyozon_media_addresses_used", "network=access", "family="+x.Client.String()); got != used {
			t.Errorf("%d addresses are in use, want %d", got, used)
		}
		hangUp(caller, callee, heard, sequence(heard)+1)
	})
	asked := r.Renewed()
	b.reload(", cdr: calls.jsonl")
	b.until(func() bool { return r.Renewed() > asked })
	r.Stop()
	b.until(func() bool { return !b.core.relays.client.Load().Up() })
	if up, calls := b.gauge("kyozon_media_up"), b.gauge("kyozon_media_calls_active"); up != 0 || calls != -1 {
		t.Errorf("of a relay that is gone: up %d, %d calls", up, calls)
	}
}
