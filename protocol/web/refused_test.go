// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// nextBody reads until a request has come whole, and returns its stream, 0 at the end, and its body.
func nextBody(fr *xhttp2.Framer) (stream uint32, body string) {
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return 0, ""
		}
		switch f := f.(type) {
		case *xhttp2.HeadersFrame:
			if f.StreamEnded() {
				return f.StreamID, body
			}
		case *xhttp2.DataFrame:
			body += string(f.Data())
			if f.StreamEnded() {
				return f.StreamID, body
			}
		}
	}
}

// awaitPing reads until a PING is acknowledged: the peer has then heard of all that was written before it.
func awaitPing(fr *xhttp2.Framer) {
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if p, ok := f.(*xhttp2.PingFrame); ok && p.IsAck() {
			return
		}
	}
}

// receive returns what comes out of c, or gives up.
func receive[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("did not happen within %v: %s", patience, what)
	}
	return v
}

// A request whose body has gone is not sent once more, without it, when the server has refused to look at it.
func TestRefusedBody2(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(fr *xhttp2.Framer, s uint32){
		"reset":   func(fr *xhttp2.Framer, s uint32) { fr.WriteRSTStream(s, xhttp2.ErrCodeRefusedStream) },
		"go away": func(fr *xhttp2.Framer, _ uint32) { fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				came := make(chan string, 100)
				server := framed(t, x.Backend, func(_ int64, fr *xhttp2.Framer, _ *net.TCPConn) {
					for s, body := nextBody(fr); s != 0; s, body = nextBody(fr) {
						came <- body
						refuse(fr, s)
					}
				})
				for kind, spec := range kinds(server) {
					for version, c := range map[string]*http.Client{"1": newClient(t), "2": newClient2(t)} {
						for framing, body := range map[string]io.Reader{"length": strings.NewReader("body"), "none": io.MultiReader(strings.NewReader("body"))} {
							at := b.freeAddr(x.Client)
							b.serve(b.service("shop", at, spec, speaks2(defaults())))
							r, err := c.Post("http://"+at.AddrPort.String(), "text/plain", body)
							if err != nil {
								t.Fatal(err)
							}
							r.Body.Close()
							if r.StatusCode != 502 {
								t.Errorf("%s, from HTTP/%s, length %s: got %d, want 502", kind, version, framing, r.StatusCode)
							}
							if body := receive(t, "a request at the server", came); body != "body" || len(came) > 0 {
								t.Errorf("%s, from HTTP/%s, length %s: the server got %q, and %d more", kind, version, framing, body, len(came))
							}
						}
					}
				}
			})
		})
	}
}

// A connection that was held for its client, and whose server takes no more streams meanwhile, is not left open.
func TestNoStreamsAnyMore2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		shut, ended := make(chan bool), make(chan int64, 10)
		server := framed(t, x.Backend, func(n int64, fr *xhttp2.Framer, _ *net.TCPConn) {
			s, _ := nextBody(fr)
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: s, BlockFragment: status200, EndHeaders: true, EndStream: true})
			if n == 1 {
				fr.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingMaxConcurrentStreams, Val: 0})
				fr.WritePing(false, [8]byte{})
				awaitPing(fr)
				close(shut)
			}
			nextBody(fr)
			ended <- n
		})
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, private(server), speaks2(defaults())))
		c := connect(t, at.AddrPort)
		for n := range 2 {
			c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			if r, _ := c.answer("GET"); r.StatusCode != 200 {
				t.Fatalf("request %d: got %d", n, r.StatusCode)
			}
			if n == 0 {
				receive(t, "that the edge has heard", shut)
			}
		}
		if n := receive(t, "the end of a connection", ended); n != 1 {
			t.Errorf("connection %d ended, want the first", n)
		}
	})
}

// changing chooses HTTP/2 on every other connection, from the first on, and HTTP/1.1 on the rest.
func changing(t testing.TB, f ip.Family, two func(fr *xhttp2.Framer), one func(c net.Conn)) netip.AddrPort {
	config, _ := servertest.TLS(t, "origin.example.jp")
	var n atomic.Int64
	return servertest.TCP(t, f, func(c *net.TCPConn) {
		config := config.Clone()
		config.NextProtos = []string{"h2"}
		if n.Add(1)%2 == 0 {
			config.NextProtos = nil
		}
		s := tls.Server(c, config)
		if config.NextProtos == nil {
			one(s)
			return
		}
		if _, err := io.ReadFull(s, make([]byte, len(xhttp2.ClientPreface))); err != nil {
			return
		}
		fr := xhttp2.NewFramer(s, s)
		fr.WriteSettings()
		two(fr)
	})
}

// A request that is sent once more, to a server of HTTP/1.1, is framed anew: what its client framed it by has been read.
func TestRefusedChunks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		came := make(chan string, 10)
		server := changing(t, x.Backend, func(fr *xhttp2.Framer) {
			s, _ := nextBody(fr)
			came <- "first"
			fr.WriteRSTStream(s, xhttp2.ErrCodeRefusedStream)
			nextBody(fr)
		}, func(c net.Conn) {
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			body, err := io.ReadAll(r.Body)
			came <- fmt.Sprintf("%s %v %q %v", r.Method, r.TransferEncoding, body, err)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		})
		for kind, spec := range kinds(server) {
			spec.TLS = &backend.ClientTLS{}
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, speaks2(defaults())))
			c := connect(t, at.AddrPort)
			c.say("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
			receive(t, "a request at the first server", came)
			if got, want := receive(t, "the request at the second", came), `POST [chunked] "" <nil>`; got != want {
				t.Errorf("%s: the second server got %s, want %s", kind, got, want)
			}
			if r, _ := c.answer("POST"); r.StatusCode != 200 {
				t.Errorf("%s: got %d", kind, r.StatusCode)
			}
		}
	})
}
