// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

// Hot path: no allocation per packet.

import (
	"errors"
	"hash/maphash"
	"net/netip"
	"strconv"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/wheel"
)

// ErrFull means that a Table has no place for another request of ours.
var ErrFull = errors.New("transaction: table is full")

// ErrBranch means that a request of ours cannot be told from another by its Via and CSeq.
var ErrBranch = errors.New("transaction: no branch of its own")

// Limits bound what a Table holds. A zero field means its default.
type Limits struct {
	Servers int // transactions of requests that came; default 100,000
	Clients int // of requests of ours; default 100,000
	Prefix  int // of requests from one client prefix; default 1,000. Trunks are asked for more: see Table.Trusted
	Reserve int // of each side, beyond those and for each prefix, for what is urgent; default 1,000: see Table.Urgent
}

const (
	defaultMost    = 100_000
	defaultPrefix  = 1_000
	defaultReserve = 1_000
)

// Transaction is one request and its answers. U is its user's.
type Transaction[U any] struct {
	User U
	Way  sip.Way // of the request; its answers go back on it

	machine Machine
	timer   wheel.Timer[*Transaction[U]]
	key     entry[U]
	merge   *entry[U] // what copies of an INVITE have in common that came by different ways; nil for other requests
	last    []byte    // the request of a client, the last response of a server
	first   []byte    // the request of a server, until 100 has been sent for its user; the ACK of a client
	prefix  netip.Prefix

	cancelled bool // CANCEL went, or is to go
	silent    bool // it is a CANCEL, of which nobody wants to hear
}

// State returns where the transaction stands.
func (t *Transaction[U]) State() State { return t.machine.state }

// Request returns the request of a client as it went out, for another try; nil for a server.
func (t *Transaction[U]) Request() []byte {
	if k := t.machine.kind; k == InviteServer || k == Server {
		return nil
	}
	return t.last
}

// Table has the transactions of one thread. Its fields are set before it is used.
type Table[U any] struct {
	Timers Timers
	Limits Limits

	// Send is called when a message goes out. It keeps nothing of b.
	Send func(w sip.Way, b []byte)

	// Told is called when a transaction ends without an answer: a client's without a response, a server's without an
	// ACK or without its user. RFC 3261 §8.1.3.1: a client takes it for 408.
	Told func(t *Transaction[U])

	// Ended is called when the transaction of a request that came is forgotten, before Told; it may be nil.
	Ended func(t *Transaction[U])

	// Mark begins all tags that the table makes.
	Mark string

	// Trusted says whose requests Limits.Prefix does not bound; it may be nil.
	Trusted func(netip.Addr) bool

	// Urgent says of a request, where there is no room for others, whether it is one that must not be refused: it may have
	// a place of Limits.Reserve. It may be nil.
	Urgent func(m *sip.Message) bool

	clients  index[U]
	servers  index[U]
	prefixes map[netip.Prefix]int
	merged   index[U] // INVITEs that begin a call
	wheel    *wheel.Wheel[*Transaction[U]]
	seed     maphash.Seed
	out, old []byte // scratch
	scratch  sip.Message
	refused  uint64
}

// Open makes a table ready; its clock stands at now.
func (t *Table[U]) Open(now int64) {
	t.clients, t.servers, t.merged = newIndex[U](), newIndex[U](), newIndex[U]()
	t.prefixes = make(map[netip.Prefix]int)
	t.wheel = wheel.New[*Transaction[U]](now)
	t.seed = maphash.MakeSeed()
}

// Len returns how many transactions there are of each side.
func (t *Table[U]) Len() (clients, servers int) { return t.clients.count, t.servers.count }

// Refused returns how many requests found no place.
func (t *Table[U]) Refused() uint64 { return t.refused }

// Next returns when Advance has something to do; ok is false if never.
func (t *Table[U]) Next() (at int64, ok bool) { return t.wheel.Next() }

