// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kyozon/kyozon/media/control"
)

// TestHeardOf: what has come is said of each side, with where it comes from and what carries it.
func TestHeardOf(t *testing.T) {
	t.Parallel()
	got := heardOf(&control.Stats{Heard: [2][]control.Quality{
		{{Packets: 500, Lost: 2, Jitter: 1234567, MOS: 4.38, From: netip.MustParseAddrPort("[2001:db8::9]:4000"), Kernel: true}},
		{{}, {Packets: 1, Jitter: time.Millisecond, MOS: 1, From: netip.MustParseAddrPort("192.0.2.9:4000"), Strangers: 3}},
	}})
	want := []string{
		"from the caller, in stream 1, the relay has had 500 packets, 2 were lost, jitter 1.2ms, MOS 4.4, from [2001:db8::9]:4000, in the kernel",
		"from the called, in stream 1, the relay has had nothing",
		"from the called, in stream 2, the relay has had 1 packets, 0 were lost, jitter 1ms, MOS 1.0, from 192.0.2.9:4000, in the process; 3 packets of strangers were dropped",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
