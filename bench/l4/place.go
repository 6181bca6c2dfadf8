// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

// place is a lab:
//
//	           ┌────── edge ──────┐
//	client ════╡ 2001:db8:100::…  ╞════ server1, server2: nginx, 1 KB; IPv4 only
//	IPv6       │ routes too       ╞════ server6: the same with IPv6
//	           └──────────────────┘
//
// There are two, so that packets of the others do not pass by the kernel plane's program.
type place struct {
	lab     *lab.Lab
	client  *lab.Host
	edge    *lab.Host
	binary  string
	sources []*bench.Source
	drains  map[bool]*bench.Drain // that of the server with IPv6, and that of the one without
}

const (
	portWeb  = 80
	portTCP  = 8080 // to the servers' port 80
	portDown = 9000 // to what sends without end
	portUp   = 9001 // to what takes without end
)

// body is what the web servers answer.
func body() string { return strings.Repeat("x", 1024) }

func servers() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("10.0.2.2")}
}

func server6() netip.Addr { return netip.MustParseAddr("2001:db8:106::2") }

func standIns() netip.Prefix { return netip.MustParsePrefix("100.64.0.0/16") }

func clientAddr() netip.Addr { return netip.MustParseAddr("2001:db8:100::1") }

// edgeAddr returns the address of the program that is the nth.
func edgeAddr(n int) netip.Addr {
	a := clientAddr().As16()
	a[15] = byte(0x11 + n)
	return netip.AddrFrom16(a)
}

// openPlace brings up a lab. The caller must close it. Returns what lab.Up returns.
func openPlace(ctx context.Context, name, binary string, out io.Writer) (*place, error) {
	l, err := lab.Up(ctx, network(name), lab.Options{Out: out})
	if err != nil {
		return nil, err
	}
	binary, err = filepath.Abs(binary)
	p := &place{lab: l, client: l.Host("client"), edge: l.Host("edge"), binary: binary, drains: make(map[bool]*bench.Drain)}
	for host, a := range map[string]netip.Addr{"server1": servers()[0], "server6": server6()} {
		if err == nil {
			err = p.openStreams(ctx, l.Host(host), a)
		}
	}
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *place) openStreams(ctx context.Context, h *lab.Host, a netip.Addr) error {
	s, err := bench.OpenSource(ctx, h, netip.AddrPortFrom(a, portDown))
	if err != nil {
		return err
	}
	p.sources = append(p.sources, s)
	d, err := bench.OpenDrain(ctx, h, netip.AddrPortFrom(a, portUp))
	if err != nil {
		return err
	}
	p.drains[a.Is6()] = d
	return nil
}

func (p *place) close() error {
	for _, s := range p.sources {
		s.Close()
	}
	err := p.lab.Close() // ends the connections of programs that have not ended
	for _, d := range p.drains {
		d.Close()
	}
	return err
}

// network describes the lab.
func network(name string) *lab.File {
	front := lab.List[netip.Prefix]{netip.MustParsePrefix("2001:db8:100::10/64")}
	for n := range programs() {
		front = append(front, netip.PrefixFrom(edgeAddr(n), 64))
	}
	edge := lab.HostSpec{Forward: true, Sysctls: bench.Untuned(), Links: map[string]lab.List[netip.Prefix]{"front": front}}
	f := &lab.File{Lab: name, Links: map[string]lab.Link{"front": {}}, Hosts: map[string]lab.HostSpec{
		"client": {Sysctls: bench.Untuned(), Gateway: lab.List[netip.Addr]{netip.MustParseAddr("2001:db8:100::10")},
			Links: map[string]lab.List[netip.Prefix]{"front": {netip.PrefixFrom(clientAddr(), 64)}}},
	}}
	add := func(name string, server, gateway netip.Addr, bits, workers int) {
		edge.Links[name] = lab.List[netip.Prefix]{netip.PrefixFrom(gateway, bits)}
		f.Links[name] = lab.Link{}
		f.Hosts[name] = lab.HostSpec{Sysctls: bench.Untuned(), Gateway: lab.List[netip.Addr]{gateway},
			Links: map[string]lab.List[netip.Prefix]{name: {netip.PrefixFrom(server, bits)}},
			Servers: []lab.Server{{Nginx: &lab.Nginx{Quiet: true, Body: body(), Workers: workers,
				Listen: lab.List[netip.AddrPort]{netip.AddrPortFrom(server, portWeb)}}}}}
	}
	for i, s := range servers() {
		add(fmt.Sprintf("server%d", i+1), s, s.Prev(), 24, 1)
	}
	add("server6", server6(), server6().Prev(), 64, len(servers()))
	f.Hosts["edge"] = edge
	return f
}
