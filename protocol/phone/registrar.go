// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// register answers a REGISTER. RFC 3261 §10.3, whose steps are in this order.
func (e *exchange) register() {
	m := e.message
	target, err := m.TargetURI()
	if err == nil {
		err = m.CheckRegister()
	}
	switch {
	case err != nil:
		e.answer(&sip.Answer{Status: err.Status})
		return
	case !e.settings.options.own(target.Host.Name): // steps 1 and 2: another domain is not ours to ask
		e.answer(&sip.Answer{Status: 404})
		return
	case !e.network.subscribers:
		e.answer(&sip.Answer{Status: 403, Phrase: "No Subscribers In This Network"})
		return
	case !e.admitted():
		e.tooMany()
		return
	}
	who := e.authenticate() // step 3
	if who == nil {
		return
	}
	u := &e.agent.update
	refusal := e.update(u)
	if !e.is(sip.To, who) || e.settings.partners[who.name].subscriber == who { // steps 4 and 5: a subscriber registers himself
		refusal = &sip.Answer{Status: 403}
	}
	if refusal != nil {
		e.refuse(refusal)
		return
	}
	if renews(u) {
		u.Request = e.mark()
	} else if !e.keep() {
		return
	}
	at := now()
	u.Home = &who.home
	left, _, failed := e.agent.core.places.Update(who.address, u, at) // steps 6 and 7
	switch {
	case errors.Is(failed, location.ErrMany):
		e.refuse(&sip.Answer{Status: 403, Phrase: "Too Many Contacts"})
	case failed != nil:
		e.refuse(&sip.Answer{Status: 500, Phrase: "Registration Out Of Order"})
	default:
		e.registered(left, u, at) // step 8
	}
}

// is says whether From or To is the address of record of a subscriber.
func (e *exchange) is(k sip.Kind, who *subscriber) bool {
	e.agent.out = e.appendParty(e.agent.out[:0], k)
	return string(e.agent.out) == who.address
}

// renews says whether an update only makes or renews bindings, so that they tell that it has come.
func renews(u *location.Update) bool {
	ends := func(c location.Contact) bool { return c.Lifetime == 0 }
	return !u.Clear && len(u.Contacts) > 0 && !slices.ContainsFunc(u.Contacts, ends)
}

// refuse answers one who has proved who he is. The proof is good once, so that the answer must be kept.
func (e *exchange) refuse(a *sip.Answer) {
	if e.transaction != nil || e.keep() {
		e.answer(a)
	}
}

// mark returns what a REGISTER and the same one from the same place have in common; 0 if it cannot come again.
func (e *exchange) mark() uint64 {
	if e.back.Transport.Reliable() {
		return 0
	}
	c, from := e.agent.core, e.back.Remote
	addr := from.Addr().As16()
	text := binary.NativeEndian.AppendUint64(e.agent.out[:0], maphash.Bytes(c.seed, e.message.Head()))
	text = binary.NativeEndian.AppendUint16(append(text, addr[:]...), from.Port())
	e.agent.out = text
	return max(maphash.Bytes(c.seed, text), 1)
}

// again answers a REGISTER that has come before, whose proof has been taken and is good no more.
//
// RFC 3261 §17.2.2 says the same response again for 32 s, and §8.2.7 that a registrar needs state for that. Of one that has
// made or renewed bindings we keep no response and say what is bound now, because a million subscribers may come at once: its
// state is the mark that those bindings have.
func (e *exchange) again(who *subscriber) bool {
	if !e.message.Is("REGISTER") {
		return false
	}
	if e.agent.table.Again(e.message, e.back) {
		return true
	}
	at, u := now(), &e.agent.update
	all, ok := e.agent.core.places.Again(who.address, e.mark(), at)
	if !ok || e.update(u) != nil {
		return false
	}
	e.registered(all, u, at)
	return true
}

