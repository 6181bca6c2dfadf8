// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy says who may bring mail to the door, before a server is troubled: what a server that knows only IPv4
// cannot say of an IPv6 client.
//
//	connects ─▶ Begin ─┬─▶ reverse name ─▶ its addresses ──┐
//	                   └─▶ each list ─▶ reason, test entry ┴─▶ Facts ─┐
//	says EHLO ──────────────────────────────────────────────────────── Judge ─▶ findings ─▶ the first that is enforced
//	talks too early ─────────────────────────────────────────────────┘
//
// Judge is a function of facts alone; a Visit collects them, on the loop of its client. What nobody could say is no fact:
// a resolver that fails refuses nobody.
//
// RFC 5321 (SMTP), RFC 5782 (DNS lists), RFC 7372 (status codes), RFC 8601 §2.7.3 (reverse names).
package policy

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// Mode says what a finding leads to. The zero value is that nobody looks.
type Mode uint8

// The modes.
const (
	Off     Mode = iota
	Observe      // counted and logged
	Enforce      // and refused
)

// modes is in the order of the constants.
var modes = [...]string{"off", "observe", "enforce"}

// ErrMode means that a text is not a mode.
var ErrMode = errors.New("not a mode; write off, observe or enforce")

// UnmarshalText reads off, observe or enforce. Returns ErrMode.
func (m *Mode) UnmarshalText(text []byte) error {
	for i, word := range modes {
		if word == string(text) {
			*m = Mode(i)
			return nil
		}
	}
	return ErrMode
}

// String returns the word.
func (m Mode) String() string { return modes[m] }

// Rule is something that can be had against a client.
type Rule uint8

// The rules, in the order in which they are asked.
const (
	Early       Rule = iota // it talks before it is greeted
	Hello                   // it gives a name that cannot be its own
	Listed                  // a DNS list has it
	ReverseName             // its address has no name that leads back to it
	Rules                   // how many there are
)

// String returns the rule as it is written in the file and in labels.
func (r Rule) String() string {
	return [Rules]string{"early", "hello", "dnsbl", "reverse-name"}[r]
}

// Policy is what is looked at. It is immutable.
type Policy struct {
	Modes    [Rules]Mode
	Families []ip.Family   // whose clients are looked at; none means all
	Exempt   ip.Prefixes   // who is not
	Lists    []string      // zones of DNS lists
	Delay    time.Duration // how long a client waits to be greeted where Early is looked at
	Name     string        // ours, in greetings
}

// Concerns says whether anything of the policy is for a client.
func (p *Policy) Concerns(client netip.Addr) bool {
	if p == nil || p.Modes == [Rules]Mode{} || p.Exempt.Contains(client) {
		return false
	}
	for _, f := range p.Families {
		if f == ip.FamilyOf(client) {
			return true
		}
	}
	return len(p.Families) == 0
}

// Facts are what is known of a client. The zero value is that nothing is.
type Facts struct {
	Client  netip.Addr
	Early   bool
	Hello   string // the name that it has given; "" before it has
	Reverse Reverse
	Name    string // its reverse name: the first of them, or the one that leads back
	List    string // the zone of a list that has it
	Why     string // what the list says
}

// Reverse is what is known of a reverse name.
type Reverse uint8

// What can be known.
const (
	Unknown   Reverse = iota // nobody could say, or nobody was asked
	Confirmed                // it leads back to the address
	Missing                  // the address has none
	Astray                   // it does not lead back
)

// Finding is what a rule has against a client.
type Finding struct {
	Rule  Rule
	Mode  Mode
	Reply string // what the client is told, with its CRLF, if the rule is enforced
}

// Judge returns what the rules have against a client, the first rule first.
func (p *Policy) Judge(f *Facts) (all []Finding) {
	for r := range Rules {
		if p.Modes[r] == Off {
			continue
		}
		if reply := p.against(r, f); reply != "" {
			all = append(all, Finding{r, p.Modes[r], reply + "\r\n"})
		}
	}
	return all
}

// Refusal returns the first finding that is enforced.
func Refusal(all []Finding) (Finding, bool) {
	for _, f := range all {
		if f.Mode == Enforce {
			return f, true
		}
	}
	return Finding{}, false
}

// against returns the reply of a rule that has something against a client, or "".
//
// What is wrong with a reverse name is refused for now only, with the code that large receivers use for it: a sender who
// has IPv4 too then tries that, where he may be in order. RFC 7372 §3.3, RFC 5321 §4.2.1.
func (p *Policy) against(r Rule, f *Facts) string {
	switch {
	case r == Early && f.Early:
		return "554 5.5.1 You have not waited for the greeting"
	case r == Hello && f.Hello != "":
		if why := p.hello(f.Hello, f.Client); why != "" {
			return "550 5.7.1 " + why
		}
	case r == Listed && f.List != "":
		return "550 5.7.1 " + f.Client.String() + " is listed at " + f.List + because(f.Why)
	case r == ReverseName && f.Reverse == Missing:
		return "450 4.7.25 " + f.Client.String() + " has no reverse name"
	case r == ReverseName && f.Reverse == Astray:
		return "450 4.7.25 The reverse name of " + f.Client.String() + ", " + clip(f.Name) + ", does not lead back to it"
	}
	return ""
}

// mostReason is how much of what a stranger says is repeated to another: a reply line has 512 bytes. RFC 5321 §4.5.3.1.5.
const mostReason = 200

func because(why string) string {
	if why = clip(why); why == "" {
		return ""
	}
	return ": " + why
}

// clip returns the part of a text that can stand in a reply.
func clip(text string) string {
	var b strings.Builder
	for i := range min(len(text), mostReason) {
		if c := text[i]; c >= ' ' && c <= '~' {
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}
