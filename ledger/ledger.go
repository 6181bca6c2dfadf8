// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package ledger gives each IPv6 prefix one stable IPv4 address that stands in for it, so that a server that
// understands only IPv4 still tells its clients apart, and keeps the book that can be read both ways.
//
//	flow ── Find ──▶ tables in RAM: no lock, no allocation ─────────────▶ stand-in
//	          │ miss                      ▲ publish
//	          ▼                           │
//	        Lease ──▶ Run, the one writer ┴─▶ state.Store: one fsync for all that wait ──▶ done
//	                      │
//	                      └─ passes: renew what is in use, end what is not, prune the past
//
// The promise is that a stand-in is never given to another prefix within Keep after its last use, whatever crashes
// when. It is kept without writing at every use:
//
//   - A lease on disk says when it was last renewed. Find gives out a stand-in only for Renew after that; a pass
//     marks the others idle in time, and an idle one is renewed on disk before it is used again.
//   - So no use is later than the renewal on disk plus Renew, and a lease ends Keep after that.
//   - The exception is a store that is lost: after a while idle leases are used unwritten. By then the time of the
//     last whole pass, which is on disk too, is so old that the next Open takes every lease for used until then.
//
// On disk a lease is keyed by the stand-in and created only if absent: two prefixes cannot have the same one.
//
// How long a prefix a lease is for:
//
//   - the /64 (or Options.Bits), as hosts take their privacy addresses from it;
//   - the /56, when 32 leases inside it are live: providers delegate /56s, so they are one subscriber;
//   - the /48, shared, when the leases inside it have reached CapPer48, or those of its /32 CapPer32, or the pool is
//     nearly full; then the /32, shared. Leases that exist stay as they are.
//
// RFC 8981 §3.3 (privacy addresses), RFC 6177 (what is delegated to a site), RFC 6052 (embedded addresses).
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/state"
)

// What Lease and LeaseUnproven tell.
var (
	ErrDeadline    = errors.New("ledger: not written in time")
	ErrFull        = errors.New("ledger: no stand-in left")
	ErrUnavailable = errors.New("ledger: store unavailable")
)

// Deadline is how long Lease may take.
const Deadline = 250 * time.Millisecond

// UnprovenLife is how long what LeaseUnproven gave may be used: by then the flow has been proved, has asked
// again or has ended.
const UnprovenLife = 5 * time.Minute

// Options says which stand-ins there are and how they are given. Only Pool must be set.
type Options struct {
	Pool          netip.Prefix  // the stand-ins; IPv4, /4 to /30. It may grow to a prefix that contains it
	Bits          int           // of the prefix that gets a stand-in: 64 (0), 56 or 48
	Keep          time.Duration // how long an unused stand-in stays reserved; 0 means 36 days, at least 10 minutes
	CapPer48      int           // leases inside one /48 before they share; 0 means 4096, or a 16th of a smaller pool
	CapPer32      int           // leases inside one /32 before they share; 0 means a quarter of the pool
	UnprovenQuota int           // stand-ins for unproven clients; 0 means 1024, or a 16th; less than 0 means none
	Embed         netip.Prefix  // where IPv4 clients of IPv6 servers are embedded; IPv6 /96, or zero
}

// complete fills in the defaults and says what cannot be.
func (o Options) complete() (Options, error) {
	switch {
	case !o.Pool.IsValid() || !o.Pool.Addr().Is4() || o.Pool.Bits() < 4 || o.Pool.Bits() > 30:
		return o, fmt.Errorf("pool %v: want an IPv4 prefix, /4 to /30", o.Pool)
	case o.Pool != o.Pool.Masked():
		return o, fmt.Errorf("pool %v: want %v", o.Pool, o.Pool.Masked())
	case o.Embed.IsValid() && (!o.Embed.Addr().Is6() || o.Embed.Bits() != 96):
		return o, fmt.Errorf("embed %v: want an IPv6 /96", o.Embed)
	}
	if o.Bits == 0 {
		o.Bits = 64
	}
	if o.Bits != 64 && o.Bits != 56 && o.Bits != 48 {
		return o, fmt.Errorf("prefix /%d: want 64, 56 or 48", o.Bits)
	}
	if o.Keep == 0 {
		o.Keep = 36 * 24 * time.Hour
	}
	if o.Keep < 10*time.Minute {
		return o, fmt.Errorf("keep %v: want at least 10m", o.Keep)
	}
	size := usable(o.Pool)
	if o.CapPer48 == 0 {
		o.CapPer48 = max(1, min(4096, size/16))
	}
	if o.CapPer32 == 0 {
		o.CapPer32 = max(1, size/4)
	}
	if o.UnprovenQuota == 0 {
		o.UnprovenQuota = min(1024, size/16)
	}
	o.UnprovenQuota = max(0, o.UnprovenQuota)
	return o, nil
}

// times are the periods that follow from Keep, in seconds.
type times struct {
	keep   uint32
	renew  uint32 // a lease is used this long after it was renewed on disk: Keep/12, at most 3 days
	pass   uint32 // from one pass to the next: 10 minutes, less with a short Keep
	margin uint32 // a lease is marked idle this long before it must not be used
	stale  uint32 // a store on which no pass was finished for so long is lost; less than margin, see the package comment
}

