// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"net/netip"
	"testing"
)

// offer is a telephone's, without ICE (224 bytes). To read it takes 470 ns of CPU and one allocation (an address is read from
// a string), to write it anew 350 ns and none, on a busy core of an AMD EPYC (Turin), Go 1.26.
func offer() string {
	return lines("v=0", "o=- 20518 0 IN IP4 198.51.100.9", "s=-", "c=IN IP4 198.51.100.9", "t=0 0", "m=audio 54609 RTP/AVP 0 8 101",
		"a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15", "a=ptime:20", "a=sendrecv")
}

func BenchmarkParse(b *testing.B) {
	text := []byte(offer())
	var s Session
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Parse(text, &Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	s := parse(b, offer())
	addr := netip.MustParseAddr("2001:db8:100:50::7")
	r := Rewrite{Addr: addr, Media: []Endpoint{{Addr: netip.AddrPortFrom(addr, 20000)}}, ID: 1, Version: 1}
	out := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Append(out, &r); err != nil {
			b.Fatal(err)
		}
	}
}
