// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// TestFlood has one row for each flood. Each frame by itself is allowed; so many without anything else are not, and
// as many as a client has reason for are.
func TestFlood(t *testing.T) {
	t.Parallel()
	reset := func(p *peer, i uint32) { p.request(1+2*i, "GET", true); p.WriteRSTStream(1+2*i, 8) }
	for _, tt := range []struct {
		name  string
		once  func(*peer)
		again func(*peer, uint32)
		most  int // how often again may come
		want  *Error
	}{
		{"rapid reset, CVE-2023-44487", nil, reset, mostResets, errResets},
		{"made to reset by WINDOW_UPDATE 0, CVE-2025-8671", nil, func(p *peer, i uint32) { p.request(1+2*i, "GET", true); p.WriteWindowUpdate(1+2*i, 0) }, mostResets, errResets},
		{"made to reset by window overflow, CVE-2025-8671", nil, func(p *peer, i uint32) { p.request(1+2*i, "GET", true); p.WriteWindowUpdate(1+2*i, maxWindow) }, mostResets, errResets},
		{"made to reset by DATA after the end, CVE-2025-8671", nil, func(p *peer, i uint32) { p.request(1+2*i, "GET", true); p.WriteData(1+2*i, true, nil) }, mostResets, errResets},
		{"made to reset by PRIORITY, CVE-2025-8671", nil, func(p *peer, i uint32) {
			p.request(1+2*i, "GET", true)
			p.WriteRawFrame(xhttp2.FramePriority, 0, 1+2*i, make([]byte, 4))
		}, mostResets, errResets},
		{"malformed requests", nil, func(p *peer, i uint32) { p.request(1+2*i, "GET", true, "connection", "x") }, mostResets, errResets},
		{"more streams than allowed", func(p *peer) {
			for i := range uint32(defaultStreams) {
				p.request(1+2*i, "GET", true)
			}
		}, func(p *peer, i uint32) { p.request(2*defaultStreams+1+2*i, "GET", true) }, mostResets, errResets},
		{"PING, CVE-2019-9512", nil, func(p *peer, _ uint32) { p.WritePing(false, [8]byte{}) }, mostIdle - 1, errFlood},
		{"PING ack", nil, func(p *peer, _ uint32) { p.WritePing(true, [8]byte{}) }, mostIdle - 1, errFlood},
		{"SETTINGS, CVE-2019-9515", nil, func(p *peer, _ uint32) { p.WriteSettings() }, mostIdle - 1, errFlood},
		{"SETTINGS ack", nil, func(p *peer, _ uint32) { p.WriteSettingsAck() }, mostIdle - 1, errFlood},
		{"many settings", nil, func(p *peer, _ uint32) { p.WriteSettings(make([]xhttp2.Setting, 99)...) }, (mostIdle - 1) / 100, errFlood},
		{"PRIORITY", nil, func(p *peer, _ uint32) { p.WritePriority(1, xhttp2.PriorityParam{}) }, mostIdle - 1, errFlood},
		{"WINDOW_UPDATE", nil, func(p *peer, _ uint32) { p.WriteWindowUpdate(0, 1) }, mostIdle - 1, errFlood},
		{"unknown frames", nil, func(p *peer, _ uint32) { p.WriteRawFrame(0x42, 0, 0, nil) }, mostIdle - 1, errFlood},
		{"GOAWAY", nil, func(p *peer, _ uint32) { p.WriteGoAway(0, 0, nil) }, mostIdle - 1, errFlood},
		{"empty DATA, CVE-2019-9518", func(p *peer) { p.request(1, "POST", false) }, func(p *peer, _ uint32) { p.WriteData(1, false, nil) }, mostIdle - 1 + idlePerFrame, errFlood},
		{"padding only", func(p *peer) { p.request(1, "POST", false) }, func(p *peer, _ uint32) { p.WriteDataPadded(1, false, nil, make([]byte, 9)) }, mostIdle - 1 + idlePerFrame, errFlood},
		{"RST_STREAM of one that is closed", func(p *peer) { p.request(1, "GET", true); p.WriteRSTStream(1, 8) }, func(p *peer, _ uint32) { p.WriteRSTStream(1, 8) }, mostIdle - 1 + idlePerFrame, errFlood},
		{"empty CONTINUATION, CVE-2019-9518", func(p *peer) { p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1}) },
			func(p *peer, _ uint32) { p.WriteContinuation(1, false, nil) }, mostIdle - 2, errFlood},
		{"CONTINUATION, CVE-2023-45288", func(p *peer) { p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1}) },
			func(p *peer, _ uint32) { p.WriteContinuation(1, false, make([]byte, 1<<10)) }, 2 * defaultHead >> 10, errLongBlock},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, more := range []bool{false, true} {
				c := NewServer(NewShared(), &Limits{})
				r := &record{conn: c}
				p := newClientPeer()
				if tt.once != nil {
					tt.once(p)
				}
				for i := range tt.most {
					tt.again(p, uint32(i))
				}
				if more {
					tt.again(p, uint32(tt.most))
				}
				err := feed(c, r, p.Bytes(), 16<<10)
				if e, _ := errors.AsType[*Error](err); more != (e == tt.want) || !more && err != nil {
					t.Fatalf("with one more %t: %v", more, err)
				}
				out := c.AppendOutput(nil)
				if most := 40 * mostIdle; len(out) > most {
					t.Errorf("%d bytes are owed, want at most %d", len(out), most)
				}
				if code := fmt.Sprintf(": %d", EnhanceYourCalm); more && !strings.HasSuffix(frames(t, out)[len(frames(t, out))-1], code) {
					t.Errorf("the last frame is not GOAWAY%s", code)
				}
			}
		})
	}
}

