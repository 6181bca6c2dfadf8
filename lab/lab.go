// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package lab builds a network with real servers out of a file, tries it, and leaves nothing behind.
//
//	FILE ── Load ──▶ *File ── Up ──▶ *Lab{Hosts} ── attempts ──▶ table ── Close
//	                                  │
//	           a namespace per host, cables between them, servers on them
//
// Every process of a lab lives in one PID namespace. Its init holds one end of a pipe of which the lab's process has
// the other, so the kernel ends them all when the lab's process ends, however it ends. Namespaces have no names;
// what servers write goes to memory that belongs to a mount namespace. What holds what:
//
//	the lab's process ── pipe ──▶ init ── PID, mount, IPC namespace ──▶ all processes
//	        │                                      │
//	        └── descriptors ──▶ network, mount, UTS namespace of each host ──▶ interfaces, tmpfs
//
// A program that brings up labs must call Main first, because init, and some of the servers, are the program itself.
package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Lab is a network that is up.
type Lab struct {
	box     *box
	bridges *Host // the switch
	hosts   map[string]*Host
	file    *File
	options Options
	waiters sync.WaitGroup // one for each daemon

	mu      sync.Mutex
	daemons []*Process // in the order in which they started
}

// Up brings up what f describes: hosts, links, and the servers, each of which answers when Up returns. The caller
// must Close the lab. Returns ErrRoot, ErrMissing.
func Up(ctx context.Context, f *File, o Options) (*Lab, error) {
	l := &Lab{hosts: make(map[string]*Host), file: f, options: o}
	if err := l.up(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("bring up lab %s: %w", f.Lab, err), l.Close())
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context) (err error) {
	if l.box, err = openBox(); err != nil {
		return err
	}
	names := etcHosts(l.file)
	if l.bridges, err = newHost(l, "(switch)", HostSpec{}, names); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(l.file.Hosts)) {
		if l.hosts[name], err = newHost(l, name, l.file.Hosts[name], names); err != nil {
			delete(l.hosts, name)
			return err
		}
	}
	if err := l.connect(ctx, l.file); err != nil {
		return err
	}
	l.say("%s: %d hosts, %d links", l.file.Lab, len(l.hosts), len(l.file.Links))
	return l.serve(ctx)
}

// serve starts the servers of all hosts, those first on which others depend.
func (l *Lab) serve(ctx context.Context) error {
	type place struct {
		host   *Host
		server Server
	}
	var order []place
	for _, h := range l.sorted() {
		for _, s := range h.spec.Servers {
			order = append(order, place{h, s})
		}
	}
	slices.SortStableFunc(order, func(a, b place) int { return a.server.rank() - b.server.rank() })
	for _, p := range order {
		if _, err := p.host.Serve(ctx, p.server); err != nil {
			return err
		}
	}
	return nil
}

// sorted returns the hosts by name.
func (l *Lab) sorted() []*Host {
	var all []*Host
	for _, name := range slices.Sorted(maps.Keys(l.hosts)) {
		all = append(all, l.hosts[name])
	}
	return all
}

// Host returns the host called name, or nil.
func (l *Lab) Host(name string) *Host { return l.hosts[name] }

// Close ends every process of the lab. What else there was vanishes with the last descriptor.
func (l *Lab) Close() error {
	var err error
	if l.box != nil {
		err = l.box.close()
	}
	l.waiters.Wait()
	for _, h := range l.hosts {
		h.close()
	}
	if l.bridges != nil {
		l.bridges.close()
	}
	return err
}

// say tells whoever watches what has been done.
func (l *Lab) say(format string, a ...any) {
	if l.options.Out != nil {
		fmt.Fprintf(l.options.Out, format+"\n", a...)
	}
}
