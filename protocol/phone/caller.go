// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"strings"

	"github.com/kyozon/kyozon/protocol/phone/identity"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// anonymous is From of whoever is not shown. RFC 3323 §4.1.1.3.
const anonymous = `"Anonymous" <sip:anonymous@anonymous.invalid>`

// caller is who calls.
type caller struct {
	identity.Caller
	address string // of record
	trunk   *trunk // that he comes by, or nil
}

// who returns who calls, or answers and returns nil.
func (e *exchange) who() *caller {
	if g := e.settings.gatewayOf(e.transaction.Way); g != nil {
		return e.peer(g.trunk)
	}
	s := e.authenticate()
	if s == nil {
		return nil
	}
	if t := e.partnerOf(s); t != nil {
		return e.peer(t)
	}
	if e.settings.subscriber(s.name) != s { // for a trunk of another network
		e.answer(&sip.Answer{Status: 403})
		return nil
	}
	c := &caller{address: s.address}
	c.Proved, c.Wish = []string{s.name}, e.wish()
	switch {
	case isAnonymous(e.message.Get(sip.From)):
		c.Withhold = true
	case e.party(sip.From) != s.address: // nobody calls in another's name
		e.answer(&sip.Answer{Status: 403, Phrase: "Not Your Number"})
		return nil
	}
	return c
}

// wish returns what the Privacy fields ask for.
func (e *exchange) wish() (w identity.Wish) {
	for value, i := e.message.Field(sip.Privacy, 0); value != nil; value, i = e.message.Field(sip.Privacy, i) {
		w |= identity.ParsePrivacy(value)
	}
	return w
}

// isAnonymous says whether an address is that of nobody. RFC 3323 §4.1.1.3.
func isAnonymous(value []byte) bool {
	a, _, err := sip.ParseAddress(value)
	if err != nil {
		return false
	}
	u, err := a.Parse()
	return err == nil && strings.EqualFold(string(u.Host.Name), "anonymous.invalid")
}

// show writes what the called side learns of who calls: P-Asserted-Identity and Privacy, and to dst From without its tag.
func (b *branch) show(dst []byte, e *sip.Editor, m *sip.Message) (from []byte) {
	who := &b.call.caller
	s := identity.Decide(&who.Caller, identity.Called{Trusted: b.call.trunk != nil && !b.call.trunk.foreign, Assert: true})
	if t := b.call.trunk; t != nil {
		t.trim(e, m)
	}
	e.RemoveAll(sip.PPreferredIdentity)
	e.RemoveAll(sip.PAssertedIdentity)
	e.RemoveAll(sip.Privacy)
	switch {
	case s.ID:
		e.Add(sip.Privacy, []byte("id"))
	case s.None:
		e.Add(sip.Privacy, []byte("none"))
	}
	if s.Asserted != "" { // RFC 3325 §5
		e.Add(sip.PAssertedIdentity, []byte("<"+b.address(s.Asserted)+">"))
	}
	if s.From == "" {
		return append(dst, anonymous...)
	}
	was, _, _ := m.Address(sip.From) // checked
	a := *was
	if a.URI = []byte(b.address(s.From)); isAnonymous(m.Get(sip.From)) {
		a.Display = nil
	}
	return appendParty(dst, &a)
}

// address returns the URI of a number for the end of a branch.
func (b *branch) address(number string) string {
	t := b.call.trunk
	if t == nil {
		return "sip:" + number + "@" + b.call.domain
	}
	if n, _, ok := t.country.Read(number); ok {
		number = t.number(n)
	}
	return t.address(number)
}

// number returns what was called as it is in the number plan, or the name of a subscriber: without escapes and parameters.
func number(u *sip.URI) string {
	if u.Scheme == sip.TEL {
		return string(u.Digits(nil))
	}
	var b [64]byte
	name, _, _ := bytes.Cut(sip.Unescape(b[:0], u.User), []byte{';'}) // RFC 3261 §19.1.6: it may be a telephone-subscriber
	return string(name)
}
