// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import "errors"

// Shared is what the connections of one event loop have in common: tables, scratch space and unused streams. Not safe
// for concurrent use.
type Shared struct {
	huffman *huffman
	names   names
	message message
	unused  *Stream
	spare   int // how many there are
}

// maxSpare bounds them: as many as a few busy connections have.
const maxSpare = 1024

// NewShared returns a Shared.
func NewShared() *Shared { return &Shared{huffman: newHuffman(), names: newNames()} }

func (s *Shared) get() *Stream {
	x := s.unused
	if x == nil {
		return new(Stream)
	}
	s.unused = x.next
	s.spare--
	return x
}

// put keeps x, which must not be told of anything any more.
func (s *Shared) put(x *Stream) {
	*x = Stream{}
	if s.spare == maxSpare {
		return
	}
	x.next, s.unused = s.unused, x
	s.spare++
}

// Conn is one end of an HTTP/2 connection. Not safe for concurrent use.
//
// Methods whose name begins with Append write frames behind dst, and before them those that the connection owes its
// peer anyway (acknowledgements, windows, resets). Whatever they return must be sent in the order of the calls.
type Conn struct {
	shared *Shared
	limits Limits
	client bool
	away   away // we go
	gone   bool // the peer goes
	greets int  // what of the preface is still to come
	err    *Error
	now    int64
	out    []byte // owed

	streams
	lastPeer uint32 // the last stream that the peer has opened
	nextOwn  uint32 // client: the next that we open
	closed   closed
	resets   budget
	idle     budget

	decoder table
	head    headerBlock
	data    dataFrame
	skip    int // bytes of a frame that are of no interest

	peer   settings
	acked  bool  // the peer has sent its SETTINGS
	resize bool  // the peer must be told the size of our encoder's table
	window int64 // how much we may send
	room   int64 // how much the peer may send
	owed   int64 // how much has been consumed that the peer has not been told of

	queue []*Stream // those that wait for a window, the one whose turn it is first
	turn  int64     // how much may be written before it is another's turn
}

// settings are the peer's. RFC 9113 §6.5.2.
type settings struct {
	streams uint32
	window  int64
}

// away is how far we are in going away.
type away uint8

const (
	here      away = iota
	announced      // the peer knows, or will soon
	left           // no stream is taken any more
)

// NewServer returns the end that a client has connected to. Its SETTINGS are owed at once: see AppendOutput.
func NewServer(shared *Shared, l *Limits) *Conn {
	c := newConn(shared, l)
	c.greets = len(Preface)
	c.greet()
	return c
}

// NewClient returns the end that has connected to a server. Its Preface and SETTINGS are owed at once.
func NewClient(shared *Shared, l *Limits) *Conn {
	c := newConn(shared, l)
	c.client, c.nextOwn = true, 1
	c.out = append(c.out, Preface...)
	c.greet()
	return c
}

func newConn(shared *Shared, l *Limits) *Conn {
	c := &Conn{shared: shared, limits: *l, window: minWindow, room: minWindow, turn: maxWindow, resize: true}
	c.limits.complete()
	c.decoder.limit = tableSize
	c.peer = settings{streams: defaultStreams, window: minWindow}
	return c
}

func (l *Limits) complete() {
	orDefault(&l.Head.Head, defaultHead)
	orDefault(&l.Head.Fields, defaultFields)
	orDefault(&l.Streams, defaultStreams)
	orDefault(&l.Window, defaultWindow)
	orDefault(&l.ConnWindow, defaultConnWindow)
	l.Window = min(max(l.Window, minWindow), maxWindow)
	l.ConnWindow = min(max(l.ConnWindow, minWindow), maxWindow)
}

func orDefault(n *int, d int) {
	if *n == 0 {
		*n = d
	}
}

// greet owes SETTINGS, and a window of the connection as it shall be. RFC 9113 §3.4, §6.9.2.
func (c *Conn) greet() {
	at := len(c.out)
	c.out = appendHeader(c.out, 0, frameSettings, 0, 0)
	if c.client {
		c.out = appendSetting(c.out, settingPush, 0)
	} else {
		c.out = appendSetting(c.out, settingStreams, uint32(c.limits.Streams))
	}
	c.out = appendSetting(c.out, settingWindow, uint32(c.limits.Window))
	c.out = appendSetting(c.out, settingHead, uint32(c.limits.Head.Head))
	setLength(c.out[at:])
	c.owed = int64(c.limits.ConnWindow) - c.room
	c.openWindow()
}

