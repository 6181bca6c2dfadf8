// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// sayer answers every request with a word, and tells when one of its connections ends.
func sayer(t testing.TB, f ip.Family, word string, ended chan<- string) netip.AddrPort {
	return servertest.TCP(t, f, func(c *net.TCPConn) {
		buffer := make([]byte, 4<<10)
		for {
			if _, err := c.Read(buffer); err != nil { // each request of these tests comes in one piece
				ended <- word
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"+word)
		}
	})
}

// A keep-alive connection outlives a reload, and its next request is served by the new generation. The backend's
// connection that only this client may use does not outlive the backend.
func TestReload(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for kind, made := range map[string]func(netip.AddrPort) backend.Spec{"shared": shared, "private": private} {
			ended := make(chan string, 10)
			one, two := sayer(t, x.Backend, "one", ended), sayer(t, x.Backend, "two", ended)
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, made(one), defaults()))
			c := connect(t, at.AddrPort)
			for i, want := range []string{"one", "two", "one", "two"} {
				b.serve(b.service("shop", at, made([]netip.AddrPort{one, two}[i%2]), defaults()))
				if i > 0 && kind == "private" {
					if word := <-ended; word == want {
						t.Errorf("the connection to %s has ended", word)
					}
				}
				c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				if _, got := c.answer("GET"); got != want {
					t.Errorf("%s: got %q, want %q", kind, got, want)
				}
			}
			c.CloseWrite()
			c.end()
		}
	})
}

// When a front has no successor, connections that wait for nothing end at once, and those that do after their answer,
// which says so.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, last := range []bool{false, true} {
		b := newBench(t)
		iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
			asked, answer := make(chan struct{}, 1), make(chan struct{})
			at, other := b.freeAddr(x.Client), b.freeAddr(x.Client)
			server := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					asked <- struct{}{}
					<-answer
				}
				io.WriteString(w, "done")
			}))
			b.serve(b.service("shop", at, private(server), defaults()))
			fresh, waits, busy := connect(t, at.AddrPort), connect(t, at.AddrPort), connect(t, at.AddrPort)
			waits.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			waits.answer("GET")
			busy.say("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
			<-asked
			waitFor(t, "three clients", func() bool { return clients(b.loops) == 3 })
			if last {
				b.running.Drain(true)
			} else {
				b.serve(b.service("shop", other, private(server), defaults()))
			}
			waits.end()
			fresh.end()
			close(answer)
			if r, body := busy.answer("GET"); body != "done" || !r.Close {
				t.Errorf("last %v: got %q, close %v", last, body, r.Close)
			}
			busy.end()
		})
	}
}

// clients returns how many clients the loops have.
func clients(ls *relay.Loops) int {
	all := make([]int, ls.Len())
	ls.Do(func(l *relay.Loop) {
		l.Each(func(c *relay.Conn) {
			if _, ok := c.Handler().(interface{ drain(map[*table]bool, bool) }); ok {
				all[l.ID()]++
			}
		})
	})
	n := 0
	for _, k := range all {
		n += k
	}
	return n
}

// When the drain deadline has passed, flows are cut: who has had no answer gets 503, who has had a part of it sees that
// it is one.
func TestCut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		asked, quit := make(chan struct{}, 2), make(chan struct{})
		defer close(quit)
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/half" {
				io.WriteString(w, "half")
				w.(http.Flusher).Flush()
			}
			asked <- struct{}{}
			<-quit
		}))), defaults()))
		silent, half := connect(t, at.AddrPort), connect(t, at.AddrPort)
		silent.say("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n")
		half.say("GET /half HTTP/1.0\r\n\r\n")
		<-asked
		<-asked
		resp, err := http.ReadResponse(half.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.loops.Do(func(l *relay.Loop) { b.book.Each(l, func(f *backend.Flow) { f.Cut(metrics.Drained) }) })
		if r, _ := silent.answer("GET"); r.StatusCode != 503 {
			t.Errorf("got %d, want 503", r.StatusCode)
		}
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q looks whole", body)
		}
	})
	b.quiet(t)
	if n := b.sample("shop").Errors[metrics.Drained]; n != 8 {
		t.Errorf("%d flows drained, want 8", n)
	}
}
