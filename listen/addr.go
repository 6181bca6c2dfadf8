// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package listen owns the listening sockets of the process. A socket outlives the generations that use it: a
// generation leases it, and the clients that wait in it stay while any lease remains.
//
//	Set ── Lease(addr) ──▶ Lease (a dup of the kept descriptor: same accept queue, its own Close)
//
// Sockets come from the kernel, from systemd (LISTEN_FDS) or from the process that this one replaces.
package listen

import (
	"fmt"
	"net/netip"

	"github.com/kyozon/kyozon/ip"
)

// Transport is TCP or UDP.
type Transport uint8

// The transports.
const (
	TCP Transport = iota
	UDP
)

// String returns "tcp" or "udp".
func (t Transport) String() string {
	if t == UDP {
		return "udp"
	}
	return "tcp"
}

// Addr is where clients come: a transport and an address of one family.
type Addr struct {
	Transport Transport
	AddrPort  netip.AddrPort
}

// Family returns the family of the clients that come to a.
func (a Addr) Family() ip.Family { return ip.FamilyOf(a.AddrPort.Addr()) }

// String returns, for example, "tcp [2001:db8::80]:443".
func (a Addr) String() string { return fmt.Sprintf("%s %s", a.Transport, a.AddrPort) }