// Advance does what is due by now.
func (t *Table[U]) Advance(now int64) {
	t.wheel.Advance(now, func(x *Transaction[U]) {
		d := x.machine.Time(&t.Timers, now)
		if d&Trying > 0 {
			t.try(x)
		}
		if d&Send > 0 {
			t.Send(x.Way, x.last)
		}
		t.settle(x, d)
	})
}

// settle sets the timer, tells the user and forgets what has ended.
func (t *Table[U]) settle(x *Transaction[U], d Do) {
	if d&End == 0 {
		if next := x.machine.Next(); next == 0 {
			t.wheel.Stop(&x.timer)
		} else if next != x.timer.At() {
			t.wheel.Set(&x.timer, next)
		}
		return
	}
	t.wheel.Stop(&x.timer)
	if x.machine.kind == InviteClient || x.machine.kind == Client {
		t.clients.drop(&x.key)
	} else {
		t.servers.drop(&x.key)
		if x.merge != nil {
			t.merged.drop(x.merge)
		}
		t.leave(x.prefix)
		if t.Ended != nil {
			t.Ended(x)
		}
	}
	if d&Timeout > 0 && !x.silent {
		t.Told(x)
	}
}

// Failed is called when a message of x could not be sent. It says whether that ends the transaction, of which the user then
// hears nothing more. RFC 3261 §8.1.3.1: a client takes it for 503.
func (t *Table[U]) Failed(x *Transaction[U]) (over bool) {
	d := x.machine.Failed()
	t.settle(x, d)
	return d&End > 0
}

// Unheard returns the requests of ours on a way that nobody has answered in any way.
func (t *Table[U]) Unheard(w sip.Way) (all []*Transaction[U]) {
	for x := range t.clients.all {
		if x.Way == w && x.machine.state == Begun {
			all = append(all, x)
		}
	}
	return all
}

// Ask sends a request of ours. It has one Via, whose branch nobody else has; the Table keeps a copy.
func (t *Table[U]) Ask(request []byte, w sip.Way, user U, now int64) (*Transaction[U], error) {
	if n := t.clients.count; n >= most(t.Limits.Clients) && (t.scratch.Parse(request, nil) != nil || !t.room(n, most(t.Limits.Clients), &t.scratch)) {
		return nil, ErrFull
	}
	method, branch, err := sip.Outline(request)
	if err != nil {
		return nil, err
	}
	key := appendClientKey(t.out[:0], method, branch)
	t.out = key[:0]
	same, hash := t.clients.find(key)
	if same != nil || !sip.Modern(branch) {
		return nil, ErrBranch
	}
	x := &Transaction[U]{User: user, Way: w, key: entry[U]{text: string(key), hash: hash}, last: append([]byte(nil), request...)}
	x.timer.Value = x
	t.clients.put(&x.key, x)
	kind := Client
	if string(method) == "INVITE" {
		kind = InviteClient
	}
	d := x.machine.Start(kind, w.Transport.Reliable(), &t.Timers, now)
	t.Send(w, x.last)
	t.settle(x, d)
	return x, nil
}

// Cancel gives an INVITE of ours up, on the way that it took: at once if it has been answered provisionally, else as soon
// as it is, since CANCEL might come before it. The final answer still comes, or Told is called; that of CANCEL is nobody's.
// One that is answered already is let be. RFC 3261 §9.1.
func (t *Table[U]) Cancel(x *Transaction[U], now int64) {
	if x.machine.kind != InviteClient || x.cancelled {
		return
	}
	x.cancelled = true
	if x.machine.state == Proceeding {
		t.cancelNow(x, now)
	}
}

func (t *Table[U]) cancelNow(x *Transaction[U], now int64) {
	x.machine.Cancel(&t.Timers, now)
	t.settle(x, 0)
	if t.scratch.Parse(x.last, nil) != nil {
		return
	}
	// Without a place for it, the INVITE is given up by its timer.
	if c, err := t.Ask(appendCancel(nil, &t.scratch), x.Way, x.User, now); err == nil {
		c.silent = true
	}
}

