// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// raw2 is a client of HTTP/2 that says what it likes.
type raw2 struct {
	*raw
	*xhttp2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
	next    uint32
}

func connect2(t testing.TB, at netip.AddrPort) *raw2 {
	t.Helper()
	c := &raw2{raw: connect(t, at), next: 1}
	c.encoder = hpack.NewEncoder(&c.block)
	c.say(xhttp2.ClientPreface)
	c.Framer = xhttp2.NewFramer(c.raw, c.r)
	c.WriteSettings()
	return c
}

// ask opens a stream with fields, of which pairs name and value, and returns it.
func (c *raw2) ask(end bool, fields ...string) uint32 {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	s := c.next
	c.next += 2
	c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: s, BlockFragment: bytes.Clone(c.block.Bytes()), EndHeaders: true, EndStream: end})
	return s
}

// outcome is what became of a stream.
type outcome struct {
	status string // "" if it was reset, or the connection ended
	code   xhttp2.ErrCode
	body   string
	whole  bool
	gone   bool // the connection ended
}

// await reads until it is clear what became of a stream; 0 stands for the connection, to which nothing is then said.
func (c *raw2) await(s uint32) (o outcome) {
	c.t.Helper()
	decoder := hpack.NewDecoder(4096, nil)
	for {
		f, err := c.ReadFrame()
		if err != nil {
			o.gone = true
			return o
		}
		switch f := f.(type) {
		case *xhttp2.HeadersFrame:
			fields, err := decoder.DecodeFull(f.HeaderBlockFragment())
			if err != nil {
				c.t.Fatal(err)
			}
			if f.StreamID == s && len(fields) > 0 && fields[0].Name == ":status" {
				o.status = fields[0].Value
			}
			o.whole = f.StreamEnded() && f.StreamID == s
		case *xhttp2.DataFrame:
			if f.StreamID == s {
				o.body += string(f.Data())
				o.whole = f.StreamEnded()
			}
		case *xhttp2.RSTStreamFrame:
			if f.StreamID == s {
				o.code = f.ErrCode
				return o
			}
		case *xhttp2.SettingsFrame:
			if !f.IsAck() && s != 0 {
				c.WriteSettingsAck()
			}
		case *xhttp2.GoAwayFrame:
			o.code = f.ErrCode
		}
		if o.whole {
			return o
		}
	}
}

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

