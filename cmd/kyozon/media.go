// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge/plane"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/media"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// mediaGCPercent is small: what lives is calls, and packets allocate nothing.
const mediaGCPercent = 10

var errNoNetworks = errors.New("the file names no networks; add networks:, with where media come in")

func (e *env) mediaCommand() *cobra.Command {
	var loops int
	c := &cobra.Command{
		Use:   "media FILE",
		Short: "Relay the media of calls for the site that FILE describes, until SIGTERM",
		Long: "Relay the media of calls, as `kyozon run` with the same FILE asks for, in a process of its own: it goes on while\n" +
			"the other ends and comes back. It reads `networks` and where `state` is. When the other takes FILE into service\n" +
			"again it reads `networks` again too: new calls have addresses of those, and calls that there are keep theirs.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return e.relayMedia(c.Context(), args[0], loops) },
	}
	c.Flags().IntVar(&loops, "loops", 0, "event loops; 0 means one for each processor")
	return c
}

// relayMedia relays until ctx is done.
func (e *env) relayMedia(ctx context.Context, file string, loops int) error {
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	cfg, err := config.Load(file, protocols())
	if err != nil {
		return err
	}
	if len(cfg.Networks) == 0 {
		return errNoNetworks
	}
	lock, err := control.Lock(cfg.MediaSocket())
	if err != nil {
		return err
	}
	defer lock.Close()
	if loops == 0 {
		loops = runtime.NumCPU()
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), loops+2))
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(mediaGCPercent)
	}
	ls, err := relay.Open(loops)
	if err != nil {
		return err
	}
	defer ls.Close()
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	wg.Go(func() { ls.Run(ctx) })
	options := media.Options{Networks: mediaNetworks(cfg), Loops: ls, Log: e.log(),
		Renew: func() ([]media.Network, error) { return e.renewMedia(file) }}
	k := openMediaKernel(cfg, options.Log)
	if k != nil {
		options.Kernel = k
		wg.Go(func() { k.Run(ctx) })
	}
	p, err := media.Open(options)
	if err == nil {
		err = e.serveMedia(ctx, cfg, p, ls)
	}
	cancel()
	wg.Wait()
	if p != nil {
		p.Close()
	}
	if k != nil {
		err = errors.Join(err, k.Close())
	}
	return err
}

// openMediaKernel opens the kernel plane if a network may have it; nil: everything goes through the process.
func openMediaKernel(cfg *config.Config, log *slog.Logger) *plane.Media {
	wanted, level := false, slog.LevelInfo
	for _, n := range cfg.Networks {
		wanted = wanted || n.Plane != service.PlaneUser
		if n.Plane == service.PlaneKernel {
			level = slog.LevelError
		}
	}
	if !wanted {
		if err := plane.DetachMedia(); err != nil {
			log.Error("end the kernel plane that was there", "err", err)
		}
		return nil
	}
	k, err := plane.OpenMedia(cfg.Kernel.Interfaces, log)
	if err != nil {
		log.Log(context.Background(), level, "all media go through the process, not through the kernel plane", "err", err)
		return nil
	}
	log.Info("the kernel plane carries media of established streams", "interfaces", k.Interfaces())
	return k
}

// renewMedia reads the networks of a file again.
func (e *env) renewMedia(file string) ([]media.Network, error) {
	cfg, err := config.Load(file, protocols())
	if err != nil {
		e.log().Error("networks stay as they are", "err", err)
		return nil, err
	}
	return mediaNetworks(cfg), nil
}

// serveMedia serves signalling until ctx is done.
func (e *env) serveMedia(ctx context.Context, cfg *config.Config, p *media.Plane, ls *relay.Loops) error {
	l, err := control.Listen(cfg.MediaSocket())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	notify := listen.NewNotifier(e.getenv)
	wg.Go(func() { p.Run(ctx) })
	wg.Go(func() { beat(ctx, notify, ls) })
	notify.Ready(fmt.Sprintf("%d networks", len(cfg.Networks)))
	e.log().Info("media are relayed", "networks", len(cfg.Networks))
	err = control.Serve(ctx, l, p)
	notify.Stopping()
	return err
}

// beat tells systemd that the loops turn.
func beat(ctx context.Context, notify *listen.Notifier, ls *relay.Loops) {
	every := notify.WatchdogEvery()
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
			ls.Do(func(*relay.Loop) {})
			notify.Watchdog()
		}
	}
}

// mediaNetworks returns each network of the file, by family.
func mediaNetworks(cfg *config.Config) (all []media.Network) {
	for _, n := range cfg.Networks {
		for _, p := range n.Media {
			all = append(all, media.Network{Name: service.MediaName(n.Name, ip.FamilyOf(p.Addr())), Media: p, Low: n.Low, High: n.High,
				Kernel: n.Plane != service.PlaneUser})
		}
	}
	return all
}
