// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"syscall"
)

// Ports keeps the flows of this plane apart from those of another that sends from the same addresses, past the sockets of
// this machine. Its methods are called on loops and do not block.
type Ports interface {
	// Shares says whether the other plane has flows to a backend: then each source port there must be taken.
	Shares(backend netip.AddrPort) bool

	// Take reserves what a flow uses; false means that a flow of the other plane has it.
	Take(Use) bool

	// Give gives back what Take has reserved, when the flow has ended.
	Give(Use)
}

// Use is the two ends of packets: from the source that a backend sees to the backend, or from a client to where he
// dialled. The zero value is none.
type Use struct {
	From, To netip.AddrPort
	Client   bool // From is a client
}

const (
	portTries  = 8
	lowestPort = 1024
)

// port returns the port to try: at first the client's own, as the other plane does.
func (c Client) port(try int) uint16 {
	if try == 0 {
		return c.Addr.Port()
	}
	return uint16(lowestPort + rand.IntN(1<<16-lowestPort))
}

// inUse says whether another port may do.
func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EACCES)
}

// sharesPort says whether flows from source to b must take their port.
func (a *Access) sharesPort(source netip.Addr, b *Backend) bool {
	return a.Ports != nil && source.IsValid() && a.Ports.Shares(b.Addr)
}

// takePort takes a port at source for a flow to b. try is how many have been tried, and becomes one more than that of the
// port taken. It returns the zero Use if there is none.
func (a *Access) takePort(source netip.Addr, b *Backend, client Client, try *int) Use {
	for *try < portTries {
		u := Use{From: netip.AddrPortFrom(source, client.port(*try)), To: b.Addr}
		*try++
		if a.Ports.Take(u) {
			return u
		}
	}
	return Use{}
}

// give gives back a port, or nothing.
func (a *Access) give(u Use) {
	if u.From.IsValid() {
		a.Ports.Give(u)
	}
}

// Adopt takes what f uses, if f began before the other plane shared it.
func (f *Flow) Adopt() {
	if f.ended || f.route.Ports == nil {
		return
	}
	local := f.local
	if f.Conn != nil {
		local = f.Conn.Local()
	}
	if !f.use.From.IsValid() && local.IsValid() && f.route.sharesPort(f.Source, f.Backend) {
		f.use = Use{From: local, To: f.Backend.Addr}
		f.route.Ports.Take(f.use)
	}
	if f.datagrams {
		f.takeClient()
	}
}

// takeClient keeps the client's datagrams from the other plane. If that cannot be, it has them already.
func (f *Flow) takeClient() {
	f.route.Ports.Take(Use{From: f.Client.Addr, To: f.Client.Dialled, Client: true})
}