// Over HTTP/2 comes nothing that a server of HTTP/1.1 understands as anything else than one request, and what might is
// refused. The stranger who comes next gets his own answer.
func TestSmuggling2(t *testing.T) {
	t.Parallel()
	get := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/in"}
	post := []string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/in"}
	with := func(base []string, more ...string) []string { return append(slices.Clone(base), more...) }
	replaced := func(base []string, name, value string) []string {
		all := slices.Clone(base)
		all[slices.Index(all, name)+1] = value
		return all
	}
	for _, tt := range []struct {
		name   string
		fields []string
		data   []string // frames; nil ends the stream with its head
		seen   string   // what the server understands; "" if it must see nothing
		status string   // of the answer; "" for a reset
	}{
		{"plain", get, nil, "GET /in ", "200"},
		{"body", post, []string{"abc", "de"}, "POST /in abcde", "200"},
		{"body that looks like a request", post, []string{smuggled}, "POST /in " + smuggled, "200"},
		{"body that looks like chunks", post, []string{"0\r\n\r\n" + smuggled}, "POST /in 0\r\n\r\n" + smuggled, "200"},
		{"length that is right", with(post, "content-length", "5"), []string{"abcde"}, "POST /in abcde", "200"},
		{"length too small (H2.CL)", with(post, "content-length", "0"), []string{smuggled}, "", ""},
		{"length too large", with(post, "content-length", "50"), []string{"abc"}, "", ""},
		{"length without body", with(get, "content-length", "5"), nil, "", ""},
		{"two lengths", with(post, "content-length", "5", "content-length", "0"), []string{"abcde"}, "", ""},
		{"length with sign", with(post, "content-length", "+5"), []string{"abcde"}, "", ""},
		{"list of lengths", with(post, "content-length", "5, 5"), []string{"abcde"}, "", ""},
		{"chunked (H2.TE)", with(post, "transfer-encoding", "chunked"), []string{"0\r\n\r\n" + smuggled}, "", ""},
		{"chunked, hidden", with(post, "transfer-encoding", "\tchunked"), []string{"0\r\n\r\n" + smuggled}, "", ""},
		{"connection", with(get, "connection", "x-a", "x-a", "b"), nil, "", ""},
		{"keep-alive", with(get, "keep-alive", "1"), nil, "", ""},
		{"upgrade", with(get, "upgrade", "h2c"), nil, "", ""},
		{"te that is more", with(get, "te", "trailers, chunked"), nil, "", ""},
		{"line in a value", with(get, "x-a", "b\r\ntransfer-encoding: chunked"), nil, "", ""},
		{"request in a value", with(get, "x-a", "b\r\n\r\n"+smuggled), nil, "", ""},
		{"LF in a value", with(get, "x-a", "b\nx-c: d"), nil, "", ""},
		{"CR in a value", with(get, "x-a", "b\rx-c: d"), nil, "", ""},
		{"NUL in a value", with(get, "x-a", "b\x00c"), nil, "", ""},
		{"line in a name", with(get, "x-a: b\r\ntransfer-encoding", "chunked"), nil, "", ""},
		{"colon in a name", with(get, "transfer-encoding:", "chunked"), nil, "", ""},
		{"space in a name", with(get, "transfer-encoding ", "chunked"), nil, "", ""},
		{"upper case in a name", with(get, "X-A", "b"), nil, "", ""},
		{"empty name", with(get, "", "b"), nil, "", ""},
		{"request in the path", replaced(get, ":path", "/ HTTP/1.1\r\nHost: a\r\n\r\n"+smuggled), nil, "", ""},
		{"space in the path", replaced(get, ":path", "/in HTTP/1.1"), nil, "", ""},
		{"path without slash", replaced(get, ":path", "in"), nil, "", ""},
		{"URL for a path", replaced(get, ":path", "http://b/in"), nil, "", ""},
		{"empty path", replaced(get, ":path", ""), nil, "", ""},
		{"request in the method", replaced(get, ":method", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET"), nil, "", ""},
		{"space in the method", replaced(get, ":method", "GET /smuggled"), nil, "", ""},
		{"line in the authority", replaced(get, ":authority", "a\r\nx-a: b"), nil, "", ""},
		{"path in the authority", replaced(get, ":authority", "a/b"), nil, "", "400"},
		{"user in the authority", replaced(get, ":authority", "u@a"), nil, "", "400"},
		{"line in the scheme", replaced(get, ":scheme", "http\r\nx-a: b"), nil, "", ""},
		{"another host", with(get, "host", "b"), nil, "", ""},
		{"the same host", with(get, "host", "a"), nil, "GET /in ", "200"},
		{"two hosts", with(get, "host", "a", "host", "b"), nil, "", ""},
		{"two paths", with(get, ":path", "/smuggled"), nil, "", ""},
		{"pseudo-field at the end", with(get[:6], "x-a", "b", ":path", "/in"), nil, "", ""},
		{"unknown pseudo-field", with(get, ":protocol", "websocket"), nil, "", ""},
		{"no method", get[2:], nil, "", ""},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a:80"}, []string{smuggled}, "", "501"},
		{"TRACE", replaced(get, ":method", "TRACE"), nil, "", "501"},
		{"underscore", with(get, "x_forwarded_for", "1.2.3.4"), nil, "", "400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				b := newBench(t)
				w := newWitness(t, x.Backend)
				at := b.freeAddr(x.Client)
				b.serve(b.service("shop", at, shared(w.addr), defaults()))
				c := connect2(t, at.AddrPort)
				s := c.ask(tt.data == nil, tt.fields...)
				for i, p := range tt.data {
					c.WriteData(s, i == len(tt.data)-1, []byte(p))
				}
				o := c.await(s)
				early := tt.name == "length too small (H2.CL)" && o.status == "200" && o.body == "POST /in " // before more came than the head says
				if o.status != tt.status && !early && (o.status != "400" || tt.status != "") {               // an answer of 400 is as good as a reset
					t.Errorf("got %+v, want status %q", o, tt.status)
				}
				if tt.seen != "" && o.body != tt.seen {
					t.Errorf("got %q, want %q", o.body, tt.seen)
				}
				var want []string
				if tt.seen != "" {
					want = append(want, tt.seen)
				}
				for k := range 2 {
					victim := connect(t, at.AddrPort)
					text := fmt.Sprintf("GET /victim/%d ", k)
					victim.say(text + "HTTP/1.1\r\nHost: a\r\n\r\n")
					if r, body := victim.answer("GET"); r.StatusCode != 200 || body != text {
						t.Errorf("the victim got %d %q", r.StatusCode, body)
					}
					victim.Close()
					want = append(want, text)
				}
				got := slices.DeleteFunc(w.take(), func(seen string) bool { return seen == "POST /in " && tt.status == "" }) // cut off in the middle
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("what the server understood (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A client that stalls frees its backend when its time is up, whatever it stalls in, and is told so where that can be.
func TestStalls2(t *testing.T) {
	t.Parallel()
	get := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	for _, tt := range []struct {
		name   string
		stall  func(c *raw2) uint32 // returns the stream that is looked at; 0 for the connection
		status string
		reason metrics.Reason
	}{
		{"nothing", func(*raw2) uint32 { return 0 }, "", metrics.Fine},
		{"half a head", func(c *raw2) uint32 {
			c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			return 0
		}, "", metrics.Fine},
		{"half a frame", func(c *raw2) uint32 { c.say("\x00\x00\x10\x01"); return 0 }, "", metrics.Fine},
		{"half a body", func(c *raw2) uint32 {
			s := c.ask(false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/")
			c.WriteData(s, false, []byte("abc"))
			return s
		}, "408", metrics.ClientTimeout},
		{"no window", func(c *raw2) uint32 {
			c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 0})
			return c.ask(true, get...)
		}, "200", metrics.ClientTimeout},
		{"a window that is used up", func(c *raw2) uint32 { return c.ask(true, get...) }, "200", metrics.ClientTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				t.Parallel()
				b := newBench(t)
				at, o := b.freeAddr(x.Client), defaults()
				if tt.reason == metrics.Fine { // else there must be time to come so far
					o.Timeouts.KeepAlive, o.Timeouts.Request = short, short
				}
				s := b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					w.Write(make([]byte, 1<<20))
				}))), o)
				s.Timeouts.Idle = ample
				b.serve(s)
				c := connect2(t, at.AddrPort)
				stream := tt.stall(c)
				got := c.await(stream)
				if stream == 0 && !got.gone || got.status != tt.status {
					t.Errorf("got %+v, want status %q", got, tt.status)
				}
				if stream != 0 && got.status == "200" && got.whole {
					t.Errorf("got a whole answer, %d bytes", len(got.body))
				}
				b.quiet(t)
				if n := b.sample("shop").Errors[tt.reason]; tt.reason != metrics.Fine && n != 1 {
					t.Errorf("counted %v, want one %v", b.sample("shop").Errors, tt.reason)
				}
			})
		})
	}
}