// TestBudget fills as time passes, not above what it was, and not by time that passed before anything was spent.
func TestBudget(t *testing.T) {
	t.Parallel()
	var b budget
	now := int64(time.Hour)
	spend := func(n int) (ok int) {
		for range n {
			if b.spend(1, 10, 2, now) {
				ok++
			}
		}
		return ok
	}
	for i, step := range []struct {
		wait     time.Duration
		try, got int
	}{{time.Hour, 10, 10}, {time.Second, 2, 2}, {0, 1, 0}, {time.Second, 1, 1}, {time.Hour, 20, 10}} {
		now += int64(step.wait)
		if got := spend(step.try); got != step.got {
			t.Errorf("step %d: %d of %d, want %d", i, got, step.try, step.got)
		}
	}
}

// TestCanceller cancels half of its requests for ever, as a client of gRPC may, and is not taken for an attacker.
func TestCanceller(t *testing.T) {
	t.Parallel()
	c := NewServer(NewShared(), &Limits{})
	r := &record{conn: c}
	r.opened = func(s *Stream, _ []byte, _ bool) {
		if s.ID%4 == 1 {
			c.out, _ = c.AppendData(bytes.Clone(c.out), s, []byte("done"), true)
		}
		c.out = c.out[:0]
		r.events = r.events[:0]
	}
	p := newClientPeer()
	for i := range uint32(5 * mostResets) {
		p.request(1+2*i, "GET", true)
		if (1+2*i)%4 != 1 {
			p.WriteRSTStream(1+2*i, 8)
		}
		p.WriteWindowUpdate(0, 4)
	}
	if err := feed(c, r, p.Bytes(), 16<<10); err != nil {
		t.Fatal(err)
	}
}

