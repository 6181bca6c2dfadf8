// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestResponseRefused has one row for each way in which a response can be refused.
func TestResponseRefused(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	get := Exchange{Verb: Get, Minor: 1, KeepAlive: true}
	tests := []struct {
		name string // the rule, with the section that has it
		in   string
		want *Error
	}{
		{"Content-Length and Transfer-Encoding, RFC 9112 §6.1", ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTwoFramings},
		{"two Content-Lengths, RFC 9112 §6.3", ok + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", ErrTwoLengths},
		{"list of Content-Lengths, RFC 9112 §6.3", ok + "Content-Length: 5,5\r\n\r\n", ErrLength},
		{"signed Content-Length, RFC 9110 §8.6", ok + "Content-Length: +5\r\n\r\n", ErrLength},
		{"gzip, RFC 9112 §6.1", ok + "Transfer-Encoding: gzip\r\n\r\n", ErrCoding},
		{"identity, RFC 9112 §6.1", ok + "Transfer-Encoding: identity\r\n\r\n", ErrCoding},
		{"chunked twice, RFC 9112 §6.1", ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTwoCodings},
		{"Transfer-Encoding in HTTP/1.0, RFC 9112 §6.1", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ErrOldCoding},
		{"folded field, RFC 9112 §5.2", ok + "A: b\r\n c\r\n\r\n", ErrFold},
		{"space before colon, RFC 9112 §5.1", ok + "Content-Length : 5\r\n\r\n", ErrColonSpace},
		{"bare LF, RFC 9112 §2.2", "HTTP/1.1 200 OK\nA: b\r\n\r\n", ErrBareLF},
		{"bare CR, RFC 9112 §2.2", ok + "A: b\rc\r\n\r\n", ErrBareCR},
		{"NUL, RFC 9110 §5.5", ok + "A: b\x00c\r\n\r\n", ErrControl},
		{"Connection names Content-Length, RFC 9110 §7.6.1", ok + "Content-Length: 5\r\nConnection: Content-Length\r\n\r\n", ErrOption},
		{"empty line first, RFC 9112 §4", "\r\n" + ok + "\r\n", ErrStatusLine},
		{"no status, RFC 9112 §4", "HTTP/1.1 OK\r\n\r\n", ErrStatusLine},
		{"no digits, RFC 9112 §4", "HTTP/1.1 2x0 OK\r\n\r\n", ErrStatusLine},
		{"four digits, RFC 9112 §4", "HTTP/1.1 2000 OK\r\n\r\n", ErrStatusLine},
		{"below 100, RFC 9110 §15", "HTTP/1.1 099 OK\r\n\r\n", ErrStatusLine},
		{"another protocol, RFC 9112 §2.3", "SSH-2.0-server\r\n", ErrStatusLine},
		{"HTTP/2.0, RFC 9112 §2.3", "HTTP/2.0 200 OK\r\n\r\n", ErrVersion},
		{"101 unasked, RFC 9110 §7.8", "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", ErrSwitch},
		{"204 with content, RFC 9110 §8.6", "HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n", ErrEmpty},
		{"204 chunked, RFC 9112 §6.1", "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", ErrEmpty},
		{"100 with content, RFC 9110 §8.6", "HTTP/1.1 100 X\r\nContent-Length: 5\r\n\r\n", ErrEmpty},
		{"103 chunked, RFC 9112 §6.1", "HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n", ErrEmpty},
		{"too many fields", ok + strings.Repeat("A: b\r\n", 101) + "\r\n", ErrManyFields},
		{"reason too long", "HTTP/1.1 200 " + strings.Repeat("a", 16<<10) + "\r\n\r\n", ErrLongHead},
		{"head too long", ok + "A: " + strings.Repeat("a", 16<<10) + "\r\n\r\n", ErrLongHead},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var r Response
			n, err := r.Parse([]byte(tt.in), get, &Limits{})
			if e := (*Error)(nil); !errors.Is(err, tt.want) || !errors.As(err, &e) || e.Status != 502 {
				t.Fatalf("Parse = %d, %v; want %v with status 502", n, err, tt.want)
			}
			eachSplitResponse(t, tt.in, get, 0, tt.want)
		})
	}
}