// update reads what a REGISTER asks for, or says what is wrong with that.
func (e *exchange) update(u *location.Update) *sip.Answer {
	m := e.message
	seq, _ := m.Sequence() // checked
	*u = location.Update{CallID: m.Get(sip.CallID), Sequence: seq.Number, Way: e.back, Path: e.path(), Contacts: u.Contacts[:0], Room: u.Room[:0],
		Agent: e.agent.core.names.name(m.Get(sip.UserAgent))}
	if len(u.Path) > 0 && !m.Lists(sip.Supported, "path") { // RFC 3327 §5.3: the client must know of it
		return &sip.Answer{Status: 421, Lines: []byte("Require: path\r\n")}
	}
	o := &e.settings.options.Registration
	most, least := int64(o.Max/time.Second), int64(o.Min/time.Second)
	otherwise := int64(sip.Seconds(m.Get(sip.Expires), uint32(most)))
	short := false
	all := m.Walk(sip.Contact)
	for len(u.Contacts) <= location.MaxBindings && all.Next() {
		if u.Clear = all.Address.Star; u.Clear {
			break
		}
		c := readContact(&all.Address, otherwise)
		short = short || c.Lifetime > 0 && c.Lifetime < least
		if c.Lifetime > 0 {
			c.Lifetime = spread(min(c.Lifetime, most), least)
		}
		u.Contacts = append(u.Contacts, c)
	}
	switch {
	case all.Err != nil:
		return &sip.Answer{Status: all.Err.Status}
	case short: // RFC 3261 §10.3, step 7
		return &sip.Answer{Status: 423, Lines: append(strconv.AppendInt([]byte("Min-Expires: "), least, 10), "\r\n"...)}
	}
	return nil
}

// spread makes a lifetime shorter by up to a tenth, but not shorter than least.
func spread(lifetime, least int64) int64 {
	return max(lifetime-rand.Int64N(lifetime/10+1), min(least, lifetime))
}

// path returns the values of Path, in their order.
func (e *exchange) path() (all []byte) {
	for value, i := e.message.Field(sip.Path, 0); value != nil; value, i = e.message.Field(sip.Path, i) {
		if all == nil {
			all = value // mostly there is one
			continue
		}
		all = slices.Concat(all, []byte(", "), value)
	}
	return all
}

// readContact reads one Contact. RFC 3261 §10.2.1, RFC 5626 §4.
func readContact(a *sip.Address, otherwise int64) location.Contact {
	c := location.Contact{URI: a.URI, Lifetime: otherwise, Quality: 1000}
	if v, ok := sip.Param(a.Params, "expires"); ok {
		c.Lifetime = int64(sip.Seconds(v, uint32(otherwise)))
	}
	if v, ok := sip.Param(a.Params, "q"); ok {
		if q, err := strconv.ParseFloat(string(v), 32); err == nil && q >= 0 && q <= 1 {
			c.Quality = uint16(q*1000 + 0.5)
		}
	}
	if v, ok := sip.Param(a.Params, "+sip.instance"); ok {
		c.Instance = bytes.Trim(v, `"`)
	}
	if v, ok := sip.Param(a.Params, "reg-id"); ok {
		c.Flow = sip.Seconds(v, 0)
	}
	return c
}

// registered says which bindings there are now, and for how long.
func (e *exchange) registered(all []location.Binding, u *location.Update, now int64) {
	u.Room = all[:0]
	lines := e.agent.out[:0]
	for i := range all {
		b := &all[i]
		lines = append(append(append(lines, "Contact: <"...), b.Contact...), '>')
		lines = strconv.AppendInt(append(lines, ";expires="...), b.Expires-now, 10)
		if b.Quality < 1000 {
			lines = append(lines, ";q="...)
			lines = strconv.AppendFloat(lines, float64(b.Quality)/1000, 'f', -1, 32)
		}
		if b.Instance != "" {
			lines = append(append(append(lines, `;+sip.instance="`...), b.Instance...), '"')
		}
		if b.Flow > 0 {
			lines = strconv.AppendUint(append(lines, ";reg-id="...), uint64(b.Flow), 10)
		}
		lines = append(lines, "\r\n"...)
	}
	if len(u.Path) > 0 {
		lines = sip.AppendField(lines, sip.Path, u.Path) // RFC 3327 §5.3
	}
	for _, c := range u.Contacts {
		if c.Flow > 0 && len(c.Instance) > 0 { // RFC 5626 §6
			lines = append(lines, "Require: outbound\r\nSupported: outbound\r\n"...)
			break
		}
	}
	e.agent.out = lines
	e.answer(&sip.Answer{Status: 200, Lines: lines})
}
