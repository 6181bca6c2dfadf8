// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package location knows where subscribers are reached: the bindings that REGISTER makes. It does no I/O and has no clock.
//
//	REGISTER ─▶ Update ─▶ Table.Update ─▶ all or nothing ─▶ the bindings, for the answer
//	a call ───▶ Table.Look ─▶ devices ─▶ each with its bindings, the best way first
//
// A device that is bound over both families, or over two connections, is one device: it is not rung twice. All is in
// memory; what has expired is forgotten when somebody looks at it, or by Sweep.
//
// RFC 3261 §10.3 (registrars), RFC 3327 (Path), RFC 5626 §6 (several flows of one device).
package location

import (
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// MaxBindings is how many bindings an address of record can have: as many as a large household has devices, twice.
const MaxBindings = 10

// Parts is how many locks a table has, so that registrations on several processors do not wait for each other.
const Parts = 64

var (
	// ErrOrder means that a REGISTER is older than one that has come. RFC 3261 §10.3, step 7.
	ErrOrder = errors.New("location: older than what is there")

	// ErrMany means that there would be too many bindings.
	ErrMany = errors.New("location: too many bindings")
)

// Binding is one address at which a subscriber is reached, until it expires. Times are in seconds of the caller's clock.
type Binding struct {
	Contact  string // the URI, as it came
	Instance string // +sip.instance: which device it is. RFC 5626 §4.1
	Path     string // the values of Path, as they came: where requests go through. RFC 3327 §5.3
	CallID   string
	Agent    string  // what the device calls itself
	Way      sip.Way // by which the REGISTER came, and requests go back
	Expires  int64
	Request  uint64 // mark of the REGISTER that made or renewed it, which may come again; 0 if it will not
	Sequence uint32 // CSeq
	Flow     uint32 // reg-id; 0 if there is none. RFC 5626 §4.2
	Quality  uint16 // q, in thousandths
}

// Update is what one REGISTER asks for. The table keeps nothing of its bytes.
type Update struct {
	Path     []byte
	CallID   []byte
	Agent    string
	Way      sip.Way
	Request  uint64
	Sequence uint32
	Contacts []Contact
	Clear    bool // Contact: *

	Room []Binding // for what is returned, or nil
	Home *Memory   // where the address of record was the last time, or nil
}

// Memory is where the bindings of an address of record are, for somebody who has to do with the same one again: he spares the
// table to look for it among a million, which costs more than what is done there. The zero value remembers nothing. It is of
// one address of record and one table.
type Memory struct{ home atomic.Pointer[home] }

// home is where the bindings of an address of record are.
type home struct {
	all  []Binding
	gone bool // it had none left, and the table has forgotten it
}

// Contact is one Contact of a REGISTER.
type Contact struct {
	URI      []byte
	Instance []byte
	Flow     uint32
	Quality  uint16
	Lifetime int64 // seconds; 0 removes the binding
}

// Device is what rings once.
type Device struct {
	Bindings []Binding // the best way first
}

// Table holds the bindings of all addresses of record. It may be used by several at once.
type Table struct {
	// Changed, if set, is called when more than the time of an address of record's bindings is new, or one has gone. It is
	// called on whatever goroutine did that, and may call the table.
	Changed func(aor string)

	seed   maphash.Seed
	parts  [Parts]part
	counts [2]atomic.Int64 // of bindings, by family: IPv4, IPv6
}

type part struct {
	mu   sync.RWMutex
	all  map[string]*home     // by address of record
	room [MaxBindings]Binding // for what an update comes to
}

// at returns the bindings of an address of record.
func (p *part) at(aor string) []Binding {
	if h := p.all[aor]; h != nil {
		return h.all
	}
	return nil
}

// New returns an empty table.
func New() *Table {
	t := &Table{seed: maphash.MakeSeed()}
	for i := range t.parts {
		t.parts[i].all = make(map[string]*home)
	}
	return t
}

func (t *Table) part(aor string) *part { return &t.parts[maphash.String(t.seed, aor)%Parts] }

// Update does what a REGISTER asks for, all of it or nothing, and returns the bindings that are there then. aor is the table's
// from then on. changed says
// whether more than their time is new. Returns ErrOrder or ErrMany.
func (t *Table) Update(aor string, u *Update, now int64) (left []Binding, changed bool, err error) {
	left, changed, err = t.update(aor, u, now)
	if changed {
		t.tell(aor)
	}
	return left, changed, err
}

// Again returns the bindings of an address of record if one of them was made by the REGISTER with the mark, which has come
// again.
func (t *Table) Again(aor string, request uint64, now int64) (all []Binding, ok bool) {
	p := t.part(aor)
	p.mu.RLock()
	defer p.mu.RUnlock()
	all = alive(p.at(aor), now)
	if request == 0 || !slices.ContainsFunc(all, func(b Binding) bool { return b.Request == request }) {
		return nil, false
	}
	return slices.Clone(all), true
}

func (t *Table) tell(aors ...string) {
	if t.Changed == nil {
		return
	}
	for _, aor := range aors {
		t.Changed(aor)
	}
}

// Count returns how many bindings there are over a family, alive or not.
func (t *Table) Count(f ip.Family) int64 {
	if f == ip.V6 {
		return t.counts[1].Load()
	}
	return t.counts[0].Load()
}

// setLocked puts bindings in the place of others, and returns where they are; nil if there are none.
func (t *Table) setLocked(p *part, aor string, all []Binding) *home {
	var by [2]int64
	count := func(all []Binding, n int64) {
		for i := range all {
			if all[i].Way.Remote.Addr().Is6() {
				by[1] += n
			} else {
				by[0] += n
			}
		}
	}
	h := p.all[aor]
	if h != nil {
		count(h.all, -1)
	}
	count(all, 1)
	for i := range by {
		if by[i] != 0 {
			t.counts[i].Add(by[i])
		}
	}
	switch {
	case len(all) > 0 && h != nil:
		h.all = all
	case len(all) > 0:
		h = &home{all: all}
		p.all[aor] = h
	case h != nil:
		h.all, h.gone = nil, true
		delete(p.all, aor)
		h = nil
	}
	return h
}

// homeLocked returns where the bindings of an address of record are, if the table has any.
func (p *part) homeLocked(aor string, m *Memory) *home {
	if m == nil {
		return p.all[aor]
	}
	if h := m.home.Load(); h != nil && !h.gone {
		return h
	}
	h := p.all[aor]
	m.home.Store(h)
	return h
}

// Get returns the bindings of an address of record as they are, alive or not.
func (t *Table) Get(aor string) []Binding {
	p := t.part(aor)
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Clone(p.at(aor))
}

// Put sets the bindings of an address of record, which are the table's from now on. Changed is not called.
func (t *Table) Put(aor string, all []Binding) {
	p := t.part(aor)
	p.mu.Lock()
	defer p.mu.Unlock()
	t.setLocked(p, aor, all)
}

func (t *Table) update(aor string, u *Update, now int64) (left []Binding, changed bool, err error) {
	p := t.part(aor)
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.homeLocked(aor, u.Home)
	var there []Binding
	if h != nil {
		there = h.all
	}
	if renew(there, u, now) {
		return append(u.Room, there...), false, nil
	}
	before := alive(there, now)
	after := append(p.room[:0], before...)
	if u.Clear {
		after, err = wipe(after, u)
	} else {
		after, err = apply(after, u, now)
	}
	if err != nil {
		return append(u.Room, before...), false, err
	}
	changed = !slices.EqualFunc(before, after, func(a, b Binding) bool { return a.same(&b) })
	if changed || len(there) != len(after) {
		h = t.setLocked(p, aor, slices.Clone(after))
		if u.Home != nil {
			u.Home.home.Store(h)
		}
	} else {
		copy(there, after) // only their time is new, and who reads them has the lock
	}
	left = append(u.Room, after...)
	clear(p.room[:])
	return left, changed, nil
}

// renew does what an update asks for if that is to have one binding last longer, as mostly, and says whether it was.
func renew(all []Binding, u *Update, now int64) bool {
	if u.Clear || len(u.Contacts) != 1 || u.Contacts[0].Lifetime == 0 {
		return false
	}
	c, at := &u.Contacts[0], -1
	for i := range all {
		b := &all[i]
		if b.Expires <= now {
			return false
		}
		if at < 0 && b.isFor(c) {
			at = i
		}
	}
	if at < 0 || all[at].late(u) || !all[at].stays(u, c) {
		return false
	}
	b := &all[at]
	b.Expires, b.Request, b.Sequence = now+c.Lifetime, u.Request, u.Sequence
	return true
}

// wipe is Contact: *.
func wipe(all []Binding, u *Update) ([]Binding, error) {
	for i := range all {
		if all[i].late(u) {
			return nil, ErrOrder
		}
	}
	return nil, nil
}

// apply is RFC 3261 §10.3, step 7.
func apply(all []Binding, u *Update, now int64) ([]Binding, error) {
	for i := range u.Contacts {
		c := &u.Contacts[i]
		at := 0
		for at < len(all) && !all[at].isFor(c) {
			at++
		}
		switch {
		case at < len(all) && all[at].late(u):
			return nil, ErrOrder
		case c.Lifetime == 0 && at < len(all):
			all = slices.Delete(all, at, at+1)
		case c.Lifetime == 0: // it is not there: all is well
		case at < len(all):
			all[at] = bind(&all[at], u, c, now)
		case len(all) == MaxBindings:
			return nil, ErrMany
		default:
			all = append(all, bind(&Binding{}, u, c, now))
		}
	}
	return all, nil
}

// bind makes a binding, which keeps the strings of the one that it renews.
func bind(old *Binding, u *Update, c *Contact, now int64) Binding {
	return Binding{Contact: kept(old.Contact, c.URI), Instance: kept(old.Instance, c.Instance), Path: kept(old.Path, u.Path),
		CallID: kept(old.CallID, u.CallID), Agent: u.Agent, Way: u.Way, Expires: now + c.Lifetime, Request: u.Request,
		Sequence: u.Sequence, Flow: c.Flow, Quality: c.Quality}
}

func kept(old string, b []byte) string {
	if old == string(b) {
		return old
	}
	return string(b)
}

// late says whether an update of b is older than what made b.
func (b *Binding) late(u *Update) bool {
	return b.CallID == string(u.CallID) && u.Sequence <= b.Sequence
}

// isFor says whether b is what a Contact renews: the same flow of the same device, where it has said which, or the same
// URI. RFC 5626 §6, RFC 3261 §10.3.
func (b *Binding) isFor(c *Contact) bool {
	if c.Flow > 0 && len(c.Instance) > 0 {
		return b.Flow == c.Flow && b.Instance == string(c.Instance)
	}
	return b.Flow == 0 && (b.Contact == string(c.URI) || sameURI(b.Contact, c.URI))
}

// sameURI compares by RFC 3261 §19.1.4.
func sameURI(a string, b []byte) bool {
	u, err := sip.ParseURI([]byte(a))
	if err != nil {
		return false
	}
	v, err := sip.ParseURI(b)
	return err == nil && u.Same(&v)
}

// stays says whether nothing but the time of b is new in a Contact that it is for.
func (b *Binding) stays(u *Update, c *Contact) bool {
	return b.Contact == string(c.URI) && b.Way == u.Way && b.CallID == string(u.CallID) && b.Agent == u.Agent && b.Path == string(u.Path) &&
		b.Instance == string(c.Instance) && b.Flow == c.Flow && b.Quality == c.Quality
}

// same says whether two bindings differ in their time alone.
func (b *Binding) same(o *Binding) bool {
	return b.Contact == o.Contact && b.Instance == o.Instance && b.Path == o.Path && b.CallID == o.CallID && b.Agent == o.Agent &&
		b.Way == o.Way && b.Flow == o.Flow && b.Quality == o.Quality
}

// alive returns the bindings that have not expired, in a slice of their own if any has.
func alive(all []Binding, now int64) []Binding {
	for i := range all {
		if all[i].Expires <= now {
			return slices.DeleteFunc(slices.Clone(all), func(b Binding) bool { return b.Expires <= now })
		}
	}
	return all
}

// Look returns the devices at which an address of record is reached, those with the highest q first, and of each the way to
// try first: IPv6 before IPv4, and what lasts longer.
func (t *Table) Look(aor string, now int64) []Device {
	p := t.part(aor)
	p.mu.RLock()
	all := slices.Clone(alive(p.at(aor), now))
	p.mu.RUnlock()
	slices.SortStableFunc(all, better)
	var devices []Device
	for _, b := range all {
		i := slices.IndexFunc(devices, func(d Device) bool {
			return b.Instance != "" && d.Bindings[0].Instance == b.Instance
		})
		if i < 0 {
			devices = append(devices, Device{})
			i = len(devices) - 1
		}
		devices[i].Bindings = append(devices[i].Bindings, b)
	}
	return devices
}

// better orders bindings by which is tried first.
func better(a, b Binding) int {
	six := func(b *Binding) int {
		if b.Way.Remote.Addr().Is6() {
			return 1
		}
		return 0
	}
	switch {
	case a.Quality != b.Quality:
		return int(b.Quality) - int(a.Quality)
	case six(&a) != six(&b):
		return six(&b) - six(&a)
	}
	return int(min(max(b.Expires-a.Expires, -1), 1))
}

// Drop forgets the bindings that can only be reached by a connection that has ended.
func (t *Table) Drop(aor string, flow uint64) {
	defer t.tell(aor)
	p := t.part(aor)
	p.mu.Lock()
	defer p.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(p.at(aor)), func(b Binding) bool { return b.Way.Flow == flow })
	t.setLocked(p, aor, left)
}

// Sweep forgets what has expired, in the i-th of the Parts.
func (t *Table) Sweep(i int, now int64) {
	p := &t.parts[i%Parts]
	var changed []string
	p.mu.Lock()
	for aor, h := range p.all {
		left := alive(h.all, now)
		if len(left) == len(h.all) {
			continue
		}
		changed = append(changed, aor)
		t.setLocked(p, aor, left)
	}
	p.mu.Unlock()
	t.tell(changed...)
}

// Len returns how many addresses of record have bindings.
func (t *Table) Len() (n int) {
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.RLock()
		n += len(p.all)
		p.mu.RUnlock()
	}
	return n
}

// Each calls fn for every address of record and its bindings, which are the table's, until it returns false. fn must not
// call the table.
func (t *Table) Each(fn func(aor string, all []Binding) bool) {
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.RLock()
		for aor, h := range p.all {
			if !fn(aor, h.all) {
				p.mu.RUnlock()
				return
			}
		}
		p.mu.RUnlock()
	}
}
