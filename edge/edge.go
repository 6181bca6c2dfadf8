// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package edge is the running program. It makes a generation out of a configuration, puts it in place of the one that
// runs, and lets the old one drain.
//
//	Config ─ build ─▶ generation: pools, routes, servers ─ commit ─▶ doors answer with it
//	          │ any error: the old one runs on, untouched       │
//	          └────────────────────────────────────────────────▶└─ the old one drains: its flows go on
//
// What outlives a generation is here: the loops, the doors with their sockets, the health of the backends, the
// counters, the ledger, and what a protocol keeps.
package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge/plane"
	"github.com/kyozon/kyozon/ledger"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
	"github.com/kyozon/kyozon/state"
)

// ErrNoChange means that the configuration is the one that runs.
var ErrNoChange = errors.New("edge: nothing has changed")

// errNoLedger means that the site gives no stand-ins.
var errNoLedger = errors.New("this site has no ledger: addresses.ledger is not in the file")

// errNeedsUpgrade means that a reload cannot do it.
var errNeedsUpgrade = errors.New("the ledger's settings have changed: use `kyozon upgrade`, which opens it anew")

// healthPatience is how long a new generation waits for the first answer of each new backend.
const healthPatience = 3 * time.Second

// Options say what an Edge is made of.
type Options struct {
	Log       *slog.Logger
	Version   string
	Protocols []service.Protocol
	Loops     int           // 0 means one for each processor
	Sockets   *listen.Set   // with what was inherited; nil means an empty set
	Replaces  bool          // another process, which drains
	Inherited []listen.Addr // of the sockets that came from it
	Flows     Flows         // its UDP flows
	Legacies  Legacies      // what else it has left
}

// Edge is the running program.
type Edge struct {
	options   Options
	loops     *relay.Loops
	sockets   *listen.Set
	keeper    *backend.Keeper
	book      *backend.Book
	proofs    *proofs
	routing   routing
	plane     *plane.Plane
	registry  metrics.Registry
	accessLog *accesslog.Log
	rates     rates

	kernelLines kernelLines

	started time.Time
	kept    map[string]map[string]any // by protocol: what it keeps over reloads
	acme    *acme.Client              // of all protocols; nil before the first generation

	queues atomic.Pointer[[]*service.Queue] // of all protocols that there have been
	left   atomic.Pointer[map[string]error] // by protocol: see service.Protocol.Left

	ctx  context.Context // done when everything must stop
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu         sync.Mutex // one change at a time
	doors      map[listen.Addr]*door
	ledger     *ledger.Ledger
	store      state.Store
	ledgerNow  atomic.Pointer[ledger.Ledger] // the same, for those who must not wait for a reload
	settings   config.Ledger
	generation atomic.Pointer[generation]
	opened     map[string]bool                   // services that were open once
	shut       atomic.Pointer[map[string]string] // services that are not open, and why
	draining   atomic.Int64
	loaded     atomic.Int64 // Unix nanoseconds of the last commit
	reloadErr  atomic.Pointer[string]
	limited    atomic.Pointer[[]LimitedStatus] // the prefixes refused most in the last second
	ready      atomic.Bool
	closing    atomic.Bool
	detach     atomic.Bool
	replaced   bool // another process has taken our place
}

// New makes an edge that runs nothing yet.
func New(o Options) (*Edge, error) {
	if o.Loops == 0 {
		o.Loops = runtime.NumCPU()
	}
	if o.Sockets == nil {
		o.Sockets = listen.NewSet(listen.Options{})
	}
	loops, err := relay.Open(o.Loops)
	if err != nil {
		return nil, fmt.Errorf("open event loops: %w", err)
	}
	if err := loops.Unbatched(); err != nil {
		o.Log.Info("system calls are made one by one, which costs more", "err", err)
	}
	e := &Edge{options: o, loops: loops, sockets: o.Sockets, book: backend.NewBook(o.Loops), started: time.Now(),
		kept: make(map[string]map[string]any), doors: make(map[listen.Addr]*door)}
	e.routing.replaces = o.Replaces
	e.opened = make(map[string]bool)
	e.shut.Store(new(map[string]string))
	e.queues.Store(new([]*service.Queue))
	e.left.Store(new(map[string]error))
	e.keeper = backend.NewKeeper(backend.KeeperOptions{Changed: e.healthChanged})
	e.accessLog = accesslog.New(accesslog.Options{Loops: o.Loops, Now: e.now, Log: o.Log})
	e.plane = e.newPlane()
	e.proofs = newProofs(o.Log, e.reopen)
	e.ctx, e.stop = context.WithCancel(context.Background())
	return e, nil
}

