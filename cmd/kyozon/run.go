// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/admin"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/listen"
)

// barrierPatience is how long a process that ends waits for the service manager to hear its last words.
const barrierPatience = 5 * time.Second

func (e *env) runCommand() *cobra.Command {
	var control string
	var loops int
	c := &cobra.Command{
		Use:   "run FILE",
		Short: "Serve the site that FILE describes, until SIGTERM",
		Long: "Serve the site that FILE describes. SIGHUP or `kyozon reload` reads FILE again; SIGTERM, SIGINT or\n" +
			"`kyozon stop` lets flows end for as long as `drain` in FILE says.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return e.serve(c.Context(), site{file: args[0], control: control, loops: loops})
		},
	}
	e.controlFlag(c, &control)
	c.Flags().IntVar(&loops, "loops", 0, "event loops; 0 means one for each processor")
	return c
}

// site is what run runs.
type site struct {
	file    string
	control string
	loops   int
}

// serve runs an edge until ctx is done.
func (e *env) serve(ctx context.Context, s site) error {
	signal.Ignore(syscall.SIGPIPE) // who reads the log may end, also that of the process which this one replaces
	successor, err := edge.OpenSuccessor(e.getenv)
	if err != nil {
		return err
	}
	err = e.serveAs(ctx, s, successor)
	if err != nil && successor != nil {
		successor.Fail(err)
	}
	return err
}

func (e *env) serveAs(ctx context.Context, s site, successor *edge.Successor) error {
	sockets := listen.NewSet(listen.Options{})
	inherited, err := sockets.Inherit(e.getenv)
	if err != nil {
		return err
	}
	notify := listen.NewNotifier(e.getenv)
	for _, name := range []string{listen.UpgradeEnv, edge.UpgradeEnv, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"} {
		os.Unsetenv(name) // they are not meant for a process that replaces this one
	}
	cfg, err := config.Load(s.file, protocols())
	if err != nil {
		return err
	}
	e.warn(cfg.Warnings)
	var flows edge.Flows
	var legacies edge.Legacies
	if successor != nil {
		if flows, legacies, err = successor.Built(); err != nil {
			return err
		}
	}
	tuneRuntime(s.loops)
	defer tendHeap()()
	log := e.log()
	ed, err := edge.New(edge.Options{Log: log, Version: version, Protocols: protocols(), Loops: s.loops, Sockets: sockets,
		Replaces: successor != nil, Inherited: inherited, Flows: flows, Legacies: legacies})
	if err != nil {
		return err
	}
	p := &process{env: e, site: s, edge: ed, notify: notify, successor: successor}
	p.ctx, p.stop = context.WithCancel(ctx)
	defer p.stop()
	return p.run(cfg, sockets)
}

// tuneRuntime gives the goroutines that are not loops processors of their own, so that they need not wait until a loop
// yields.
func tuneRuntime(loops int) {
	if loops == 0 {
		loops = runtime.NumCPU()
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), loops+2))
}

// process is an edge with what stands around it.
type process struct {
	env       *env
	site      site
	edge      *edge.Edge
	notify    *listen.Notifier
	successor *edge.Successor

	then func() // called when the edge serves; may be nil

	ctx   context.Context // done when the process must drain and end
	stop  context.CancelFunc
	ended context.Context // done when the edge has ended
	wg    sync.WaitGroup  // what runs beside the edge
	mu    sync.Mutex      // one reload or upgrade at a time

	replaced atomic.Bool // another process is the service now
}

func (p *process) run(cfg *config.Config, sockets *listen.Set) error {
	defer p.wg.Wait()
	page, err := p.lendAdmin(cfg.Admin.Listen, sockets)
	if err != nil {
		return err
	}
	var end context.CancelFunc
	p.ended, end = context.WithCancel(context.Background())
	defer end()
	failed := make(chan error, 2)
	started := func() {
		listening, listens := context.WithCancel(p.ended)
		p.wg.Go(func() {
			defer listens() // also if it fails
			p.failOn(failed, p.edge.Control(p.ended, p.site.control, p.commands(), listens))
		})
		<-listening.Done() // whoever asks after an upgrade must not get the old process
		if p.ctx.Err() != nil {
			return
		}
		p.wg.Go(func() { p.failOn(failed, p.serveAdmin(p.ended, page)) })
		p.wg.Go(func() { p.signals(p.ended) })
		p.wg.Go(func() { p.watchdog(p.ended) })
		p.wg.Go(func() { p.sayStopping(p.ended) })
		if p.successor != nil {
			p.failOn(failed, p.successor.Serving())
		}
		p.notify.Ready(p.summary())
		if p.then != nil {
			p.wg.Go(p.then)
		}
	}
	err = p.edge.Run(p.ctx, cfg, started)
	end()
	select {
	case also := <-failed:
		err = errors.Join(err, also)
	default:
	}
	return err
}

