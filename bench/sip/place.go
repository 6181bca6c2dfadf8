// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

// place is a lab with a host that has both ends of the calls, and the telephones, and one for the program.
type place struct {
	lab      *lab.Lab
	load     *lab.Host
	edge     *lab.Host
	binary   string
	sipgo    string // path of the proxy
	server4  bool   // the server of the calls has IPv4
	progress io.Writer
}

const (
	domain   = "voip.example.jp"
	called   = "0398765432"
	password = "secret"

	portSIP    = 5060
	portClient = 5061
	portServer = 5062
	portPhones = 5063
)

// edge6 and edge4 are the program's addresses.
func edge6() netip.Addr { return netip.MustParseAddr("2001:db8:100::10") }
func edge4() netip.Addr { return netip.MustParseAddr("10.0.1.1") }

// load6 and load4 are those of both ends.
func load6() netip.Addr { return netip.MustParseAddr("2001:db8:100::1") }
func load4() netip.Addr { return netip.MustParseAddr("10.0.1.2") }

// serverAt is where the server of the calls is.
func (p *place) serverAt() netip.AddrPort {
	if p.server4 {
		return netip.AddrPortFrom(load4(), portServer)
	}
	return netip.AddrPortFrom(load6(), portServer)
}

// openPlace brings up the lab. The caller must close it. Returns what lab.Up returns.
func openPlace(ctx context.Context, o options, out io.Writer) (*place, error) {
	on := func(six, four netip.Addr) map[string]lab.List[netip.Prefix] {
		return map[string]lab.List[netip.Prefix]{"net": {netip.PrefixFrom(six, 64), netip.PrefixFrom(four, 24)}}
	}
	l, err := lab.Up(ctx, &lab.File{Lab: "sip", Links: map[string]lab.Link{"net": {}}, Hosts: map[string]lab.HostSpec{
		"load": {Sysctls: bench.Untuned(), Links: on(load6(), load4())},
		"edge": {Sysctls: bench.Untuned(), Links: on(edge6(), edge4())},
	}}, lab.Options{Out: out})
	if err != nil {
		return nil, err
	}
	p := &place{lab: l, load: l.Host("load"), edge: l.Host("edge"), server4: o.server4, progress: out}
	p.binary, err = filepath.Abs(o.kyozon)
	if err == nil && o.sipgo != "" {
		p.sipgo, err = filepath.Abs(o.sipgo)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return p, nil
}

// room is what a socket of ours holds: as much as comes while its reader waits for a processor.
const room = 8 << 20

// socket opens one on the host of the load. FORCE, because the limits of a machine are not what is measured.
func (p *place) socket(at netip.AddrPort) (c *net.UDPConn, err error) {
	network := map[bool]string{true: "udp4", false: "udp6"}[at.Addr().Is4()]
	err = p.load.Do(func() error {
		c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) {
			failed = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, room))
		})
		err = errors.Join(err, failed)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("widen a socket: %w", err), c.Close())
	}
	return c, nil
}

// openCalls opens both ends of calls. The caller must close them.
func (p *place) openCalls(hold bool) (*calls, error) {
	client, err := p.socket(netip.AddrPortFrom(load6(), portClient))
	if err != nil {
		return nil, err
	}
	server, err := p.socket(p.serverAt())
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	c := &calls{to: netip.AddrPortFrom(edge6(), portSIP), client: client, server: server, hold: hold}
	c.serve()
	return c, nil
}
