// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/smuggletest"
)

// FuzzRequest sends on whatever is accepted and has it read three times, as backends would: net/http must find in what
// goes on the request that we understood and nothing after it; where it accepts what came, too, it must find the same
// in both; and a reader that forgives everything must find no other framing, host or client.
func FuzzRequest(f *testing.F) {
	for _, c := range smuggletest.Cases() {
		f.Add([]byte(c.In), uint(len(c.In)/2))
	}
	for _, seed := range []string{smallRequest, browserRequest,
		"POST /a?b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\nTE: trailers\r\n\r\n5;x\r\nhello\r\n0\r\nX-A: b\r\n\r\nGET",
		"POST / HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello, next",
		"GET http://A:80?x HTTP/1.0\r\nConnection: keep-alive, x\r\nX: 1\r\nForwarded: for=x\r\nX-Forwarded-Host: x\r\n\r\n",
		"\r\nGET /ws HTTP/1.1\r\nhost:[::1]\r\nUpgrade: websocket\r\nConnection: upgrade\r\nA:\tb \r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade, http2-settings\r\nHTTP2-Settings: x\r\n\r\n"} {
		f.Add([]byte(seed), uint(len(seed)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		var r Request
		n, err := r.Parse(in, &Limits{})
		var s Request
		m, serr := s.Parse(bytes.Clone(in[:int(cut%uint(len(in)+1))]), &Limits{})
		if m == 0 && serr == nil {
			m, serr = s.Parse(in, &Limits{})
		}
		if n != m || !errors.Is(serr, err) {
			t.Fatalf("whole: %d, %v; cut at %d: %d, %v", n, err, cut, m, serr)
		}
		if n == 0 {
			return
		}
		b := r.Body()
		body, taken, err := send(&b, string(in[n:]))
		if err != nil || !b.Done() {
			return // no whole message
		}
		head := string(AppendRequest(nil, &r, told()))
		checkRequest(t, &r, head, body)
		checkSame(t, string(in), n+taken, head+body)
		checkLax(t, &r, head)
	})
}

// checkRequest has net/http read the head and body that go on for r.
func checkRequest(t *testing.T, r *Request, head, body string) {
	t.Helper()
	const next = "GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
	br := bufio.NewReader(strings.NewReader(head + body + next))
	got, err := http.ReadRequest(br)
	if err != nil {
		t.Fatalf("ReadRequest: %v\n%s", err, head)
	}
	target := string(r.Target)
	if strings.HasPrefix(target, "?") {
		target = "/" + target
	}
	chunked := len(got.TransferEncoding) == 1 && got.TransferEncoding[0] == "chunked"
	if got.Method != string(r.Method) || got.RequestURI != target || got.Host != string(r.Authority()) ||
		chunked != (r.Framing == Chunked) || r.Framing == Length && got.ContentLength != r.Length || got.ProtoMinor != 1 {
		t.Fatalf("got %s %s on %s, length %d, chunked %t; want %s %s on %s, framing %d of %d\n%s", got.Method, got.RequestURI, got.Host,
			got.ContentLength, chunked, r.Method, target, r.Authority(), r.Framing, r.Length, head)
	}
	if _, err := io.Copy(io.Discard, got.Body); err != nil {
		t.Fatalf("body: %v\n%s%s", err, head, body)
	}
	if rest, _ := io.ReadAll(br); string(rest) != next {
		t.Fatalf("after the request comes %q, want %q\n%s%s", rest, next, head, body)
	}
	checkHandover(t, r, got.Header)
}

// checkHandover sees that only we say who the client is, and that nothing goes on that is for us alone.
func checkHandover(t *testing.T, r *Request, h http.Header) {
	t.Helper()
	for name, values := range h {
		switch kindOf([]byte(name)) {
		case kindClient:
			want := 1
			if len(r.Authority()) == 0 && name == "X-Forwarded-Host" {
				want = 0
			}
			if len(values) != want || !slices.Contains([]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Host"}, name) {
				t.Errorf("%s: %q goes on", name, values)
			}
		case kindHop:
			t.Errorf("%s: %q goes on", name, values)
		case kindUpgrade:
			if !r.Upgrade || values[0] != "websocket" {
				t.Errorf("%s: %q goes on", name, values)
			}
		}
	}
	if got := h["X-Forwarded-For"]; len(got) != 1 || got[0] != "2001:db8::1" {
		t.Errorf("X-Forwarded-For: %q", got)
	}
}

// FuzzResponse sends on whatever is accepted and has net/http read it, as a client would.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{serverResponse,
		"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\nConnection: b\r\nB: c\r\n\r\nA\r\n0123456789\r\n0\r\nA: b\r\n\r\n",
		"HTTP/1.0 404 Not Found\r\nA:\tb \r\n\r\nhello", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"} {
		f.Add([]byte(seed), false, uint8(1), true, true, uint(len(seed)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, head bool, minor uint8, keepAlive, upgrade bool, cut uint) {
		x := Exchange{Verb: Get, Minor: minor & 1, KeepAlive: keepAlive, Upgrade: upgrade && !head && minor&1 == 1}
		if head {
			x.Verb = Head
		}
		var r, s Response
		n, err := r.Parse(in, x, &Limits{})
		m, serr := s.Parse(bytes.Clone(in[:int(cut%uint(len(in)+1))]), x, &Limits{})
		if m == 0 && serr == nil {
			m, serr = s.Parse(in, x, &Limits{})
		}
		if n != m || !errors.Is(serr, err) {
			t.Fatalf("whole: %d, %v; cut at %d: %d, %v", n, err, cut, m, serr)
		}
		if n == 0 {
			return
		}
		b := r.Body(x)
		body, _, err := send(&b, string(in[n:]))
		if err != nil || !b.Done() && r.Framing != UntilClose {
			return // no whole message
		}
		checkResponse(t, &r, x, string(AppendResponse(nil, &r, x, false)), body)
	})
}

