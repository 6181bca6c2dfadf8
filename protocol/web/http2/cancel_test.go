// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"strings"
	"testing"
)

// A connection to a server is shared by strangers: what some of them make us reset, and what becomes of their requests at
// the server, must not end it for the others.

// TestCancelled has a client reset many streams at once. What the server had sent by then comes, to streams that nobody
// remembers, and is read only for what later heads refer to.
func TestCancelled(t *testing.T) {
	t.Parallel()
	c := NewClient(NewShared(), &Limits{ConnWindow: maxWindow})
	r := &record{conn: c}
	if err := feed(c, r, newServerPeer().Bytes(), 100); err != nil {
		t.Fatal(err)
	}
	p := newPeer()
	next := uint32(1)
	for round := range 20 {
		first := next
		for range defaultStreams {
			send(t, c, r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true)
			next += 2
		}
		c.Each(func(s *Stream) { c.ResetStream(s, Cancel) })
		for id := first; id < next; id += 2 {
			p.head(id, false, ":status", "200", "x", strings.Repeat("a", round))
			p.WriteData(id, false, make([]byte, 300))
			p.WriteData(id, false, []byte("short"))
			p.WriteWindowUpdate(id, 1)
			p.head(id, true, "x-end", "1")
			p.WriteRSTStream(id, 0)
		}
	}
	send(t, c, r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true)
	p.head(next, true, ":status", "200", "x-end", "1")
	if err := feed(c, r, p.Bytes(), maxFrame); err != nil {
		t.Fatal(err)
	}
	want := `4001 answered "HTTP/1.1 200 \r\nx-end: 1\r\ncontent-length: 0\r\n\r\n" end=true`
	if len(r.events) != 1 || r.events[0] != want {
		t.Errorf("got %q, want %s alone", r.events, want)
	}
	if c.owed != int64(20*defaultStreams*305) {
		t.Errorf("the server is owed %d bytes of the window", c.owed)
	}
}

// TestServerResets has a server end each request without an answer.
func TestServerResets(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(p *peer, id uint32){
		"reset":         func(p *peer, id uint32) { p.WriteRSTStream(id, 2) },
		"made to reset": func(p *peer, id uint32) { p.head(id, true, "server", "no status") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := NewClient(NewShared(), &Limits{})
			r := &record{conn: c}
			if err := feed(c, r, newServerPeer().Bytes(), 100); err != nil {
				t.Fatal(err)
			}
			for i := range uint32(5 * mostResets) {
				send(t, c, r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true)
				p := newPeer()
				end(p, 1+2*i)
				if err := feed(c, r, p.Bytes(), 100); err != nil {
					t.Fatalf("request %d: %v", i, err)
				}
			}
			if len(r.events) != 5*mostResets {
				t.Errorf("%d streams have ended", len(r.events))
			}
		})
	}
}

// TestLateBody has clients send bodies on to streams that have been answered: what they had under way is no flood, if
// it comes in pieces worth the name.
func TestLateBody(t *testing.T) {
	t.Parallel()
	for size, flood := range map[int]bool{worthwhile: false, worthwhile - 1: true} {
		c := NewServer(NewShared(), &Limits{Window: maxWindow, ConnWindow: maxWindow})
		p := newClientPeer()
		p.request(1, "POST", false)
		p.WriteRSTStream(1, 8)
		p.request(3, "POST", false, "content-length", "1")
		for range 2 * mostIdle {
			p.WriteData(3, false, make([]byte, size)) // more than was said, so that we reset it
		}
		if err := feed(c, &record{conn: c}, p.Bytes(), maxFrame); (err != nil) != flood {
			t.Errorf("%d bytes a frame: %v, want an error: %t", size, err, flood)
		}
	}
}
