// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package saved

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
)

// whole is a call in which nothing is empty.
func whole() *Call {
	leg := func(id, local, remote string) Leg {
		s := &dialog.Session{Dialog: dialog.Dialog{CallID: id, Local: "<sip:a@example.jp>", Remote: "<sip:b@example.jp>", LocalTag: "lt",
			RemoteTag: "rt", LocalSeq: 7, RemoteSeq: 9, Target: "sip:b@[2001:db8::1]", Routes: []string{"<sip:p1;lr>", "<sip:p2;lr>"},
			Caller: true, Confirmed: true}, Ours: dialog.Invite{Seq: 5}, Theirs: dialog.Invite{Seq: 6},
			Timer: dialog.Timer{Least: 90, Interval: 1800, Mine: true, Refresh: 1 << 60, Expire: 1<<60 + 1}}
		return Leg{Session: s, Way: sip.Way{Transport: sip.TCP, Flow: Lost, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote)},
			Ahead: 3, Update: true, Kind: "application/sdp", Said: []byte("v=0\r\n")}
	}
	at := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	return &Call{Caller: leg("one", "192.0.2.1:5060", "192.0.2.9:1"), Called: leg("two", "[2001:db8::5]:5060", "[2001:db8::9]:2"),
		Media: &Media{ID: 1 << 63, Path: 2, Ends: [2]End{
			{Network: "access/ipv6", Local: []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:5004"), netip.MustParseAddrPort("[2001:db8::1]:5005")},
				Text: []byte("v=0\r\n"), Origin: []byte("- 1 2 IN IP6 ::1"), ID: 1 << 61, Version: 3, Behind: true},
			{Network: "core/ipv4", Local: []netip.AddrPort{netip.MustParseAddrPort("10.0.5.2:20000"), netip.MustParseAddrPort("10.0.5.2:20001")},
				Text: []byte("v=0\n"), ID: 7, Version: 1},
		}, Terms: Terms{Family: 6, Apart: "refuse", Phones: [2]bool{false, true}, Out: "pstn", Why: 2}, Offers: []Offer{{At: 1 << 31, Path: 2, Refused: 1}, {From: 1}}},
		Record: &cdr.Record{Version: cdr.Version, ID: "x", Start: at, Answer: &at, From: "05010000001"}}
}

