// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import (
	"bytes"
	"slices"
)

// methods are those that the core knows. One of another name is answered with 501 rather than 400 where something else
// is wrong with it too: RFC 4475 §3.1.2.18.
var methods = [...]string{
	"INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "REGISTER", "PRACK", "UPDATE", "INFO", "REFER", "SUBSCRIBE", "NOTIFY",
	"MESSAGE", "PUBLISH",
}

// Check holds a message against what all who receive one check before they act on it: the fields that must be there,
// those that may come once, and the form of those that we understand a message by. A response that fails is dropped.
// RFC 3261 §8.1.1, §16.3.
func (m *Message) Check() *Error {
	for _, k := range [...]Kind{Via, From, To, CallID, CSeq} {
		if !m.Has(k) {
			return ErrMissing
		}
	}
	for _, k := range once {
		if m.many[k] {
			return ErrTwice
		}
	}
	if err := m.vias(); err != nil {
		return err
	}
	if !all(m.Get(CallID), words) {
		return ErrCallID
	}
	for _, k := range addresses {
		if err := m.addresses(k); err != nil {
			return err
		}
	}
	seq, err := m.Sequence()
	if err != nil {
		return err
	}
	if _, err = m.Body(); err != nil || !m.Request() {
		return err
	}
	return m.request(seq)
}

// request checks what only requests have.
func (m *Message) request(seq Sequence) *Error {
	if !bytes.Equal(seq.Method, m.method) {
		if !known(m.method) {
			return ErrMethod
		}
		return ErrMethods
	}
	if _, err := m.Hops(); err != nil {
		return err
	}
	u, err := m.TargetURI()
	if err != nil {
		return err
	}
	if u.Headers != nil {
		return ErrTarget
	}
	return nil
}

func known(method []byte) bool {
	for _, name := range methods {
		if string(method) == name {
			return true
		}
	}
	return false
}

// vias reads all values of Via. An answer goes where they say.
func (m *Message) vias() *Error {
	top := true
	for value, i := m.Field(Via, 0); value != nil; value, i = m.Field(Via, i) {
		for rest := value; rest != nil; top = false {
			if !top {
				var err *Error
				if _, rest, err = ParseVia(rest); err != nil {
					return err
				}
				continue
			}
			t := m.readTop()
			if t.err != nil {
				return t.err
			}
			if b := t.hop.Branch; m.Request() && len(b) == len(cookie) && equalFold(b, "z9hg4bk") {
				return ErrBranch
			}
			rest = t.rest
		}
	}
	return nil
}

func (m *Message) addresses(k Kind) *Error {
	if p := m.party(k); p != nil && p.rest == nil && !m.many[k] { // as mostly
		if p.err == ErrMissing {
			return nil
		}
		if p.err == nil && p.address.Star && k != Contact {
			return ErrAddress
		}
		return p.err
	}
	w := m.Walk(k)
	for w.Next() {
		if w.Address.Star && k != Contact || w.rest != nil && (k == From || k == To) {
			return ErrAddress
		}
	}
	return w.Err
}

// Ours says whether a response has no other Via than ours, which an endpoint asks for. RFC 3261 §8.1.3.3.
func (m *Message) Ours() *Error {
	if _, rest, _ := ParseVia(m.Get(Via)); rest != nil || m.many[Via] {
		return ErrManyVias
	}
	return nil
}

// Abilities is what an endpoint of ours can do. All names are in lower case, but for the methods.
type Abilities struct {
	Methods    []string
	Extensions []string // option tags
	Types      []string // of bodies
	Sends      string   // the type of the body of an answer to INVITE; "" for any
}

// Check says whether an endpoint can do what a request asks for. RFC 3261 §8.2.1 to §8.2.3. Nobody asks that of ACK and
// CANCEL, which belong to what has been asked already.
func (a *Abilities) Check(m *Message) *Error {
	if !a.does(m.method) {
		return ErrMethod
	}
	if u, err := m.TargetURI(); err != nil || u.Scheme == Foreign {
		return cmpErr(err, ErrScheme)
	}
	if m.Is("ACK") || m.Is("CANCEL") {
		return nil
	}
	for range a.lacks(m, Require) {
		return ErrExtension
	}
	if body, err := m.Body(); err != nil || len(body) > 0 && !a.reads(m) {
		return cmpErr(err, ErrType)
	}
	if m.Is("INVITE") && m.Has(Accept) && !a.accepted(m) {
		return ErrNotAccepted
	}
	return nil
}

func (a *Abilities) does(method []byte) bool {
	return slices.Contains(a.Methods, string(method))
}

// lacks yields the option tags of the fields of kind k that a does not have.
func (a *Abilities) lacks(m *Message, k Kind) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for value, i := m.Field(k, 0); value != nil; value, i = m.Field(k, i) {
			for rest := value; rest != nil; {
				var tag []byte
				if tag, rest = element(rest); len(tag) > 0 && !contains(a.Extensions, tag) && !yield(tag) {
					return
				}
			}
		}
	}
}

func (a *Abilities) reads(m *Message) bool {
	if e := m.Get(ContentEncoding); e != nil && !equalFold(e, "identity") {
		return false
	}
	kind, _, _ := bytes.Cut(m.Get(ContentType), []byte{';'})
	return contains(a.Types, trim(kind))
}

// accepted says whether a range of Accept holds the type that a sends. RFC 3261 §20.1.
func (a *Abilities) accepted(m *Message) bool {
	if a.Sends == "" {
		return true
	}
	for value, i := m.Field(Accept, 0); value != nil; value, i = m.Field(Accept, i) {
		for rest := value; rest != nil; {
			var r []byte
			r, rest = element(rest)
			r, _, _ = bytes.Cut(r, []byte{';'})
			r = trim(r)
			whole, isWhole := bytes.CutSuffix(r, []byte("/*"))
			if equalFold(r, a.Sends) || equalFold(r, "*/*") || isWhole && len(a.Sends) > len(whole) &&
				equalFold(whole, a.Sends[:len(whole)]) && a.Sends[len(whole)] == '/' {
				return true
			}
		}
	}
	return false
}

func contains(list []string, b []byte) bool {
	for _, s := range list {
		if equalFold(b, s) {
			return true
		}
	}
	return false
}

// CheckForward says whether one that forwards may forward a request. RFC 3261 §16.3.
func (a *Abilities) CheckForward(m *Message) *Error {
	u, err := ParseURI(m.target)
	if err != nil || u.Scheme == Foreign {
		return cmpErr(err, ErrScheme)
	}
	if hops, err := m.Hops(); err != nil || hops == 0 {
		return cmpErr(err, ErrTooManyHops)
	}
	for range a.lacks(m, ProxyRequire) {
		return ErrExtension
	}
	return nil
}

// CheckRegister holds a REGISTER against what a registrar asks for. RFC 3261 §10.2, §10.3.
func (m *Message) CheckRegister() *Error {
	_, u, err := m.Address(To)
	if err != nil || u.Scheme != SIP && u.Scheme != SIPS {
		return cmpErr(err, ErrAOR)
	}
	stars, contacts := 0, 0
	w := m.Walk(Contact)
	for w.Next() {
		contacts++
		if w.Address.Star {
			stars++
		}
	}
	err = w.Err
	if stars > 0 && (contacts > 1 || Seconds(m.Get(Expires), 1) != 0) {
		return cmpErr(err, ErrStar)
	}
	return err
}
