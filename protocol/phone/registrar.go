// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"encoding/binary"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// register answers a REGISTER. RFC 3261 §10.3, whose steps are in this order.
func (e *exchange) register() {
	m, o := e.message, e.settings.options
	target, err := sip.ParseURI(m.Target())
	if err == nil {
		err = m.CheckRegister()
	}
	switch {
	case err != nil:
		e.answer(&sip.Answer{Status: err.Status})
		return
	case !strings.EqualFold(string(target.Host.Name), o.Domain): // steps 1 and 2: another domain is not ours to ask
		e.answer(&sip.Answer{Status: 404})
		return
	case !e.network.subscribers:
		e.answer(&sip.Answer{Status: 403, Phrase: "No Subscribers In This Network"})
		return
	}
	aor, request := e.party(sip.To), e.mark()
	if e.again(aor, request) {
		return
	}
	if !e.admitted() {
		e.tooMany()
		return
	}
	who := e.authenticate() // step 3
	if who == nil {
		return
	}
	update, refusal := e.update()
	if aor != who.address || e.settings.subscriber(who.name) != who { // steps 4 and 5: a subscriber registers himself
		refusal = &sip.Answer{Status: 403}
	}
	if refusal != nil {
		e.refuse(refusal)
		return
	}
	if renews(update) {
		update.Request = request
	} else if !e.keep() {
		return
	}
	at := now()
	left, _, failed := e.agent.core.places.Update(aor, update, at) // steps 6 and 7
	switch {
	case errors.Is(failed, location.ErrMany):
		e.refuse(&sip.Answer{Status: 403, Phrase: "Too Many Contacts"})
	case failed != nil:
		e.refuse(&sip.Answer{Status: 500, Phrase: "Registration Out Of Order"})
	default:
		e.registered(left, update, at) // step 8
	}
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

// again answers a REGISTER that has come before. Its proof, which has been taken, would be refused.
//
// RFC 3261 §17.2.2 says the same response again for 32 s, and §8.2.7 that a registrar needs state for that. Of one that has
// made or renewed bindings we keep no response and say what is bound now, because a million subscribers may come at once: its
// state is the mark that those bindings have.
func (e *exchange) again(aor string, request uint64) bool {
	if e.agent.table.Again(e.message, e.back) {
		return true
	}
	at := now()
	all, ok := e.agent.core.places.Again(aor, request, at)
	if !ok {
		return false
	}
	u, refusal := e.update()
	if refusal != nil {
		return false
	}
	e.registered(all, u, at)
	return true
}

// update reads what a REGISTER asks for, or says what is wrong with that.
func (e *exchange) update() (*location.Update, *sip.Answer) {
	m := e.message
	seq, _ := m.Sequence() // checked
	u := &location.Update{CallID: string(m.Get(sip.CallID)), Sequence: seq.Number, Way: e.back, Path: e.path(),
		Agent: e.device()}
	if u.Path != "" && !m.Lists(sip.Supported, "path") { // RFC 3327 §5.3: the client must know of it
		return nil, &sip.Answer{Status: 421, Lines: []byte("Require: path\r\n")}
	}
	o := &e.settings.options.Registration
	most, least := int64(o.Max.Seconds()), int64(o.Min.Seconds())
	otherwise := int64(sip.Seconds(m.Get(sip.Expires), uint32(most)))
	short := false
	err := m.Values(sip.Contact, func(a *sip.Address) bool {
		if a.Star {
			u.Clear = true
			return false
		}
		c := readContact(a, otherwise)
		short = short || c.Lifetime > 0 && c.Lifetime < least
		if c.Lifetime > 0 {
			c.Lifetime = spread(min(c.Lifetime, most), least)
		}
		u.Contacts = append(u.Contacts, c)
		return len(u.Contacts) <= location.MaxBindings
	})
	switch {
	case err != nil:
		return nil, &sip.Answer{Status: err.Status}
	case short: // RFC 3261 §10.3, step 7
		return nil, &sip.Answer{Status: 423, Lines: append(strconv.AppendInt([]byte("Min-Expires: "), least, 10), "\r\n"...)}
	}
	return u, nil
}

// device returns what the device calls itself.
func (e *exchange) device() string {
	for i := range e.message.Fields() {
		if _, name, value := e.message.At(i); len(name) == len("User-Agent") && strings.EqualFold(string(name), "User-Agent") {
			return e.agent.core.names.name(string(value))
		}
	}
	return ""
}

// spread makes a lifetime shorter by up to a tenth, but not shorter than least.
func spread(lifetime, least int64) int64 {
	return max(lifetime-rand.Int64N(lifetime/10+1), min(least, lifetime))
}

// path returns the values of Path, in their order.
func (e *exchange) path() string {
	var all []string
	for value, i := e.message.Field(sip.Path, 0); value != nil; value, i = e.message.Field(sip.Path, i) {
		all = append(all, string(value))
	}
	return strings.Join(all, ", ")
}

// readContact reads one Contact. RFC 3261 §10.2.1, RFC 5626 §4.
func readContact(a *sip.Address, otherwise int64) location.Contact {
	c := location.Contact{URI: string(a.URI), Lifetime: otherwise, Quality: 1000}
	if v, ok := sip.Param(a.Params, "expires"); ok {
		c.Lifetime = int64(sip.Seconds(v, uint32(otherwise)))
	}
	if v, ok := sip.Param(a.Params, "q"); ok {
		if q, err := strconv.ParseFloat(string(v), 32); err == nil && q >= 0 && q <= 1 {
			c.Quality = uint16(q*1000 + 0.5)
		}
	}
	if v, ok := sip.Param(a.Params, "+sip.instance"); ok {
		c.Instance = strings.Trim(string(v), `"`)
	}
	if v, ok := sip.Param(a.Params, "reg-id"); ok {
		c.Flow = sip.Seconds(v, 0)
	}
	return c
}

// registered says which bindings there are now, and for how long.
func (e *exchange) registered(all []location.Binding, u *location.Update, now int64) {
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
	if u.Path != "" {
		lines = sip.AppendField(lines, sip.Path, []byte(u.Path)) // RFC 3327 §5.3
	}
	for _, c := range u.Contacts {
		if c.Flow > 0 && c.Instance != "" { // RFC 5626 §6
			lines = append(lines, "Require: outbound\r\nSupported: outbound\r\n"...)
			break
		}
	}
	e.agent.out = lines
	e.answer(&sip.Answer{Status: 200, Lines: lines})
}
