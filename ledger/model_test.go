// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/state/statetest"
)

// TestModel has random clients use a small pool while the store fails, loses power and comes back at random moments.
// What anyone was told is held against the promise: no stand-in goes to two prefixes within Keep, and a client keeps
// its own. KYOZON_SOAK=1 makes it long, KYOZON_SEED repeats a run.
func TestModel(t *testing.T) {
	t.Parallel()
	crashes := 100
	if os.Getenv("KYOZON_SOAK") != "" {
		crashes = 2000
	}
	seed := rand.Uint64()
	if s := os.Getenv("KYOZON_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("KYOZON_SEED=%d", seed)
	synctest.Test(t, func(t *testing.T) {
		m := &model{
			t: t, rand: rand.New(rand.NewPCG(seed, 0)), store: statetest.NewVolatile(),
			told: make(chan answer, 1024), holders: make(map[netip.Addr]hold), clients: make(map[netip.Prefix]hold),
			o: Options{Pool: netip.MustParsePrefix("100.64.0.0/26"), Keep: 3 * time.Hour, CapPer48: 4, CapPer32: 8,
				UnprovenQuota: 4},
		}
		m.l = start(t, m.store, m.o)
		for m.crashes < crashes && !t.Failed() {
			m.step()
		}
		_ = m.l.stop() // the store may be failing just now
		t.Logf("%d stand-ins told, %d of them unproven; %d changes of holder, %d crashes, %d in an upgrade; refused: %v",
			m.uses, m.unproven, m.changes, m.crashes, m.upgrades, m.refused)
		if m.changes == 0 {
			t.Error("no stand-in ever changed its holder: nothing was tried")
		}
	})
}

// hold says who used something last.
type hold struct {
	prefix   netip.Prefix
	standIn  netip.Addr
	last     time.Time
	unproven bool
}

// answer is an answer that a client got.
type answer struct {
	client, standIn netip.Addr
	err             error
	unproven        bool
}

type model struct {
	t     *testing.T
	o     Options
	rand  *rand.Rand
	store *statetest.Volatile
	l     running
	told  chan answer

	holders map[netip.Addr]hold   // by stand-in
	clients map[netip.Prefix]hold // by the client's /64

	uses, unproven, changes, crashes, upgrades int
	refused                                    map[string]int
}

// client returns one of those who come at this time: every two hours some stop coming and others begin, so that
// stand-ins become free.
func (m *model) client() netip.Addr {
	period := int(time.Now().Unix()/7200) - m.rand.IntN(2)
	n := period*10 + m.rand.IntN(12)
	return netip.MustParseAddr(fmt.Sprintf("2001:%x:%x:%x::%x", 0xdb8+n%16, n/16%16, n%3*0x80, m.rand.IntN(3)+1))
}

func (m *model) step() {
	switch n := m.rand.IntN(100); {
	case n < 50:
		m.ask()
	case n < 75:
		for range 10 {
			client := m.client()
			if a, ok := m.l.Find(client); ok {
				m.check(m.l, answer{client: client, standIn: a})
			}
		}
	case n < 80:
		m.l.Prove(m.client())
	case n < 92:
		time.Sleep(time.Duration(m.rand.IntN(60)) * time.Second)
	case n < 95:
		time.Sleep(time.Duration(m.rand.IntN(60)) * time.Minute)
	case n < 97:
		m.failing()
	case n < 98:
		m.upgrade()
	default:
		m.crash()
	}
}

// ask has several clients ask at once and waits for the answers.
func (m *model) ask() {
	n := m.rand.IntN(8) + 1
	for range n {
		client, unproven := m.client(), m.rand.IntN(4) == 0
		lease := m.l.Lease
		if unproven {
			lease = m.l.LeaseUnproven
		}
		lease(client, func(a netip.Addr, err error) { m.told <- answer{client, a, err, unproven} })
	}
	for range n {
		m.check(m.l, <-m.told)
	}
}

// check holds an answer of a process against what was told before.
func (m *model) check(l running, u answer) {
	m.t.Helper()
	if u.err != nil {
		if m.refused == nil {
			m.refused = make(map[string]int)
		}
		m.refused[u.err.Error()]++
		return
	}
	found, err := l.Who(u.standIn, time.Time{})
	if err != nil || len(found) != 1 || !found[0].Prefix.Contains(u.client) {
		// It is being written for someone who does not wait, so it is not in the book yet.
		if !u.unproven || len(found) != 0 {
			m.t.Errorf("%v was given %v, which is of %v, %v", u.client, u.standIn, found, err)
		}
		return
	}
	now := hold{prefix: found[0].Prefix, standIn: u.standIn, last: time.Now(), unproven: found[0].Unproven}
	m.uses++
	if now.unproven {
		m.unproven++
	}
	if before, ok := m.holders[u.standIn]; ok && before.prefix != now.prefix {
		m.changes++
		keep := m.o.Keep
		if before.unproven {
			keep = UnprovenLife
		}
		if unused := time.Since(before.last); unused < keep {
			m.t.Errorf("%v goes from %v to %v after %v", u.standIn, before.prefix, now.prefix, unused)
		}
	}
	m.holders[u.standIn] = now
	if now.unproven {
		return
	}
	client := ip.ClientPrefix(u.client)
	if before, ok := m.clients[client]; ok && before.standIn != u.standIn && time.Since(before.last) < m.o.Keep {
		m.t.Errorf("%v had %v, %v later it has %v", client, before.standIn, time.Since(before.last), u.standIn)
	}
	m.clients[client] = now
}

// failing has the store fail at some moments, or stop failing.
func (m *model) failing() {
	if m.rand.IntN(3) == 0 {
		m.store.Hook(nil)
		return
	}
	moment, percent, random := statetest.Moment(m.rand.IntN(3)), m.rand.IntN(100)+1, m.fork()
	m.store.Hook(func(now statetest.Moment) error {
		if now == moment && random.IntN(100) < percent {
			return errors.New("disk")
		}
		return nil
	})
}

// fork returns a source for another goroutine.
func (m *model) fork() *rand.Rand { return rand.New(rand.NewPCG(m.rand.Uint64(), 0)) }

// crash takes the power away at some moment of some batch, or between batches, and starts anew.
func (m *model) crash() {
	m.crashes++
	left, store := m.rand.IntN(8), m.store
	if m.rand.IntN(4) > 0 {
		store.Hook(func(statetest.Moment) error {
			if left--; left < 0 {
				store.Crash()
			}
			return nil
		})
		m.ask()
		m.ask()
	}
	store.Crash()
	_ = m.l.stop() // the crash
	m.restart(store.Restart())
}

func (m *model) restart(store *statetest.Volatile) {
	if m.rand.IntN(16) == 0 { // a long one has every lease taken for used
		time.Sleep(time.Duration(m.rand.IntN(40)) * time.Minute)
	}
	m.store = store
	m.l = start(m.t, m.store, m.o)
	// Nobody holds what only a dead process knew of.
	for a, h := range m.holders {
		if h.unproven {
			delete(m.holders, a)
		}
	}
}

// upgrade makes way for another process, which crashes or takes over for good.
func (m *model) upgrade() {
	old, store := m.l, m.store
	if err := old.Release(); err != nil {
		return // the store fails: the upgrade is put off
	}
	m.upgrades++
	m.store = store.Restart()
	m.l = start(m.t, m.store, m.o)
	for range 10 {
		m.ask()
		if client := m.client(); m.rand.IntN(2) == 0 { // the old process still serves
			if a, ok := old.Find(client); ok {
				m.check(old, answer{client: client, standIn: a})
			}
		}
	}
	if m.rand.IntN(2) == 0 {
		_ = old.stop() // it is not the writer
		return
	}
	m.store.Crash()
	_ = m.l.stop()
	m.store = m.store.Restart()
	m.l = old
	if err := old.Resume(m.store); err != nil {
		m.t.Errorf("Resume: %v", err)
	}
	for a, h := range m.holders {
		if h.unproven {
			delete(m.holders, a)
		}
	}
}
