// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kyozon/kyozon/config"
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
			"the other ends and comes back. It reads `networks` and where `state` is; restart it when they have changed: the\n" +
			"calls there are then keep their addresses.",
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
	plane, err := media.Open(media.Options{Networks: mediaNetworks(cfg), Loops: ls})
	if err == nil {
		err = e.serveMedia(ctx, cfg, plane, ls)
	}
	cancel()
	wg.Wait()
	if plane != nil {
		plane.Close()
	}
	return err
}

// serveMedia serves signalling until ctx is done.
func (e *env) serveMedia(ctx context.Context, cfg *config.Config, plane *media.Plane, ls *relay.Loops) error {
	l, err := control.Listen(cfg.MediaSocket())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	notify := listen.NewNotifier(e.getenv)
	wg.Go(func() { plane.Run(ctx) })
	wg.Go(func() { beat(ctx, notify, ls) })
	notify.Ready(fmt.Sprintf("%d networks", len(cfg.Networks)))
	err = control.Serve(ctx, l, plane)
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
			all = append(all, media.Network{Name: service.MediaName(n.Name, ip.FamilyOf(p.Addr())), Media: p, Low: n.Low, High: n.High})
		}
	}
	return all
}
