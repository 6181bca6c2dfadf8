// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// TestConsumed gives a peer more room when what it has sent has been consumed, half a window at a time, and has it keep to
// what it was given.
func TestConsumed(t *testing.T) {
	t.Parallel()
	limits := &Limits{Window: 100 << 10, ConnWindow: 150 << 10}
	for _, tt := range []struct {
		name string
		keep bool
		in   func(p *peer)
		want []string
	}{
		{"consumed", false, func(p *peer) { upload(p, 1, 7) }, []string{"1 window +65488", "0 window +81872"}},
		{"padding counts", false, func(p *peer) {
			for range 210 {
				p.WriteDataPadded(1, false, []byte("x"), make([]byte, 254))
			}
		}, []string{"1 window +51200"}},
		{"kept", true, func(p *peer) { upload(p, 1, 6) }, nil},
		{"kept, and the stream is reset", true, func(p *peer) { upload(p, 1, 6); p.WriteRSTStream(1, 8) }, []string{"0 window +98304"}},
		{"stream's room not kept, RFC 9113 §6.9.1", true, func(p *peer) { upload(p, 1, 7) }, []string{"1 reset: 3", "0 window +98304"}},
		{"late for a stream that is reset", true, func(p *peer) { p.WriteWindowUpdate(1, 0); upload(p, 1, 5) }, []string{"1 reset: 1", "0 window +81920"}},
		{"connection's room not kept, RFC 9113 §6.9.1", true, func(p *peer) { p.request(3, "POST", false); upload(p, 1, 5); upload(p, 3, 5) }, []string{"goaway after 3: 3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := NewServer(NewShared(), limits)
			r := &record{conn: c, keep: tt.keep}
			p := newClientPeer()
			p.request(1, "POST", false)
			tt.in(p)
			feed(c, r, p.Bytes(), maxFrame+headerSize)
			got := frames(t, c.AppendOutput(nil))[1:] // the first opens the connection's window, from the start
			got = slices.DeleteFunc(got, func(s string) bool { return s == "settings ack" })
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// upload sends n full frames.
func upload(p *peer, id uint32, n int) {
	for range n {
		p.WriteData(id, false, make([]byte, maxFrame))
	}
}

// writer writes the same number of bytes on each of its streams, as far as it may.
type writer struct {
	*record
	left  map[uint32]int
	order []string // what was written: ID and size
}

func (w *writer) Writable(s *Stream) {
	id := s.ID
	out, n := w.conn.AppendData(nil, s, make([]byte, w.left[id]), true)
	w.left[id] -= n
	w.order = append(w.order, fmt.Sprintf("%d:%d", id, n))
	w.conn.out = append(out, w.conn.out...)
}

// TestTurns writes on several streams at once: when there is room again each gets a frame in turn, going on where it
// stopped.
func TestTurns(t *testing.T) {
	t.Parallel()
	c := NewServer(NewShared(), &Limits{})
	w := &writer{record: &record{conn: c}, left: map[uint32]int{1: 70000, 3: 70000, 5: 20000, 7: 70000}}
	w.opened = func(s *Stream, _ []byte, _ bool) {
		s.Owner = w
		w.Writable(s)
	}
	read := func(write func(p *peer)) string {
		w.order = nil
		p := newPeer()
		write(p)
		if err := feed(c, w, p.Bytes(), p.Len()); err != nil {
			t.Fatal(err)
		}
		return strings.Join(w.order, " ")
	}
	for i, tt := range []struct {
		in   func(p *peer)
		want string
	}{
		{func(p *peer) {
			p.WriteString(Preface)
			p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 50000})
			for id := range uint32(4) {
				p.request(2*id+1, "GET", true)
			}
		}, "1:50000 3:15535 5:0 7:0"},
		{func(p *peer) { p.WriteWindowUpdate(1, 1000) }, ""}, // the connection's window is closed
		{func(p *peer) { p.WriteWindowUpdate(0, 40000) }, "1:1000 3:16384 5:16384 7:6232"},
		{func(p *peer) { p.WriteWindowUpdate(0, 40000) }, "3:16384 5:3616 7:16384 3:1697 7:1919"}, // 3 has used up its own
		{func(p *peer) { p.WriteWindowUpdate(0, 1<<20) }, "7:16384 7:9081"},
		{func(p *peer) { p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 70000}) }, "1:16384 3:16384 7:16384 1:2616 3:3616 7:3616"},
		{func(p *peer) { p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0}) }, ""},
	} {
		if got := read(tt.in); got != tt.want {
			t.Errorf("step %d: %s, want %s", i, got, tt.want)
		}
	}
	sum := 0
	for _, s := range frames(t, c.AppendOutput(nil)) {
		if strings.Contains(s, " data ") {
			sum += strings.Count(s, `\x00`)
		}
	}
	if want := 3*70000 + 20000; sum != want {
		t.Errorf("%d bytes were written, want %d", sum, want)
	}
}

// TestLongHead writes heads that take more than a frame.
func TestLongHead(t *testing.T) {
	t.Parallel()
	for _, size := range []int{maxFrame - 200, maxFrame - 20, maxFrame - 19, maxFrame - 18, maxFrame - 17, maxFrame, 2*maxFrame - 20, 2 * maxFrame, 3 * maxFrame} {
		c := NewClient(NewShared(), &Limits{})
		s, _ := c.Open()
		s.Owner = &record{}
		c.AppendRequest(nil, s, parseRequest(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), http1.Forward{}, "http", false)
		c.out = c.out[:0]
		value := strings.Repeat("v", size)
		out := c.AppendTrailers(nil, s, []byte("X-Sum: "+value+"\r\n\r\n"))
		got := frames(t, out)
		if want := []string{"1 head x-sum: " + value + "| end=true"}; !slices.Equal(got, want) {
			t.Errorf("of %d bytes: %.50q", size, got)
		}
		if !bytes.Equal(out, c.AppendOutput(out)) {
			t.Error("something is left")
		}
	}
}