// AppendOutput writes what the connection owes its peer. Call it after each Read.
func (c *Conn) AppendOutput(dst []byte) []byte {
	if len(c.out) > 0 {
		dst = append(dst, c.out...)
		c.out = c.out[:0]
	}
	return dst
}

// Streams returns how many streams there are.
func (c *Conn) Streams() int { return c.count }

// Each calls f for each stream, in the order in which they were opened. f may reset its stream.
func (c *Conn) Each(f func(s *Stream)) {
	for s := c.first; s != nil; {
		next := s.next
		f(s)
		s = next
	}
}

// Why a client can open no stream.
var (
	ErrFull      = errors.New("http2: as many streams, or as much of their bodies, as the server allows")
	ErrGoingAway = errors.New("http2: the server takes no more streams")
)

// Open returns a stream for a request to the server, whose limit of concurrent streams it obeys, or ErrFull or
// ErrGoingAway. The caller sets its Owner.
func (c *Conn) Open() (*Stream, error) {
	if err := c.Room(); err != nil {
		return nil, err
	}
	return c.open(), nil
}

// Room returns why a client can open no stream; nil if it can.
func (c *Conn) Room() error {
	switch {
	case c.gone || c.away != here || c.err != nil || c.nextOwn+2*uint32(c.count) > maxStream:
		return ErrGoingAway
	case c.count >= int(c.peer.streams):
		return ErrFull
	case c.window <= 0 && len(c.queue) > 0: // the server may be slow to read one body, which would hold up all that follow
		return ErrFull
	}
	return nil
}

func (c *Conn) open() *Stream {
	s := c.shared.get()
	*s = Stream{open: true, window: c.peer.window, room: int64(c.limits.Window), want: -1}
	c.add(s)
	return s
}

// release closes s. late says that the peer may send more before it hears of it.
func (c *Conn) release(s *Stream, late bool) {
	s.open = false
	c.remove(s)
	c.leaveQueue(s)
	if s.ID != 0 {
		c.closed.add(s.ID, late)
	}
	c.owed += s.held
	c.openWindow()
}

// free gives s back, after its owner has been told.
func (c *Conn) free(s *Stream) { c.shared.put(s) }

// ResetStream closes a stream at once and tells the peer why. The stream is gone; its owner is not told.
func (c *Conn) ResetStream(s *Stream, code Code) {
	if !s.open {
		return
	}
	if s.ID != 0 {
		c.out = appendReset(c.out, s.ID, code)
	}
	c.release(s, true)
	c.free(s)
}

// end closes our half of s. RFC 9113 §8.1: a server that has answered needs no more of the request, and says so.
func (c *Conn) end(s *Stream) {
	s.ended = true
	switch {
	case !c.client && !s.peerEnded:
		c.out = appendReset(c.out, s.ID, NoError)
	case !s.peerEnded:
		return
	}
	c.resets.earn(1, 0)
	c.release(s, !s.peerEnded)
	c.free(s)
}

// GoAway ends the connection, sooner or later. With NoError the peer is first told that no new streams will be taken;
// those that it has opened meanwhile still are, until it has heard (RFC 9113 §6.8). Close when Done says so.
// With another code no stream is taken from now on: send AppendOutput and close.
func (c *Conn) GoAway(code Code) {
	switch {
	case c.away == left || c.away == announced && code == NoError:
	case code == NoError && !c.client:
		c.away = announced
		c.out = appendGoAway(c.out, maxStream, NoError)
		c.out = append(appendHeader(c.out, 8, framePing, 0, 0), farewell...)
	default:
		c.away = left
		c.out = appendGoAway(c.out, c.lastPeer, code)
	}
}

// Leave ends what GoAway has begun for a peer that goes on as if it had not heard: no stream is taken from now on.
func (c *Conn) Leave() {
	if c.away == announced {
		c.away = left
		c.out = appendGoAway(c.out, c.lastPeer, NoError)
	}
}

// farewell is what the PING carries whose acknowledgement shows that the peer has heard that we go.
const farewell = "farewell"

// Done says whether either end has said that it goes away, and the last stream has gone.
func (c *Conn) Done() bool { return (c.away == left || c.gone) && c.count == 0 }

// fail ends the connection because the peer broke a rule.
func (c *Conn) fail(e *Error) {
	c.err, c.away = e, left
	c.out = appendGoAway(c.out, c.lastPeer, e.Code)
}