// A window that opens byte by byte does not hold a backend.
func TestTrickle2(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		at, o := b.freeAddr(x.Client), defaults()
		o.Timeouts.MinimumRate = 1 << 20
		s := b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Write(make([]byte, 8<<20))
		}))), o)
		s.Timeouts.Idle = short
		b.serve(s)
		c := connect2(t, at.AddrPort)
		c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1})
		stream := c.ask(true, ":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/")
		waitFor(t, "the end of the response", func() bool {
			c.WriteWindowUpdate(stream, 1)
			<-time.After(5 * time.Millisecond)
			return b.sample("shop").Errors[metrics.ClientTimeout] > 0
		})
	})
}

// What strangers say about themselves does not reach the servers over HTTP/2 either.
func TestStrangersFields2(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for name, values := range r.Header {
				for _, v := range values {
					if strings.Contains(v, "evil") {
						t.Errorf("the server got %s: %s", name, v)
					}
				}
			}
			if got, want := r.Header.Get("X-Forwarded-For"), iptest.Loopback(x.Client).String(); got != want {
				t.Errorf("the server was told of %q, want %q", got, want)
			}
		}))), defaults()))
		c := connect2(t, at.AddrPort)
		fields := []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}
		for _, name := range []string{"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded", "x-real-ip",
			"client-cert", "client-cert-chain", "http2-settings"} {
			fields = append(fields, name, "evil")
		}
		if o := c.await(c.ask(true, fields...)); o.status != "200" {
			t.Errorf("got %+v", o)
		}
	})
}

