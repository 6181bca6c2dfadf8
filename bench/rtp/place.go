// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

// place is a lab with both ends of all streams:
//
//	client ══ edge ══ server
//	 IPv6             IPv4; and IPv6, for what is only routed
type place struct {
	lab    *lab.Lab
	edge   *lab.Host
	binary string
	dir    string // of the relay's state

	client, server4, server6 *end
}

const (
	edgeOurs    = "10.0.1.1"
	edgeTheirs4 = "10.0.1.3"
	edgeTheirs6 = "2001:db8:100::11"
)

func network() *lab.File {
	p := func(s ...string) (all lab.List[netip.Prefix]) {
		for _, one := range s {
			all = append(all, netip.MustParsePrefix(one))
		}
		return all
	}
	a := netip.MustParseAddr
	return &lab.File{Lab: "rtp", Links: map[string]lab.Link{"front": {}, "back": {}}, Hosts: map[string]lab.HostSpec{
		"client": {Gateway: lab.List[netip.Addr]{a("2001:db8:100::10")}, Links: map[string]lab.List[netip.Prefix]{"front": p("2001:db8:100::1/64")}},
		"edge": {Forward: true, Links: map[string]lab.List[netip.Prefix]{"front": p("2001:db8:100::10/64", edgeTheirs6+"/64"),
			"back": p(edgeOurs+"/24", edgeTheirs4+"/24", "2001:db8:101::1/64")}},
		"server": {Gateway: lab.List[netip.Addr]{a("2001:db8:101::1")}, Links: map[string]lab.List[netip.Prefix]{"back": p("10.0.1.2/24", "2001:db8:101::2/64")}},
	}}
}

// openPlace brings up the lab. The caller must close it. Returns what lab.Up returns.
func openPlace(ctx context.Context, binary string, o lab.Options) (_ *place, err error) {
	p := new(place)
	if p.binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	if p.lab, err = lab.Up(ctx, network(), o); err != nil {
		return nil, err
	}
	p.edge = p.lab.Host("edge")
	if p.dir, err = os.MkdirTemp("", "kyozon-bench"); err == nil {
		p.client, err = openEnd(p.lab.Host("client"), p.edge, "front", "2001:db8:100::1")
	}
	if err == nil {
		p.server4, err = openEnd(p.lab.Host("server"), p.edge, "back", "10.0.1.2")
	}
	if err == nil {
		p.server6, err = openEnd(p.lab.Host("server"), p.edge, "back", "2001:db8:101::2")
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *place) close() error {
	for _, e := range []*end{p.client, p.server4, p.server6} {
		if e != nil {
			e.close()
		}
	}
	return errors.Join(p.lab.Close(), os.RemoveAll(p.dir))
}

// files is how many a program may open, where that can be had.
const files = 200_000

// raise has a program open as many, or as many as it may.
const raise = `ulimit -n "$0" 2>/dev/null || ulimit -n "$(ulimit -H -n)"; exec "$@"`

// start starts a relay with room for many sockets.
func (p *place) start(ctx context.Context, name string, ready lab.Ready, argv ...string) (*lab.Process, bench.Program, error) {
	d := lab.Daemon{Name: name, Argv: append([]string{"sh", "-c", raise, strconv.Itoa(files)}, argv...), Ready: ready}
	process, err := p.edge.Start(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	program, err := bench.OpenProgram(process.PID())
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	return process, program, nil
}
