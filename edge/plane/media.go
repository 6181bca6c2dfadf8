// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kyozon/kyozon/kernel"
)

// Media is the kernel plane of the relay of media, which another process has than that of the services. It is attached to all
// Ethernet interfaces, or to those that it is told.
type Media struct {
	*kernel.Streams
	log      *slog.Logger
	pin      string
	lock     *os.File
	given    []string
	attached map[string]int // interfaces, with their indices
	refused  map[string]string
}

// ErrMediaRuns means that a relay of media runs, whose kernel plane is its own.
var ErrMediaRuns = errors.New("kyozon media runs, and has a kernel plane until it ends")

const mediaPrefix = "media-" // of folders, before the cookie

func mediaPin() (string, error) {
	cookie, err := cookie()
	if err != nil {
		return "", fmt.Errorf("find network namespace: %w", err)
	}
	return filepath.Join(kernel.DefaultPin, fmt.Sprint(mediaPrefix, cookie)), nil
}

// OpenMedia opens it, and takes over what a process that was killed has left. Without interfaces it takes those there are.
func OpenMedia(interfaces []string, log *slog.Logger) (*Media, error) {
	if err := kernel.Able(); err != nil {
		return nil, err
	}
	if err := pinnable(); err != nil {
		return nil, err
	}
	pin, err := mediaPin()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(pin, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of pins: %w", err)
	}
	m := &Media{log: log, pin: pin, given: interfaces, attached: make(map[string]int), refused: make(map[string]string)}
	if m.lock, err = lockFolder(pin); err != nil {
		return nil, err
	}
	if m.Streams, err = kernel.OpenStreams(kernel.StreamsOptions{Pin: pin}); err != nil {
		return nil, errors.Join(err, m.lock.Close())
	}
	m.look()
	if len(m.attached) == 0 {
		return nil, errors.Join(fmt.Errorf("no interface can have the program: %v", m.refused), m.Close())
	}
	return m, nil
}

// DetachMedia ends what a process has left that had a kernel plane, if there is something. It returns ErrMediaRuns, and leaves
// everything, if one has it now.
func DetachMedia() error {
	pin, err := mediaPin()
	if err != nil || !exists(pin) {
		return err
	}
	lock, err := lockFolder(pin)
	if errors.Is(err, errLocked) {
		return ErrMediaRuns
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return kernel.DetachStreams(pin)
}

// Run attaches the program to interfaces that come, until ctx is done.
func (m *Media) Run(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			m.look()
		}
	}
}

// look attaches the program to what is there, and lets go of what is not.
func (m *Media) look() {
	now := m.interfaces()
	for name, index := range m.attached {
		if now[name] == index {
			continue
		}
		delete(m.attached, name)
		if err := m.Leave(name); err != nil {
			m.log.Error("leave an interface", "err", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if _, there := m.attached[name]; there {
			continue
		}
		err := m.Attach(name)
		if err == nil {
			m.attached[name] = now[name]
			delete(m.refused, name)
		} else if m.refused[name] != err.Error() {
			m.refused[name] = err.Error()
			m.log.Warn("media that come in here go through the process", "err", err)
		}
	}
}

// interfaces returns those that the program is for, with their indices.
func (m *Media) interfaces() map[string]int {
	found := make(map[string]int)
	links, err := netlink.LinkList()
	if err != nil {
		return m.attached // for the moment they are as they were
	}
	for _, l := range links {
		a := l.Attrs()
		switch {
		case len(m.given) > 0:
			if slices.Contains(m.given, a.Name) {
				found[a.Name] = a.Index
			}
		case a.Flags&net.FlagLoopback == 0 && a.EncapType == "ether" && a.MasterIndex == 0 && l.Type() != "dummy":
			found[a.Name] = a.Index
		}
	}
	return found
}

// Interfaces returns the names of those that have the program. It must not be called while Run runs.
func (m *Media) Interfaces() []string { return slices.Sorted(maps.Keys(m.attached)) }

// Close ends it and removes its pins: all media go through the process, which is to end too.
func (m *Media) Close() error {
	return errors.Join(m.Streams.Close(), kernel.DetachStreams(m.pin), m.lock.Close())
}
