// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// What a load generator and a browser send again and again on a connection, but for the path, which they do not index,
// and an answer of nginx.
const serverResponse = "HTTP/1.1 200 OK\r\n" +
	"Server: nginx/1.26.3\r\n" +
	"Date: Sat, 22 Aug 2026 12:00:00 GMT\r\n" +
	"Content-Type: application/octet-stream\r\n" +
	"Content-Length: 1024\r\n" +
	"Last-Modified: Sat, 22 Aug 2026 11:00:00 GMT\r\n" +
	"Connection: keep-alive\r\n" +
	"ETag: \"68a84d30-400\"\r\n" +
	"Accept-Ranges: bytes\r\n" +
	"\r\n"

func requestsOf(client string) []hpack.HeaderField {
	f := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "shop.example.jp"}, {Name: ":path", Value: "/assets/app.js?v=20260822", Sensitive: true}}
	if client == "curl" {
		return append(f, hpack.HeaderField{Name: "user-agent", Value: "curl/8.14.1"}, hpack.HeaderField{Name: "accept", Value: "*/*"})
	}
	for _, nv := range [][2]string{
		{"sec-ch-ua", "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\""}, {"sec-ch-ua-mobile", "?0"},
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"},
		{"accept", "*/*"}, {"sec-fetch-site", "same-origin"}, {"sec-fetch-mode", "no-cors"}, {"sec-fetch-dest", "script"},
		{"referer", "https://shop.example.jp/items/42"}, {"accept-encoding", "gzip, deflate, br, zstd"},
		{"accept-language", "ja,en-US;q=0.9,en;q=0.8"}, {"cookie", "session=0123456789abcdef0123456789abcdef"}, {"cookie", "theme=dark"},
	} {
		f = append(f, hpack.HeaderField{Name: nv[0], Value: nv[1]})
	}
	return f
}

// work is a connection in its steady state: 100 streams are open, and one more comes, is answered and goes.
type work struct {
	conn    *Conn
	frame   []byte // the request that comes again
	id      uint32
	stream  *Stream // that was opened last
	reply   bool
	request http1.Request
	answer  *http1.Response
	x       http1.Exchange
	out     []byte
	body    []byte
}

func (w *work) Opened(s *Stream, head []byte, _ bool) {
	w.stream = s
	if w.reply {
		w.parse(head)
		w.respond()
	}
}
func (w *work) Refused(e *Error)               {}
func (w *work) GoingAway(uint32, Code)         {}
func (w *work) Answered(*Stream, []byte, bool) {}
func (w *work) Data(*Stream, []byte)           {}
func (w *work) Ended(*Stream, []byte)          {}
func (w *work) Reset(*Stream, Code)            {}
func (w *work) Writable(*Stream)               {}

func newWork(tb testing.TB, client string) *work {
	w := &work{conn: NewServer(NewShared(), &Limits{Streams: 101}), x: http1.Exchange{Verb: http1.Get, Minor: 1, KeepAlive: true},
		out: make([]byte, 0, 4096), body: make([]byte, 1024)}
	w.answer = parseResponse(tb, serverResponse, w.x)
	p := newClientPeer()
	for range 101 {
		p.block.Reset()
		for _, f := range requestsOf(client) {
			p.encoder.WriteField(f)
		}
		block := p.block.String()
		w.frame = append(appendHeader(nil, len(block), frameHeaders, flagEnd|flagEndHeaders, 0), block...)
		if w.id == 0 {
			w.mustRead(tb, p.Bytes())
		}
		w.next()
	}
	w.conn.ResetStream(w.stream, NoError)
	return w
}

func (w *work) mustRead(tb testing.TB, p []byte) {
	if n, err := w.conn.Read(p, w, 0); n != len(p) || err != nil {
		tb.Fatalf("Read of %d bytes: %d, %v", len(p), n, err)
	}
}

// next shows the connection one more request.
func (w *work) next() {
	w.id += 2
	binary.BigEndian.PutUint32(w.frame[5:], w.id-1)
	if n, err := w.conn.Read(w.frame, w, 0); n != len(w.frame) || err != nil {
		panic(err)
	}
}

// come has one more request come, and go unanswered.
func (w *work) come() {
	w.next()
	w.conn.ResetStream(w.stream, NoError)
	w.conn.out = w.conn.out[:0]
}

func (w *work) parse(head []byte) {
	if n, err := w.request.Parse(head, &http1.Limits{}); n != len(head) || err != nil {
		panic(err)
	}
}

func (w *work) respond() {
	w.out = w.conn.AppendResponse(w.out[:0], w.stream, w.answer, w.x, false)
	w.conn.window, w.stream.window = 1<<20, 1<<20
	w.out, _ = w.conn.AppendData(w.out, w.stream, w.body, true)
}

// exchange has one more request come and answers it.
func (w *work) exchange() { w.reply = true; w.next(); w.reply = false }

func TestNoAllocation(t *testing.T) {
	for _, client := range []string{"curl", "browser"} {
		w := newWork(t, client)
		for step, f := range map[string]func(){"come": w.come, "exchange": w.exchange} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%s, %s: %v allocations", client, step, n)
			}
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	for _, client := range []string{"curl", "browser"} {
		b.Run(client, func(b *testing.B) {
			w := newWork(b, client)
			b.ReportAllocs()
			for b.Loop() {
				w.come()
			}
		})
	}
}

func BenchmarkResponse(b *testing.B) {
	w := newWork(b, "curl")
	w.next()
	b.ReportAllocs()
	for b.Loop() {
		w.out = w.conn.AppendResponse(w.out[:0], w.stream, w.answer, w.x, false)
	}
}

// BenchmarkExchange is all that is done for a request but http1's part of the response, and the bytes of its body.
func BenchmarkExchange(b *testing.B) {
	for _, client := range []string{"curl", "browser"} {
		b.Run(client, func(b *testing.B) {
			w := newWork(b, client)
			b.ReportAllocs()
			for b.Loop() {
				w.exchange()
			}
		})
	}
}
