// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import "github.com/kyozon/kyozon/protocol/web/http1"

// Stream is one request and its response. It belongs to its Conn, which uses it again for another: the owner forgets it
// when it is gone.
//
// For a server it is gone when the response has been written to its end, whether or not the request has come whole;
// for a client, when the request has been written to its end and the response has come to its end. For both when
// Owner.Reset has been told or Conn.ResetStream been called. What is asked for a stream that is gone has no effect.
type Stream struct {
	ID    uint32 // 0 for a client's stream until AppendRequest
	Owner Owner  // nil: nobody is told, and what comes is dropped

	open      bool
	ended     bool // our half is over
	peerEnded bool
	answered  bool       // client: the response that counts has come
	waiting   bool       // for a window, to write more: see flow.go
	verb      http1.Verb // client: of the request

	window int64 // how much we may send
	room   int64 // how much the peer may send
	held   int64 // how much of what has come has not been consumed
	owed   int64 // how much has been consumed that the peer has not been told of
	want   int64 // bytes of the peer's body that are still to come, or -1 if that is not known

	next, prev *Stream // in the order in which they were opened; next also links unused ones
	chain      *Stream // with the same slot
}

// slots is how many lists of streams there are to look for an ID in: about as many as there are streams at most, which
// have nearly consecutive numbers.
const slots = 64

// streams is the set of the streams that are open.
type streams struct {
	slots       []*Stream // by ID; made for the first stream
	first, last *Stream
	count       int
}

// slot returns the slot of an ID. Those that one side opens are all odd, or all even.
func slot(id uint32) uint32 { return id >> 1 % slots }

// find returns the stream id, or nil.
func (t *streams) find(id uint32) *Stream {
	if t.slots == nil {
		return nil
	}
	s := t.slots[slot(id)]
	for s != nil && s.ID != id {
		s = s.chain
	}
	return s
}

// add adds s as the last. Its ID may come later: see name.
func (t *streams) add(s *Stream) {
	if s.prev = t.last; s.prev != nil {
		s.prev.next = s
	} else {
		t.first = s
	}
	t.last = s
	t.count++
}

// name gives s its ID.
func (t *streams) name(s *Stream, id uint32) {
	if t.slots == nil {
		t.slots = make([]*Stream, slots)
	}
	s.ID = id
	s.chain, t.slots[slot(id)] = t.slots[slot(id)], s
}

func (t *streams) remove(s *Stream) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		t.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		t.last = s.prev
	}
	t.count--
	if s.ID == 0 {
		return
	}
	at := &t.slots[slot(s.ID)]
	for *at != s {
		at = &(*at).chain
	}
	*at = s.chain
}

// closed remembers the streams that were closed last, to tell a peer that has not heard of it from one that does not
// know what it does.
type closed struct {
	ids  [32]uint32 // with lateBit if frames may still come
	next int
}

const lateBit = 1 << 31

// add adds a stream; late says that frames that were sent before the peer heard of the end may still come.
func (c *closed) add(id uint32, late bool) {
	if late {
		id |= lateBit
	}
	c.ids[c.next%len(c.ids)] = id
	c.next++
}

func (c *closed) has(id uint32) (known, late bool) {
	for _, x := range c.ids {
		if x&^lateBit == id {
			return true, x&lateBit != 0
		}
	}
	return false, false
}
