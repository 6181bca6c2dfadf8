// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// HandedOver is a flow of a UDP socket as it goes from a process to the one that replaces it: with the socket, whose
// port the server knows the client by.
type HandedOver struct {
	Client, Dialled netip.AddrPort
	Proven          bool
	FD              int `json:"-"` // of the flow's connected socket
}

// Pause stops reading what clients send: it waits in the socket. Servers' answers go on. It must not be called on a
// loop.
func (p *Packets) Pause() {
	p.loop.do(func() {
		unix.EpollCtl(p.loop.epfd, unix.EPOLL_CTL_DEL, p.fd, nil) // fails only if the socket is not there
		p.loop.forget(p.fd)
	})
}

// Resume undoes Pause.
func (p *Packets) Resume() (err error) {
	p.loop.do(func() { err = p.loop.watch(p.fd, p, unix.EPOLLIN) })
	return err
}

// HandOver lists the flows that have a server. Their descriptors stay the flows' own: send copies. It must not be
// called on a loop.
func (p *Packets) HandOver() (all []HandedOver) {
	p.Each(func(f *PacketFlow) { all = append(all, HandedOver{f.Client, f.Dialled, f.proven, f.fd}) })
	return all
}

// ResumePackets is OpenPackets for a socket that another process has carried, with its flows. open is called for each
// of them, with its socket as Inherited, before the first packet is read.
func (ls *Loops) ResumePackets(fd int, flows []HandedOver, open func(*PacketFlow)) (*Packets, error) {
	p := ls.newPackets(fd, open)
	errs := make(chan error, 1)
	p.loop.Post(func() {
		for _, h := range flows {
			p.adopt(h)
		}
		errs <- p.loop.watch(fd, p, unix.EPOLLIN)
	})
	if err := <-errs; err != nil {
		return nil, err
	}
	return p, nil
}

// adopt takes over one flow.
func (p *Packets) adopt(h HandedOver) {
	k := flowKey{h.Client, h.Dialled}
	if p.flows[k] != nil || len(p.flows) >= maxPacketFlows {
		unix.Close(h.FD)
		return
	}
	f := p.begin(k)
	if h.Proven {
		f.proven = true
		p.unproven.remove(f)
	}
	f.inherited = h.FD + 1
	(*p.open.Load())(f)
}

// Inherited returns the socket of a flow that another process has carried, which is then the caller's, and the server
// it is connected to; ok is false if the flow is new.
func (f *PacketFlow) Inherited() (fd int, server netip.AddrPort, ok bool) {
	fd = f.inherited - 1
	f.inherited = 0
	if fd < 0 {
		return -1, netip.AddrPort{}, false
	}
	return fd, peerAddr(fd), true
}
