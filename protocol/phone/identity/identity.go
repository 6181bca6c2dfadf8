// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package identity decides what the called side learns of who calls. It does no I/O.
//
//	one leg: whom we trust, what it says of itself, Privacy, 184 or 186 ─▶ Decide ─▶ the other leg: From,
//	                                                                              P-Asserted-Identity, Privacy
//
// Whose word counts is settled by trust alone: of a peer that is not trusted only what it has proved is believed, and a
// P-Asserted-Identity from it is as if it were not there.
//
// RFC 3323 (Privacy), RFC 3325 (P-Asserted-Identity).
package identity

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/phone/plan"
)

// Wish is what a Privacy field asks for.
type Wish uint8

// The wishes; several may be there at once. RFC 3323 §4.2, RFC 3325 §9.3.
const (
	None     Wish = 1 << iota // ask nothing of anybody on the way
	Header                    // nothing in headers that tells who it is
	Session                   // nor in SDP
	User                      // nor in what the user agent wrote itself
	ID                        // the identity that we assert is for those we trust
	Critical                  // better no call than one without
)

// names is in the order of the bits.
var names = [...]string{"none", "header", "session", "user", "id", "critical"}

// ParsePrivacy reads the value of a Privacy field. Words that it does not know are passed over, as RFC 3323 §5 has
// it of services that cannot grant them; some write commas between.
func ParsePrivacy(value []byte) (w Wish) {
	for word := range bytes.FieldsFuncSeq(value, func(r rune) bool { return r == ';' || r == ',' || r == ' ' || r == '\t' }) {
		for i := range names {
			if bytes.EqualFold(word, []byte(names[i])) {
				w |= 1 << i
			}
		}
	}
	return w
}

// Caller is what is known of who calls, all numbers in national form, "" if there is none.
type Caller struct {
	Trusted   bool     // the leg belongs to a network whose word counts
	Asserted  string   // of P-Asserted-Identity
	Preferred string   // of P-Preferred-Identity, else of From
	Proved    []string // the numbers of the subscriber who has proved who it is
	Wish      Wish
	Prefix    plan.Privacy // dialled for this call
	Withhold  bool         // agreed for the line, when nothing is said
}

// Called is what the other leg is, and gets.
type Called struct {
	Trusted bool // it keeps for itself what it is told to
	Assert  bool // if it is not trusted: it is told who calls all the same, unless that is withheld
}

// Shown is what the other leg's request says.
type Shown struct {
	From     string // "" is anonymous: "Anonymous" <sip:anonymous@anonymous.invalid>, RFC 3323 §4.1.1.3
	Asserted string // "" is no P-Asserted-Identity
	ID       bool   // Privacy: id, also to those who are told nothing: it says why
	None     bool   // Privacy: none, for the next one to obey too
	Relay    bool   // media must not tell where the caller is; with Critical, no call without: RFC 3323 §5
}

// Who returns the number of who calls, as far as it can be believed, or "".
func (c *Caller) Who() string {
	if c.Trusted {
		if c.Asserted != "" {
			return c.Asserted
		}
		return c.Preferred
	}
	for _, n := range c.Proved {
		if n == c.Preferred { // a hint, if it is one of her own numbers: RFC 3325 §6
			return n
		}
	}
	if len(c.Proved) > 0 {
		return c.Proved[0]
	}
	return ""
}

// Withheld says whether the caller's number is to be withheld. What was dialled for this call counts most, then what the
// telephone asks for, then what was agreed.
func (c *Caller) Withheld() bool {
	switch {
	case c.Prefix == plan.Withhold:
		return true
	case c.Prefix == plan.Show, c.Wish&None != 0:
		return false
	case c.Wish&(ID|Header|User) != 0:
		return true
	}
	return c.Withhold
}

// Decide says what the called side learns. RFC 3325 §5, §7.
func Decide(c *Caller, to Called) Shown {
	who, withheld := c.Who(), c.Withheld()
	s := Shown{
		From: who, Asserted: who,
		None:  !withheld && (c.Prefix == plan.Show || c.Wish&None != 0),
		Relay: c.Wish&Session != 0 && c.Wish&None == 0,
	}
	if withheld {
		s.From, s.ID = "", true
	}
	if !to.Trusted && (withheld || !to.Assert && !s.None) {
		s.Asserted = ""
	}
	return s
}
