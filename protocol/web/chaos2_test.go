// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/relay"
)

// chaos2 is chaos of which one side at least speaks HTTP/2.
type chaos2 struct {
	chaos
	seen sync.Map // POST requests that a server has been shown, by number
}

// As TestChaos, for each pair of versions of which one is HTTP/2. There a stream that is cut off is told from a whole one
// whatever becomes of its connection, so that there are no exceptions.
func TestChaos2(t *testing.T) {
	t.Parallel()
	length := 60 * time.Millisecond
	if os.Getenv("KYOZON_SOAK") != "" {
		length = 5 * time.Second
	}
	cert, config := certificate(t, t.TempDir(), "shop.example.jp")
	b := newBench(t)
	for _, from := range []int{1, 2} {
		for _, to := range []int{1, 2} {
			if from == 1 && to == 1 {
				continue
			}
			for _, secure := range []bool{false, true} {
				name := fmt.Sprintf("%d-%d-%t", from, to, secure)
				t.Run(name, func(t *testing.T) {
					iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
						c := &chaos2{chaos: chaos{t: t}}
						o, client, server := defaults(), c.client, c.server
						if secure {
							o, c.tls = withTLS(cert, "shop.example.jp"), config
						}
						if from == 2 {
							client = c.client2
						}
						if to == 2 {
							o, server = speaks2(o), c.server2
						}
						for kind, spec := range kinds(servertest.TCP(t, x.Backend, server)) {
							o.Timeouts.Request, o.Timeouts.Response = 2*time.Second, 2*time.Second
							at := b.freeAddr(x.Client)
							c.at = at.AddrPort
							s := b.service("shop", at, spec, o)
							s.Timeouts.Idle = 2 * time.Second
							b.serve(s)
							c.run(length, client)
							for range 50 { // a machine that is busy brings nothing whole in so short a time
								if c.whole.Load() > 0 {
									break
								}
								c.run(length, client)
							}
							b.quiet(t)
							b.noStreams(t)
							if c.whole.Swap(0) == 0 {
								t.Errorf("%s: no response came whole", kind)
							}
						}
					})
				})
			}
		}
	}
}

// run has some clients come for a while.
func (c *chaos2) run(length time.Duration, client func(r *rand.Rand)) {
	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for range 4 {
		r := rand.New(rand.NewPCG(rand.Uint64(), 1))
		wg.Go(func() {
			for time.Now().Before(end) {
				client(r)
			}
		})
	}
	wg.Wait()
}

// noStreams fails if a connection of HTTP/2 keeps a stream, though there is no flow.
func (b *bench) noStreams(t *testing.T) {
	t.Helper()
	waitFor(t, "the end of all streams", func() bool {
		var left atomic.Int64
		b.loops.Do(func(l *relay.Loop) {
			l.Each(func(c *relay.Conn) {
				switch h := c.Handler().(type) {
				case *client2:
					left.Add(int64(h.http2.Streams()))
				case *upstream:
					left.Add(int64(h.http2.Streams()))
				}
			})
		})
		return left.Load() == 0
	})
}

// cut is a connection that breaks when so many bytes have gone through it, in one of several ways.
type cut struct {
	*net.TCPConn
	left atomic.Int64
	way  int
}

// perhapsCut returns c, or one that breaks somewhere.
func perhapsCut(r *rand.Rand, c *net.TCPConn) net.Conn {
	if r.IntN(3) > 0 {
		return c
	}
	k := &cut{TCPConn: c, way: r.IntN(3)}
	k.left.Store(int64(r.IntN(1 << (6 + r.IntN(14)))))
	return k
}

func (c *cut) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.count(n)
	return n, err
}

func (c *cut) Write(p []byte) (int, error) {
	k := min(len(p), max(0, int(c.left.Load())))
	n, err := c.TCPConn.Write(p[:k])
	c.count(n)
	if k < len(p) && err == nil {
		c.count(1)
		err = net.ErrClosed
	}
	return n, err
}

// count breaks the connection, once, when its time has come.
func (c *cut) count(n int) {
	before := c.left.Add(-int64(n)) + int64(n)
	if before < 0 || before >= int64(n) {
		return
	}
	switch c.way {
	case 0:
		c.SetLinger(0)
		c.Close()
	case 1:
		c.Close()
	default:
		c.CloseWrite()
	}
}

// client2 asks for some things at once, over connections some of which break.
func (c *chaos2) client2(r *rand.Rand) {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols), TLSClientConfig: c.tls.Clone(),
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 1 + r.IntN(200_000)}}
	tr.Protocols.SetHTTP2(true)
	tr.Protocols.SetUnencryptedHTTP2(true)
	var mu sync.Mutex // of what follows
	cuts := rand.New(rand.NewPCG(r.Uint64(), 6))
	var conns []net.Conn
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
		conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(c.at))
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, conn)
		return perhapsCut(cuts, conn), nil
	}
	var wg sync.WaitGroup
	for range 1 + r.IntN(10) {
		r := rand.New(rand.NewPCG(r.Uint64(), 3))
		wg.Go(func() { c.exchange2(r, tr) })
	}
	wg.Wait()
	tr.CloseIdleConnections()
	mu.Lock()
	defer mu.Unlock()
	for _, conn := range conns {
		conn.Close()
	}
}

// breaking is a body that ends too early, with an error.
type breaking struct{ io.Reader }

