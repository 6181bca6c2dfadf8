// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// TestServer shows what a server makes of what clients send, and what it sends, however the bytes are cut.
func TestServer(t *testing.T) {
	t.Parallel()
	answer := func(t testing.TB, c *Conn) func(*Stream, []byte, bool) {
		return func(s *Stream, _ []byte, _ bool) {
			x := http1.Exchange{Verb: http1.Get, Minor: 1}
			r := parseResponse(t, "HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close\r\nX-A: B\r\nContent-Length: 5\r\n\r\n", x)
			c.out = c.AppendResponse(nil, s, r, x, false)
			c.out, _ = c.AppendData(nil, s, []byte("hello"), true)
		}
	}
	for _, tt := range []struct {
		name   string
		in     func(p *peer)
		answer bool
		events []string
		out    []string
	}{
		{"get", func(p *peer) {
			p.request(1, "GET", true, "accept", "*/*", "cookie", "a=1", "x-b", "2", "cookie", "b=2")
		}, true,
			[]string{`1 opened "GET / HTTP/1.1\r\nhost: a\r\naccept: */*\r\nx-b: 2\r\ncookie: a=1; b=2\r\n\r\n" end=true`},
			[]string{"settings ack", "1 head :status: 200|server: x|x-a: B|content-length: 5| end=false", `1 data "hello" end=true`}},
		{"no field", func(p *peer) {
			p.head(1, true, ":method", "OPTIONS", ":scheme", "http", ":path", "*", ":authority", "a")
		}, false,
			[]string{`1 opened "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n" end=true`}, []string{"settings ack"}},
		{"post with trailers", func(p *peer) {
			p.request(1, "POST", false, "te", "trailers")
			p.WriteData(1, false, []byte("hel"))
			p.WriteDataPadded(1, false, []byte("lo"), make([]byte, 7))
			p.head(1, true, "x-sum", "5", "cookie", "no", "x_y", "no")
		}, false, []string{`1 opened "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n" end=false`,
			`1 body "hello" trailers "x-sum: 5\r\n"`}, []string{"settings ack"}},
		{"post with length", func(p *peer) {
			p.request(3, "POST", false, "content-length", "5")
			p.WriteData(3, true, []byte("hello"))
		}, false, []string{`3 opened "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n" end=false`, `3 body "hello" trailers ""`}, []string{"settings ack"}},
		{"early answer", func(p *peer) {
			p.request(1, "POST", false)
			p.WriteData(1, true, []byte("late"))
		}, true, []string{`1 opened "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" end=false`},
			[]string{"settings ack", "1 head :status: 200|server: x|x-a: B|content-length: 5| end=false", `1 data "hello" end=true`, "1 reset: 0"}},
		{"host only", func(p *peer) { p.head(1, true, ":method", "GET", ":scheme", "https", ":path", "/x", "host", "b") }, false,
			[]string{`1 opened "GET /x HTTP/1.1\r\nhost: b\r\n\r\n" end=true`}, []string{"settings ack"}},
		{"host twice the same", func(p *peer) { p.request(1, "GET", true, "host", "A") }, false,
			[]string{`1 opened "GET / HTTP/1.1\r\nhost: a\r\n\r\n" end=true`}, []string{"settings ack"}},
		{"peer resets", func(p *peer) { p.request(1, "GET", true); p.WriteRSTStream(1, 8) }, false,
			[]string{`1 opened "GET / HTTP/1.1\r\nhost: a\r\n\r\n" end=true`, "1 reset: 8"}, []string{"settings ack"}},
		{"client goes", func(p *peer) { p.WriteGoAway(0, 0, []byte("bye")) }, false, []string{"going away after 0: 0"}, []string{"settings ack"}},
		{"connect", func(p *peer) { p.head(1, true, ":method", "CONNECT", ":authority", "a:25") }, false, []string{"refused: CONNECT: 501"},
			[]string{"settings ack", `1 head :status: 501|content-type: text/plain|cache-control: no-store|content-length: 20| end=false`, `1 data "501 Not Implemented\n" end=true`}},
		{"long head", func(p *peer) { p.request(1, "GET", true, "a", strings.Repeat("x", 16<<10)) }, false, []string{"refused: " + errLongHead.Reason},
			[]string{"settings ack", `1 head :status: 431|content-type: text/plain|cache-control: no-store|content-length: 36| end=false`, `1 data "431 Request Header Fields Too Large\n" end=true`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newClientPeer()
			tt.in(p)
			for _, step := range []int{1 << 20, 1, 2, 7, 10} {
				c := NewServer(NewShared(), &Limits{})
				r := &record{conn: c}
				if tt.answer {
					r.opened = answer(t, c)
				}
				if err := feed(c, r, p.Bytes(), step); err != nil {
					t.Fatalf("%d at a time: %v", step, err)
				}
				if diff := cmp.Diff(tt.events, r.events); diff != "" {
					t.Errorf("%d at a time: events (-want +got):\n%s", step, diff)
				}
				got := frames(t, c.AppendOutput(nil))
				got = slices.DeleteFunc(got, func(s string) bool { return strings.Contains(s, "0 window") })
				if diff := cmp.Diff(tt.out, got); diff != "" {
					t.Errorf("%d at a time: frames (-want +got):\n%s", step, diff)
				}
			}
		})
	}
}

// TestSpare gives back more streams than are kept.
func TestSpare(t *testing.T) {
	t.Parallel()
	shared := NewShared()
	var all []*Stream
	for range 2 * maxSpare {
		all = append(all, shared.get())
	}
	for _, s := range all {
		shared.put(s)
	}
	n := 0
	for s := shared.unused; s != nil; s = s.next {
		n++
	}
	if n != maxSpare || shared.spare != n {
		t.Errorf("%d are kept, %d are counted, want %d", n, shared.spare, maxSpare)
	}
	for range 2 * maxSpare {
		shared.get()
	}
	if shared.unused != nil || shared.spare != 0 {
		t.Errorf("%d are left", shared.spare)
	}
}
