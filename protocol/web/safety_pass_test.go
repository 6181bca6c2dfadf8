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
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// file is what the servers of these tests have.
func file() string { return strings.Repeat("0123456789abcdef", 100) }

// program returns the path of an installed program; without it the test is skipped, or fails where it may not be.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("KYOZON_LAB") == "require" {
		t.Fatalf("%s is not installed", name)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

// startNginx serves the files of a directory with nginx, until the test ends. It listens on a socket in the file
// system, whose place, unlike a port, nobody else can take; connections are carried there.
func startNginx(t *testing.T, f ip.Family, dir string) netip.AddrPort {
	t.Helper()
	path := program(t, "nginx")
	place, err := os.MkdirTemp("", "kyozon-nginx-") // paths of such sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(place) })
	socket := filepath.Join(place, "s")
	text := fmt.Sprintf("daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/log;\nevents {}\nhttp { access_log off;"+
		" client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;\n"+
		" server { listen unix:%[2]s; root %[3]s; } }\n", place, socket, dir)
	conf := filepath.Join(place, "conf")
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, "-c", conf, "-e", filepath.Join(place, "log"))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	waitFor(t, "nginx listens", func() bool {
		s, err := net.Dial("unix", socket)
		if err == nil {
			s.Close()
		}
		return err == nil
	})
	return servertest.TCP(t, f, func(c *net.TCPConn) {
		s, err := net.Dial("unix", socket)
		if err != nil {
			return
		}
		defer s.Close()
		var wg sync.WaitGroup
		wg.Go(func() {
			io.Copy(s, c)
			s.(*net.UnixConn).CloseWrite()
		})
		io.Copy(c, s)
		c.Close()
		wg.Wait()
	})
}

// ask returns the status line, the fields but for those that belong to a hop or the time, and the body of an answer.
func ask(t *testing.T, at netip.AddrPort, method, fields string) (head []string, body string) {
	t.Helper()
	c := connect(t, at)
	defer c.Close()
	c.say(method + " /file HTTP/1.1\r\nHost: a\r\n" + fields + "Connection: close\r\n\r\n")
	all, err := io.ReadAll(c.r)
	if err != nil {
		t.Fatal(err)
	}
	text, body, _ := strings.Cut(string(all), "\r\n\r\n")
	head = slices.DeleteFunc(strings.Split(text, "\r\n"), func(line string) bool {
		return strings.HasPrefix(line, "Date:") || strings.HasPrefix(line, "Connection:")
	})
	if i := slices.IndexFunc(head, func(line string) bool { return strings.Contains(line, "boundary=") }); i >= 0 {
		_, boundary, _ := strings.Cut(head[i], "boundary=")
		head[i] = strings.ReplaceAll(head[i], boundary, "BOUNDARY")
		body = strings.ReplaceAll(body, boundary, "BOUNDARY")
	}
	slices.Sort(head)
	return head, body
}