func timesOf(keep time.Duration) times {
	t := times{keep: uint32(keep / time.Second)}
	t.renew = min(t.keep/12, 3*24*3600)
	t.pass = max(1, min(t.renew/432, 600))
	t.margin = 3 * t.pass
	t.stale = 2 * t.pass
	return t
}

// Ledger is the book. Open makes one; Run must run for anything but Find, Who and Status to work.
type Ledger struct {
	o   Options
	t   times
	log *slog.Logger

	view  atomic.Pointer[view] // what Find reads
	clock atomic.Uint32        // seconds since 1970; Run moves it on, never back

	qmu     sync.Mutex
	queue   []*request
	stopped bool
	wake    chan struct{} // 1: something was added to queue
	control chan ask
	ended   chan struct{} // closed when Run has returned

	mu    sync.RWMutex // Run's goroutine writes what follows, and reads it without the lock
	book  *book
	store state.Store // nil while released
	lost  error       // why nothing can be written; nil if it can

	w writer // Run's goroutine only
}

// Status is how full the ledger is.
type Status struct {
	Pool     netip.Prefix
	Size     int   // stand-ins there are
	Leased   int   // of them given to a prefix
	Shared   int   // of the leased, those that several prefixes share
	Unproven int   // in use by clients that have not proved their address; not among the leased
	Err      error // why new prefixes get none
}

// Open reads the ledger out of store, which stays the caller's to close unless Release does it. It fails if leases
// would be lost because the pool is no longer what it was.
func Open(store state.Store, o Options, log *slog.Logger) (*Ledger, error) {
	o, err := o.complete()
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	l := &Ledger{
		o: o, t: timesOf(o.Keep), log: log,
		wake: make(chan struct{}, 1), control: make(chan ask), ended: make(chan struct{}),
	}
	if err := l.load(context.Background(), store); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return l, nil
}

// load makes the book from what the store holds and says there that a writer is at work.
func (l *Ledger) load(ctx context.Context, store state.Store) error {
	now := max(uint32(time.Now().Unix()), l.clock.Load())
	b, m, err := read(store, l.o, l.t, now)
	if err != nil {
		return err
	}
	// The clock of the last run counts too: ours may have been set back.
	now = max(now, m.Alive)
	next := meta{Version: version, Pool: l.o.Pool, Alive: now}
	if !m.Clean && m.Alive != 0 && now-m.Alive >= l.t.stale {
		next.Alive = m.Alive // until a pass has written what is now taken for used
		b.touch(now)
	}
	if err := store.Apply(ctx, next.op()); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.book != nil {
		b.adopt(l.book)
	}
	l.book, l.store, l.lost = b, store, nil
	l.w.reset(next)
	l.clock.Store(now)
	l.view.Store(b.view)
	return nil
}

// request is one call that waits.
type request struct {
	client   netip.Addr
	kind     kind
	done     func(netip.Addr, error) // nil when it was called, and for a proof
	deadline time.Time
}

type kind uint8

const (
	wantLease kind = iota
	wantUnproven
	proof
)

// Lease gets the stand-in of a client that Find does not know. It queues and returns; done is called once, within
// Deadline, on the ledger's goroutine, and must not block. By then the lease is on disk.
// It tells ErrDeadline, ErrFull or ErrUnavailable. After Run has returned, done is called at once with the last.
func (l *Ledger) Lease(client netip.Addr, done func(standIn netip.Addr, err error)) {
	l.enqueue(&request{client: client, kind: wantLease, done: done})
}

// LeaseUnproven is Lease for a client that may be forged, as behind a UDP packet. If the client is new, its stand-in
// comes from a small quota and nothing is written until Prove; it may be used for UnprovenLife.
func (l *Ledger) LeaseUnproven(client netip.Addr, done func(standIn netip.Addr, err error)) {
	l.enqueue(&request{client: client, kind: wantUnproven, done: done})
}

// Prove makes a lease of what LeaseUnproven gave: the client has answered a reply. It stays the same stand-in.
// To wait until it is on disk, call Lease.
func (l *Ledger) Prove(client netip.Addr) { l.enqueue(&request{client: client, kind: proof}) }

func (l *Ledger) enqueue(r *request) {
	r.deadline = time.Now().Add(Deadline)
	l.qmu.Lock()
	stopped := l.stopped
	if !stopped {
		l.queue = append(l.queue, r)
	}
	l.qmu.Unlock()
	if stopped {
		r.answer(netip.Addr{}, ErrUnavailable)
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// answer calls done, once.
func (r *request) answer(standIn netip.Addr, err error) {
	if done := r.done; done != nil {
		r.done = nil
		done(standIn, err)
	}
}

// Reserve returns the stand-in that is never leased: the edge proves the way back with it.
func (l *Ledger) Reserve() netip.Addr { return l.o.Pool.Addr().Next() }

// Status returns a picture of the ledger now.
func (l *Ledger) Status() Status {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := Status{Pool: l.o.Pool, Size: usable(l.o.Pool), Leased: l.book.leased, Shared: l.book.shared,
		Unproven: l.book.unproven, Err: l.lost}
	if s.Err == nil && l.store == nil {
		s.Err = errReleased
	}
	return s
}
