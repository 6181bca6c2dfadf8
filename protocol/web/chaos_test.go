// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// content is the n bytes that go with a number: who has the number can tell whether they are right.
func content(id uint64, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(id*131 + uint64(i)*7 + uint64(i)>>8)
	}
	return p
}

// size is sometimes nothing, often little, sometimes much.
func size(r *rand.Rand) int {
	switch r.IntN(8) {
	case 0:
		return 0
	case 1:
		return r.IntN(400_000)
	case 2, 3:
		return r.IntN(40_000)
	}
	return r.IntN(1000)
}

// chaos is random clients and servers, of which some break every rule of politeness.
type chaos struct {
	t     testing.TB
	tls   *tls.Config // of the clients; nil for none
	at    netip.AddrPort
	whole atomic.Int64 // responses that came whole
}

// Whatever clients and servers do and wherever they break off, what arrives whole is right, nothing mixes, no flow and
// no descriptor is left.
func TestChaos(t *testing.T) {
	t.Parallel()
	length := 250 * time.Millisecond
	if os.Getenv("KYOZON_SOAK") != "" {
		length = time.Minute
	}
	cert, client := certificate(t, t.TempDir(), "shop.example.jp")
	b := newBench(t)
	for _, config := range []*tls.Config{nil, client} {
		iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
			c := &chaos{t: t, tls: config}
			server := servertest.TCP(t, x.Backend, c.server)
			for kind, spec := range kinds(server) {
				o := defaults()
				if config != nil {
					o = withTLS(cert, "shop.example.jp")
				}
				o.Timeouts.Request, o.Timeouts.Response = 2*time.Second, 2*time.Second
				at := b.freeAddr(x.Client)
				c.at = at.AddrPort
				s := b.service("shop", at, spec, o)
				s.Timeouts.Idle = 2 * time.Second
				b.serve(s)
				var wg sync.WaitGroup
				end := time.Now().Add(length)
				for range 6 {
					r := rand.New(rand.NewPCG(rand.Uint64(), 1))
					wg.Go(func() {
						for time.Now().Before(end) {
							c.client(r)
						}
					})
				}
				wg.Wait()
				b.quiet(t)
				if c.whole.Load() == 0 {
					t.Errorf("%s: no response came whole", kind)
				}
			}
		})
	}
}

// client sends some requests, perhaps in one go, and perhaps breaks off somewhere.
func (c *chaos) client(r *rand.Rand) {
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(c.at))
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	var rw io.ReadWriter = conn
	if c.tls != nil {
		rw = tls.Client(conn, c.tls)
	}
	var requests []*http.Request
	var out bytes.Buffer
	for range 1 + r.IntN(4) {
		requests = append(requests, c.request(r, &out))
	}
	var wg sync.WaitGroup
	var unwritten error
	wg.Go(func() { unwritten = rudeWrite(r, conn, rw, out.Bytes()) })
	in := bufio.NewReader(rw)
	slow := rand.IntN(8) == 0
	cut := "" // the response that the end of the connection has cut short
	for _, request := range requests {
		if !c.response(in, request, slow, &cut) {
			break
		}
	}
	conn.SetLinger(0)
	conn.Close()
	wg.Wait()
	// The kernel tells of a reset once. If the writer has heard of it, the reader sees a usual end.
	if cut != "" && !errors.Is(unwritten, syscall.ECONNRESET) {
		c.t.Errorf("%s; what was written: %v", cut, unwritten)
	}
}

// request adds a request to out. Its number and the sizes are in its path.
func (c *chaos) request(r *rand.Rand, out *bytes.Buffer) *http.Request {
	id, n := r.Uint64()>>1, size(r)
	method := []string{"GET", "POST", "PUT", "HEAD"}[r.IntN(4)]
	fmt.Fprintf(out, "%s /%d/%d/%d HTTP/1.1\r\nHost: shop.example.jp\r\n", method, id, n, size(r))
	switch {
	case method == "GET" || method == "HEAD":
		out.WriteString("\r\n")
	case r.IntN(2) == 0:
		fmt.Fprintf(out, "Content-Length: %d\r\n\r\n%s", n, content(id, n))
	default:
		out.WriteString("Transfer-Encoding: chunked\r\n\r\n")
		w := httputil.NewChunkedWriter(out)
		for p := content(id, n); len(p) > 0; {
			k := 1 + r.IntN(len(p))
			w.Write(p[:k])
			p = p[k:]
		}
		w.Close()
		out.WriteString("\r\n")
	}
	return &http.Request{Method: method, Header: http.Header{"Id": {strconv.FormatUint(id, 10)}}}
}