func (b breaking) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// exchange2 sends a request, perhaps not to its end, and reads the response, perhaps not either.
func (c *chaos2) exchange2(r *rand.Rand, tr *http.Transport) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, n := r.Uint64()>>1, size(r)
	method := []string{"GET", "POST", "PUT", "HEAD"}[r.IntN(4)]
	scheme := map[bool]string{false: "http", true: "https"}[c.tls != nil]
	var body io.Reader
	if method == "POST" || method == "PUT" {
		all := content(id, n)
		switch r.IntN(6) {
		case 0:
			body = breaking{bytes.NewReader(all[:r.IntN(n+1)])}
		case 1, 2:
			body = io.MultiReader(bytes.NewReader(all))
		default:
			body = bytes.NewReader(all)
		}
	}
	q, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("%s://shop.example.jp/%d/%d/%d", scheme, id, n, size(r)), body)
	if err != nil {
		c.t.Error(err)
		return
	}
	response, err := tr.RoundTrip(q)
	if errors.Is(err, context.DeadlineExceeded) {
		c.t.Errorf("no answer to %s %d", method, id)
	}
	if err != nil {
		return
	}
	defer response.Body.Close()
	if r.IntN(8) == 0 {
		io.CopyN(io.Discard, response.Body, int64(r.IntN(100_000)))
		cancel()
		return
	}
	got, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		return
	}
	if response.Header.Get("Id") != strconv.FormatUint(id, 10) {
		c.t.Errorf("asked for %d, got %s", id, response.Header.Get("Id"))
	}
	gives, _ := strconv.Atoi(response.Header.Get("Size"))
	if method != "HEAD" && !bytes.Equal(got, content(id, gives)) {
		c.t.Errorf("%s %d: got %d bytes that are not the %d there should be", method, id, len(got), gives)
	}
	c.whole.Add(1)
}

// server2 answers over a connection that perhaps breaks, or answers nothing.
func (c *chaos2) server2(conn *net.TCPConn) {
	conn.SetDeadline(time.Now().Add(patience))
	r := rand.New(rand.NewPCG(rand.Uint64(), 4))
	if r.IntN(6) == 0 {
		refuseAll(r, conn)
		return
	}
	l := &single{ended: make(chan struct{})}
	broken := perhapsCut(r, conn)
	l.conn.Store(&broken)
	s := &http.Server{Handler: http.HandlerFunc(c.serve2), Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 1 + r.IntN(50), MaxReceiveBufferPerStream: 1 + r.IntN(200_000)},
		ConnState: func(_ net.Conn, now http.ConnState) {
			if now == http.StateClosed {
				close(l.ended)
			}
		}}
	s.Protocols.SetUnencryptedHTTP2(true)
	s.Serve(l)
}

// single is a listener that has one connection, until that has ended.
type single struct {
	conn  atomic.Pointer[net.Conn]
	ended chan struct{}
}

// Accept implements net.Listener.
func (l *single) Accept() (net.Conn, error) {
	if c := l.conn.Swap(nil); c != nil {
		return *c, nil
	}
	<-l.ended
	return nil, net.ErrClosed
}

// Addr implements net.Listener.
func (l *single) Addr() net.Addr { return &net.TCPAddr{} }

// Close implements net.Listener.
func (l *single) Close() error { return nil }

// refuseAll looks at no request, though it may have come whole, and goes away after a few.
func refuseAll(r *rand.Rand, conn *net.TCPConn) {
	if _, err := io.ReadFull(conn, make([]byte, len(xhttp2.ClientPreface))); err != nil {
		return
	}
	fr := xhttp2.NewFramer(conn, conn)
	fr.WriteSettings()
	for left := 1 + r.IntN(5); left > 0; {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		h, ok := f.(*xhttp2.HeadersFrame)
		d, isData := f.(*xhttp2.DataFrame)
		if ok && (h.StreamEnded() || r.IntN(2) == 0) || isData && (d.StreamEnded() || r.IntN(2) == 0) {
			fr.WriteRSTStream(f.Header().StreamID, xhttp2.ErrCodeRefusedStream)
			left--
		}
	}
	fr.WriteGoAway(0, xhttp2.ErrCodeNo, nil)
}

// serve2 answers a request, perhaps before it has read it, and perhaps breaks off somewhere.
func (c *chaos2) serve2(w http.ResponseWriter, q *http.Request) {
	r := rand.New(rand.NewPCG(rand.Uint64(), 5))
	var id uint64
	var took, gives int
	if _, err := fmt.Sscanf(q.URL.Path, "/%d/%d/%d", &id, &took, &gives); err != nil {
		c.t.Errorf("the server was asked for %q", q.URL.Path)
		return
	}
	if _, again := c.seen.LoadOrStore(id, true); again && q.Method == "POST" {
		c.t.Errorf("the server got POST %d twice", id)
	}
	if r.IntN(10) > 0 {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		if (q.Method == "POST" || q.Method == "PUT") && !bytes.Equal(body, content(id, took)) {
			c.t.Errorf("the server got %d bytes that are not the %d of %s %d", len(body), took, q.Method, id)
		}
	}
	w.Header().Set("Id", strconv.FormatUint(id, 10))
	w.Header().Set("Size", strconv.Itoa(gives))
	if r.IntN(2) == 0 {
		w.Header().Set("Content-Length", strconv.Itoa(gives))
	}
	if r.IntN(30) == 0 {
		w.Header().Set("Connection", "close") // Go's server goes away
	}
	breaks := r.IntN(8) == 0
	for p := content(id, gives); len(p) > 0; {
		k := 1 + r.IntN(len(p))
		w.Write(p[:k])
		if p = p[k:]; breaks {
			panic(http.ErrAbortHandler)
		}
		if r.IntN(2) == 0 {
			w.(http.Flusher).Flush()
		}
	}
}