func TestCall(t *testing.T) {
	t.Parallel()
	want := whole()
	b, err := want.Append([]byte("before"))
	if err != nil {
		t.Fatal(err)
	}
	b = b[len("before"):]
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*Leg{&want.Caller, &want.Called} {
		l.Session.LocalSeq += Gap
		l.Ahead += Gap
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for n := range len(b) - 1 { // the last one ends the line
		if _, err := Parse(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are a call", n, len(b))
		}
	}
	for other, want := range map[byte]error{termless - 1: ErrForm, version + 1: ErrNewer} {
		b[0] = other
		if _, err := Parse(b); !errors.Is(err, want) {
			t.Errorf("version %d: got %v", other, err)
		}
	}
}

// Calls of the versions that are known are taken up: version 3 knew nothing of what routes say of media.
func TestVersions(t *testing.T) {
	t.Parallel()
	for v := byte(termless); v <= version; v++ {
		b, err := os.ReadFile(fmt.Sprintf("testdata/version-%d", v))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		want := whole()
		if v == termless {
			want.Media.Terms, want.Media.Offers, want.Media.Ends[0].Behind = Terms{}, nil, false
		}
		for _, l := range []*Leg{&want.Caller, &want.Called} {
			l.Session.LocalSeq += Gap
			l.Ahead += Gap
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Errorf("version %d (-want +got):\n%s", v, diff)
		}
		if v < version {
			continue
		}
		if now, err := whole().Append(nil); err != nil || !bytes.Equal(now, b) {
			t.Errorf("version %d is not what it was: raise it, or what was saved is not taken up", v)
		}
	}
}

// TestBindingsOfVersion3: bindings that were saved are read, and written as they were.
func TestBindingsOfVersion3(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/bindings-3")
	if err != nil {
		t.Fatal(err)
	}
	all := []location.Binding{home("sip:a@example.jp", 1600), home("sip:b@example.jp", 5000)}
	got, err := ParseBindings(b, 1000, 1100)
	if diff := cmp.Diff(all, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if again := AppendBindings(nil, all, 1000); !bytes.Equal(again, b) {
		t.Error("version 3 is not what it was: raise it, or what was saved is not taken up")
	}
	b[0] = bindingsVersion + 1
	if _, err := ParseBindings(b, 1000, 1100); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer one: %v", err)
	}
}

// What was due while nobody was there is due at once; what is never due stays so.
func TestShift(t *testing.T) {
	t.Parallel()
	s := whole().Caller.Session
	s.Timer.Refresh, s.Timer.Expire = 1000, 3000
	Shift(s, -2000)
	if s.Timer.Refresh != 1 || s.Timer.Expire != 1000 {
		t.Errorf("got %d and %d", s.Timer.Refresh, s.Timer.Expire)
	}
	s.Timer.Refresh = 0
	if Shift(s, 50); s.Timer.Refresh != 0 || s.Timer.Expire != 1050 {
		t.Errorf("got %d and %d", s.Timer.Refresh, s.Timer.Expire)
	}
}

func home(contact string, expires int64) location.Binding {
	return location.Binding{Contact: contact, Instance: "<urn:uuid:1>", Path: "<sip:p;lr>", CallID: "id", Agent: "baresip v3", Sequence: 7, Flow: 1, Quality: 500,
		Expires: expires, Way: sip.Way{Local: netip.MustParseAddrPort("192.0.2.1:5060"), Remote: netip.MustParseAddrPort("192.0.2.9:1")}}
}

// A binding lasts until it was given to, or as long as one that was refreshed until the end; connections do not.
func TestBindings(t *testing.T) {
	t.Parallel()
	connected := home("sip:c@example.jp", 5000)
	connected.Way.Flow = 3
	b := AppendBindings(nil, []location.Binding{home("sip:a@example.jp", 1600), home("sip:b@example.jp", 5000), connected}, 1000)
	for _, test := range []struct {
		last, now int64
		want      []location.Binding
	}{
		{1000, 1100, []location.Binding{home("sip:a@example.jp", 1600), home("sip:b@example.jp", 5000)}},
		{1500, 1700, []location.Binding{home("sip:a@example.jp", 2100), home("sip:b@example.jp", 5500)}},
		{1500, 2100, []location.Binding{home("sip:b@example.jp", 5500)}},
		{1500, 9000, nil},
	} {
		got, err := ParseBindings(b, test.last, test.now)
		if diff := cmp.Diff(test.want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || err != nil {
			t.Errorf("last seen at %d, now %d: %v (-want +got):\n%s", test.last, test.now, err, diff)
		}
	}
}

// An address of record stands before its bindings.
func TestHome(t *testing.T) {
	t.Parallel()
	b := AppendHome(nil, "sip:a@example.jp", []location.Binding{home("sip:a@192.0.2.1", 1600)}, 1000)
	aor, all, err := ParseHome(b, 0, 1000)
	if aor != "sip:a@example.jp" || err != nil || len(all) != 1 || all[0].Expires != 1600 {
		t.Errorf("got %q, %v, %v", aor, all, err)
	}
	for n := range b {
		aor, all, err := ParseHome(b[:n], 0, 1000)
		if whole := len("sip:a@example.jp") + 1; (err == nil) != (n == whole+1) || (aor == "") != (n < whole) || len(all) > 0 {
			t.Errorf("cut at %d: %q, %v, %v", n, aor, all, err) // without a binding it is as good as any
		}
	}
	if !Lasts(all) || Lasts(nil) {
		t.Error("what lasts")
	}
	all[0].Way.Flow = 1
	if Lasts(all) {
		t.Error("a connection lasts")
	}
}

func FuzzHome(f *testing.F) {
	f.Add(AppendHome(nil, "sip:a@example.jp", []location.Binding{home("sip:a@192.0.2.1", 1600)}, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		aor, all, err := ParseHome(b, 0, 0)
		if err != nil {
			return
		}
		name, again, err := ParseHome(AppendHome(nil, aor, all, 0), 0, 0)
		if diff := cmp.Diff(all, again, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || err != nil || name != aor {
			t.Errorf("%q became %q: %v %s", aor, name, err, diff)
		}
	})
}

func FuzzBindings(f *testing.F) {
	f.Add(AppendBindings(nil, []location.Binding{home("sip:a@example.jp", 1600)}, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := ParseBindings(b, 0, 0)
		if err != nil || len(all) == 0 {
			return
		}
		again, err := ParseBindings(AppendBindings(nil, all, 0), 0, 0)
		if diff := cmp.Diff(all, again, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	})
}

func FuzzParse(f *testing.F) {
	b, err := whole().Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:40])
	old, err := os.ReadFile("testdata/version-3")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(old)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		again, err := c.Append(nil)
		if err != nil {
			t.Skip() // a time that JSON has and Go does not write
		}
		d, err := Parse(again)
		if err != nil {
			t.Fatal(err)
		}
		if c.Caller.Session.CallID != d.Caller.Session.CallID || c.Called.Way != d.Called.Way || c.Record.ID != d.Record.ID {
			t.Errorf("%+v became %+v", c, d)
		}
	})
}
