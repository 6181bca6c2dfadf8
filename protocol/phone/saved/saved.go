// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package saved is what of a call outlives the process, as bytes: both dialogs, the ways to their ends, and the record that
// is open. It does no I/O and has no clock.
//
//	a call that is answered or changed ─▶ Call ─▶ Append ─▶ journal
//	the journal of a process that is gone ─▶ Parse ─▶ Call, with nothing under way in it
//
// An edge is upgraded, and sometimes put back, with calls up. So each record has its version, and of another one holds: an older
// one is taken up, for as long as builds that wrote it can be in use, with what it does not know at its zero value (testdata has one
// of each); a newer one is ErrNewer, and is kept aside as it is until a build comes that knows it.
//
// What is not saved is what was under way: requests without an answer, and how far the numbers of a dialog went since. A
// dialog is taken up at numbers that are higher than any that can have been used (RFC 3261 §12.2.1.1).
package saved

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
)

// version is the first byte of a call. Another has another form.
const version = 4

// termless is the version before calls had Terms and Offers, and before those that have said nothing of media were saved with
// any.
const termless = 3

// Gap is by how much the numbers of a dialog are raised when it is taken up.
const Gap = 1000

// Lost is the connection of a way that had one. Nothing goes by it.
const Lost = 1<<64 - 1

// maxRoutes bounds the route set of a dialog that is read.
const maxRoutes = 64

// ErrForm means that bytes are nothing that was saved, ErrNewer that a newer version may have saved them.
var (
	ErrForm  = errors.New("saved: not a call")
	ErrNewer = errors.New("saved by a newer version")
)

// Call is a call that was answered.
type Call struct {
	Caller, Called Leg
	Media          *Media // nil if nothing was said of any
	Record         *cdr.Record
}

// Media is how the media of a call go, and how the relay has them.
type Media struct {
	ID   uint64 // of the call, at the relay; 0 if it has them not
	Path uint32 // sdp.Path: why they are relayed, or that they are not
	Ends [2]End // the caller's, and that of who was called

	Terms  Terms
	Offers []Offer // the last ones
}

// Terms are what the route of a call says of its media: later offers are bound by it too.
type Terms struct {
	Family uint32 // the only one of telephones; 0: either
	Apart  string // what becomes of offers between ends that are apart; "" relays them
	Phones [2]bool
	Out    string // the trunk that it goes out by because they were apart
	Why    uint32 // sdp.Path: how
}

// Offer is what was decided of an offer.
type Offer struct{ At, From, Path, Refused uint32 }

// maxOffers bounds those that are read.
const maxOffers = 64

// End is what concerns the media of one end.
type End struct {
	Network     string           // as the relay calls it
	Local       []netip.AddrPort // of each stream, for RTP and RTCP in turn
	Text        []byte           // its description that holds
	Origin      []byte           // o= of what it is shown, if that is not as the other end has said it
	ID, Version uint64           // of o=, where it is ours
	Behind      bool             // a NAT, as its registration said
}

// maxLocal bounds the addresses of an end that are read.
const maxLocal = 64

// Leg is one end of it.
type Leg struct {
	Session *dialog.Session // its times are those of the wall clock, in Unix nanoseconds
	Way     sip.Way         // a connection of the end's is Lost
	Ahead   uint32          // by how much numbers are higher than those of the other end
	Update  bool            // the end knows UPDATE
	Kind    string          // of Said
	Said    []byte          // the description that it was given, if it must be told it again
}

// Append adds the call. Returns the error of a record that cannot be written.
func (c *Call) Append(dst []byte) ([]byte, error) {
	w := coder{b: append(dst, version), version: version, writes: true}
	for _, l := range [...]*Leg{&c.Caller, &c.Called} {
		w.leg(l)
	}
	described := c.Media != nil
	if w.flag(&described); described {
		w.media(c.Media)
	}
	return c.Record.Append(w.b)
}

// Parse reads a call. What it returns has nothing in common with b. The error wraps ErrForm, ErrNewer or cdr.ErrLine.
func Parse(b []byte) (*Call, error) {
	if err := known(b, termless, version); err != nil {
		return nil, err
	}
	r := coder{b: b[1:], version: b[0]}
	c := new(Call)
	for _, l := range [...]*Leg{&c.Caller, &c.Called} {
		l.Session = new(dialog.Session)
		r.leg(l)
		l.Session.LocalSeq += Gap
		l.Ahead += Gap
	}
	var described bool
	if r.flag(&described); described {
		c.Media = new(Media)
		r.media(c.Media)
	}
	if r.bad {
		return nil, ErrForm
	}
	var err error
	c.Record, err = cdr.Parse(r.b)
	return c, err
}

// known says whether a record is of one of some versions.
func known(b []byte, oldest, newest byte) error {
	switch {
	case len(b) == 0 || b[0] < oldest:
		return ErrForm
	case b[0] > newest:
		return ErrNewer
	}
	return nil
}

// Shift turns the times of a session from one clock into another that is ahead by so much. What was due before the
// other clock began is due at once.
func Shift(s *dialog.Session, by time.Duration) {
	for _, t := range [...]*int64{&s.Timer.Refresh, &s.Timer.Expire} {
		if *t != 0 {
			*t = max(*t+int64(by), 1)
		}
	}
}