// Requests for parts, and requests with conditions, get the very answer that the server gives without us.
func TestRangesAndConditions(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		dir := t.TempDir()
		for up := dir; up != os.TempDir() && up != "/"; up = filepath.Dir(up) {
			os.Chmod(up, 0o755) // nginx may be another user
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte(file()), 0o644); err != nil {
			t.Fatal(err)
		}
		tagged := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"tag"`)
			http.ServeFile(w, r, filepath.Join(dir, "file"))
		})
		for name, server := range map[string]netip.AddrPort{"net/http": servertest.HTTP(t, x.Backend, tagged), "nginx": startNginx(t, x.Backend, dir)} {
			b := newBench(t)
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, shared(server), defaults()))
			whole, body := ask(t, server, "GET", "")
			if body != file() {
				t.Fatalf("%s: the server gives %q", name, whole)
			}
			value := func(field string) string {
				i := slices.IndexFunc(whole, func(l string) bool { return strings.HasPrefix(strings.ToLower(l), field+": ") })
				if i < 0 {
					t.Fatalf("%s: no %s in %q", name, field, whole)
				}
				return whole[i][len(field)+2:]
			}
			tag, modified := value("etag"), value("last-modified")
			for _, fields := range []string{
				"", "Range: bytes=0-9\r\n", "Range: bytes=-5\r\n", "Range: bytes=5-\r\n", "Range: bytes=0-1,4-5\r\n", "Range: bytes=999999-\r\n",
				"Range: bytes=abc\r\n", "Range: lines=1-2\r\n", "Range: bytes=0-9\r\nIf-Range: " + tag + "\r\n", "Range: bytes=0-9\r\nIf-Range: \"no\"\r\n",
				"Range: bytes=0-9\r\nIf-Range: " + modified + "\r\n", "If-None-Match: " + tag + "\r\n", "If-None-Match: \"no\"\r\n", "If-None-Match: *\r\n",
				"If-Modified-Since: " + modified + "\r\n", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
				"If-Match: \"no\"\r\n", "If-Match: " + tag + "\r\n", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
			} {
				for _, method := range []string{"GET", "HEAD"} {
					wantHead, wantBody := ask(t, server, method, fields)
					gotHead, gotBody := ask(t, at.AddrPort, method, fields)
					if diff := cmp.Diff(wantHead, gotHead); diff != "" || gotBody != wantBody {
						t.Errorf("%s, %s %q: %d bytes, want %d (-direct +through us):\n%s", name, method, fields, len(gotBody), len(wantBody), diff)
					}
				}
			}
		}
	})
}

// Interim responses reach a client of HTTP/1.1, in order and with their fields, and none of HTTP/1.0. RFC 9110 §15.2.
func TestInterim(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			readHead(c)
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"+
				"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})), defaults()))
		for version, want := range map[string]string{"1.1": "100 103</a> 102 200", "1.0": "200"} {
			c := connect(t, at.AddrPort)
			c.say("GET / HTTP/" + version + "\r\nHost: a\r\n\r\n")
			var got []string
			for last := 0; last < 200; {
				r, _ := c.answer("GET")
				last = r.StatusCode
				got = append(got, fmt.Sprint(last, r.Header.Get("Link")))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("HTTP/%s: got %q, want %q", version, got, want)
			}
			c.Close()
		}
	})
}

// Expect: 100-continue is between client and server: late, not at all, or refused. RFC 9110 §10.1.1.
func TestExpectations(t *testing.T) {
	t.Parallel()
	const request = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		heard, answer := make(chan string, 1), make(chan string)
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			c.SetDeadline(time.Now().Add(patience))
			heard <- readHead(c)
			io.WriteString(c, <-answer)
			body := make([]byte, 5)
			if _, err := io.ReadFull(c, body); err == nil {
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n%s", body)
			}
		})), defaults()))
		for _, tt := range []struct {
			name, answer string
			status       int
		}{
			{"late", "HTTP/1.1 100 Continue\r\n\r\n", 200}, {"not at all", "", 200},
			{"refused", "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n", 417},
		} {
			c := connect(t, at.AddrPort)
			c.say(request)
			if head := <-heard; !strings.Contains(head, "\r\nExpect: 100-continue\r\n") { // before any body
				t.Errorf("%s: the server got %q", tt.name, head)
			}
			answer <- tt.answer
			if tt.name == "late" {
				if r, _ := c.answer("PUT"); r.StatusCode != 100 {
					t.Errorf("%s: got %d, want 100", tt.name, r.StatusCode)
				}
			}
			if tt.status == 200 {
				c.say("hello")
			}
			if r, body := c.answer("PUT"); r.StatusCode != tt.status || tt.status == 200 && body != "hello" || tt.status == 417 && !r.Close {
				t.Errorf("%s: got %d %q, close %v", tt.name, r.StatusCode, body, r.Close)
			}
			c.Close()
		}
	})
}

// Trailers go both ways; those that would change what is understood do not. RFC 9110 §6.5.
func TestTrailers(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			io.Copy(w, r.Body)
			w.(http.Flusher).Flush()
			w.Header().Set("X-Sum", r.Trailer.Get("X-Sum")+r.Trailer.Get("Authorization")+r.Trailer.Get("X-Forwarded-For"))
		}))), defaults()))
		c := connect(t, at.AddrPort)
		for range 2 {
			c.say("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
				"5\r\nhello\r\n0\r\nX-Sum: 42\r\nAuthorization: Basic eDp5\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
			if r, body := c.answer("POST"); r.StatusCode != 200 || body != "hello" || r.Trailer.Get("X-Sum") != "42" {
				t.Errorf("got %d %q, trailers %v", r.StatusCode, body, r.Trailer)
			}
		}
		c.Close()
	})
}

// A WebSocket on which nothing is said for as long as idle allows ends at both ends; before, either may speak.
func TestWebSocketIdle(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		ended := make(chan struct{})
		at := b.freeAddr(x.Client)
		s := b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			defer close(ended)
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil && r.Header.Get("Upgrade") == "websocket" {
				io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nspoken first")
				c.SetDeadline(time.Now().Add(patience))
				io.Copy(io.Discard, c)
			}
		})), defaults())
		s.Timeouts.Idle = ample
		b.serve(s)
		c := connect(t, at.AddrPort)
		c.say(webSocketRequest("a"))
		if r, err := http.ReadResponse(c.r, nil); err != nil || r.StatusCode != 101 {
			t.Fatalf("got %v, %v", r, err)
		}
		if got, _ := io.ReadAll(c.r); string(got) != "spoken first" {
			t.Errorf("the server said %q", got)
		}
		<-ended
	})
}

// A client cannot send a request before the handshake is over, so that nothing can be replayed: no ticket allows it.
// RFC 8446 §4.2.10 and §8.
func TestNoEarlyData(t *testing.T) {
	t.Parallel()
	path := program(t, "openssl")
	cert, _ := certificate(t, t.TempDir(), "shop.example.jp")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		b := newBench(t)
		at := b.freeAddr(f)
		b.serve(b.service("shop", at, shared(named(t, f, "shop")), withTLS(cert, "shop.example.jp")))
		c := exec.Command(path, "s_client", "-connect", at.AddrPort.String(), "-servername", "shop.example.jp", "-tls1_3", "-ign_eof")
		c.Stdin = strings.NewReader("GET / HTTP/1.1\r\nHost: shop.example.jp\r\nConnection: close\r\n\r\n")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "shop shop.example.jp https") {
			t.Fatalf("%v\n%s", err, out)
		}
		if !strings.Contains(string(out), "Max Early Data: 0") {
			t.Errorf("early data is offered, or no ticket was given:\n%s", out)
		}
	})
}
