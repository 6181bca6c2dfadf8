// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phonetest

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// The ports of an Ear.
const (
	RTP = iota
	RTCP
)

// Ear is where a telephone hears and speaks from: a port for RTP, and the next for RTCP, at one of its addresses.
type Ear struct {
	p     *Telephone
	Addr  netip.Addr
	conns [2]*net.UDPConn
	ports [2]uint16
	Voice Voice

	mu    sync.Mutex
	more  sync.Cond
	heard []Packet
}

// Packet is one that was heard.
type Packet struct {
	At   int // RTP or RTCP: the port it came to
	From netip.AddrPort
	Data []byte
}

// Listen opens an ear at the address of a family. It closes with the test.
func (p *Telephone) Listen(f ip.Family) *Ear {
	p.t.Helper()
	e := &Ear{p: p, Addr: p.lines[f].at.Addr(), Voice: Voice{ssrc: rand.Uint32(), number: uint16(rand.Uint32())}}
	e.more.L = &e.mu
	for e.conns[RTCP] == nil { // until two follow each other
		first := p.open(netip.AddrPortFrom(e.Addr, 0))
		port := first.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		if port%2 == 1 || port == 65534 || !p.tryOpen(netip.AddrPortFrom(e.Addr, port+1), &e.conns[RTCP]) {
			first.Close()
			continue
		}
		e.conns[RTP], e.ports = first, [2]uint16{port, port + 1}
	}
	var wg sync.WaitGroup
	for at, c := range e.conns {
		wg.Go(func() { e.read(at, c) })
	}
	p.t.Cleanup(func() {
		for _, c := range e.conns {
			c.Close()
		}
		wg.Wait()
	})
	return e
}

// tryOpen opens a socket if its port is free.
func (p *Telephone) tryOpen(at netip.AddrPort, c **net.UDPConn) bool {
	network := map[bool]string{true: "udp4", false: "udp6"}[at.Addr().Is4()]
	open := func() (err error) {
		*c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(at))
		return err
	}
	if p.Do == nil {
		return open() == nil
	}
	return p.Do(open) == nil
}

func (e *Ear) read(at int, c *net.UDPConn) {
	for b := make([]byte, 4096); ; {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		e.mu.Lock()
		e.heard = append(e.heard, Packet{At: at, From: ip.CanonicalPort(from), Data: slices.Clone(b[:n])})
		e.mu.Unlock()
		e.more.Broadcast()
	}
}

// At returns where the ear is.
func (e *Ear) At(port int) netip.AddrPort { return netip.AddrPortFrom(e.Addr, e.ports[port]) }

// Say sends a packet from one of the ports. It may be called by any goroutine.
func (e *Ear) Say(port int, to netip.AddrPort, data []byte) {
	e.p.t.Helper()
	if _, err := e.conns[port].WriteToUDPAddrPort(data, to); err != nil {
		e.p.t.Error(err)
	}
}

// Heard returns what has come so far, or nothing if it was forgotten.
func (e *Ear) Heard() []Packet {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.heard)
}

// Forget lets what has come be.
func (e *Ear) Forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = nil
}

// Await waits until enough says that what has come is enough, and returns it; without that, it returns what there is, and false.
func (e *Ear) Await(within time.Duration, enough func([]Packet) bool) ([]Packet, bool) {
	late := false
	timer := time.AfterFunc(within, func() {
		e.mu.Lock()
		late = true
		e.mu.Unlock()
		e.more.Broadcast()
	})
	defer timer.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for !enough(e.heard) && !late {
		e.more.Wait()
	}
	return slices.Clone(e.heard), enough(e.heard)
}

// Patience is how long what surely comes may take.
func (e *Ear) Patience() time.Duration { return patience }

// Header is what the packets of RTP begin with. RFC 3550 §5.1.
type Header struct {
	Marker    bool
	Type      byte
	Number    uint16
	Timestamp uint32
	SSRC      uint32
}

// Append writes the header.
func (h *Header) Append(b []byte) []byte {
	second := h.Type
	if h.Marker {
		second |= 0x80
	}
	b = binary.BigEndian.AppendUint16(append(b, 0x80, second), h.Number)
	b = binary.BigEndian.AppendUint32(b, h.Timestamp)
	return binary.BigEndian.AppendUint32(b, h.SSRC)
}

// Read reads the header of a packet of RTP and returns what follows it.
func (h *Header) Read(b []byte) (payload []byte, ok bool) {
	if len(b) < 12 || b[0] != 0x80 || b[1] >= 192 && b[1] <= 223 {
		return nil, false
	}
	*h = Header{Marker: b[1] >= 128, Type: b[1] & 0x7f, Number: binary.BigEndian.Uint16(b[2:]), Timestamp: binary.BigEndian.Uint32(b[4:]),
		SSRC: binary.BigEndian.Uint32(b[8:])}
	return b[12:], true
}
