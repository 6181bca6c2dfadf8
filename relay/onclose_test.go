// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"testing"
	"time"
)

// TestOnClose: whoever closes a connection, and however, it is told once.
func TestOnClose(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	tests := []struct {
		name string
		ours func(c *Conn) // on the loop
		peer bool          // closes
	}{
		{"close", func(c *Conn) { c.Close() }, false},
		{"close twice", func(c *Conn) { c.Close(); c.Close() }, false},
		{"abort", func(c *Conn) { c.Abort() }, false},
		{"close, then abort", func(c *Conn) { c.Write(make([]byte, 8<<20)); c.Close(); c.Abort() }, false},
		{"linger", func(c *Conn) { c.Linger(time.Millisecond) }, false},
		{"the peer has ended", func(*Conn) {}, true},
		{"the peer has ended in the middle", func(c *Conn) { c.Write(make([]byte, 8<<20)) }, true},
	}
	for _, test := range tests {
		fd, peer := socketPair(t)
		told := make(chan *Conn, 2)
		var c *Conn
		onLoop(ls, func() {
			var err error
			if c, err = ls.loops[0].newConn(fd, closer{}); err != nil {
				t.Error(err)
				return
			}
			c.OnClose(func(*Conn) { t.Errorf("%s: the first is told although another has replaced it", test.name) })
			c.OnClose(func(c *Conn) { told <- c })
			test.ours(c)
		})
		if test.peer {
			peer.Close()
		}
		if got := <-told; got != c {
			t.Errorf("%s: told of another connection", test.name)
		}
		onLoop(ls, func() {})
		if len(told) > 0 {
			t.Errorf("%s: told twice", test.name)
		}
	}
}

// closer closes when its peer has ended.
type closer struct{}

func (closer) Data(_ *Conn, p []byte) int { return len(p) }
func (closer) Closed(*Conn, error)        {}
func (closer) Event(c *Conn, e Event) {
	if e == Ended {
		c.Abort()
	}
}
