// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"hash/maphash"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/target"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/resolve"
)

// core is a service over all its generations.
type core struct {
	name     string
	log      *slog.Logger
	loops    *relay.Loops
	able     sip.Abilities
	limits   sip.Limits
	seed     maphash.Seed
	agents   []*agent // by loop
	places   *location.Table
	settings atomic.Pointer[settings]

	roster *roster // the last one; only build touches it

	guard *digest.Server // of the domain, with the nonces that were used; only build touches it

	mu      sync.Mutex // of those who change sockets
	sockets atomic.Pointer[sockets]

	calls  calls
	begun  sync.Once
	homes  *bindings
	tally  tally
	names  agents // of devices
	strays strays

	announced atomic.Int64 // callers who hear announcements

	owners  owners
	away    atomic.Int32  // here, leaving or gone
	parted  atomic.Bool   // connections are ended
	returns chan struct{} // of size 1: it has not
	records recorder
	table   recorder // of those that are in the file
	relays  relays
	quality *quality

	dead     memory
	answers  atomic.Pointer[target.Answers] // the last ones of the DNS about gateways
	resolver atomic.Pointer[resolve.Resolver]
	seats    seats
	refusing refusals
	untold   sync.Map // of whose TLS nothing is said again: until when, by address

	lastFlow atomic.Uint64
	flows    sync.Map // of connections, by number: *flow
}

// sockets are those for UDP: so few that it is quicker to look at each than to find one by its address in a map. They are
// immutable.
type sockets []*relay.Datagrams

// at returns the one at an address, or nil.
func (s sockets) at(a netip.AddrPort) *relay.Datagrams {
	for _, one := range s {
		if one.Local() == a {
			return one
		}
	}
	return nil
}

// without returns a copy without some.
func (s sockets) without(which func(*relay.Datagrams) bool) sockets {
	return slices.DeleteFunc(slices.Clone(s), which)
}

// memory is which gateways have not taken a call, or do not answer when they are asked. All loops have it in common.
type memory struct {
	sync.Mutex
	target.Memory
	down map[target.Target]bool
}

// Whether a core is the one that has the calls.
const (
	here    = iota
	leaving // another process is taking this one's place
	gone    // nothing runs any more
)

// keep forgets which gateways were down that are no more: what the DNS says of others must not add up.
func (m *memory) keep(all map[target.Target]bool) {
	m.Lock()
	defer m.Unlock()
	maps.DeleteFunc(m.down, func(t target.Target, _ bool) bool { return !all[t] })
}

// newCore makes the core of a service whose state is in a directory, and takes up the calls that are there, but not yet the
// bindings: see readBindings. records is the file that their records go to, media the socket of the relay, or "".
func newCore(log *slog.Logger, loops *relay.Loops, state, records, media string) *core {
	c := &core{log: log, loops: loops, able: abilities(), limits: limits(), seed: maphash.MakeSeed(), places: location.New()}
	c.dead.down, c.seats = make(map[target.Target]bool), newSeats()
	c.answers.Store(&target.Answers{})
	c.records.wake, c.table.wake, c.returns = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	c.sockets.Store(&sockets{})
	for i := range loops.Len() {
		c.agents = append(c.agents, newAgent(c, loops.At(i)))
	}
	c.tally, c.quality = newTally(), newQuality()
	c.calls.directory, c.calls.log = filepath.Join(state, "calls"), log
	if media != "" {
		c.openRelay(media)
	}
	c.restore(records)
	c.homes = newBindings(state, c.places, &c.names, log)
	c.places.Changed = c.homes.note
	return c
}

// readBindings takes up the bindings that a process which is gone has left. It is called once, before a message can come.
func (c *core) readBindings() {
	switch count, err := c.homes.read(now()); {
	case err != nil:
		c.log.Error("bindings end with this process", "err", err)
	case count > 0:
		c.log.Info("subscribers are still registered", "count", count)
	}
}

// open takes a socket and returns who receives at it.
func (c *core) open(socket *relay.Datagrams) func(relay.Datagram) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.sockets.Load().without(func(s *relay.Datagrams) bool { return s.Local() == socket.Local() })
	all = append(all, socket)
	c.sockets.Store(&all)
	here := c.agents[socket.Loop().ID()]
	return func(d relay.Datagram) { here.take(d.Payload, sip.Way{Local: d.To, Remote: d.From}) }
}

// openDeaf takes a socket at which nothing is heard: TLS is spoken over TCP at its port, and nothing over UDP.
func (c *core) openDeaf(socket *relay.Datagrams) func(relay.Datagram) {
	c.open(socket)
	return func(relay.Datagram) {}
}

// keep forgets the sockets at other addresses.
func (c *core) keep(here map[netip.AddrPort]*network) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.sockets.Load().without(func(s *relay.Datagrams) bool { return here[s.Local()] == nil })
	c.sockets.Store(&all)
}

// agentOf returns the agent of a message that names none: the same for all with its Call-ID.
func (c *core) agentOf(callID []byte) *agent {
	if a := c.strays.find(callID); a != nil {
		return a
	}
	return c.agents[maphash.Bytes(c.seed, callID)%uint64(len(c.agents))]
}

// reaches says whether there is a socket for a way, or its connection.
func (c *core) reaches(w sip.Way) bool {
	if w.Transport == sip.UDP || w.Flow == 0 {
		return c.sockets.Load().at(w.Local) != nil
	}
	_, ok := c.flows.Load(w.Flow)
	return ok
}

// send sends a message, of which nothing is kept, from the loop of an agent. What cannot be sent is lost, as on the way; over
// a connection of ours the agent is told.
func (c *core) send(from *agent, w sip.Way, b []byte) {
	switch {
	case w.Transport == sip.UDP:
		if socket := c.sockets.Load().at(w.Local); socket != nil {
			socket.Send(from.loop, relay.Datagram{From: w.Local, To: w.Remote, Payload: b})
		}
		return
	case w.Flow == 0:
		from.connect(w).write(b)
		return
	}
	v, ok := c.flows.Load(w.Flow)
	if !ok {
		return
	}
	f := v.(*flow) // nothing else is in the map
	if f.agent == from {
		f.write(b)
		return
	}
	message := bytes.Clone(b)
	f.agent.loop.Post(func() { f.write(message) })
}
