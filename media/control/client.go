// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// Again is how long the client waits before it tries once more to connect.
const Again = 100 * time.Millisecond

// Client asks a relay. Its methods may be called from anywhere and do not block.
type Client struct {
	path string
	link func(err error)

	mu      sync.Mutex
	up      bool
	version uint16 // of the messages, while it is up
	seq     uint32
	waiting map[uint32]request // that were sent
	calls   map[ID]*known
	clips   [][]byte
	out     outbox
}

// known is a call as the client knows it.
type known struct {
	call    Call
	remotes []Remote // the last of each side and stream
	post    func(func())
	ended   func(Stats)
	opened  bool
}

// request is what waits for an answer.
type request struct {
	id   ID
	kind kind
	post func(func())
	call func(Call, error)
	told func(Stats, error)
	seen func(*Figures, error)
}

// Options say where the relay is.
type Options struct {
	Path string // of its socket; "" means DefaultPath

	// Link, if set, is called when the client has connected (nil), and when it could not or the connection was lost; of
	// errors in a row, only of the first.
	Link func(err error)
}

// NewClient returns a client, which connects when it runs.
func NewClient(o Options) *Client {
	c := &Client{path: o.Path, link: o.Link, waiting: make(map[uint32]request), calls: make(map[ID]*known)}
	if c.path == "" {
		c.path = DefaultPath
	}
	if c.link == nil {
		c.link = func(error) {}
	}
	c.out.init(0)
	return c
}

// Opening is a request for a call.
type Opening struct {
	Spec

	// Post has the functions below called, on an event loop for example (relay.Loop.Post). It must not block, and is called
	// with nothing locked.
	Post func(func())

	// Done is called once: with the addresses, or with why there are none. Then the call is not there.
	Done func(Call, error)

	// Ended, if set, is called if the relay ends the call by itself: nobody has sent anything for long, or it could not be
	// made again after the relay was gone. The call is not there any more.
	Ended func(Stats)
}

// Open asks for a call. It may be updated and closed at once.
func (c *Client) Open(o Opening) ID {
	var b [8]byte
	rand.Read(b[:]) // never fails
	id := ID(binary.BigEndian.Uint64(b[:]))
	c.mu.Lock()
	defer c.mu.Unlock()
	err := o.Check()
	if err == nil && !c.up {
		err = ErrDown
	}
	if err != nil {
		o.Post(func() { o.Done(Call{}, err) })
		return id
	}
	c.calls[id] = &known{call: Call{ID: id, Spec: o.Spec}, post: o.Post, ended: o.Ended}
	c.requestLocked(&message{kind: open, id: id, spec: o.Spec}, request{post: o.Post, call: o.Done})
	return id
}

// Reshape asks for other networks or another number of streams. What is the same keeps its address. What is new has one
// beside the old, until a Remote is told for it: then the old one is given back. Another Reshape takes back what was not
// used, so the spec that was before it undoes it.
func (c *Client) Reshape(id ID, s Spec, post func(func()), done func(Call, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.missingLocked(id)
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		post(func() { done(Call{}, err) })
		return
	}
	c.requestLocked(&message{kind: reshape, id: id, spec: s}, request{post: post, call: done})
}

// Update tells what is known of who sends and receives. While there is no connection it is kept until there is one.
func (c *Client) Update(id ID, remotes ...Remote) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.calls[id]
	if k == nil || len(remotes) == 0 {
		return
	}
	remotes = canonical(remotes)
	for _, r := range remotes {
		at := slices.IndexFunc(k.remotes, func(o Remote) bool { return o.Side == r.Side && o.Stream == r.Stream })
		switch {
		case r.Side > Callee || r.Stream >= MaxStreams:
			return
		case at < 0:
			k.remotes = append(k.remotes, r)
		default:
			k.remotes[at] = r
		}
	}
	if c.up {
		c.sendLocked(&message{kind: update, id: id, remotes: remotes})
	}
}