// coder writes fields, or reads them in the same order.
type coder struct {
	b       []byte
	version byte
	writes  bool
	bad     bool // what is read is too short
}

func (c *coder) leg(l *Leg) {
	s := l.Session
	for _, t := range [...]*string{&s.CallID, &s.Local, &s.Remote, &s.LocalTag, &s.RemoteTag, &s.Target} {
		c.text(t)
	}
	n := uint32(len(s.Routes))
	c.number(&n)
	if !c.writes && n > 0 {
		if c.bad = c.bad || n > maxRoutes; c.bad {
			return
		}
		s.Routes = make([]string, n)
	}
	for i := range s.Routes {
		c.text(&s.Routes[i])
	}
	for _, v := range [...]*uint32{&s.LocalSeq, &s.RemoteSeq, &s.Ours.Seq, &s.Theirs.Seq, &s.Timer.Least, &s.Timer.Interval, &l.Ahead} {
		c.number(v)
	}
	connected := l.Way.Flow != 0
	for _, v := range [...]*bool{&s.Caller, &s.Confirmed, &s.Timer.Mine, &l.Update, &connected} {
		c.flag(v)
	}
	if connected && !c.writes {
		l.Way.Flow = Lost
	}
	c.time(&s.Timer.Refresh)
	c.time(&s.Timer.Expire)
	transport := uint32(l.Way.Transport)
	c.number(&transport)
	c.bad = c.bad || transport > uint32(sip.TLS)
	l.Way.Transport = sip.Transport(transport)
	c.address(&l.Way.Local)
	c.address(&l.Way.Remote)
	c.text(&l.Kind)
	c.bytes(&l.Said)
}

func (c *coder) media(m *Media) {
	c.long(&m.ID)
	c.number(&m.Path)
	for i := range m.Ends {
		e := &m.Ends[i]
		c.text(&e.Network)
		n := c.length(len(e.Local))
		if c.bad = c.bad || n > maxLocal; c.bad {
			return
		}
		if !c.writes {
			e.Local = make([]netip.AddrPort, n)
		}
		for at := range e.Local {
			c.address(&e.Local[at])
		}
		c.bytes(&e.Text)
		c.bytes(&e.Origin)
		c.long(&e.ID)
		c.long(&e.Version)
		if c.version > termless {
			c.flag(&e.Behind)
		}
	}
	if c.version > termless {
		c.terms(&m.Terms)
		c.offers(m)
	}
}

func (c *coder) terms(t *Terms) {
	c.number(&t.Family)
	c.text(&t.Apart)
	c.flag(&t.Phones[0])
	c.flag(&t.Phones[1])
	c.text(&t.Out)
	c.number(&t.Why)
}

func (c *coder) offers(m *Media) {
	n := c.length(len(m.Offers))
	if c.bad = c.bad || n > maxOffers; c.bad {
		return
	}
	if !c.writes && n > 0 {
		m.Offers = make([]Offer, n)
	}
	for i := range m.Offers {
		o := &m.Offers[i]
		for _, v := range [...]*uint32{&o.At, &o.From, &o.Path, &o.Refused} {
			c.number(v)
		}
	}
}

// take cuts n bytes off what is read.
func (c *coder) take(n int) []byte {
	if c.bad = c.bad || n < 0 || n > len(c.b); c.bad {
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *coder) number(v *uint32) {
	if c.writes {
		c.b = binary.AppendUvarint(c.b, uint64(*v))
		return
	}
	n, size := binary.Uvarint(c.b)
	if c.bad = c.bad || size <= 0 || n > 1<<32-1; !c.bad {
		*v, c.b = uint32(n), c.b[size:]
	}
}

func (c *coder) flag(v *bool) {
	n := uint32(0)
	if *v {
		n = 1
	}
	c.number(&n)
	*v = n == 1
}

func (c *coder) time(v *int64) {
	n := uint64(*v)
	c.long(&n)
	*v = int64(n)
}

func (c *coder) long(v *uint64) {
	if c.writes {
		c.b = binary.LittleEndian.AppendUint64(c.b, *v)
	} else if b := c.take(8); b != nil {
		*v = binary.LittleEndian.Uint64(b)
	}
}

// length writes the length of what follows, or reads it.
func (c *coder) length(n int) int {
	v := uint32(n)
	c.number(&v)
	return int(v)
}

func (c *coder) text(v *string) {
	n := c.length(len(*v))
	if c.writes {
		c.b = append(c.b, *v...)
	} else {
		*v = string(c.take(n))
	}
}

func (c *coder) bytes(v *[]byte) {
	n := c.length(len(*v))
	if c.writes {
		c.b = append(c.b, *v...)
	} else if n > 0 {
		*v = append([]byte(nil), c.take(n)...)
	}
}

func (c *coder) address(v *netip.AddrPort) {
	if c.writes {
		at := len(c.b)
		c.b, _ = v.AppendBinary(append(c.b, 0)) // never fails
		c.b[at] = byte(len(c.b) - at - 1)
		return
	}
	var n int
	if b := c.take(1); b != nil {
		n = int(b[0])
	}
	if b := c.take(n); b != nil {
		c.bad = v.UnmarshalBinary(b) != nil || !v.IsValid() || v.Addr().Is4In6()
	}
}
