// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package cdr

import (
	"bytes"
	"errors"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "rewrite testdata/calls.jsonl")

// calls are a call from an IPv6 subscriber to a fixed line, one that nobody answered, and one that was refused.
func calls() []Record {
	start := time.Date(2026, 11, 27, 17, 0, 0, 123_456_789, time.FixedZone("JST", 9*3600))
	ring, answer := start.Add(900*time.Millisecond), start.Add(4*time.Second)
	caller := Leg{
		Network: "access6", Family: "ipv6", Peer: "05010000001", Address: netip.MustParseAddrPort("[2001:db8:1::1]:5060"),
		CallID: "a84b4c76e66710@[2001:db8:1::1]", Media: "ipv6",
	}
	return []Record{
		{
			ID: "01J", Start: start, Ring: &ring, Answer: &answer, End: answer.Add(61*time.Second + 500*time.Millisecond),
			From: "05010000001", To: "0332345678", Dialled: "1840332345678", Class: "0ab-j", Withheld: true, Route: "routes[2]", Caller: caller,
			Called:  &Leg{Network: "core", Family: "ipv4", Peer: "pstn", Address: netip.MustParseAddrPort("10.0.5.12:5060"), CallID: "b1@10.0.5.2", Media: "ipv4", Tried: 1},
			Media:   &Media{Path: "other network", ToCaller: Flow{Packets: 3075, Bytes: 528900}, ToCalled: Flow{Packets: 3074, Bytes: 528728}},
			EndedBy: "called", Cause: 16,
		},
		{
			ID: "01K", Start: start, End: start.Add(30 * time.Second), From: "05010000001", To: "05010000002", Dialled: "05010000002", Class: "own",
			Caller: caller, Called: &Leg{Network: "access6", Family: "ipv6", Peer: "05010000002", Address: netip.MustParseAddrPort("[2001:db8:2::1]:5060"), CallID: "b2"},
			EndedBy: "caller", Status: 487, Cause: 16,
		},
		{
			ID: "01L", Start: start, End: start, From: "05010000001", To: "0990123456", Dialled: "0990123456", Class: "premium", Route: "routes[5]",
			Caller: caller, EndedBy: "edge", Status: 403, Cause: 21, Reason: "premium <\"quoted\">",
		},
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	var got []byte
	for _, r := range calls() {
		var err error
		if got, err = r.Append(got); err != nil {
			t.Fatal(err)
		}
	}
	const name = "testdata/calls.jsonl"
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("a record changed: readers of CDRs may break (-want +got):\n%s", diff)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, want := range calls() {
		line, err := want.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(line, []byte("\n")) != 1 || line[len(line)-1] != '\n' {
			t.Errorf("%s: not one line", line)
		}
		got, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		want.Version = Version
		near := cmpopts.EquateApproxTime(time.Millisecond)
		if diff := cmp.Diff(&want, got, near, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	for _, bad := range []string{"", "{}", `{"version":2}`, `{"version":1,"caller":{"address":"x"}}`, "[]", strings.Repeat(" ", maxLine+1)} {
		if _, err := Parse([]byte(bad)); !errors.Is(err, ErrLine) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range calls() {
		line, err := r.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Parse(line)
		if err != nil {
			return
		}
		again, err := r.Append(nil)
		if err != nil {
			return // a year that has no four digits
		}
		if _, err := Parse(again); err != nil && len(again) <= maxLine {
			t.Errorf("%v: %s", err, again)
		}
	})
}

// What was carried in parts of a call is added up; jitter and MOS are means by how much came, and silence says nothing of them.
func TestAdd(t *testing.T) {
	t.Parallel()
	var f Flow
	for _, part := range []Flow{{Strangers: 1}, {Packets: 100, Bytes: 17200, Lost: 3, Jitter: 2, MOS: 4}, {}, {Packets: 300, Bytes: 51600, Lost: 1, Jitter: 6, MOS: 2, Strangers: 2}} {
		f.Add(&part)
	}
	if want := (Flow{Packets: 400, Bytes: 68800, Lost: 4, Jitter: 5, MOS: 2.5, Strangers: 3}); f != want {
		t.Errorf("got %+v, want %+v", f, want)
	}
}
