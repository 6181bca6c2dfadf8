// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
)

// ErrTaken means that a flow of the kernel plane has this source port at this backend.
var ErrTaken = errors.New("kernel: source port is taken")

// Reserve takes a source and its port at a backend for a flow of the user plane, so that no flow of this plane gets it
// and packets of the backend to it pass to the host's stack. Call it before connect. It returns ErrTaken if one has it.
func (p *Plane) Reserve(t listen.Transport, source, backend netip.AddrPort) error {
	return p.keep(tuple(t, backend, source))
}

// Release gives back what Reserve took, when the socket is closed and no packet of the backend can still come.
func (p *Plane) Release(t listen.Transport, source, backend netip.AddrPort) error {
	return p.give(tuple(t, backend, source))
}

// ReserveClient keeps the datagrams of a client that the user plane serves from becoming a flow of this plane. TCP does
// not need it: only a SYN opens a flow.
func (p *Plane) ReserveClient(client, front netip.AddrPort) error {
	return p.keep(tuple(listen.UDP, client, front))
}

// ReleaseClient ends what ReserveClient began.
func (p *Plane) ReleaseClient(client, front netip.AddrPort) error {
	return p.give(tuple(listen.UDP, client, front))
}

// keep puts a path of the user plane's in, unless there is another. It is pending first, for the same reason as in the
// program: a flow is in both maps while it moves.
func (p *Plane) keep(t forwardTuple) error {
	user := forwardPath{Kind: forwardKindUSER, Seen: second()}
	var other forwardPath
	err := p.objects.Pending.Update(t, user, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		err = p.objects.Pending.Lookup(t, &other)
		if err == nil && other.Kind != forwardKindUSER {
			return ErrTaken
		}
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("reserve port: %w", err)
	}
	err = p.objects.Flows.Update(t, user, ebpf.UpdateNoExist)
	if err := p.objects.Pending.Delete(t); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("reserve port: %w", err)
	}
	if errors.Is(err, ebpf.ErrKeyExist) {
		return ErrTaken
	}
	if err != nil {
		return fmt.Errorf("reserve port: %w", err)
	}
	return nil
}

// give takes a path of the user plane's out, and no other.
func (p *Plane) give(t forwardTuple) error {
	var path forwardPath
	err := p.objects.Flows.Lookup(t, &path)
	if err == nil && path.Kind == forwardKindUSER {
		err = p.objects.Flows.Delete(t)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("release port: %w", err)
	}
	return nil
}

// forgetReserved gives back everything that the process before had reserved.
func (p *Plane) forgetReserved() error {
	var gone []forwardTuple
	if err := p.each(func(t *forwardTuple, path *forwardPath) {
		if path.Kind == forwardKindUSER {
			gone = append(gone, *t)
		}
	}); err != nil {
		return err
	}
	for _, t := range gone {
		if err := p.objects.Flows.Delete(t); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("release ports: %w", err)
		}
	}
	return nil
}

// Lease tells the plane which stand-in the ledger has leased to the /64 of a client. Flows of that /64 are carried here
// from now on.
func (p *Plane) Lease(client netip.Addr, standIn netip.Addr) error {
	if ip.FamilyOf(client) != ip.V6 || ip.FamilyOf(standIn) != ip.V4 {
		return fmt.Errorf("lease %s to %s: want IPv4 for IPv6", standIn, client)
	}
	if err := p.objects.StandIns.Put(clientOf(client), forwardAddress{Bytes: standIn.As16()}); err != nil {
		return fmt.Errorf("lease %s to %s: %w", standIn, client, err)
	}
	return nil
}

// Leases calls yield for every stand-in that the plane knows, with the /64 whose it is.
func (p *Plane) Leases(yield func(client netip.Prefix, standIn netip.Addr) bool) error {
	var key forwardClient
	var value forwardAddress
	all := p.objects.StandIns.Iterate()
	for all.Next(&key, &value) {
		var a [16]byte
		copy(a[:], key.Prefix[:])
		if !yield(netip.PrefixFrom(netip.AddrFrom16(a), 64), netip.AddrFrom16(value.Bytes).Unmap()) {
			return nil
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read stand-ins: %w", err)
	}
	return nil
}

// Forget takes a stand-in back: new flows of the /64 go to the user plane. Those that are there go on, so the ledger
// must not lease it to another before Flows shows none.
func (p *Plane) Forget(client netip.Addr) error {
	if err := p.objects.StandIns.Delete(clientOf(client)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget %s: %w", client, err)
	}
	return nil
}
