// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}

// TestQuick is the comparison in a short form, so that it works when somebody wants to know.
func TestQuick(t *testing.T) {
	binary := servertest.Kyozon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var lines bytes.Buffer
	var err error
	for _, only := range []string{"rtp-user", "rtp-kernel"} {
		err = errors.Join(err, run(ctx, options{kyozon: binary, rounds: 1, time: time.Second, streams: 20, only: only}, &lines, t.Output()))
	}
	if (errors.Is(err, lab.ErrRoot) || errors.Is(err, lab.ErrMissing)) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rtp-user", "rtp-user-process", "rtp-kernel"} {
		if n := strings.Count(lines.String(), "bench "+name+" cpu_us ours="); n != 1 {
			t.Errorf("%d lines of %s, want one\n%s", n, name, lines.String())
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		ok   bool
	}{
		{"", true}, {"-quick", true}, {"-rounds 3 -time 5s -only rtp-mem -streams 100", true}, {"-rounds 0", false}, {"-rounds 51", false},
		{"-time 500ms", false}, {"-time 1500ms", false}, {"-time 2m", false}, {"-only web", false}, {"-streams 9", false},
		{"-streams 100000", false}, {"more", false}, {"-x", false},
	} {
		if _, err := parse(strings.Fields(tt.args), io.Discard); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.args, err)
		}
	}
}

// TestDelays: a part of the packets took no longer than is said, and those within a time are those.
func TestDelays(t *testing.T) {
	t.Parallel()
	var d delays
	d.add(delays{slots: make([]int64, slots)})
	for _, took := range []time.Duration{time.Microsecond, time.Millisecond, 20 * time.Millisecond, 99 * time.Millisecond, 101 * time.Millisecond, lastSlot} {
		d.slots[took>>slotShift]++
		d.all++
	}
	if got := d.quantile(0.5); got < 20*time.Millisecond || got > 20*time.Millisecond+1<<slotShift {
		t.Errorf("half took %v, want 20 ms", got)
	}
	if got := d.quantile(1); got < lastSlot {
		t.Errorf("all took %v, want half a second", got)
	}
	if got := d.within(tooLate); got != 4 {
		t.Errorf("%d were in time, want 4", got)
	}
}

// TestFrame: packets have the checksums that a kernel asks for.
func TestFrame(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"192.0.2.1:10000", "[2001:db8::1]:5004"} {
		to := netip.MustParseAddrPort(to)
		from := netip.MustParseAddrPort(map[bool]string{true: "192.0.2.9:4000", false: "[2001:db8::9]:4000"}[to.Addr().Is4()])
		f := newFrame([headerEthernet]byte{}, from, to, 77)
		p := make([]byte, 300)
		for number := range int64(1000) {
			n := f.write(p, number, time.Now().UnixNano())
			f.check(p)
			header := p[headerVirtio+headerEthernet : n-packetSize-headerUDP]
			udp := p[headerVirtio+headerEthernet+len(header) : n]
			if to.Addr().Is4() && folded(summed(header, 0)) != 0xffff {
				t.Fatal("the checksum of IPv4 is wrong")
			}
			if folded(summed(udp, summed(header[len(header)-2*to.Addr().BitLen()/8:], uint32(17+len(udp))))) != 0xffff {
				t.Fatalf("%v: the checksum of UDP of packet %d is wrong", to, number)
			}
		}
	}
}

// TestSearch: what is borne is found to within a step, if tries do not agree too.
func TestSearch(t *testing.T) {
	t.Parallel()
	for most := 900; most < 12_000; most += 97 {
		s, tried := newSearch(1000, 9800), 0
		for n, ok := s.next(); ok; n, ok = s.next() {
			loss := 0.0
			if n > most {
				loss = 0.01
				if n > 2*most {
					loss = 0.3
				}
			} else if tried%5 == 1 {
				loss = 0.02 // something else ran
			}
			s.told(loss)
			if tried++; tried > 60 {
				t.Fatalf("%d: tried %d times", most, tried)
			}
		}
		want, got := min(most, 9800), s.borne()
		if most < 1000 {
			want = 0
		}
		if got > want || want > 0 && float64(got)*fine*1.01 < float64(want) {
			t.Errorf("%d are borne, want %d, after %d tries", got, want, tried)
		}
	}
}
