// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package plane has the kernel plane carry those services of a site that it can, and says why it cannot carry the others.
//
//	services, health ── Apply ─▶ why not? ─ interfaces ─ tables ─▶ kernel.Plane ◀─▶ packets
//	flows of the user plane ── Take, Give ─▶ source ports ────────▶ │
//	ledger ── Find, Lease, Prove ─▶ stand-ins, and until when ────▶ │
//	status, metrics, access log ◀── flows, counts ─────────────────┘
//
// The user plane listens at the same addresses all the time: what the kernel plane does not take goes there. So does the
// first flow of a prefix, which gets its stand-in there; the next ones find it in the kernel.
//
// A process that is killed leaves the kernel plane forwarding; the next one takes it over. One that replaces another
// takes it when the other stands back.
package plane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/kernel"
	"github.com/kyozon/kyozon/ledger"
	"github.com/kyozon/kyozon/metrics"
)

// Options say what a Plane is made of.
type Options struct {
	Log      *slog.Logger
	Registry *metrics.Registry
	Now      func() int64      // the clock of the loops
	Beside   bool              // another process, which this one replaces, has not ended
	Adopt    func()            // has each flow of the user plane Adopt; called before the kernel plane gets something new
	Ended    func(kernel.Flow) // a flow has ended in the kernel; called from anywhere
}

// Plane is the kernel plane of one process, open or not.
type Plane struct {
	options Options
	wake    chan struct{} // 1: there is something for Run to look at

	open  atomic.Pointer[kernel.Plane] // nil while there is none
	state atomic.Pointer[state]        // what it carries
	gone  atomic.Bool                  // another process has it

	mu       sync.Mutex
	site     *config.Config
	services []Service
	ways     ways
	looks    looks
	last     string // what was applied last
	lock     *os.File
	run      context.CancelFunc
	running  sync.WaitGroup

	stand standing
	gives gives
	sums  sums
}

// New returns a plane that is not open.
func New(o Options) *Plane {
	p := &Plane{options: o, wake: make(chan struct{}, 1)}
	p.state.Store(new(state))
	p.stand.init()
	p.sums.init()
	return p
}

// Pin returns the folder of the pins of this process's network. Another network namespace of the machine has another
// kernel plane. Its cookie is a number that the kernel gives once; that of its file in /proc may come again when it is gone,
// and its pins would be taken for those of another.
func Pin() (string, error) {
	cookie, err := cookie()
	if err != nil {
		return "", fmt.Errorf("find network namespace: %w", err)
	}
	return filepath.Join(kernel.DefaultPin, fmt.Sprint(pinPrefix, cookie)), nil
}

// Detach ends the kernel plane of this network, which no process may have open: all flows in it end.
func Detach() error {
	pin, err := Pin()
	if err != nil {
		return err
	}
	return kernel.Detach(pin)
}

// Run looks after the plane until ctx is done: it notices how the backends are, counts, and takes back what is used no
// more.
func (p *Plane) Run(ctx context.Context) {
	every := time.NewTicker(time.Second)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			p.meetAll()
			p.refresh()
		case <-every.C:
			p.lookAround()
			p.refresh()
			p.flushGives(time.Now())
			p.expire(time.Now())
			p.scan(time.Now())
		}
	}
}

// Wake has Run look at once: a backend has come up or gone down.
func (p *Plane) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Open says whether the kernel plane is open.
func (p *Plane) Open() bool { return p.open.Load() != nil }

// UseLedger says where stand-ins come from.
func (p *Plane) UseLedger(l *ledger.Ledger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stand.ledger.Store(l)
	p.reconcileLocked()
}

// openLocked opens the kernel plane, and takes over that of the process before.
func (p *Plane) openLocked() error {
	if p.open.Load() != nil {
		return nil
	}
	if err := kernel.Able(); err != nil {
		return err
	}
	pin, err := Pin()
	if err != nil {
		return err
	}
	if err := pinnable(); err != nil {
		return err
	}
	if err := p.lockLocked(pin); err != nil {
		return err
	}
	k, err := kernel.Open(kernel.Options{Pin: pin, Flows: p.site.Kernel.Flows, Pending: p.site.Kernel.Pending,
		Beside: p.options.Beside, Ended: p.ended})
	if err != nil {
		p.unlockLocked()
		return err
	}
	p.tidy()
	p.last = ""
	p.open.Store(k)
	p.reconcileLocked()
	ctx, cancel := context.WithCancel(context.Background())
	p.run = cancel
	p.running.Go(func() {
		if err := k.Run(ctx); err != nil {
			p.options.Log.Error("kernel plane stopped", "err", err)
		}
	})
	return nil
}

