// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/phone/plan"
)

func TestParsePrivacy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Wish{
		"id": ID, "ID;Critical": ID | Critical, "header; session;user": Header | Session | User, "none": None, "": 0, "history": 0,
		"id,header": ID | Header, "identity": 0, ";;": 0,
	} {
		if got := ParsePrivacy([]byte(text)); got != want {
			t.Errorf("%q: got %b, want %b", text, got, want)
		}
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	const own, second, fixed = "05010000001", "05010000002", "0332345678"
	subscriber := func(change func(*Caller)) Caller {
		c := Caller{Preferred: own, Proved: []string{own, second}}
		if change != nil {
			change(&c)
		}
		return c
	}
	trunk := func(change func(*Caller)) Caller {
		c := Caller{Trusted: true, Asserted: fixed, Preferred: fixed}
		if change != nil {
			change(&c)
		}
		return c
	}
	for _, tt := range []struct {
		name              string
		c                 Caller
		trusted, stranger Shown // what a trunk learns, and what a subscriber
	}{
		{"subscriber", subscriber(nil), Shown{From: own, Asserted: own}, Shown{From: own}},
		{"her second number", subscriber(func(c *Caller) { c.Preferred = second }), Shown{From: second, Asserted: second}, Shown{From: second}},
		{"a number that is not hers", subscriber(func(c *Caller) { c.Preferred = fixed }), Shown{From: own, Asserted: own}, Shown{From: own}},
		{"asserted by a stranger", subscriber(func(c *Caller) { c.Asserted = fixed }), Shown{From: own, Asserted: own}, Shown{From: own}},
		{"nobody has proved anything", Caller{Asserted: fixed, Preferred: fixed}, Shown{}, Shown{}},
		{"184", subscriber(func(c *Caller) { c.Prefix = plan.Withhold }), Shown{Asserted: own, ID: true}, Shown{ID: true}},
		{"184 against none", subscriber(func(c *Caller) { c.Prefix, c.Wish = plan.Withhold, None }), Shown{Asserted: own, ID: true}, Shown{ID: true}},
		{"186 against id", subscriber(func(c *Caller) { c.Prefix, c.Wish = plan.Show, ID }),
			Shown{From: own, Asserted: own, None: true}, Shown{From: own, Asserted: own, None: true}},
		{"186 against the line", subscriber(func(c *Caller) { c.Prefix, c.Withhold = plan.Show, true }),
			Shown{From: own, Asserted: own, None: true}, Shown{From: own, Asserted: own, None: true}},
		{"withheld by the line", subscriber(func(c *Caller) { c.Withhold = true }), Shown{Asserted: own, ID: true}, Shown{ID: true}},
		{"none against the line", subscriber(func(c *Caller) { c.Withhold, c.Wish = true, None }),
			Shown{From: own, Asserted: own, None: true}, Shown{From: own, Asserted: own, None: true}},
		{"session", subscriber(func(c *Caller) { c.Wish = Session }), Shown{From: own, Asserted: own, Relay: true}, Shown{From: own, Relay: true}},
		{"id; session", subscriber(func(c *Caller) { c.Wish = ID | Session }), Shown{Asserted: own, ID: true, Relay: true}, Shown{ID: true, Relay: true}},
		{"none asks for no relay", subscriber(func(c *Caller) { c.Wish = None | Session }),
			Shown{From: own, Asserted: own, None: true}, Shown{From: own, Asserted: own, None: true}},
		{"trunk", trunk(nil), Shown{From: fixed, Asserted: fixed}, Shown{From: fixed}},
		{"trunk, anonymous From", trunk(func(c *Caller) { c.Preferred, c.Wish = "", ID }), Shown{Asserted: fixed, ID: true}, Shown{ID: true}},
		{"trunk without an assertion", trunk(func(c *Caller) { c.Asserted = "" }), Shown{From: fixed, Asserted: fixed}, Shown{From: fixed}},
		{"trunk that knows nothing", Caller{Trusted: true}, Shown{}, Shown{}},
	} {
		if diff := cmp.Diff(tt.trusted, Decide(&tt.c, Called{Trusted: true})); diff != "" {
			t.Errorf("%s, to one we trust (-want +got):\n%s", tt.name, diff)
		}
		if diff := cmp.Diff(tt.stranger, Decide(&tt.c, Called{})); diff != "" {
			t.Errorf("%s, to one we do not (-want +got):\n%s", tt.name, diff)
		}
		told := tt.stranger
		if !tt.c.Withheld() {
			told.Asserted = tt.c.Who()
		}
		if diff := cmp.Diff(told, Decide(&tt.c, Called{Assert: true})); diff != "" {
			t.Errorf("%s, to one that is told (-want +got):\n%s", tt.name, diff)
		}
	}
}