// Run serves cfg until ctx is done, then drains: at first nobody new is taken, and after cfg.Drain what is left is
// cut. started is called when the first generation is in service.
func (e *Edge) Run(ctx context.Context, cfg *config.Config, started func()) error {
	stopLog := e.startLog()
	defer stopLog() // after the last flow has ended
	defer e.close()
	e.wg.Go(func() { e.loops.Run(e.ctx) })
	e.wg.Go(func() { e.keeper.Run(e.ctx) })
	e.wg.Go(func() { e.proofs.run(e.ctx) })
	e.wg.Go(func() { e.plane.Run(e.ctx) })
	e.wg.Go(func() { e.eachSecond(e.ctx) })
	if err := e.Reload(cfg); err != nil {
		return err
	}
	if started != nil {
		started()
	}
	<-ctx.Done()
	e.drain()
	return nil
}

// startLog starts the writer of the access log. stop returns when all is written.
func (e *Edge) startLog() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { e.accessLog.Run(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// Reload puts cfg in place of what runs. On error the old one runs on, untouched. Returns ErrNoChange; the file of the
// access log is opened anew also then.
func (e *Edge) Reload(cfg *config.Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.reloadLocked(cfg)
	if err != nil && !errors.Is(err, ErrNoChange) {
		e.ReloadFailed(err)
		return err
	}
	e.reloadErr.Store(nil)
	return err
}

func (e *Edge) reloadLocked(cfg *config.Config) error {
	lines, err := e.accessLog.Open(cfg.Log.Access)
	if err != nil {
		return err
	}
	old := e.generation.Load()
	if old != nil && old.config.Hash == cfg.Hash && !old.stale() {
		e.accessLog.Use(lines).Close()
		return ErrNoChange
	}
	g, err := e.prepareLocked(cfg, old)
	if err != nil {
		lines.Close()
		return err
	}
	before := e.accessLog.Use(lines) // who comes as soon as the doors are open has his line
	if err := e.commitLocked(g, old); err != nil {
		e.accessLog.Use(before).Close()
		if old != nil {
			e.proofs.watch(old)
		}
		return err
	}
	before.Close()
	e.options.Log.Info("generation in service", "generation", g.number, "services", len(cfg.Services))
	return nil
}

// prepareLocked builds the next generation and waits until its backends have said how they are.
func (e *Edge) prepareLocked(cfg *config.Config, old *generation) (*generation, error) {
	if err := e.openLedgerLocked(cfg); err != nil {
		return nil, err
	}
	g, err := e.build(cfg, old)
	if err != nil {
		return nil, err
	}
	patience, cancel := context.WithTimeout(e.ctx, healthPatience)
	defer cancel()
	e.keeper.Wait(patience) // a backend without an answer counts as down
	e.proofs.require(e.ctx, g)
	return g, nil
}

// commitLocked puts g into service. If a door cannot be opened, everything is put back.
func (e *Edge) commitLocked(g, old *generation) error {
	shut := e.unprovenLocked(g)
	open := g.openAddresses(shut)
	for a, d := range g.fresh {
		if !open[a] {
			d.close()
			delete(g.fresh, a)
			continue
		}
		if err := d.serve(e.loops, g.guards[a], e.options.Flows.take(a)); err != nil {
			for _, d := range g.fresh {
				d.close()
			}
			e.sockets.Sweep()
			g.close()
			return err
		}
	}
	for _, s := range g.servers {
		if s.Start != nil {
			s.Start()
		}
	}
	for a, d := range e.doors {
		if guard := g.guards[a]; guard != nil {
			if err := d.change(e.loops, guard); err != nil {
				e.options.Log.Error("a door is lost", "err", err)
			}
			continue
		}
		delete(e.doors, a)
		e.retireDoor(d, g)
	}
	maps.Copy(e.doors, g.fresh)
	g.fresh = nil
	e.generation.Store(g)
	e.loaded.Store(time.Now().UnixNano())
	e.ready.Store(true)
	e.setShutLocked(g, shut)
	e.applyPlaneLocked(g)
	e.setQueuesLocked(g)
	e.options.Flows.drop()
	e.run(g)
	if old == nil {
		e.retireKilled(g)
	} else {
		old.ended()
		for _, s := range old.servers {
			if s.Drain != nil {
				s.Drain(false)
			}
		}
		e.retire(old, g)
	}
	return nil
}

// openLedgerLocked opens the ledger the first time that a configuration has one.
func (e *Edge) openLedgerLocked(cfg *config.Config) error {
	want := cfg.Addresses.Ledger
	switch {
	case want == nil:
		return nil
	case e.ledger != nil && e.settings != *want:
		return errNeedsUpgrade
	case e.ledger != nil:
		return nil
	}
	store, err := openStore(cfg)
	if err != nil {
		return err
	}
	l, err := ledger.Open(store, ledger.Options{Pool: want.Pool, Bits: want.Bits, Keep: want.Keep, Embed: want.Embed},
		e.options.Log)
	if err != nil {
		store.Close()
		return fmt.Errorf("open ledger: %w", err)
	}
	e.ledger, e.store, e.settings = l, store, *want
	e.ledgerNow.Store(l)
	e.plane.UseLedger(l)
	e.wg.Go(func() {
		if err := l.Run(e.ctx); err != nil {
			e.options.Log.Error("ledger stopped", "err", err)
		}
	})
	return nil
}

func openStore(cfg *config.Config) (state.Store, error) {
	if err := os.MkdirAll(cfg.State.Directory, 0o750); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	store, err := state.Open(filepath.Join(cfg.State.Directory, "ledger.db"))
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return store, nil
}

// drain ends the edge: nobody new, then a time for what is under way, then the end.
func (e *Edge) drain() {
	e.closing.Store(true)
	e.ready.Store(false)
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.generation.Load()
	for _, d := range e.doors {
		d.shut()
	}
	if !e.replaced {
		e.plane.Stop()
	}
	g.ended()
	for _, s := range g.servers {
		if s.Drain != nil {
			s.Drain(true)
		}
	}
	e.options.Log.Info("draining", "flows", e.active(), "deadline", g.config.Drain.String())
	e.await(g.config.Drain, func() bool { return e.active() == 0 })
	e.cut(func(*backend.Flow) bool { return true })
}

// close ends everything that runs.
func (e *Edge) close() {
	for _, d := range e.doors {
		d.close()
	}
	e.sockets.Close()
	e.stop()
	e.wg.Wait()
	e.plane.Close(e.detach.Load() && !e.replaced)
	if e.store != nil && !e.replaced {
		e.store.Close()
	}
	e.routing.removeAll()
	e.loops.Close()
}

// healthChanged logs a backend that comes up or goes down.
func (e *Edge) healthChanged(c backend.Check, was, now backend.Opinion) {
	e.plane.Wake()
	if now.State == backend.Up && was.State == backend.Unknown {
		return
	}
	e.options.Log.Warn("backend has changed", "backend", c.Target.Addr, "state", now.State.String(), "err", now.Reason)
}

// ReloadFailed notes why a configuration was not even good enough to try, for the status page.
func (e *Edge) ReloadFailed(err error) {
	text := err.Error()
	e.reloadErr.Store(&text)
}
