// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/internal/smuggletest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// witness is a server that answers each request with what it has understood of it.
type witness struct {
	addr     netip.AddrPort
	accepted atomic.Int64

	mu   sync.Mutex
	seen []string // the requests that came whole, each as "METHOD target body"
}

func newWitness(t testing.TB, f ip.Family) *witness {
	t.Helper()
	w := new(witness)
	w.addr = servertest.TCP(t, f, func(c *net.TCPConn) {
		w.accepted.Add(1)
		c.SetDeadline(time.Now().Add(patience / 2))
		for r := bufio.NewReader(c); ; {
			request, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			body, err := io.ReadAll(request.Body)
			if err != nil {
				return
			}
			text := fmt.Sprintf("%s %s %s", request.Method, request.RequestURI, body)
			w.mu.Lock()
			w.seen = append(w.seen, text)
			w.mu.Unlock()
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}
	})
	return w
}

// take returns what has been seen since it was called last.
func (w *witness) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

const after = "GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

// attack sends a case, and what would come after it, and looks at every answer. It returns what a server should have
// seen of it.
func attack(t *testing.T, at netip.AddrPort, c smuggletest.Case) (want []string) {
	t.Helper()
	conn := connect(t, at)
	defer conn.Close()
	want = c.Seen
	if io.WriteString(conn, c.In); c.Status == 0 {
		io.WriteString(conn, after)
		want = append(slices.Clip(want), "GET /after ")
	}
	for _, seen := range want {
		method, _, _ := strings.Cut(seen, " ")
		if r, body := conn.answer(method); r.StatusCode != 200 || body != seen {
			t.Fatalf("got %d %q, want %q", r.StatusCode, body, seen)
		}
	}
	if c.Status != 0 {
		if r, _ := conn.answer("GET"); r.StatusCode != c.Status || !r.Close {
			t.Fatalf("got %d, close %v; want %d", r.StatusCode, r.Close, c.Status)
		}
	}
	conn.end()
	return want
}

// What can be understood in two ways is refused, the connection ends, and nothing of it reaches a server. What goes on
// is understood by the server as it should be. And the stranger who comes next, over whatever connections there are, gets
// his own answer.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		w := newWitness(t, x.Backend)
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(w.addr), defaults()))
		for i, c := range smuggletest.Cases() {
			t.Run(c.Source+"/"+c.Name, func(t *testing.T) {
				before := w.accepted.Load()
				want := attack(t, at.AddrPort, c)
				if n := w.accepted.Load() - before; n != 0 && c.Seen == nil && !c.Body {
					t.Errorf("the server got %d connections", n)
				}
				victim := connect(t, at.AddrPort)
				defer victim.Close()
				for k := range 2 {
					text := fmt.Sprintf("GET /victim/%d/%d ", i, k)
					victim.say(text + "HTTP/1.1\r\nHost: a\r\n\r\n")
					if r, body := victim.answer("GET"); r.StatusCode != 200 || body != text {
						t.Fatalf("the victim got %d %q", r.StatusCode, body)
					}
					want = append(want, text)
				}
				if diff := cmp.Diff(want, w.take()); diff != "" {
					t.Errorf("what the server understood (-want +got):\n%s", diff)
				}
			})
		}
	})
}
