// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/lab"
)

// place is the lab that everything is measured in:
//
//	           ┌──────── edge ────────┐
//	client ════╡ .11 kyozon           ╞════ server1, server2
//	both       │ .12 HAProxy          │     nginx, 1 KB; IPv4 only
//	families   │ .13 nginx, .14 Caddy │
//	           └──────────────────────┘
//
// Each link joins two hosts, so no bridge takes a part of the processors.
type place struct {
	lab     *lab.Lab
	client  *lab.Host
	edge    *lab.Host
	source  *bench.Source // on server1
	keyPair keyPair
}

// The ports that each program listens on.
const (
	portWeb    = 80
	portTLS    = 443
	portTCP    = 8080 // to the servers' port 80
	portH2     = 8081 // HTTP/2 from the first byte
	portClient = 8082 // each client has its own connections to the servers
	portBulk   = 9000 // to the source
)

// servers returns the addresses of the IPv4-only servers.
func servers() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("10.0.2.2")}
}

// subscribers is where the clients of portClient come from, each /64 of it another one.
func subscribers() netip.Prefix { return netip.MustParsePrefix("2001:db8:200::/48") }

// standIns is where ours takes the addresses that stand in for them.
func standIns() netip.Prefix { return netip.MustParsePrefix("100.64.0.0/16") }

// body is what the web servers answer.
func body() string { return strings.Repeat("x", 1024) }

// clientAddr is the client's own address, by which it is the gateway of the subscribers.
func clientAddr() netip.Addr { return netip.MustParseAddr("2001:db8:100::1") }

// addressOf returns the address by which clients of a family know the program that is the nth.
func addressOf(f ip.Family, n int) netip.Addr {
	if f == ip.V4 {
		return netip.AddrFrom4([4]byte{203, 0, 113, byte(11 + n)})
	}
	a := netip.MustParseAddr("2001:db8:100::").As16()
	a[15] = byte(0x11 + n)
	return netip.AddrFrom16(a)
}

// nameOf returns the name of that address, which the lab knows.
func nameOf(f ip.Family, program string) string { return fmt.Sprintf("%s%d.example.jp", program, f) }

// openPlace brings up the lab. The caller must close it. Returns what lab.Up returns.
func openPlace(ctx context.Context, programs []program, out io.Writer) (*place, error) {
	p := new(place)
	var err error
	if p.keyPair, err = newKeyPair(); err != nil {
		return nil, err
	}
	if p.lab, err = lab.Up(ctx, network(programs), lab.Options{Out: out}); err != nil {
		return nil, err
	}
	p.client, p.edge = p.lab.Host("client"), p.lab.Host("edge")
	if p.source, err = bench.OpenSource(ctx, p.lab.Host("server1"), netip.AddrPortFrom(servers()[0], portBulk)); err != nil {
		return nil, errors.Join(err, p.lab.Close())
	}
	return p, nil
}

// writeKeyPair gives the edge what all programs use, as NAME.pem and NAME.key.
func (p *place) writeKeyPair(name string) error {
	return errors.Join(p.edge.WriteFile(name+".pem", p.keyPair.certificate), p.edge.WriteFile(name+".key", p.keyPair.key))
}

func (p *place) close() error {
	p.source.Close()
	return p.lab.Close()
}

// network describes the lab.
func network(programs []program) *lab.File {
	names, front := make(map[string]lab.List[netip.Addr]), lab.List[netip.Prefix]{}
	for _, pr := range programs {
		for f, bits := range map[ip.Family]int{ip.V4: 24, ip.V6: 64} {
			a := addressOf(f, pr.number)
			names[nameOf(f, pr.name)] = lab.List[netip.Addr]{a}
			front = append(front, netip.PrefixFrom(a, bits))
		}
	}
	f := &lab.File{
		Lab:   "bench",
		Names: names,
		Links: map[string]lab.Link{"front": {}},
		Hosts: map[string]lab.HostSpec{
			"client": {Sysctls: bench.Untuned(), Local: lab.List[netip.Prefix]{subscribers()}, Links: map[string]lab.List[netip.Prefix]{
				"front": {netip.MustParsePrefix("203.0.113.1/24"), netip.PrefixFrom(clientAddr(), 64)}}},
		},
	}
	edge := lab.HostSpec{Sysctls: bench.Untuned(), Routes: []lab.Route{{To: subscribers(), Via: clientAddr()}},
		Links: map[string]lab.List[netip.Prefix]{"front": front}}
	for i, server := range servers() {
		name := fmt.Sprintf("server%d", i+1)
		edge.Links[name] = lab.List[netip.Prefix]{netip.PrefixFrom(server.Prev(), 24)}
		f.Links[name] = lab.Link{}
		f.Hosts[name] = lab.HostSpec{
			Sysctls: bench.Untuned(),
			Links:   map[string]lab.List[netip.Prefix]{name: {netip.PrefixFrom(server, 24)}},
			Routes:  []lab.Route{{To: standIns(), Via: server.Prev()}},
			Servers: []lab.Server{{Nginx: &lab.Nginx{Quiet: true, Body: body(),
				Listen: lab.List[netip.AddrPort]{netip.AddrPortFrom(server, 80)}}}},
		}
	}
	f.Hosts["edge"] = edge
	return f
}
