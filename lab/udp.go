// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/kyozon/kyozon/ip"
)

// UDP is a game server: it answers each datagram with its name, the player's address, and how many it has had from
// there.
type UDP struct {
	Listen List[netip.AddrPort] `yaml:"listen"`
	Name   string               `yaml:"name"`
}

func (u *UDP) name() string { return "udp" }

func (u *UDP) check(h HostSpec) []problem { return checkListen(h, "listen", u.Listen) }

func (u *UDP) daemon(_ context.Context, h *Host) (Daemon, error) {
	args := []string{u.Name}
	if u.Name == "" {
		args[0] = h.name
	}
	for _, a := range u.Listen {
		args = append(args, a.String())
	}
	return Daemon{Name: "udp", own: self("udp", args...),
		Ready: AnswersUDP([]byte("ready?"), u.Listen...)}, nil
}

// game is a game server that knows its players by address.
type game struct {
	name string

	mu      sync.Mutex
	players map[netip.Addr]int // datagrams had
}

// runUDP is the game server's process: NAME LISTEN…
func runUDP(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("run udp: %d arguments", len(args))
	}
	g := &game{name: args[0], players: make(map[netip.Addr]int)}
	ended := make(chan error, len(args)) // room for all: nobody reads after the first
	for _, s := range args[1:] {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return fmt.Errorf("run udp: %w", err)
		}
		c, err := net.ListenUDP(network("udp", a), net.UDPAddrFromAddrPort(a))
		if err != nil {
			return fmt.Errorf("open %s: %w", a, err)
		}
		go func() { ended <- g.serve(c) }()
	}
	return <-ended
}

func (g *game) serve(c *net.UDPConn) error {
	in := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(in)
		if err != nil {
			return fmt.Errorf("read datagram: %w", err)
		}
		// A player who is gone is not the server's fault.
		c.WriteToUDPAddrPort(g.answer(ip.Canonical(from.Addr()), in[:n]), from)
	}
}

// answer returns, for example, "game1 saw 100.64.0.1 #3: hello".
func (g *game) answer(player netip.Addr, said []byte) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.players[player]++
	return fmt.Appendf(nil, "%s saw %s #%d: %s", g.name, player, g.players[player], said)
}
