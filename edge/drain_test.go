// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// TestDrain: an edge that stops finishes what is under way, closes what waits for nothing, and cuts the rest when the
// time is up.
func TestDrain(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		b.drain = ample
		begun, finish := make(chan struct{}), make(chan struct{})
		slow := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(begun)
				<-finish
			}
			fmt.Fprint(w, "well")
		}))
		web, tcp := b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client)
		b.serve(line("web", "web", web, servers([]netip.AddrPort{slow}, "handover: header")),
			line("tcp", "tcp", tcp, servers([]netip.AddrPort{teller(t, x.Backend)})))

		idle := dial(t, web) // between two requests
		in := bufio.NewReader(idle)
		if r := exchange(t, idle, in, "/"); r.Close {
			t.Error("the connection is not kept")
		}
		silent := dial(t, web) // has never asked
		busy := dial(t, web)   // waits for an answer
		fmt.Fprint(busy, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
		<-begun
		lasting := open(t, tcp) // does not end by itself
		if err := lasting.echo("here"); err != nil {
			t.Fatal(err)
		}
		await(t, "all flows are there", func() bool { return len(b.edge.Flows(10)) == 2 })

		began := time.Now()
		b.cancel()
		for name, c := range map[string]io.Reader{"idle": in, "silent": silent} {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the %s connection: got %v, want it closed", name, err)
			}
		}
		if after := time.Since(began); after >= b.drain {
			t.Errorf("idle connections were closed after %v, not at once", after)
		}
		if err := lasting.echo("still here"); err != nil {
			t.Errorf("a stream was cut at once: %v", err)
		}
		close(finish)
		r, err := http.ReadResponse(bufio.NewReader(busy), nil)
		if err != nil {
			t.Fatalf("the request under way: %v", err)
		}
		body, err := io.ReadAll(r.Body)
		if r.StatusCode != 200 || string(body) != "well" || err != nil || !r.Close {
			t.Errorf("the request under way: got %d %q, %v, Connection: close %v", r.StatusCode, body, err, r.Close)
		}
		if !lasting.cut() {
			t.Error("the stream was not cut")
		}
		if after := time.Since(began); after < b.drain*9/10 {
			t.Errorf("the stream was cut after %v, want %v", after, b.drain)
		}
		b.stop()
		for _, at := range []netip.AddrPort{web, tcp} {
			if c, err := dialFrom(client(x.Client), at); err == nil {
				c.Close()
				t.Errorf("%v is still open", at)
			}
		}
		if n := b.errors("tcp", "drained"); n != 1 {
			t.Errorf("counted %d as drained, want 1", n)
		}
	})
}

// exchange asks over a connection.
func exchange(t *testing.T, c io.Writer, in *bufio.Reader, path string) *http.Response {
	t.Helper()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestStopIdle: an edge that has nothing under way ends at once.
func TestStopIdle(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		b.drain = patience * 2
		at := b.free(listen.TCP, x.Client)
		b.serve(line("web", "web", at, servers([]netip.AddrPort{namer(t, x.Backend, "well")}, "source: edge", "handover: header")))
		keep := browser(t, x.Client, true)
		mustGet(t, keep, at) // leaves a connection to the server that is kept for others
		b.stop()
	})
}

// TestStopWhileDraining: an edge ends although flows of a service that it no longer has are still under way.
func TestStopWhileDraining(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		tcp, udp := b.free(listen.TCP, x.Client), b.free(listen.UDP, x.Client)
		stays := line("stays", "tcp", b.free(listen.TCP, x.Client), servers([]netip.AddrPort{teller(t, x.Backend)}))
		b.serve(stays, line("tcp", "tcp", tcp, servers([]netip.AddrPort{teller(t, x.Backend)})),
			line("udp", "udp", udp, servers([]netip.AddrPort{packetTeller(t, x.Backend)})))
		s := open(t, tcp)
		if _, err := askPackets(dialPackets(t, udp)); err != nil {
			t.Fatal(err)
		}
		b.drain = time.Hour
		b.serve(stays)
		if err := s.echo("still here"); err != nil {
			t.Errorf("the connection was lost: %v", err)
		}
		b.drain = time.Second
		b.serve(stays)
		b.stop()
		if !s.cut() {
			t.Error("the connection was not cut")
		}
	})
}
