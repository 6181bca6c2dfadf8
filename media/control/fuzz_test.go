// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

func examples() []*message {
	a, b := netip.MustParseAddrPort("192.0.2.1:4000"), netip.MustParseAddrPort("[2001:db8::1]:4000")
	spec := Spec{Networks: [2]string{"access4", "access6"}, Streams: 2}
	local := [2][]Local{{{RTP: a, RTCP: b}}, {{RTP: b}, {RTP: a}}}
	remotes := []Remote{{Side: Callee, Stream: 7, RTP: a, RTCP: b, Signal: b.Addr(), Clock: 8000, DSCP: 46, Mux: true, Learn: true}, {}}
	stats := Stats{Heard: [2][]Quality{{{Packets: 1, Lost: 2, MOS: 4.1, From: a}}, {{}, {Strangers: 3}}}}
	return []*message{
		{kind: hello, spoken: span{oldest, newest}}, {kind: open, seq: 1, id: 2, spec: spec}, {kind: reshape, spec: spec}, {kind: update, id: 3, remotes: remotes},
		{kind: ask, seq: 4}, {kind: shut, seq: 5, id: 1 << 63}, {kind: restore, spec: spec, local: local, remotes: remotes}, {kind: listed},
		{kind: opened, spec: spec, local: local}, {kind: told, stats: stats}, {kind: failed, failure: 1}, {kind: ended, stats: stats},
		{kind: survey, seq: 6}, {kind: figures, seq: 6, figures: most()}, {kind: renew, seq: 7}, {kind: renewed, seq: 7},
		{kind: piece, clip: 1 << 63, at: 3, of: 7, piece: []byte("1234")},
		{kind: play, id: 7, play: Play{Side: Callee, Stream: 7, Clip: 9, Type: 8, Times: 2}},
	}
}

// most returns figures with as many networks as there can be, of the longest names.
func most() *Figures {
	f := new(Figures)
	for i, n := range f.numbers() {
		*n = uint64(i)
	}
	*f.Passed.Of(Long, ip.V4), *f.Passed.Of(Headers, ip.V6) = 7, math.MaxUint64
	for i := range MaxNetworks {
		n := Occupancy{Name: strings.Repeat("n", maxName), Media: netip.MustParsePrefix("2001:db8::/64"), Used: uint64(i)}
		if i%2 == 0 {
			n.Media, n.Size = netip.MustParsePrefix("192.0.2.1/32"), 1000
		}
		f.Networks = append(f.Networks, n)
	}
	return f
}

// FuzzMessage: what is understood is written as it was read, and nothing makes the parser fail.
func FuzzMessage(f *testing.F) {
	for _, m := range examples() {
		for m.version = oldest; m.version <= newest; m.version++ {
			f.Add(m.version, m.append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, version uint16, b []byte) {
		m := &message{version: version}
		if m.parse(b) != nil {
			return
		}
		if again := m.append(nil); m.kind != hello && !bytes.Equal(b, again) {
			t.Errorf("read  %x\nwrote %x", b, again)
		}
	})
}

// Each kind of message is understood, and no part of it is.
func TestMessages(t *testing.T) {
	t.Parallel()
	for _, want := range examples() {
		want.version = newest
		b := want.append(nil)
		if len(b) > maxMessage {
			t.Errorf("kind %d has %d bytes", want.kind, len(b))
		}
		m := &message{version: newest}
		if err := m.parse(b); err != nil || !bytes.Equal(m.append(nil), b) {
			t.Errorf("kind %d: %v\n%+v\n%+v", want.kind, err, want, m)
		}
		for n := range len(b) - 1 {
			if m.parse(b[:n]) == nil && !(want.kind == hello && n == len(b)-2) { // as version 2 says it
				t.Errorf("kind %d: understood %d of %d bytes", want.kind, n, len(b))
			}
		}
	}
}
