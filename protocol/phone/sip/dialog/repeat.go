// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// Repeat is a response that is sent until it is acknowledged, over TCP too: the next hop is not the other end. Times are
// nanoseconds; 0 is never.
type Repeat struct {
	At, Wait, End int64
}

func (r *Repeat) start(now int64, t *transaction.Timers) {
	t1 := t.First()
	*r = Repeat{now + t1, t1, now + 64*t1}
}

// time says whether it is sent again, or given up.
func (r *Repeat) time(now, most int64) (again, over bool) {
	switch {
	case r.End == 0 || now < min(r.At, r.End):
		return false, false
	case now >= r.End:
		*r = Repeat{}
		return false, true
	}
	r.Wait *= 2
	if most > 0 {
		r.Wait = min(r.Wait, most)
	}
	r.At = now + r.Wait
	return true, false
}

// next returns when time has something to say, or 0.
func (r *Repeat) next() int64 { return min(r.At, r.End) }

// Provisional is the reliable provisional response of ours that waits for its PRACK. There is one at a time, as RFC 3262
// §3 asks for the first of them.
type Provisional struct {
	Repeat
	RSeq, Seq uint32 // its number, and the CSeq of its INVITE
}

// Waits says whether the next one must wait: for the PRACK of this.
func (p *Provisional) Waits() bool { return p.End > 0 }

func (p *Provisional) send(rseq, seq uint32, now int64, t *transaction.Timers) {
	p.RSeq, p.Seq = rseq, seq
	p.start(now, t)
}

// acknowledge says whether PRACK is for the one that waits. RFC 3262 §3, §7.2.
func (p *Provisional) acknowledge(rack []byte) bool {
	words := bytes.Fields(rack)
	if !p.Waits() || len(words) != 3 || sip.Seconds(words[0], 0) != p.RSeq || sip.Seconds(words[1], 0) != p.Seq ||
		string(words[2]) != "INVITE" {
		return false
	}
	p.Repeat = Repeat{}
	return true
}

// Due is what is to be done because of the time.
type Due uint16

// What is due.
const (
	AgainFinal       Due = 1 << iota // the 2xx of ours goes out again
	AgainProvisional                 // the reliable provisional goes out again
	NoACK                            // it never came: send BYE. RFC 3261 §13.3.1.4
	NoPRACK                          // it never came: answer the INVITE with 500 or so. RFC 3262 §3
	Retry                            // what met one of theirs may be sent again. RFC 3261 §14.1
	Refresh                          // send UPDATE or INVITE, or the session ends. RFC 4028 §10
	Expired                          // nobody refreshed it: send BYE
)

// Next returns when Time has something to do; 0 is never.
func (s *Session) Next() int64 {
	first := int64(0)
	for _, at := range [...]int64{s.Final.next(), s.Prov.next(), s.RetryAt, s.Timer.Refresh, s.Timer.Expire} {
		if at > 0 && (first == 0 || at < first) {
			first = at
		}
	}
	return first
}

// Time says what is due by now.
func (s *Session) Time(now int64) (d Due) {
	if again, over := s.Final.time(now, s.Intervals.Most()); again {
		d |= AgainFinal
	} else if over {
		s.Theirs.Waits = false
		d |= NoACK
	}
	if again, over := s.Prov.time(now, 0); again {
		d |= AgainProvisional
	} else if over {
		d |= NoPRACK
	}
	if s.RetryAt > 0 && now >= s.RetryAt {
		s.RetryAt = 0
		d |= Retry
	}
	if t := &s.Timer; t.Expire > 0 && now >= t.Expire {
		t.Refresh, t.Expire = 0, 0
		d |= Expired
	} else if t.Refresh > 0 && now >= t.Refresh {
		t.Refresh = 0
		d |= Refresh
	}
	return d
}