// A client of HTTP/1.1 cannot switch to HTTP/2 behind the edge's back: its request goes as an ordinary one.
func TestNoUpgradeToHTTP2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" || r.Header.Get("Http2-Settings") != "" {
				t.Errorf("the server got %v", r.Header)
			}
		}))), defaults()))
		c := connect(t, at.AddrPort)
		c.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n")
		if r, _ := c.answer("GET"); r.StatusCode != 200 {
			t.Errorf("got %d", r.StatusCode)
		}
	})
}

// Floods of what costs us and brings nothing about end the connection, and only that.
func TestFloods2(t *testing.T) {
	t.Parallel()
	get := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	for _, tt := range []struct {
		name  string
		flood func(c *raw2, i int)
	}{
		{"rapid reset, CVE-2023-44487", func(c *raw2, _ int) { c.WriteRSTStream(c.ask(true, get...), xhttp2.ErrCodeCancel) }},
		{"made to reset, CVE-2025-8671", func(c *raw2, _ int) { c.WriteWindowUpdate(c.ask(true, get...), 0) }},
		{"PING", func(c *raw2, _ int) { c.WritePing(false, [8]byte{}) }},
		{"SETTINGS", func(c *raw2, _ int) { c.WriteSettings() }},
		{"CONTINUATION, CVE-2023-45288", func(c *raw2, i int) {
			if i == 0 {
				c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1})
			}
			c.WriteContinuation(1, false, make([]byte, 1<<10))
		}},
		{"HPACK bomb", func(c *raw2, i int) { // one large field in the table, and then a head of references to it
			if i == 0 {
				c.ask(true, append(slices.Clone(get), "x-a", strings.Repeat("b", 3000))...)
			}
			c.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: c.next, BlockFragment: bytes.Repeat([]byte{0xbe}, 10_000), EndHeaders: true, EndStream: true})
			c.next += 2
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				b := newBench(t)
				at := b.freeAddr(x.Client)
				b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(nothing))), defaults()))
				c := connect2(t, at.AddrPort)
				ended := make(chan outcome, 1)
				go func() { ended <- c.await(0) }()
				for i := 0; i < 100_000 && len(ended) == 0; i++ {
					tt.flood(c, i)
				}
				if o := <-ended; o.code != xhttp2.ErrCodeEnhanceYourCalm {
					t.Errorf("the connection ends with %v", o.code)
				}
				if status, _, _ := get1(t, at.AddrPort); status != 200 {
					t.Errorf("another client got %d", status)
				}
			})
		})
	}
}

func get1(t *testing.T, at netip.AddrPort) (int, string, http.Header) {
	t.Helper()
	return get(t, newClient(t), "http://"+at.String())
}