// TestBomb refers to a large field of the table again and again: what is made of it stays bounded, and the table right.
func TestBomb(t *testing.T) {
	t.Parallel()
	c := NewServer(NewShared(), &Limits{})
	r := &record{conn: c}
	p := newClientPeer()
	p.request(1, "GET", true, "x", strings.Repeat("a", 3900))
	bomb := append([]byte{0x82, 0x84, 0x87}, bytes.Repeat([]byte{0x80 | 62}, 16000)...)
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 3, BlockFragment: bomb, EndStream: true, EndHeaders: true})
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 5, BlockFragment: p.fields(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a",
		"x", strings.Repeat("a", 3900)), EndStream: true, EndHeaders: true})
	if err := feed(c, r, p.Bytes(), 32<<10); err != nil {
		t.Fatal(err)
	}
	if len(r.events) != 3 || r.events[1] != "refused: "+errLongHead.Reason || !strings.Contains(r.events[2], "x: aaa") {
		t.Errorf("got %.100q", r.events)
	}
	if got := cap(c.shared.message.text); got > 4*defaultHead {
		t.Errorf("%d bytes are kept for a head", got)
	}
	if got := cap(c.decoder.text); got > 2*tableText {
		t.Errorf("%d bytes are kept for the table", got)
	}
}

// TestRefusedIsNotCopied: of a head that is refused fields are only looked up, so that a bomb costs no more than its bytes.
func TestRefusedIsNotCopied(t *testing.T) {
	t.Parallel()
	d := table{limit: tableSize}
	var m message
	m.begin(trailers, &http1.Limits{Head: 100, Fields: 100})
	field := newClientPeer().fields("x", strings.Repeat("a", 1000))
	if err := d.decode(newHuffman(), field, &m); err != nil || m.err != errLongHead {
		t.Fatalf("got %v, %v", err, m.err)
	}
	for i, want := range []bool{false, true, true} { // none, one that all know, and the one of before
		m.text = bytes.Repeat([]byte("z"), 4096)[:0]
		if i == 2 {
			i = staticLast + 1
		}
		if got := d.indexed(uint32(i), &m); got != want || len(bytes.Trim(m.text[:cap(m.text)], "z")) != 0 {
			t.Errorf("index %d: %v, want %v; copied %.50q", i, got, want, m.text[:cap(m.text)])
		}
	}
	m.text = bytes.Repeat([]byte("z"), 4096)[:0]
	if err := d.decode(newHuffman(), []byte{0x0f, staticLast + 1 - 15, 0}, &m); err != nil || bytes.HasPrefix(m.text[:cap(m.text)], []byte("x")) {
		t.Errorf("a field with the name of another: %v, copied %.50q", err, m.text[:cap(m.text)])
	}
	if d.indexed(staticLast+2, &m) {
		t.Error("a field that is not there is taken")
	}
}

// TestManyFields refuses more fields than the limit, and reads on.
func TestManyFields(t *testing.T) {
	t.Parallel()
	c := NewServer(NewShared(), &Limits{})
	r := &record{conn: c}
	p := newClientPeer()
	p.request(1, "GET", true, slices.Repeat([]string{"a", "b"}, defaultFields+1)...)
	p.request(3, "GET", true)
	if err := feed(c, r, p.Bytes(), 1<<10); err != nil || len(r.events) != 2 || r.events[0] != "refused: "+errLongHead.Reason {
		t.Errorf("got %v, %q", err, r.events)
	}
}

// TestDribble has a client that opens the window by one byte at a time, so that each byte costs us a frame
// (CVE-2019-9511).
func TestDribble(t *testing.T) {
	t.Parallel()
	c := NewServer(NewShared(), &Limits{})
	r := &record{conn: c}
	body := make([]byte, 1<<20)
	write := func(s *Stream) {
		var n int
		c.out, n = c.AppendData(nil, s, body, true)
		body = body[n:]
		c.out = c.out[:0]
	}
	r.opened = func(s *Stream, _ []byte, _ bool) { write(s) }
	r.write = write
	p := newClientPeer()
	p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1})
	p.request(1, "GET", true)
	for range mostIdle + 10 {
		p.WriteWindowUpdate(1, 1)
	}
	if err := feed(c, r, p.Bytes(), 16<<10); !errors.Is(err, errFlood) {
		t.Fatalf("got %v, want %v", err, errFlood)
	}
}