// rudeWrite writes p in random pieces; now and then it goes away in the middle, or ends its half. It returns what became
// of the last write.
func rudeWrite(r *rand.Rand, conn *net.TCPConn, w io.Writer, p []byte) error {
	breaks := -1
	if r.IntN(3) == 0 {
		breaks = r.IntN(len(p) + 1)
	}
	for done := 0; done < len(p); {
		k := min(1+r.IntN(len(p)), len(p)-done)
		if breaks >= done && breaks <= done+k {
			_, err := w.Write(p[done:breaks])
			switch r.IntN(3) {
			case 0:
				conn.SetLinger(0)
				conn.Close()
			case 1:
				conn.Close()
			default:
				conn.CloseWrite()
			}
			return err
		}
		if _, err := w.Write(p[done : done+k]); err != nil {
			return err
		}
		done += k
	}
	if r.IntN(4) == 0 {
		conn.CloseWrite()
	}
	return nil
}

// response reads one response and returns whether another may follow. One that ends with the connection, and too early,
// it describes in cut.
func (c *chaos) response(in *bufio.Reader, request *http.Request, slow bool, cut *string) bool {
	r, err := http.ReadResponse(in, request)
	for err == nil && r.StatusCode == 103 {
		r, err = http.ReadResponse(in, request)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("no answer to %s %v", request.Method, request.Header)
	}
	if err != nil {
		return false
	}
	if slow {
		io.CopyN(io.Discard, r.Body, 0)
		<-time.After(5 * time.Millisecond)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	if r.StatusCode != 200 {
		return !r.Close
	}
	want := request.Header.Get("Id")
	id, _ := strconv.ParseUint(want, 10, 64)
	if got := r.Header.Get("Id"); got != want {
		c.t.Errorf("asked for %s, got %s", want, got)
		return false
	}
	if request.Method != "HEAD" {
		n, _ := strconv.Atoi(r.Header.Get("Size"))
		all := content(id, n)
		switch whole := bytes.Equal(body, all); {
		case whole:
		case r.ContentLength < 0 && r.TransferEncoding == nil && bytes.HasPrefix(all, body):
			*cut = fmt.Sprintf("%s %s: got only %d of %d bytes, and an end", request.Method, want, len(body), n)
			return false
		default:
			c.t.Errorf("%s %s: got %d bytes that are not the %d there should be", request.Method, want, len(body), n)
		}
	}
	c.whole.Add(1)
	return !r.Close
}

// server answers requests, perhaps before it has read them, and perhaps breaks off somewhere.
func (c *chaos) server(conn *net.TCPConn) {
	conn.SetDeadline(time.Now().Add(patience))
	r := rand.New(rand.NewPCG(rand.Uint64(), 2))
	for in := bufio.NewReader(conn); ; {
		request, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		var id uint64
		var took, gives int
		if _, err := fmt.Sscanf(request.URL.Path, "/%d/%d/%d", &id, &took, &gives); err != nil {
			c.t.Errorf("the server was asked for %q", request.URL.Path)
			return
		}
		early := r.IntN(10) == 0
		if !early {
			body, err := io.ReadAll(request.Body)
			if err != nil {
				return
			}
			if (request.Method == "POST" || request.Method == "PUT") && !bytes.Equal(body, content(id, took)) {
				c.t.Errorf("the server got %d bytes that are not the %d of %d", len(body), took, id)
			}
		}
		if !c.reply(r, conn, request.Method, id, gives) || early {
			return
		}
	}
}

// reply writes a response and returns whether the connection goes on.
func (c *chaos) reply(r *rand.Rand, conn *net.TCPConn, method string, id uint64, n int) bool {
	var out bytes.Buffer
	if r.IntN(10) == 0 {
		out.WriteString("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
	}
	fmt.Fprintf(&out, "HTTP/1.1 200 OK\r\nId: %d\r\nSize: %d\r\n", id, n)
	framing := r.IntN(3)
	switch framing {
	case 0:
		fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n", n)
	case 1:
		out.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	default:
		out.WriteString("Connection: close\r\n\r\n")
	}
	if method != "HEAD" {
		if framing == 1 {
			w := httputil.NewChunkedWriter(&out)
			w.Write(content(id, n))
			w.Close()
			out.WriteString("\r\n")
		} else {
			out.Write(content(id, n))
		}
	}
	p := out.Bytes()
	if r.IntN(6) == 0 { // what it has sent by then may look whole only if it is
		conn.Write(p[:r.IntN(len(p))])
		conn.SetLinger(0)
		return false
	}
	if _, err := conn.Write(p); err != nil || framing == 2 {
		return false
	}
	if r.IntN(20) == 0 {
		io.WriteString(conn, "surplus")
	}
	return r.IntN(6) > 0
}
