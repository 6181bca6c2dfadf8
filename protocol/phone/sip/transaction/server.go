// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

// Hot path: no allocation per packet.

import (
	"bytes"
	"strconv"

	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// Verdict is what became of a request.
type Verdict uint8

// The verdicts.
const (
	Done  Verdict = iota // it came again, or is answered: there is nothing to do
	Fresh                // a new one: the user must Answer it
	Acked                // ACK of a 2xx, of the returned INVITE or, if that is nil, of none that is known
	Stop                 // CANCEL, which has been answered: the user ends the returned INVITE with 487
)

// moreThanTrying is by how much a 180 is longer than 100, mostly.
const moreThanTrying = 128

// Request shows a request that has been checked, and the way it came. With Fresh the returned transaction is new, and U
// still to be set.
func (t *Table[U]) Request(m *sip.Message, w sip.Way, now int64) (x *Transaction[U], v Verdict) {
	h, err := m.Top()
	if err != nil {
		return nil, Done
	}
	x, key, hash := t.find(m, &h)
	switch {
	case m.Is("ACK"):
		return t.acked(x, m, &h, now)
	case m.Is("CANCEL"):
		return t.cancel(x, m, w)
	case x != nil:
		t.again(x, w)
		return x, Done
	}
	name := string(key)
	merge, came := t.merge(m)
	if came {
		t.Reply(m, w, &sip.Answer{Status: 482}) // RFC 3261 §8.2.2.2
		return nil, Done
	}
	prefix, ok := t.enter(w.Remote.Addr(), m)
	if !ok {
		t.refused++ // by then what fills the table now has ended
		t.Reply(m, w, &sip.Answer{Status: 503, Lines: []byte("Retry-After: 32\r\n")})
		return nil, Done
	}
	x = &Transaction[U]{Way: w, key: entry[U]{text: name, hash: hash}, prefix: prefix, merge: merge}
	x.timer.Value = x
	t.servers.put(&x.key, x)
	if merge != nil {
		t.merged.put(merge, x)
	}
	kind := Server
	if m.Is("INVITE") {
		kind = InviteServer
		a := sip.Answer{Status: 100}
		t.out = a.Append(t.out[:0], m, w.Remote)
		x.first = append(make([]byte, 0, len(t.out)+moreThanTrying), t.out...)
	}
	t.settle(x, x.machine.Start(kind, w.Transport.Reliable(), &t.Timers, now))
	return x, Fresh
}

// Again says whether a request is one of those that have come before, and answers it as it was answered then. It makes no
// transaction of a new one.
func (t *Table[U]) Again(m *sip.Message, w sip.Way) bool {
	h, err := m.Top()
	if err != nil || t.servers.count == 0 {
		return false
	}
	x, _, _ := t.find(m, &h)
	if x != nil {
		t.again(x, w)
	}
	return x != nil
}

// find returns the transaction of a request, or nil, and its key, which is good until the next message, with its hash.
func (t *Table[U]) find(m *sip.Message, h *sip.Hop) (x *Transaction[U], key []byte, hash uint64) {
	key = appendServerKey(t.out[:0], m, h)
	t.out = key[:0]
	x, hash = t.servers.find(key)
	return x, key, hash
}

// again sends the last response once more, by the newest way: a client may have moved. RFC 3261 §17.2.1.
func (t *Table[U]) again(x *Transaction[U], w sip.Way) {
	if x.machine.Request()&Send > 0 && x.last != nil {
		t.Send(w, x.last)
	}
}

// merge returns an entry of what an INVITE outside a dialog has in common with copies of it that somebody has forked, and that
// lead here too, or says that one has come; nil for other requests, which nobody forks to us. RFC 3261 §8.2.2.2.
func (t *Table[U]) merge(m *sip.Message) (e *entry[U], came bool) {
	to, _, err := m.Address(sip.To)
	if !m.Is("INVITE") || err != nil || to.Tag() != nil {
		return nil, false
	}
	from, _, _ := m.Address(sip.From)
	seq, _ := m.Sequence()
	key := append(append(t.old[:0], m.Get(sip.CallID)...), ' ')
	key = append(append(key, from.Tag()...), ' ')
	t.old = strconv.AppendUint(key, uint64(seq.Number), 10)
	x, hash := t.merged.find(t.old)
	if x != nil {
		return nil, true
	}
	return &entry[U]{text: string(t.old), hash: hash}, false
}

// acked is called for an ACK. That of a failure is swallowed; of clients of RFC 2543 it must have the tag that was
// answered. RFC 3261 §17.2.3.
func (t *Table[U]) acked(x *Transaction[U], m *sip.Message, h *sip.Hop, now int64) (*Transaction[U], Verdict) {
	if x == nil || !h.Modern() && !sameTag(t, x, m) {
		return nil, Acked
	}
	d := x.machine.ACK(&t.Timers, now)
	t.settle(x, d)
	if d&Pass > 0 {
		return x, Acked
	}
	return x, Done
}

func sameTag[U any](t *Table[U], x *Transaction[U], m *sip.Message) bool {
	if t.scratch.Parse(x.last, nil) != nil {
		return false
	}
	theirs, _, _ := m.Address(sip.To)
	ours, _, _ := sip.ParseAddress(t.scratch.Get(sip.To))
	return bytes.Equal(theirs.Tag(), ours.Tag())
}

// cancel answers a CANCEL: with 200 if its INVITE is known, whatever comes of it, else with 481. We answer so to CANCEL of
// other requests too, which RFC 3261 §9.1 advises against and on which it has no effect. RFC 3261 §9.2.
func (t *Table[U]) cancel(x *Transaction[U], m *sip.Message, w sip.Way) (*Transaction[U], Verdict) {
	a := sip.Answer{Status: 200}
	if x == nil {
		a.Status = 481
	} else if t.scratch.Parse(x.last, nil) == nil { // the tag of the INVITE's answers
		if to, _, err := sip.ParseAddress(t.scratch.Get(sip.To)); err == nil {
			a.Tag = to.Tag()
		}
	}
	t.Reply(m, w, &a)
	if x != nil && x.machine.state == Proceeding {
		return x, Stop
	}
	return x, Done
}

// try sends 100 for a user who takes long. RFC 3261 §17.2.1.
func (t *Table[U]) try(x *Transaction[U]) {
	x.last, x.first = x.first, nil
	t.Send(x.Way, x.last)
}

// Repeat sends the 2xx to an INVITE once more, as its user does until ACK comes. RFC 6026 §7.1.
func (t *Table[U]) Repeat(x *Transaction[U]) {
	if x.machine.state == Accepted {
		t.Send(x.Way, x.last)
	}
}

// Answer sends a response to a request that came. The Table keeps a copy. One that the transaction has no use for, as a
// second final one, is not sent.
func (t *Table[U]) Answer(x *Transaction[U], response []byte, status int, now int64) {
	d := x.machine.Answer(status, &t.Timers, now)
	if d&Send > 0 {
		if x.last == nil {
			x.last = x.first // which is not sent any more
		}
		x.first = nil
		if cap(x.last) < len(response) {
			x.last = nil // so that what is kept is no larger than it must be
		}
		x.last = append(x.last[:0], response...)
		t.Send(x.Way, x.last)
	}
	t.settle(x, d)
}