// canonical returns remotes whose addresses have one spelling.
func canonical(remotes []Remote) []Remote {
	remotes = slices.Clone(remotes)
	for i := range remotes {
		r := &remotes[i]
		r.RTP, r.RTCP, r.Signal = ip.CanonicalPort(r.RTP), ip.CanonicalPort(r.RTCP), ip.Canonical(r.Signal)
	}
	return remotes
}

// Stats asks what a call has carried so far.
func (c *Client) Stats(id ID, post func(func()), done func(Stats, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.missingLocked(id); err != nil {
		post(func() { done(Stats{}, err) })
		return
	}
	c.requestLocked(&message{kind: ask, id: id}, request{post: post, told: done})
}

// Survey asks what the relay has and does. done is called by the client, and must not block.
func (c *Client) Survey(done func(*Figures, error)) {
	c.mu.Lock()
	if c.up {
		c.requestLocked(&message{kind: survey}, request{seen: done})
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	done(nil, ErrDown)
}

// Renew has the relay read again which networks there are: for new calls those of now hold. done is called by the client, and
// must not block.
func (c *Client) Renew(done func(error)) {
	answer := func(_ Call, err error) { done(err) }
	c.mu.Lock()
	if c.up {
		c.requestLocked(&message{kind: renew}, request{kind: renew, post: func(f func()) { f() }, call: answer})
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	done(ErrDown)
}

// Close ends a call. done, which may be nil, is told what the call has carried. While there is no connection the relay is
// not told; it gives up what is not in the list that it gets with the next.
func (c *Client) Close(id ID, post func(func()), done func(Stats, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.missingLocked(id)
	delete(c.calls, id)
	if done == nil {
		post, done = func(func()) {}, func(Stats, error) {}
	}
	if err != nil {
		post(func() { done(Stats{}, err) })
		return
	}
	c.requestLocked(&message{kind: shut, id: id}, request{post: post, told: done})
}

// Restore tells the client of a call that an earlier process had, with what it knew of it. The relay is told when the
// client connects: call Restore before Run. ended is Opening.Ended.
func (c *Client) Restore(call Call, remotes []Remote, post func(func()), ended func(Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[call.ID] = &known{call: call, remotes: slices.Clone(remotes), post: post, ended: ended, opened: true}
}

// Saved returns what Restore wants to know of a call; false if there is none.
func (c *Client) Saved(id ID) (Call, []Remote, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.calls[id]
	if k == nil || !k.opened {
		return Call{}, nil, false
	}
	return k.call, slices.Clone(k.remotes), true
}

// Up says whether there is a connection.
func (c *Client) Up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up
}

// Keep gives the relay announcements, each not longer than MaxClip, in the place of those that it was given before. It has
// them again whenever it was gone.
func (c *Client) Keep(clips [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.clips
	c.clips = clips[:min(len(clips), MaxClips)]
	if !c.up {
		return
	}
	for _, one := range c.clips {
		if !slices.ContainsFunc(before, func(other []byte) bool { return bytes.Equal(one, other) }) {
			c.keepLocked(one)
		}
	}
}

func (c *Client) keepLocked(clip []byte) {
	m := message{kind: piece, clip: ClipOf(clip), of: uint32(len(clip))}
	for rest := clip; len(rest) > 0; rest = rest[len(m.piece):] {
		m.piece = rest[:min(maxPiece, len(rest))]
		c.sendLocked(&m)
		m.at += uint32(len(m.piece))
	}
}

// Play has an announcement that the relay was given played to one side of a call, from where the side expects its media. It
// goes where media of the other side would. It goes on until it has ended, another begins, or the call is closed; Times 0
// stops it.
func (c *Client) Play(id ID, p Play) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.up && c.calls[id] != nil {
		c.sendLocked(&message{kind: play, id: id, play: p})
	}
}

// missingLocked says why nothing can be asked about a call.
func (c *Client) missingLocked(id ID) error {
	switch {
	case c.calls[id] == nil:
		return ErrGone
	case !c.up:
		return ErrDown
	}
	return nil
}

func (c *Client) requestLocked(m *message, r request) {
	c.seq++
	m.seq, r.id, r.kind = c.seq, m.id, m.kind
	c.waiting[m.seq] = r
	c.sendLocked(m)
}

func (c *Client) sendLocked(m *message) {
	m.version = c.version
	c.out.put(m.append(nil))
}

// Run keeps a connection until ctx is done.
func (c *Client) Run(ctx context.Context) {
	quiet := false
	for ctx.Err() == nil {
		err := c.connect(ctx, func() { quiet = false })
		if ctx.Err() != nil {
			return
		}
		if !quiet {
			c.link(err)
			quiet = true
		}
		t := time.NewTimer(Again)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

// connect serves one connection until it ends.
func (c *Client) connect(ctx context.Context, connected func()) error {
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: c.path, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("connect to media relay: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	version, err := greet(conn)
	if err != nil {
		return fmt.Errorf("connect to media relay: %w", err)
	}
	c.begin(version)
	connected()
	c.link(nil)
	var wg sync.WaitGroup
	wg.Go(func() { c.out.drain(conn) })
	err = c.receive(conn, version)
	c.end()
	conn.Close() // the outbox may wait for room in it
	wg.Wait()
	return fmt.Errorf("connection to media relay: %w", err)
}

// begin tells the relay of all calls there are.
func (c *Client) begin(version uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up, c.version = true, version
	c.out.reset()
	for _, clip := range c.clips {
		c.keepLocked(clip)
	}
	for _, id := range slices.Sorted(maps.Keys(c.calls)) {
		if k := c.calls[id]; k.opened {
			m := &message{kind: restore, id: id, spec: k.call.Spec, local: k.call.Local, remotes: k.remotes}
			c.requestLocked(m, request{})
		}
	}
	c.sendLocked(&message{kind: listed})
}

// end answers what waits. A call that has no addresses yet is not there.
func (c *Client) end() {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting, c.up = make(map[uint32]request), false
	c.out.close()
	for _, r := range waiting {
		if r.kind == open {
			delete(c.calls, r.id)
		}
	}
	c.mu.Unlock()
	for _, r := range waiting {
		r.answer(Call{}, &message{}, ErrDown)
	}
}

// answer gives what a message says to who has asked.
func (r *request) answer(call Call, m *message, err error) {
	stats := m.stats // the next message takes the place of this one
	switch {
	case r.call != nil:
		r.post(func() { r.call(call, err) })
	case r.told != nil:
		r.post(func() { r.told(stats, err) })
	case r.seen != nil:
		if m.figures == nil && err == nil {
			err = errMessage
		}
		r.seen(m.figures, err)
	}
}

// receive takes what the relay says until the connection ends.
func (c *Client) receive(conn *net.UnixConn, version uint16) error {
	buffer, m := make([]byte, maxMessage), &message{version: version}
	for {
		if err := receive(conn, buffer, m); err != nil {
			return err
		}
		switch m.kind {
		case opened, told, failed, figures, renewed:
			c.answered(m)
		case ended:
			c.ended(m.id, m.stats)
		default:
			return errMessage
		}
	}
}

// answered gives an answer to who has asked.
func (c *Client) answered(m *message) {
	c.mu.Lock()
	r, asked := c.waiting[m.seq]
	delete(c.waiting, m.seq)
	k := c.calls[r.id]
	call, err := Call{ID: r.id, Spec: m.spec, Local: m.local}, error(nil)
	if m.kind == failed {
		err = m.err()
	}
	var over func(Stats)
	var post func(func())
	switch {
	case k == nil || m.kind == told: // figures are of no call
	case err == nil:
		k.call, k.opened = call, true
	case r.kind == open, r.kind == restore:
		delete(c.calls, r.id)
		if r.kind == restore {
			over, post = k.ended, k.post
		}
	}
	c.mu.Unlock()
	if over != nil {
		post(func() { over(Stats{}) })
	}
	if asked {
		r.answer(call, m, err)
	}
}

// ended tells who has the call that the relay has ended it.
func (c *Client) ended(id ID, s Stats) {
	c.mu.Lock()
	k := c.calls[id]
	delete(c.calls, id)
	c.mu.Unlock()
	if k != nil && k.ended != nil {
		k.post(func() { k.ended(s) })
	}
}
