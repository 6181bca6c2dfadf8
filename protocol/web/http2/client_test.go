// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	xhttp2 "golang.org/x/net/http2"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// send opens a stream and sends a request that is given as text.
func send(t testing.TB, c *Conn, o Owner, text string, end bool) *Stream {
	t.Helper()
	s, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	s.Owner = o
	c.out = c.AppendRequest(nil, s, parseRequest(t, text), http1.Forward{}, "http", end)
	return s
}

// newServerPeer has sent its SETTINGS.
func newServerPeer(settings ...xhttp2.Setting) *peer {
	p := newPeer()
	p.WriteSettings(settings...)
	return p
}

// TestAppendRequest shows how requests go on to a backend.
func TestAppendRequest(t *testing.T) {
	t.Parallel()
	const told = "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\nForwarded: for=\"[2001:db8::1]\";proto=https"
	for _, tt := range []struct {
		name, in string
		f        http1.Forward
		end      bool
		want     string
	}{
		{"get", "GET /a?b HTTP/1.1\r\nHost: A:80\r\nAccept: */*\r\nX-Real-IP: ::1\r\n\r\n", http1.Forward{}, true,
			":method: GET|:scheme: http|:authority: a:80|:path: /a?b|accept: */*| end=true"},
		{"of the connection", "POST / HTTP/1.1\r\nHost: a\r\nConnection: X-A, keep-alive\r\nX-A: 1\r\nTE: trailers, gzip\r\nTransfer-Encoding: chunked\r\n" +
			"Trailer: X-Sum\r\nExpect: 100-continue\r\nKeep-Alive: 5\r\n\r\n", http1.Forward{}, false,
			":method: POST|:scheme: http|:authority: a|:path: /|trailer: X-Sum|te: trailers|expect: 100-continue| end=false"},
		{"length", "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n", http1.Forward{}, false,
			":method: PUT|:scheme: http|:authority: a|:path: /x|content-length: 7| end=false"},
		{"absolute", "GET http://a?b HTTP/1.1\r\nHost: a\r\n\r\n", http1.Forward{}, true, ":method: GET|:scheme: http|:authority: a|:path: /?b| end=true"},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", http1.Forward{}, true, ":method: OPTIONS|:scheme: http|:authority: a|:path: *| end=true"},
		{"old", "GET / HTTP/1.0\r\n\r\n", http1.Forward{Host: []byte("[::1]:80")}, true, ":method: GET|:scheme: http|:authority: [::1]:80|:path: /| end=true"},
		{"nobody", "GET / HTTP/1.0\r\n\r\n", http1.Forward{Origin: []byte(told)}, true, ":method: GET|:scheme: http|:path: /|x-forwarded-for: 2001:db8::1|" +
			"x-forwarded-proto: https|forwarded: for=\"[2001:db8::1]\";proto=https| end=true"},
		{"told", "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=x\r\n\r\n", http1.Forward{Origin: []byte(told)}, true,
			":method: GET|:scheme: http|:authority: a|:path: /|x-forwarded-for: 2001:db8::1|x-forwarded-proto: https|" +
				"forwarded: for=\"[2001:db8::1]\";proto=https;host=\"a\"|x-forwarded-host: a| end=true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := NewClient(NewShared(), &Limits{})
			if !strings.HasPrefix(string(c.out), Preface) {
				t.Fatalf("the first bytes are %q", c.out)
			}
			s, _ := c.Open()
			c.out = c.AppendRequest(nil, s, parseRequest(t, tt.in), tt.f, "http", tt.end)
			got := frames(t, c.out)
			if want := []string{"0 window +983041", "1 head " + tt.want}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// TestClient shows what a client makes of what servers send, however the bytes are cut.
func TestClient(t *testing.T) {
	t.Parallel()
	const get, head, post = "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"
	reset := func(code Code) []string {
		return []string{"1 reset: " + map[Code]string{ProtocolError: "1", StreamClosed: "5", FlowControlError: "3"}[code]}
	}
	for _, tt := range []struct {
		name, request string
		in            func(p *peer)
		events        []string
		left          int // streams
		conn          *Error
	}{
		{"response", get, func(p *peer) {
			p.head(1, false, ":status", "200", "server", "x", "set-cookie", "a", "set-cookie", "b")
			p.WriteData(1, false, []byte("hel"))
			p.WriteData(1, true, []byte("lo"))
		}, []string{`1 answered "HTTP/1.1 200 \r\nserver: x\r\nset-cookie: a\r\nset-cookie: b\r\ntransfer-encoding: chunked\r\n\r\n" end=false`, `1 body "hello" trailers ""`}, 0, nil},
		{"length and trailers", get, func(p *peer) {
			p.head(1, false, ":status", "200", "content-length", "5")
			p.WriteData(1, false, []byte("hello"))
			p.head(1, true, "grpc-status", "0")
		}, []string{`1 answered "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n" end=false`, `1 body "hello" trailers "grpc-status: 0\r\n"`}, 0, nil},
		{"no body", get, func(p *peer) { p.head(1, true, ":status", "404") }, []string{`1 answered "HTTP/1.1 404 \r\ncontent-length: 0\r\n\r\n" end=true`}, 0, nil},
		{"HEAD", head, func(p *peer) { p.head(1, true, ":status", "200", "content-length", "5") },
			[]string{`1 answered "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n" end=true`}, 0, nil},
		{"HEAD with the end apart", head, func(p *peer) { p.head(1, false, ":status", "200", "content-length", "5"); p.WriteData(1, true, nil) },
			[]string{`1 answered "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n" end=false`, `1 body "" trailers ""`}, 0, nil},
		{"HEAD with a body", head, func(p *peer) { p.head(1, false, ":status", "200"); p.WriteData(1, true, []byte("x")) },
			append([]string{`1 answered "HTTP/1.1 200 \r\n\r\n" end=false`}, reset(ProtocolError)...), 0, nil},
		{"204", get, func(p *peer) { p.head(1, true, ":status", "204") }, []string{`1 answered "HTTP/1.1 204 \r\n\r\n" end=true`}, 0, nil},
		{"304", get, func(p *peer) { p.head(1, true, ":status", "304", "content-length", "5") }, []string{`1 answered "HTTP/1.1 304 \r\ncontent-length: 5\r\n\r\n" end=true`}, 0, nil},
		{"interim", get, func(p *peer) { p.head(1, false, ":status", "103", "link", "x"); p.head(1, true, ":status", "200") },
			[]string{`1 answered "HTTP/1.1 103 \r\nlink: x\r\n\r\n" end=false`, `1 answered "HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n" end=true`}, 0, nil},
		{"answered before it was sent", post, func(p *peer) { p.head(1, true, ":status", "413"); p.WriteRSTStream(1, 0) },
			[]string{`1 answered "HTTP/1.1 413 \r\ncontent-length: 0\r\n\r\n" end=true`, "1 reset: 0"}, 0, nil},
		{"answered, and on we send", post, func(p *peer) { p.head(1, true, ":status", "200") }, []string{`1 answered "HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n" end=true`}, 1, nil},
		{"goes away, RFC 9113 §6.8", get, func(p *peer) { p.WriteGoAway(0, 0, nil) }, []string{"1 reset: 7", "going away after 0: 0"}, 0, nil},
		{"goes away later", get, func(p *peer) { p.WriteGoAway(1, 0, nil) }, []string{"going away after 1: 0"}, 1, nil},
		{"refused", get, func(p *peer) { p.WriteRSTStream(1, 7) }, []string{"1 reset: 7"}, 0, nil},
		{"interim that ends, RFC 9113 §8.1", get, func(p *peer) { p.head(1, true, ":status", "100") }, reset(ProtocolError), 0, nil},
		{"101, RFC 9113 §8.6", get, func(p *peer) { p.head(1, false, ":status", "101") }, reset(ProtocolError), 0, nil},
		{"no status, RFC 9113 §8.3.2", get, func(p *peer) { p.head(1, false, "server", "x") }, reset(ProtocolError), 0, nil},
		{"bad status, RFC 9113 §8.3.2", get, func(p *peer) { p.head(1, false, ":status", "2000") }, reset(ProtocolError), 0, nil},
		{"status below 100, RFC 9110 §15", get, func(p *peer) { p.head(1, false, ":status", "099") }, reset(ProtocolError), 0, nil},
		{"CR LF in a status", get, func(p *peer) { p.head(1, false, ":status", "200\r\n") }, reset(ProtocolError), 0, nil},
		{":path in a response, RFC 9113 §8.3", get, func(p *peer) { p.head(1, false, ":status", "200", ":path", "/") }, reset(ProtocolError), 0, nil},
		{"Transfer-Encoding, RFC 9113 §8.2.2", get, func(p *peer) { p.head(1, false, ":status", "200", "transfer-encoding", "chunked") }, reset(ProtocolError), 0, nil},
		{"LF in a value, RFC 9113 §8.2.1", get, func(p *peer) { p.head(1, false, ":status", "200", "x", "a\nb: c") }, reset(ProtocolError), 0, nil},
		{"length of nothing, RFC 9113 §8.1.1", get, func(p *peer) { p.head(1, true, ":status", "200", "content-length", "5") }, reset(ProtocolError), 0, nil},
		{"longer than its length, RFC 9113 §8.1.1", get, func(p *peer) {
			p.head(1, false, ":status", "200", "content-length", "5")
			p.WriteData(1, false, []byte("longer"))
		}, append([]string{`1 answered "HTTP/1.1 200 \r\ncontent-length: 5\r\n\r\n" end=false`}, reset(ProtocolError)...), 0, nil},
		{"body first, RFC 9113 §8.1", get, func(p *peer) { p.WriteData(1, true, []byte("x")) }, reset(ProtocolError), 0, nil},
		{"after the end, RFC 9113 §5.1", post, func(p *peer) { p.head(1, true, ":status", "200"); p.WriteData(1, true, nil) },
			append([]string{`1 answered "HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n" end=true`}, reset(StreamClosed)...), 0, nil},
		{"idle stream, RFC 9113 §5.1", get, func(p *peer) { p.head(3, true, ":status", "200") }, nil, 1, errStreamID},
		{"its own stream, RFC 9113 §5.1.1", get, func(p *peer) { p.head(2, true, ":status", "200") }, nil, 1, errStreamID},
		{"push, RFC 9113 §8.4", get, func(p *peer) {
			p.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, nil, 1, errPush},
		{"push asked for, RFC 9113 §6.5.2", get, func(p *peer) { p.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingEnablePush, Val: 1}) }, nil, 1, errSetting},
		{"HTTP/1.1, RFC 9113 §3.4", get, func(p *peer) { p.Reset(); p.WriteString("HTTP/1.1 400 Bad Request\r\n\r\n") }, nil, 1, errFrameSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newServerPeer()
			tt.in(p)
			for _, step := range []int{1 << 20, 1, 5} {
				c := NewClient(NewShared(), &Limits{})
				r := &record{conn: c}
				send(t, c, r, tt.request, tt.request != post)
				err := feed(c, r, p.Bytes(), step)
				if e, _ := errors.AsType[*Error](err); e != tt.conn {
					t.Fatalf("%d at a time: %v, want %v", step, err, tt.conn)
				}
				if diff := cmp.Diff(tt.events, r.events); diff != "" {
					t.Errorf("%d at a time: events (-want +got):\n%s", step, diff)
				}
				if c.Streams() != tt.left {
					t.Errorf("%d at a time: %d streams are left, want %d", step, c.Streams(), tt.left)
				}
				frames(t, c.AppendOutput(nil))
			}
		})
	}
}

// TestOpen obeys the server's limit, and what it says about going away.
func TestOpen(t *testing.T) {
	t.Parallel()
	c := NewClient(NewShared(), &Limits{})
	r := &record{conn: c}
	p := newServerPeer(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 2})
	if err := feed(c, r, p.Bytes(), 100); err != nil {
		t.Fatal(err)
	}
	first := send(t, c, r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true)
	unsent, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	unsent.Owner = r
	if _, err := c.Open(); !errors.Is(err, ErrFull) {
		t.Errorf("third stream: %v, want %v", err, ErrFull)
	}
	c.ResetStream(first, Cancel)
	c.ResetStream(first, Cancel) // has no effect
	if c.Streams() != 1 {
		t.Errorf("%d streams", c.Streams())
	}
	send(t, c, r, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true)
	p = newPeer()
	p.WriteGoAway(1, 0, nil)
	if err := feed(c, r, p.Bytes(), 100); err != nil {
		t.Fatal(err)
	}
	want := []string{"0 reset: 7", "3 reset: 7", "going away after 1: 0"}
	if diff := cmp.Diff(want, r.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if _, err := c.Open(); !errors.Is(err, ErrGoingAway) || !c.Done() {
		t.Errorf("after GOAWAY: %v, done %t", err, c.Done())
	}
}

// TestGoAway ends a server's connection without losing a request that was on its way. RFC 9113 §6.8.
func TestGoAway(t *testing.T) {
	t.Parallel()
	c := NewServer(NewShared(), &Limits{})
	r := &record{conn: c}
	p := newClientPeer()
	p.request(1, "GET", true)
	if err := feed(c, r, p.Bytes(), 100); err != nil {
		t.Fatal(err)
	}
	c.AppendOutput(nil)
	c.GoAway(NoError)
	c.GoAway(NoError)
	if got, want := frames(t, c.AppendOutput(nil)), []string{"goaway after 2147483647: 0", `ping "farewell" ack=false`}; !slices.Equal(got, want) {
		t.Fatalf("frames: %q, want %q", got, want)
	}
	p.Reset()
	p.request(3, "GET", true) // was on its way
	p.WritePing(true, [8]byte([]byte(farewell)))
	p.request(5, "POST", false) // is too late
	p.WriteData(5, true, []byte("late"))
	if err := feed(c, r, p.Bytes(), 100); err != nil || len(r.events) != 2 || c.Streams() != 2 || c.Done() {
		t.Fatalf("got %v, %q, %d streams", err, r.events, c.Streams())
	}
	if got, want := frames(t, c.AppendOutput(nil)), []string{"goaway after 3: 0"}; !slices.Equal(got, want) {
		t.Fatalf("frames: %q, want %q", got, want)
	}
	c.Each(func(s *Stream) { c.AppendError(nil, s, 503, http1.Exchange{}) })
	if !c.Done() {
		t.Error("not done")
	}
}