// failOn ends the process when a part of it that must run has failed.
func (p *process) failOn(failed chan<- error, err error) {
	if err == nil {
		return
	}
	select {
	case failed <- err:
	default:
	}
	p.stop()
}

// sayStopping tells the service manager that the process has begun to end. A process that was replaced says nothing: it
// would be taken for the end of the service, and its successor killed.
func (p *process) sayStopping(ended context.Context) {
	select {
	case <-p.ctx.Done():
	case <-ended.Done():
	}
	if p.ctx.Err() != nil && !p.replaced.Load() {
		p.notify.Stopping()
	}
}

// summary is the status that systemctl shows.
func (p *process) summary() string {
	s := p.edge.Status()
	return fmt.Sprintf("generation %d, %d services", s.Generation, len(s.Services))
}

// lendAdmin leases the socket of the status page; nil if there is to be none.
func (p *process) lendAdmin(at netip.AddrPort, sockets *listen.Set) (*listen.Lease, error) {
	if !at.IsValid() {
		return nil, nil
	}
	lease, err := sockets.Stream(listen.Addr{Transport: listen.TCP, AddrPort: at})
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return lease, nil
}

// serveAdmin serves the status page and the metrics.
func (p *process) serveAdmin(ctx context.Context, lease *listen.Lease) error {
	if lease == nil {
		return nil
	}
	defer lease.Close()
	fd, err := unix.FcntlInt(uintptr(lease.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	file := os.NewFile(uintptr(fd), "admin")
	l, err := net.FileListener(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	s := &http.Server{
		Handler:           admin.Handler(p.edge, p.edge.Registry(), admin.Options{Version: version, PProf: true}),
		ReadHeaderTimeout: 5 * time.Second,
	}
	stopped := context.AfterFunc(ctx, func() { s.Close() })
	defer stopped()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

// signals reloads on SIGHUP.
func (p *process) signals(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			if _, err := p.reload(); err != nil {
				p.env.report(err)
			}
		}
	}
}

// watchdog tells systemd that the loops turn.
func (p *process) watchdog(ctx context.Context) {
	every := p.notify.WatchdogEvery()
	if every == 0 {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.edge.Flows(1) // asks every loop
			if p.replaced.Load() {
				return // the new process must speak for itself
			}
			p.notify.Watchdog()
		}
	}
}

func (p *process) commands() edge.Commands {
	return edge.Commands{Reload: p.reload, Upgrade: p.upgrade, Stop: p.end}
}

// end has the process drain and end.
func (p *process) end(detach bool) {
	if detach {
		p.edge.Detach()
	}
	p.stop()
}

// reload reads the file again and puts it in service. On error what runs is untouched.
func (p *process) reload() (edge.Done, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notify.Reloading()
	defer func() { p.notify.Ready(p.summary()) }()
	cfg, err := config.Load(p.site.file, protocols())
	if err != nil {
		p.edge.ReloadFailed(err)
		return edge.Done{}, err
	}
	p.env.warn(cfg.Warnings)
	done := edge.Done{Text: "nothing has changed", Warnings: cfg.Warnings}
	switch err := p.edge.Reload(cfg); {
	case errors.Is(err, edge.ErrNoChange):
		return done, nil
	case err != nil:
		return edge.Done{}, err
	}
	st := p.edge.Status()
	done.Text = "generation " + strconv.Itoa(st.Generation) + " is in service"
	for _, q := range st.Queues {
		if q.Stuck != "" {
			done.Text += fmt.Sprintf("\nwarning: %s stuck: %s", messages(q.Messages, "is", "are"), q.Stuck)
		}
	}
	return done, nil
}

// upgrade has the binary at our path take over, and then drains.
func (p *process) upgrade() (edge.Done, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	binary, err := filepath.Abs(os.Args[0])
	if err != nil || filepath.Base(os.Args[0]) == os.Args[0] {
		if binary, err = os.Executable(); err != nil {
			return edge.Done{}, err
		}
	}
	pid, failed, err := p.edge.Upgrade(binary)
	if err != nil {
		return edge.Done{}, err
	}
	p.replaced.Store(true)
	p.notify.MainPID(pid)
	p.wg.Go(func() { p.outlive(failed) })
	time.AfterFunc(100*time.Millisecond, p.stop) // after the answer has been sent
	return edge.Done{Text: fmt.Sprintf("process %d serves; this one, %d, drains", pid, os.Getpid())}, nil
}

// outlive ends this process at once if the one that has taken over fails while this one drains. The service manager does
// not see that end, for it is not its child: it is told of ours instead, and starts the service again.
func (p *process) outlive(failed <-chan error) {
	select {
	case <-p.ended.Done():
	case err := <-failed:
		p.env.report(err)
		p.notify.MainPID(os.Getpid())
		p.notify.Barrier(barrierPatience)
		os.Exit(exitError)
	}
}