// checkResponse has net/http read the head and body that go on for r.
func checkResponse(t *testing.T, r *Response, x Exchange, head, body string) {
	t.Helper()
	if head == "" {
		if !r.Interim() || x.Minor != 0 {
			t.Fatal("nothing goes on")
		}
		return
	}
	next := "HTTP/1.1 599 next\r\n\r\n"
	if !r.Persists(x) {
		next = ""
	}
	method := http.MethodGet
	if x.Verb == Head {
		method = http.MethodHead
	}
	br := bufio.NewReader(strings.NewReader(head + body + next))
	got, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("ReadResponse: %v\n%s", err, head)
	}
	if got.StatusCode != r.Status || got.ProtoMinor != 1 || r.Framing == Length && got.ContentLength != r.Length ||
		(len(got.TransferEncoding) > 0) != (r.Framing == Chunked && x.Minor == 1) {
		t.Fatalf("got %s, length %d, coding %q; want %d, framing %d of %d\n%s", got.Status, got.ContentLength,
			got.TransferEncoding, r.Status, r.Framing, r.Length, head)
	}
	if !r.Interim() && r.Status != 101 && got.Close == r.Persists(x) {
		t.Fatalf("close %t, persists %t\n%s", got.Close, r.Persists(x), head)
	}
	if _, err := io.Copy(io.Discard, got.Body); err != nil {
		t.Fatalf("body: %v\n%s%s", err, head, body)
	}
	if rest, _ := io.ReadAll(br); r.Status != 101 && string(rest) != next {
		t.Fatalf("after the response comes %q, want %q\n%s%s", rest, next, head, body)
	}
	for name, values := range got.Header {
		if k := kindOf([]byte(name)); k == kindHop && name != "Proxy" || k == kindUpgrade && r.Status != 101 {
			t.Errorf("%s: %q goes on", name, values)
		}
	}
}

// FuzzBody sends a chunked body on in two pieces. The chunked reader of net/http must find the same data in what
// came and in what went on; and a body that goes through again must come out unchanged.
func FuzzBody(f *testing.F) {
	for _, c := range smuggletest.Cases() {
		if _, body, ok := strings.Cut(c.In, "Transfer-Encoding: chunked\r\n\r\n"); ok {
			f.Add([]byte(body), uint(len(body)/2))
		}
	}
	for _, seed := range []string{chunkedBody, "5;a=b\r\nhello\r\n0A\r\n0123456789\r\n00\r\nX-A: b\r\nCookie: c\r\n\r\nnext", "0\r\n\r\n"} {
		f.Add([]byte(seed), uint(3))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint) {
		whole := newBody(Chunked, -1)
		out, taken, err := send(&whole, string(in))
		pieces := newBody(Chunked, -1)
		out2, taken2, err2 := send(&pieces, string(in), int(cut%uint(len(in)+1)))
		if !errors.Is(err2, err) || err == nil && (out2 != out && whole.Done() || taken2 != taken) {
			t.Fatalf("whole: %q, %d bytes, %v; cut: %q, %d bytes, %v", out, taken, err, out2, taken2, err2)
		}
		if err != nil || !whole.Done() {
			return
		}
		plain := newBody(Chunked, -1)
		plain.unframed = true
		data, _, err := send(&plain, string(in))
		if err != nil {
			t.Fatalf("unframed: %v", err)
		}
		for _, s := range []string{string(in[:taken]), out} {
			got, err := io.ReadAll(httputil.NewChunkedReader(strings.NewReader(s)))
			if err != nil || string(got) != data {
				t.Fatalf("net/http reads %q, %v; want %q", got, err, data)
			}
		}
		again := newBody(Chunked, -1)
		if same, _, err := send(&again, out); err != nil || same != out {
			t.Fatalf("%q again is %q, %v", out, same, err)
		}
	})
}