// eachSplitResponse is eachSplitRequest for responses.
func eachSplitResponse(t *testing.T, in string, x Exchange, n int, want error) {
	t.Helper()
	step := 1 + len(in)/1000
	for i := 0; i < len(in); i += step {
		var r Response
		m, err := r.Parse([]byte(in[:i]), x, &Limits{})
		if m == 0 && err == nil {
			m, err = r.Parse([]byte(in), x, &Limits{})
		}
		if m != n || !errors.Is(err, want) {
			t.Fatalf("cut at %d: Parse = %d, %v; want %d, %v", i, m, err, n, want)
		}
	}
}

// TestResponse shows what is understood and what goes on.
func TestResponse(t *testing.T) {
	t.Parallel()
	get := Exchange{Verb: Get, Minor: 1, KeepAlive: true}
	head := Exchange{Verb: Head, Minor: 1, KeepAlive: true}
	old := Exchange{Verb: Get, KeepAlive: true}
	ws := Exchange{Verb: Get, Minor: 1, KeepAlive: true, Upgrade: true}
	tests := []struct {
		name, in   string
		x          Exchange
		end        bool
		want       string
		framing    Framing
		keep, stay bool // the backend's connection, the client's
	}{
		{"usual", "HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 5\r\nA: 1\r\n\r\n", get, false,
			"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 5\r\nA: 1\r\n\r\n", Length, true, true},
		{"hop by hop, RFC 9110 §7.6.1", "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-A\r\nKeep-Alive: 5\r\nX-A: 1\r\nB: 2\r\n" +
			"Proxy-Authenticate: x\r\nProxy-Authentication-Info: x\r\nProxy-Connection: x\r\nContent-Length: 00\r\n\r\n", get, false,
			"HTTP/1.1 200 OK\r\nB: 2\r\nContent-Length: 0\r\n\r\n", Length, true, true},
		{"Upgrade offered, RFC 9110 §7.8", "HTTP/1.1 200 OK\r\nUpgrade: h2,h2c\r\nConnection: Upgrade\r\nKeep-Alive: timeout=5\r\nContent-Length:5\r\nB: 2\r\n\r\n", get, false,
			"HTTP/1.1 200 OK\r\nB: 2\r\nContent-Length: 5\r\n\r\n", Length, true, true},
		{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n", get, true,
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n", Chunked, true, true},
		{"chunked for HTTP/1.0, RFC 9112 §6.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nA: 1\r\n\r\n", old, false,
			"HTTP/1.1 200 OK\r\nA: 1\r\nConnection: close\r\n\r\n", Chunked, true, false},
		{"length for HTTP/1.0, RFC 9112 §9.3", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", old, false,
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", Length, true, true},
		{"until close, RFC 9112 §6.3", "HTTP/1.1 200 OK\r\nA: 1\r\n\r\n", get, false,
			"HTTP/1.1 200 OK\r\nA: 1\r\nConnection: close\r\n\r\n", UntilClose, false, false},
		{"backend closes", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n", get, false,
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length, false, true},
		{"client closes", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Exchange{Verb: Get, Minor: 1}, false,
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", Length, true, false},
		{"backend of HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", get, false,
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length, false, true},
		{"backend of HTTP/1.0 that stays", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n", get, false,
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Length, true, true},
		{"no reason, RFC 9112 §4", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", get, false,
			"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Length, true, true},
		{"no space before no reason", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", get, false,
			"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Length, true, true},
		{"underscore", "HTTP/1.1 200 OK\r\nX_A: 1\r\nContent-Length: 0\r\n\r\n", get, false,
			"HTTP/1.1 200 OK\r\nX_A: 1\r\nContent-Length: 0\r\n\r\n", Length, true, true},
		{"HEAD, RFC 9110 §9.3.2", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", head, false,
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", NoBody, true, true},
		{"HEAD chunked, RFC 9112 §6.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", head, false,
			"HTTP/1.1 200 OK\r\n\r\n", NoBody, true, true},
		{"HEAD without framing", "HTTP/1.1 200 OK\r\n\r\n", head, false, "HTTP/1.1 200 OK\r\n\r\n", NoBody, true, true},
		{"204, RFC 9110 §8.6", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", get, false,
			"HTTP/1.1 204 No Content\r\n\r\n", NoBody, true, true},
		{"304, RFC 9110 §15.4.5", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", get, false,
			"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", NoBody, true, true},
		{"304 chunked, RFC 9112 §6.1", "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", get, false,
			"HTTP/1.1 304 Not Modified\r\n\r\n", NoBody, true, true},
		{"100, RFC 9110 §15.2.1", "HTTP/1.1 100 Continue\r\nConnection: keep-alive\r\n\r\n", get, false,
			"HTTP/1.1 100 Continue\r\n\r\n", NoBody, true, true},
		{"103, RFC 8297", "HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 0\r\n\r\n", get, true,
			"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", NoBody, true, true},
		{"103 for HTTP/1.0, RFC 9110 §15.2", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", old, false, "", NoBody, true, true},
		{"101, RFC 6455 §4.2.2", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n", ws, false,
			"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", NoBody, false, false},
		{"WebSocket refused", "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", ws, false,
			"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", Length, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var r Response
			n, err := r.Parse([]byte(tt.in+"next"), tt.x, &Limits{})
			if err != nil || n != len(tt.in) {
				t.Fatalf("Parse = %d, %v; want %d", n, err, len(tt.in))
			}
			if r.Framing != tt.framing || r.KeepAlive != tt.keep || r.Persists(tt.x) != tt.stay {
				t.Errorf("framing %d, keep-alive %t, persists %t; want %d, %t, %t",
					r.Framing, r.KeepAlive, r.Persists(tt.x), tt.framing, tt.keep, tt.stay)
			}
			if diff := cmp.Diff(tt.want, string(AppendResponse(nil, &r, tt.x, tt.end))); diff != "" {
				t.Errorf("AppendResponse (-want +got):\n%s", diff)
			}
			eachSplitResponse(t, tt.in, tt.x, len(tt.in), nil)
		})
	}
}

// TestSwitchToWhat refuses a 101 to something else than was asked for. RFC 9110 §7.8.
func TestSwitchToWhat(t *testing.T) {
	t.Parallel()
	ws := Exchange{Verb: Get, Minor: 1, Upgrade: true}
	for _, fields := range []string{"", "Upgrade: h2c\r\n", "Upgrade: websocket\r\nUpgrade: websocket\r\n", "Upgrade: websocket, h2c\r\n"} {
		var r Response
		if _, err := r.Parse([]byte("HTTP/1.1 101 X\r\nConnection: upgrade\r\n"+fields+"\r\n"), ws, &Limits{}); !errors.Is(err, ErrSwitch) {
			t.Errorf("%q: Parse = %v, want %v", fields, err, ErrSwitch)
		}
	}
}

// TestAppendError has each answer read by net/http.
func TestAppendError(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 403, 404, 408, 413, 414, 417, 421, 429, 431, 500, 501, 502, 503, 504, 505, 599} {
		for _, x := range []Exchange{{}, {Verb: Get, Minor: 1, KeepAlive: true}, {Verb: Head, Minor: 1}, {Verb: Post, KeepAlive: true}} {
			answer := AppendError(nil, status, x)
			method := http.MethodGet
			if x.Verb == Head {
				method = http.MethodHead
			}
			r := bufio.NewReader(bytes.NewReader(answer))
			res, err := http.ReadResponse(r, &http.Request{Method: method})
			if err != nil {
				t.Fatalf("%d: %v", status, err)
			}
			body, err := io.ReadAll(res.Body)
			want := strconv.Itoa(status) + " " + StatusText(status) + "\n"
			if x.Verb == Head {
				want = ""
			}
			if err != nil || string(body) != want || r.Buffered() != 0 || res.StatusCode != status || res.Close == x.KeepAlive {
				t.Errorf("%+v: body %q (%v), %d bytes left, close %t:\n%s", x, body, err, r.Buffered(), res.Close, answer)
			}
		}
	}
}
