// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"os"

	"github.com/kyozon/kyozon/relay"
)

const (
	bodyMemory = 128 << 10 // bytes of a message that are kept in memory; what is more goes to a file in pieces of as many
	bodyReuse  = 16 << 10  // memory that a session keeps for its next message
)

// body is a message that is taken in. What is in the file comes before what is in memory. A write that fails fails the
// message, which goes on being taken: there is no way to tell a client to stop.
type body struct {
	spool  *spool
	loop   *relay.Loop
	limit  int64
	due    int64  // when it must be whole, on the loop's clock
	resume func() // called when a full body is full no more, or a settled one has settled

	memory  []byte
	file    *os.File
	filed   int64 // bytes in the file
	size    int64 // bytes of all
	writing bool
	closed  bool
	err     error

	shown bool   // to the engines
	head  []byte // what they want before it
}

// add takes p, which it copies.
func (b *body) add(p []byte) {
	b.size += int64(len(p))
	if b.err != nil || b.size > b.limit {
		b.memory = b.memory[:0]
		return
	}
	b.memory = append(b.memory, p...)
	if len(b.memory) >= bodyMemory && !b.writing {
		b.write()
	}
}

// tooLarge says whether more has come than may.
func (b *body) tooLarge() bool { return b.size > b.limit }

// full says that no more should be taken until resume.
func (b *body) full() bool { return b.writing && len(b.memory) >= bodyMemory }

// write writes what is in memory.
func (b *body) write() {
	p := b.memory
	b.memory, b.writing = nil, true
	f := b.file
	var err error
	b.spool.do(b.loop, func() {
		if f == nil {
			f, err = b.spool.open()
		}
		if err == nil {
			_, err = f.Write(p)
		}
	}, func() {
		b.file, b.err, b.writing = f, err, false
		b.filed += int64(len(p))
		if b.closed {
			b.close()
			return
		}
		b.resume()
	})
}

// read reads the piece of the file at an offset, and calls done on the loop.
func (b *body) read(at int64, done func([]byte, error)) {
	p := make([]byte, min(bodyMemory, b.filed-at))
	var err error
	f := b.file
	b.writing = true // keeps the file open
	b.spool.do(b.loop, func() { _, err = f.ReadAt(p, at) }, func() {
		b.writing = false
		if b.closed {
			b.close()
			return
		}
		done(p, err)
	})
}

// close forgets the message.
func (b *body) close() {
	b.closed = true
	if !b.writing && b.file != nil {
		b.file.Close()
		b.file = nil
	}
}
