// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package dialog is what two user agents know of each other between the first answer and BYE: one leg of a call. It does
// no I/O and has no clock.
//
//	INVITE, its answer ─▶ Accepted, Begun ─▶ Dialog ─▶ Dialog.Append: a request within it, in the order of the route set
//	                                           │
//	message received ─▶ Session.Received ──────┼─▶ Verdict: pass it on, or refuse it with 481, 491, 500, …
//	message sent ─────▶ Session.Sent ──────────┤
//	time ─────────────▶ Session.Time ──────────┴─▶ what is due: send again, refresh, BYE
//
// A Session is a function of the messages that were sent and received, and of when: the same log gives the same state
// and the same verdicts, in a test, after a crash, and years later. A Dialog is plain data, and all that must be saved
// for BYE to work after a restart.
//
// RFC 3261 §12 to §15, RFC 3262 (PRACK), RFC 3311 (UPDATE), RFC 4028 (session timers), RFC 6141 (re-INVITE).
package dialog

import (
	"bytes"
	"slices"
	"strconv"

	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// Rules of requests within dialogs.
var (
	ErrNone    = &sip.Error{Status: 481, Reason: "no such dialog"}                     // RFC 3261 §12.2.2
	ErrOrder   = &sip.Error{Status: 500, Reason: "CSeq lower than one that came"}      // RFC 3261 §12.2.2
	ErrContact = &sip.Error{Status: 400, Reason: "not one Contact with a sip URI"}     // RFC 3261 §12.1
	ErrPending = &sip.Error{Status: 491, Reason: "our own request has no answer yet"}  // RFC 3261 §14.2, RFC 3311 §5.2
	ErrBusy    = &sip.Error{Status: 500, Reason: "the one before has no answer yet"}   // with Retry-After: RFC 3261 §14.2
	ErrRAck    = &sip.Error{Status: 481, Reason: "PRACK of what waits for none"}       // RFC 3262 §3
	ErrBrief   = &sip.Error{Status: 422, Reason: "session interval shorter than ours"} // RFC 4028 §9
)

// Dialog is one dialog as one side sees it. All values are text as it goes into messages. RFC 3261 §12.
type Dialog struct {
	CallID    string
	Local     string // address of From in our requests, without the tag
	Remote    string // and of To
	LocalTag  string
	RemoteTag string // empty for peers of RFC 2543
	LocalSeq  uint32 // of the last request of ours; 0 before the first
	RemoteSeq uint32
	Target    string   // URI of the peer, from its Contact
	Routes    []string `json:",omitempty"` // values of Route, in the order in which they are written
	Caller    bool     // we sent the INVITE, and own the Call-ID
	Confirmed bool     // by a 2xx; else early
}

// Accepted begins the dialog that an answer of ours with the given tag makes of a request. RFC 3261 §12.1.1.
func Accepted(m *sip.Message, tag string) (Dialog, *sip.Error) {
	seq, err := m.Sequence()
	if err != nil {
		return Dialog{}, err
	}
	var ends ends
	b, err := ends.append(make([]byte, 0, usualEnds), m)
	if err != nil {
		return Dialog{}, err
	}
	r, err := routes(m)
	if err != nil {
		return Dialog{}, err
	}
	target, err := contact(m)
	text := string(append(b, target...))
	d := Dialog{CallID: text[:ends.from], Remote: text[ends.from:ends.fromTag], RemoteTag: text[ends.fromTag:ends.to], Local: text[ends.to:ends.toTag],
		LocalTag: text[ends.toTag:len(b)], Target: text[len(b):], RemoteSeq: seq.Number, Routes: r}
	if d.LocalTag == "" {
		d.LocalTag = tag
	}
	return d, err
}

// Begun begins the dialog that an answer makes of a request of ours; each tag of To makes another. RFC 3261 §12.1.2.
func Begun(m *sip.Message) (Dialog, *sip.Error) {
	seq, err := m.Sequence()
	if err != nil {
		return Dialog{}, err
	}
	var ends ends
	b, err := ends.append(make([]byte, 0, usualEnds), m)
	if err != nil {
		return Dialog{}, err
	}
	text := string(b)
	d := Dialog{CallID: text[:ends.from], Local: text[ends.from:ends.fromTag], LocalTag: text[ends.fromTag:ends.to], Remote: text[ends.to:ends.toTag],
		RemoteTag: text[ends.toTag:], LocalSeq: seq.Number, Caller: true}
	return d, d.answered(m)
}

// ends is where what a dialog keeps of a message begins in one text, so that it is one piece of memory: the Call-ID, and From
// and To, each without its tag, and the tag.
type ends struct{ from, fromTag, to, toTag int }

// usualEnds is what those of most messages have room in.
const usualEnds = 512

// append writes the text.
func (e *ends) append(dst []byte, m *sip.Message) ([]byte, *sip.Error) {
	dst = append(dst, m.Get(sip.CallID)...)
	e.from = len(dst)
	dst, tag, err := appendAddress(dst, m, sip.From)
	if err != nil {
		return nil, err
	}
	e.fromTag = len(dst)
	dst = append(dst, tag...)
	e.to = len(dst)
	dst, tag, err = appendAddress(dst, m, sip.To)
	if err != nil {
		return nil, err
	}
	e.toTag = len(dst)
	return append(dst, tag...), nil
}

// answered takes the route set and the target of a response that makes or confirms the dialog. RFC 3261 §12.1.2; §13.2.2.4:
// a 2xx sets the route set anew.
func (d *Dialog) answered(m *sip.Message) *sip.Error {
	r, err := routes(m)
	if err != nil {
		return err
	}
	slices.Reverse(r)
	target, err := contact(m)
	if err != nil {
		return err
	}
	d.Routes, d.Target, d.Confirmed = r, string(target), m.Status()/100 == 2
	return nil
}

// appendAddress writes an address without its tag, which it returns.
func appendAddress(dst []byte, m *sip.Message, k sip.Kind) (b, tag []byte, err *sip.Error) {
	w := m.Walk(k)
	if !w.Next() {
		return dst, nil, sip.ErrAddress
	}
	a := w.Address
	if w.Next() || w.Err != nil {
		return dst, nil, sip.ErrAddress
	}
	if a.Display != nil {
		dst = append(append(dst, a.Display...), ' ')
	}
	dst = append(append(append(dst, '<'), a.URI...), '>')
	for p := range bytes.SplitSeq(a.Params, []byte{';'}) {
		if name, _, _ := bytes.Cut(p, []byte{'='}); len(bytes.TrimSpace(name)) > 0 && !bytes.EqualFold(bytes.TrimSpace(name), []byte("tag")) {
			dst = append(append(dst, ';'), bytes.TrimSpace(p)...)
		}
	}
	return dst, a.Tag(), nil
}

// routes returns the values of Record-Route in their order.
func routes(m *sip.Message) (all []string, err *sip.Error) {
	err = m.Values(sip.RecordRoute, func(a *sip.Address) bool {
		b := append(append([]byte{'<'}, a.URI...), '>')
		if len(a.Params) > 0 {
			b = append(append(b, ';'), a.Params...)
		}
		all = append(all, string(b))
		return true
	})
	return all, err
}

// contact returns the URI of the one Contact.
func contact(m *sip.Message) (uri []byte, err *sip.Error) {
	n := 0
	w := m.Walk(sip.Contact)
	for w.Next() {
		n++
	}
	if w.Err != nil {
		return nil, w.Err
	}
	a, u, err := m.Address(sip.Contact)
	if n != 1 || err != nil || u.Scheme != sip.SIP && u.Scheme != sip.SIPS {
		return nil, ErrContact
	}
	return a.URI, nil
}

// Has says whether a request that came belongs to the dialog. RFC 3261 §12.2.2.
func (d *Dialog) Has(m *sip.Message) bool {
	from, _, err := m.Address(sip.From)
	to, _, err2 := m.Address(sip.To)
	return err == nil && err2 == nil && string(m.Get(sip.CallID)) == d.CallID && string(to.Tag()) == d.LocalTag &&
		string(from.Tag()) == d.RemoteTag
}

// Request is what is written into a request besides what the dialog knows.
type Request struct {
	Method string
	Via    []byte // its value
	Seq    uint32 // 0 for the next; that of the INVITE for ACK and CANCEL
	Hops   int    // that the request had which this one carries on; 0 if there is none. RFC 3261 §16.6, step 3
	Lines  []byte // further fields, each with its CRLF
	Type   string // of the body
	Body   []byte
}

// maxForwards is what a request of ours begins with. RFC 3261 §8.1.1.6.
const maxForwards = 70

// Append writes a request within the dialog. It does not change the dialog: Session.Sent, which is shown what was sent,
// counts. RFC 3261 §12.2.1.1.
func (d *Dialog) Append(dst []byte, r *Request) []byte {
	target, route := d.Target, d.Routes
	if len(route) > 0 && !loose(route[0]) { // a strict router: RFC 3261 §12.2.1.1
		first, _, _ := sip.ParseAddress([]byte(route[0]))
		route = append(slices.Clone(route[1:]), "<"+target+">")
		target = bare(first.URI)
	}
	dst = append(append(dst, r.Method...), ' ')
	dst = append(append(dst, target...), " SIP/2.0\r\n"...)
	dst = sip.AppendField(dst, sip.Via, r.Via)
	hops := maxForwards
	if r.Hops > 0 {
		hops = r.Hops - 1
	}
	dst = strconv.AppendInt(append(dst, "Max-Forwards: "...), int64(hops), 10)
	dst = append(dst, "\r\n"...)
	for _, v := range route {
		dst = sip.AppendField(dst, sip.Route, []byte(v))
	}
	dst = appendParty(dst, "From: ", d.Local, d.LocalTag)
	dst = appendParty(dst, "To: ", d.Remote, d.RemoteTag)
	dst = sip.AppendField(dst, sip.CallID, []byte(d.CallID))
	seq := r.Seq
	if seq == 0 {
		seq = d.LocalSeq + 1
	}
	dst = strconv.AppendUint(append(dst, "CSeq: "...), uint64(seq), 10)
	dst = append(append(append(dst, ' '), r.Method...), "\r\n"...)
	dst = append(dst, r.Lines...)
	if len(r.Body) > 0 {
		dst = sip.AppendField(dst, sip.ContentType, []byte(r.Type))
	}
	dst = strconv.AppendInt(append(dst, "Content-Length: "...), int64(len(r.Body)), 10)
	return append(append(dst, "\r\n\r\n"...), r.Body...)
}

func loose(route string) bool {
	a, _, err := sip.ParseAddress([]byte(route))
	if err != nil {
		return false
	}
	u, err := a.Parse()
	_, lr := u.Param("lr")
	return err == nil && lr
}

// bare returns a URI without its headers, which a Request-URI may not have.
func bare(uri []byte) string {
	u, _, _ := bytes.Cut(uri, []byte{'?'})
	return string(u)
}

func appendParty(dst []byte, name, address, tag string) []byte {
	dst = append(append(dst, name...), address...)
	if tag != "" {
		dst = append(append(dst, ";tag="...), tag...)
	}
	return append(dst, "\r\n"...)
}