// Cancelled is called instead of Cancel when the user has sent a CANCEL of his own for x.
func (t *Table[U]) Cancelled(x *Transaction[U], now int64) {
	x.cancelled = true
	x.machine.Cancel(&t.Timers, now)
	t.settle(x, 0)
}

// Response shows a response that has been checked. The user is to look at it if pass; x is nil if it answers no request
// that is known, as a 2xx to INVITE that came very late.
func (t *Table[U]) Response(m *sip.Message, now int64) (x *Transaction[U], pass bool) {
	h, err := m.Top()
	seq, err2 := m.Sequence()
	if err != nil || err2 != nil {
		return nil, false
	}
	key := appendClientKey(t.out[:0], seq.Method, h.Branch)
	t.out = key[:0]
	if x, _ = t.clients.find(key); x == nil {
		return nil, false
	}
	first := x.machine.state == Begun
	d := x.machine.Response(m.Status(), &t.Timers, now)
	if d&Ack > 0 {
		t.ack(x, m)
	}
	t.settle(x, d)
	if first && x.cancelled && x.machine.state == Proceeding { // Cancelled comes later than this
		t.cancelNow(x, now)
	}
	return x, d&Pass > 0 && !x.silent
}

// ack sends the ACK for a failure, which the first one decides. RFC 3261 §17.1.1.2.
func (t *Table[U]) ack(x *Transaction[U], response *sip.Message) {
	if x.first == nil {
		if t.scratch.Parse(x.last, nil) != nil {
			return
		}
		x.first = appendACK(nil, &t.scratch, response)
	}
	t.Send(x.Way, x.first)
}

func most(n int) int {
	if n == 0 {
		return defaultMost
	}
	return n
}

// Tag returns a tag for To that is the same for all copies of a request, so that it can be answered without keeping
// anything. RFC 3261 §8.2.7. It is valid until the next call.
func (t *Table[U]) Tag(m *sip.Message) []byte {
	var h maphash.Hash
	h.SetSeed(t.seed)
	for _, k := range [...]sip.Kind{sip.CallID, sip.From, sip.Via} {
		_, _ = h.Write(m.Get(k))
		_ = h.WriteByte(0)
	}
	t.old = strconv.AppendUint(append(t.old[:0], t.Mark...), h.Sum64(), 36)
	return t.old
}

// Reply answers a request and keeps nothing: it is answered anew if it comes again, and its ACK belongs to no
// transaction. It may be one that could not be parsed whole. What cannot be answered is let be.
func (t *Table[U]) Reply(m *sip.Message, w sip.Way, a *sip.Answer) {
	if !m.Answerable() {
		return
	}
	if a.Tag == nil && a.Status > 100 {
		a.Tag = t.Tag(m)
	}
	t.out = a.Append(t.out[:0], m, w.Remote)
	t.Send(w, t.out)
}

// room says whether there is room for a request beside n others, or it is urgent and there is some for it.
func (t *Table[U]) room(n, limit int, m *sip.Message) bool {
	if n < limit {
		return true
	}
	reserve := t.Limits.Reserve
	if reserve == 0 {
		reserve = defaultReserve
	}
	return n < limit+reserve && t.Urgent != nil && t.Urgent(m)
}

// enter takes a place for a request from an address, if there is one.
func (t *Table[U]) enter(a netip.Addr, m *sip.Message) (netip.Prefix, bool) {
	if !t.room(t.servers.count, most(t.Limits.Servers), m) {
		return netip.Prefix{}, false
	}
	if t.Trusted != nil && t.Trusted(a) {
		return netip.Prefix{}, true
	}
	limit := t.Limits.Prefix
	if limit == 0 {
		limit = defaultPrefix
	}
	p := ip.ClientPrefix(a)
	if !t.room(t.prefixes[p], limit, m) {
		return netip.Prefix{}, false
	}
	t.prefixes[p]++
	return p, true
}

func (t *Table[U]) leave(p netip.Prefix) {
	switch n := t.prefixes[p]; {
	case !p.IsValid():
	case n > 1:
		t.prefixes[p] = n - 1
	default:
		delete(t.prefixes, p)
	}
}
