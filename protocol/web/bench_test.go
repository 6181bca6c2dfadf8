// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// simple answers each request, which must come in one piece, with the same bytes. It allocates nothing, so that what is
// measured is the edge.
func simple(c *net.TCPConn) {
	in := make([]byte, 4<<10)
	out := []byte("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\nContent-Type: text/plain\r\n\r\n" + string(make([]byte, 1024)))
	for {
		if _, err := c.Read(in); err != nil {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

const simpleRequest = "GET /index.html HTTP/1.1\r\nHost: shop.example.jp\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"

// pinger asks over one connection. The answer ends with the read that brings as many bytes as the first one had.
type pinger struct {
	t       testing.TB
	c       io.ReadWriter
	request []byte
	in      [4 << 10]byte
	size    int
}

func newAsker(t testing.TB, c io.ReadWriter) *pinger {
	a := &pinger{t: t, c: c, request: []byte(simpleRequest)}
	a.c.Write(a.request)
	for a.size < 1024 { // the head, too, is in it
		n, err := c.Read(a.in[:])
		if err != nil {
			t.Fatal(err)
		}
		a.size += n
	}
	return a
}

func (a *pinger) ask() {
	if _, err := a.c.Write(a.request); err != nil {
		a.t.Fatal(err)
	}
	if _, err := io.ReadFull(a.c, a.in[:a.size]); err != nil {
		a.t.Fatal(err)
	}
}

// benched is the ways in which a request can come and go.
func benched(t testing.TB, b *bench, x ip.Crossing) map[string]*pinger {
	cert, client := certificate(t, t.TempDir(), "shop.example.jp")
	client.ServerName = "shop.example.jp"
	at := make(map[string]listen.Addr)
	var services []*service.Service
	for kind, spec := range kinds(servertest.TCP(t, x.Backend, simple)) {
		at[kind], at[kind+"-tls"] = b.freeAddr(x.Client), b.freeAddr(x.Client)
		services = append(services, b.service(kind, at[kind], spec, defaults()),
			b.service(kind+"-tls", at[kind+"-tls"], spec, withTLS(cert, "shop.example.jp")))
	}
	b.serve(services...)
	all := make(map[string]*pinger)
	for name, a := range at {
		c := connect(t, a.AddrPort)
		c.SetDeadline(time.Time{})
		var rw io.ReadWriter = c.TCPConn
		if strings.HasSuffix(name, "tls") {
			rw = tls.Client(c.TCPConn, client)
		}
		all[name] = newAsker(t, rw)
	}
	return all
}

// A request over connections that are there already costs one allocation if its backend connection is shared, that of
// the flow, and none if it is the client's own. Through TLS there are three of crypto/tls, see relay, and more with the
// race detector, which has pools forget some.
func TestRequestAllocations(t *testing.T) {
	b := newBench(t)
	for name, a := range benched(t, b, ip.Crossing{Client: ip.V6, Backend: ip.V4}) {
		limit := map[string]float64{"shared": 1, "private": 0, "shared-tls": 8, "private-tls": 7}[name]
		for range 10 {
			a.ask()
		}
		if n := testing.AllocsPerRun(100, a.ask); n > limit {
			t.Errorf("%s: %v allocations a request, want at most %v", name, n, limit)
		}
	}
}

// So it is over HTTP/2, with servers of either version: the flow, and nothing of the client's connection or stream.
func TestRequestAllocations2(t *testing.T) {
	b := newBench(t)
	for name, limit := range map[string]float64{"shared": 1, "private": 0} {
		at := b.freeAddr(ip.V6)
		b.serve(b.service("shop", at, kinds(servertest.TCP(t, ip.V4, simple))[name], defaults()))
		a := newAsker2(t, at.AddrPort)
		for range 10 {
			a.ask()
		}
		if n := testing.AllocsPerRun(100, a.ask); n > limit {
			t.Errorf("%s: %v allocations a request, want at most %v", name, n, limit)
		}
	}
}

// pinger2 asks over one connection of HTTP/2, with the same frame but for the number of its stream.
type pinger2 struct {
	pinger
	stream uint32
}

func newAsker2(t testing.TB, at netip.AddrPort) *pinger2 {
	c := connect2(t, at)
	c.SetDeadline(time.Time{})
	c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 30})
	c.WriteWindowUpdate(0, 1<<30)
	if o := c.await(c.ask(true, ":method", "GET", ":scheme", "http", ":authority", "shop.example.jp", ":path", "/index.html")); o.status != "200" {
		t.Fatalf("got %+v", o)
	}
	var frame bytes.Buffer
	xhttp2.NewFramer(&frame, nil).WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82, 0x86, 0x84, 0xbe}, // indexed
		EndHeaders: true, EndStream: true})
	a := &pinger2{pinger: pinger{t: t, c: c.raw.TCPConn, request: frame.Bytes()}, stream: 1}
	a.size = a.answerSize(c)
	return a
}

// answerSize asks once and returns how many bytes the answer has, the end of it included.
func (a *pinger2) answerSize(c *raw2) (size int) {
	a.number()
	a.c.Write(a.request)
	for {
		h, err := xhttp2.ReadFrameHeader(c.r)
		if err != nil {
			a.t.Fatal(err)
		}
		if _, err := c.r.Discard(int(h.Length)); err != nil {
			a.t.Fatal(err)
		}
		if h.StreamID != a.stream {
			continue
		}
		size += 9 + int(h.Length)
		if h.Flags.Has(xhttp2.FlagDataEndStream) {
			return size
		}
	}
}

func (a *pinger2) number() {
	a.stream += 2
	binary.BigEndian.PutUint32(a.request[5:], a.stream)
}

func (a *pinger2) ask() {
	a.number()
	a.pinger.ask()
}

// One request after another: latency, not throughput.
func BenchmarkRequest(b *testing.B) {
	for _, x := range []ip.Crossing{{Client: ip.V4, Backend: ip.V4}, {Client: ip.V6, Backend: ip.V4}} {
		e := newBench(b)
		for name, a := range benched(b, e, x) {
			b.Run(x.String()+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					a.ask()
				}
			})
		}
	}
}