// tidy removes what kernel planes of network namespaces have left that are gone.
func (p *Plane) tidy() {
	n, err := removeRemains(kernel.DefaultPin)
	if n > 0 {
		p.options.Log.Info("removed the kernel planes of network namespaces that are gone", "planes", n)
	}
	if err != nil {
		p.options.Log.Info("kernel planes of other network namespaces stay", "err", err)
	}
}

// pinnable returns nil if there can be pins. An administrator of a service with a user of its own makes the folder.
func pinnable() error {
	err := kernel.Pinnable(filepath.Join(kernel.DefaultPin, "net"))
	if errors.Is(err, os.ErrNotExist) {
		err = kernel.Pinnable(kernel.DefaultPin)
	}
	return err
}

// errLocked means that two edges are in one network.
var errLocked = errors.New("another kyozon has the kernel plane of this machine")

// lockLocked keeps other processes out.
func (p *Plane) lockLocked(pin string) error {
	if err := os.MkdirAll(pin, 0o700); err != nil {
		return fmt.Errorf("make folder of pins: %w", err)
	}
	f, err := lockFolder(pin)
	p.lock = f
	return err
}

// lockFolder locks a folder of pins, until the file is closed. It returns errLocked if another process has it.
func lockFolder(pin string) (*os.File, error) {
	f, err := os.Open(pin)
	if err != nil {
		return nil, fmt.Errorf("open folder of pins: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errLocked
	}
	return nil, errors.Join(err, f.Close())
}

func (p *Plane) unlockLocked() {
	if p.lock != nil {
		p.lock.Close() // the lock goes with it
		p.lock = nil
	}
}

// closeLocked gives up the kernel plane, which goes on forwarding.
func (p *Plane) closeLocked() {
	k := p.open.Swap(nil)
	if k == nil {
		return
	}
	p.run()
	p.running.Wait()
	if err := k.Close(); err != nil {
		p.options.Log.Error("close kernel plane", "err", err)
	}
	p.ways.forget()
	p.unlockLocked()
}

// Close gives up the kernel plane; its flows go on. With detach it is removed, and they end.
func (p *Plane) Close(detach bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.open.Load() != nil
	p.flushGives(time.Now().Add(rest))
	p.closeLocked()
	if !detach {
		return
	}
	if was {
		if err := Detach(); err != nil {
			p.options.Log.Error("remove kernel plane", "err", err)
		}
	}
	switch err := DetachMedia(); { // of a relay that was killed
	case errors.Is(err, ErrMediaRuns):
		p.options.Log.Info("the kernel plane of media stays", "why", err)
	case err != nil:
		p.options.Log.Error("remove kernel plane of media", "err", err)
	}
}

// StandBack lets another process have the kernel plane, which goes on forwarding. StandUp takes it again.
func (p *Plane) StandBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone.Store(true)
	if p.open.Load() == nil {
		return
	}
	p.run()
	p.running.Wait()
	p.unlockLocked() // it stays open, so that flows which drain can give back what they use
}

// StandUp undoes StandBack: the other process did not live.
func (p *Plane) StandUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone.Store(false)
	p.options.Beside = true // what is reserved is ours
	p.closeLocked()
	p.applyLocked()
}

// Status is how the kernel plane is.
type Status struct {
	Open       bool
	Interfaces []string
	Flows      int
	Err        string // why it takes no new flows, though a service could use it
}

// Status returns a picture of the plane now.
func (p *Plane) Status() Status {
	st := p.state.Load()
	s := Status{Open: p.Open(), Interfaces: st.interfaces, Err: st.fault}
	for _, sum := range p.sums.now() {
		s.Flows += int(sum.active)
	}
	return s
}

// Verdict returns where a service is carried, and if not in the kernel, why.
func (p *Plane) Verdict(service string) Verdict {
	v, ok := p.state.Load().verdicts[service]
	if !ok {
		return Verdict{}
	}
	return v
}

// say logs where services are carried, once.
func (p *Plane) say(was, now *state) {
	for _, name := range sortedKeys(now.verdicts) {
		v := now.verdicts[name]
		switch before, ok := was.verdicts[name]; {
		case ok && before == v:
		case v.Kernel:
			p.options.Log.Info("service is carried in the kernel", "service", name)
		case v.Reason != "":
			p.options.Log.Info("service is not carried in the kernel", "service", name, "err", v.Reason)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	return sorted(maps.Keys(m))
}
