// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// filled returns a slot with a certificate for its name.
func filled(t *testing.T, name, issuer string) *Slot {
	t.Helper()
	s := &Slot{Name: name, Source: "ca.example"}
	certificate, key := issue(t, issued{issuer: issuer, names: []string{name}})
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	s.Fill(&pair)
	return s
}

// TestSlots looks which certificate clients get when some come from files and some are in slots or still to come.
func TestSlots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := saved(t, dir, "file", issued{issuer: "file", names: []string{"file.example", "shop.example", "*.wild.example", "*.later.example"}})
	for name, test := range map[string]struct {
		pairs []Pair
		slots []*Slot
		want  map[string]string // by what the client asks for; "" is none
	}{
		"filled slots come first": {[]Pair{file}, []*Slot{filled(t, "shop.example", "slot"), filled(t, "*.wild.example", "wild slot")},
			map[string]string{"shop.example": "slot", "file.example": "file", "a.wild.example": "wild slot", "": "file", "x.example": "file"}},
		"files until then": {[]Pair{file}, []*Slot{{Name: "shop.example"}, {Name: "*.wild.example"}},
			map[string]string{"shop.example": "file", "a.wild.example": "file", "": "file"}},
		"not the default for a name to come": {[]Pair{file}, []*Slot{{Name: "new.example"}, {Name: "*.new.example"}},
			map[string]string{"new.example": "", "a.new.example": "", "x.example": "file"}},
		"exactly the name first": {[]Pair{file}, []*Slot{filled(t, "a.wild.example", "slot"), filled(t, "*.later.example", "wild slot")},
			map[string]string{"a.wild.example": "slot", "b.wild.example": "file", "a.later.example": "wild slot"}},
		"slots alone": {nil, []*Slot{filled(t, "shop.example", "first"), filled(t, "b.example", "second")},
			map[string]string{"": "first", "x.example": "first", "B.example": "second"}},
		"nothing yet": {nil, []*Slot{{Name: "shop.example"}, filled(t, "b.example", "second")},
			map[string]string{"": "", "x.example": "", "shop.example": "", "b.example": "second"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(test.pairs, test.slots...)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range test.want {
				state, err := shaken(t, &tls.Config{ServerName: name, InsecureSkipVerify: true}, s.Config())
				got := ""
				if err == nil {
					got = state.PeerCertificates[0].Subject.CommonName
				}
				if got != want {
					t.Errorf("%q got %q, %v; want %q", name, got, err, want)
				}
			}
		})
	}
}

// TestSlotAsked checks that a missing certificate is told once, with what is known, and what Info says of a slot.
func TestSlotAsked(t *testing.T) {
	t.Parallel()
	var told []string
	slot := &Slot{Name: "shop.example", Source: "ca.example", Asked: func(name, fault string) { told = append(told, name+": "+fault) }}
	s, err := Open(nil, slot)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if got := s.Infos()[0]; got.State(now) != "missing" || got.Warning(now) != "there is none yet" {
		t.Errorf("an empty slot: %+v", got)
	}
	slot.Fail(errors.New("the server is down"))
	for range 3 {
		c, err := s.Config().GetCertificate(&tls.ClientHelloInfo{ServerName: "shop.example"})
		if c != nil || err != nil {
			t.Fatalf("GetCertificate = %v, %v, want none", c, err)
		}
	}
	if d := cmp.Diff([]string{"shop.example: the server is down"}, told); d != "" {
		t.Errorf("told: -want +got\n%s", d)
	}
	want := Info{Source: "ca.example", Names: []string{"shop.example"}, Fault: "the server is down"}
	if d := cmp.Diff(want, s.Infos()[0]); d != "" {
		t.Errorf("after a failure: -want +got\n%s", d)
	}

	slot.Fill(filled(t, "shop.example", "CA").Certificate())
	slot.Fail(errors.New("no renewal"))
	i := s.Infos()[0]
	if i.Issuer != "CN=CA" || i.Fault != "no renewal" || i.State(now) != "valid" {
		t.Errorf("after a failed renewal: %+v is %s", i, i.State(now))
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	begin := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, test := range []struct {
		life, age time.Duration
		want      string
	}{
		{90 * day, -1, "early"},
		{90 * day, 76 * day, "valid"},
		{90 * day, 76*day + 1, "ending"},
		{90 * day, 90*day + 1, "expired"},
		{6 * day, 4 * day, "valid"},
		{6 * day, 5 * day, "ending"},
	} {
		i := Info{Begin: begin, End: begin.Add(test.life)}
		if got := i.State(begin.Add(test.age)); got != test.want {
			t.Errorf("a certificate for %v is %s after %v, want %s", test.life, got, test.age, test.want)
		}
	}
}
