// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// mirror is a server that answers with the fields of the request as it sees them, a line each, sorted.
func mirror(t testing.TB, f ip.Family) netip.AddrPort {
	t.Helper()
	return servertest.HTTP(t, f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var b bytes.Buffer
		r.Header.Write(&b)
		lines := strings.Split(strings.TrimSuffix(b.String(), "\r\n"), "\r\n")
		slices.Sort(lines)
		io.WriteString(w, strings.Join(lines, "\n"))
	}))
}

// toldBy returns what a server is told about a client of the test who has asked for host at an address: nothing more,
// and nothing less, whatever the client says.
func toldBy(at netip.AddrPort, host string) []string {
	who := at.Addr().String()
	quoted := who
	if at.Addr().Is6() {
		quoted = `"[` + who + `]"`
	}
	return []string{
		fmt.Sprintf(`Forwarded: for=%s;proto=http;host="%s"`, quoted, host),
		"X-Forwarded-For: " + who,
		"X-Forwarded-Host: " + host,
		fmt.Sprintf("X-Forwarded-Port: %d", at.Port()),
		"X-Forwarded-Proto: http",
	}
}

// Whatever a client says about who it is, and whatever it says is for the next hop alone, the server sees its other
// fields and what we tell. Without a handover it is told nothing, by nobody.
func TestStrangersFields(t *testing.T) {
	t.Parallel()
	const spoofed = "198.51.100.66"
	tests := []struct {
		name, fields string
		want         []string // beside what is told
	}{
		{"nothing", "", nil},
		{"each way to name a client", "X-Forwarded-For: " + spoofed + "\r\nForwarded: for=" + spoofed + "\r\nX-Real-IP: " + spoofed +
			"\r\nX-Forwarded: " + spoofed + "\r\nTrue-Client-IP: " + spoofed + "\r\nClient-IP: " + spoofed + "\r\nX-Client-IP: " + spoofed +
			"\r\nX-Cluster-Client-IP: " + spoofed + "\r\n", nil},
		{"and how it came", "X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: on\r\nX-Forwarded-Scheme: https\r\nX-Forwarded-Port: 443\r\n" +
			"X-Forwarded-Host: admin\r\nX-Forwarded-Server: admin\r\nX-Forwarded-Prefix: /admin\r\nX-Forwarded-Uri: /admin\r\n" +
			"X-Forwarded-Method: GET\r\nX-Forwarded-By: x\r\nX-Forwarded-User: root\r\nX-Forwarded-Email: root@a\r\n", nil},
		{"twice, in odd case", "x-forwarded-for: 1.2.3.4\r\nX-FORWARDED-FOR: " + spoofed + ", 5.6.7.8\r\nforwarded: for=_x\r\nFORWARDED: by=_y\r\n", nil},
		{"a mapped address", "X-Forwarded-For: ::ffff:10.0.0.1\r\nForwarded: for=\"[::ffff:10.0.0.1]\"\r\n", nil},
		{"Connection names what we tell (CVE-2021-32813)", "Connection: close, X-Forwarded-For, x-forwarded-proto, Forwarded, X-Real-IP, X-Forwarded-Host\r\n", nil},
		{"Connection names what is there", "Connection: X-Secret\r\nX-Secret: 1\r\nX-Other: 2\r\n", []string{"X-Other: 2"}},
		{"Connection names what is not there", "Connection: X-Secret, , TE\r\nX-Other: 2\r\n", []string{"X-Other: 2"}},
		{"for one hop", "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nTE: gzip\r\nTrailer: X\r\nX-Other: 2\r\n", []string{"X-Other: 2"}},
		{"HTTP_PROXY of CGI (CVE-2016-5385)", "Proxy: http://evil/\r\n", nil},
		{"Early-Data, RFC 8470 §5.1", "Early-Data: 1\r\n", []string{"Early-Data: 1"}},
		{"what means nothing to us", "Cookie: a=b\r\nAuthorization: Basic eDp5\r\nX-Empty:\r\nX-High: \xe4\xf6\r\n",
			[]string{"Authorization: Basic eDp5", "Cookie: a=b", "X-Empty: ", "X-High: \xe4\xf6"}},
	}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server := mirror(t, x.Backend)
		told, untold := b.freeAddr(x.Client), b.freeAddr(x.Client)
		b.serve(b.service("told", told, shared(server), defaults()), b.service("untold", untold, private(server), defaults()))
		for _, tt := range tests {
			for at, want := range map[netip.AddrPort][]string{
				told.AddrPort: append(toldBy(told.AddrPort, "a"), tt.want...), untold.AddrPort: tt.want,
			} {
				c := connect(t, at)
				c.say("GET / HTTP/1.1\r\nHost: a\r\n" + tt.fields + "\r\n")
				_, body := c.answer("GET")
				want = slices.Sorted(slices.Values(want))
				if diff := cmp.Diff(strings.Join(want, "\n"), body); diff != "" {
					t.Errorf("%s (-want +got):\n%s", tt.name, diff)
				}
				c.Close()
			}
		}
	})
}

// Names with underscores, which some servers read as hyphens, are refused; where they are allowed, those are that a
// server could take for one of ours.
func TestUnderscores(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		w := newWitness(t, x.Backend)
		strict, lax := b.freeAddr(x.Client), b.freeAddr(x.Client)
		o := defaults()
		o.Limits.Underscores = true
		b.serve(b.service("strict", strict, shared(w.addr), defaults()), b.service("lax", lax, shared(w.addr), o))
		for _, tt := range []struct {
			field         string
			strict, allow int
		}{
			{"X_Forwarded_For: 10.0.0.1", 400, 400},
			{"x_real_ip: 10.0.0.1", 400, 400},
			{"X-Forwarded_Proto: https", 400, 400},
			{"Content_Length: 5", 400, 400},
			{"Transfer_Encoding: chunked", 400, 400},
			{"my_session: 1", 400, 200},
			{"X-Ok: a_b", 200, 200},
		} {
			for at, want := range map[netip.AddrPort]int{strict.AddrPort: tt.strict, lax.AddrPort: tt.allow} {
				c := connect(t, at)
				c.say("GET / HTTP/1.1\r\nHost: a\r\n" + tt.field + "\r\n\r\n")
				if r, _ := c.answer("GET"); r.StatusCode != want {
					t.Errorf("%s: got %d, want %d", tt.field, r.StatusCode, want)
				}
				if reached := len(w.take()) > 0; reached != (want == 200) {
					t.Errorf("%s: reached the server: %v", tt.field, reached)
				}
				c.Close()
			}
		}
	})
}

// Only a WebSocket is switched to. Every other token is left out, so that what follows is read as HTTP by us, and a
// server that switches all the same is cut off (CVE-2026-88008).
func TestUpgradeTokens(t *testing.T) {
	t.Parallel()
	const asked = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		for _, tt := range []struct{ name, request, answer string }{
			{"h2c", "GET / HTTP/1.1\r\nHost: a\r\n" + asked + "Upgrade: h2c\r\n\r\n", "h2c"},
			{"h2c behind websocket", "GET / HTTP/1.1\r\nHost: a\r\n" + asked + "Upgrade: websocket, h2c\r\n\r\n", "h2c"},
			{"h2c before websocket", "GET / HTTP/1.1\r\nHost: a\r\n" + asked + "Upgrade: h2c, websocket\r\n\r\n", "websocket"},
			{"h2c beside websocket", "GET / HTTP/1.1\r\nHost: a\r\n" + asked + "Upgrade: websocket\r\nUpgrade: h2c\r\n\r\n", "h2c"},
			{"TLS, RFC 2817", "OPTIONS * HTTP/1.1\r\nHost: a\r\n" + asked + "Upgrade: TLS/1.0\r\n\r\n", "TLS/1.0"},
			{"anything", "GET / HTTP/1.1\r\nHost: a\r\n" + asked + "Upgrade: foo/2\r\n\r\n", "foo/2"},
			{"websocket with POST", "POST / HTTP/1.1\r\nHost: a\r\n" + asked + "Upgrade: websocket\r\nContent-Length: 0\r\n\r\n", "websocket"},
			{"websocket of HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\n" + asked + "Upgrade: websocket\r\n\r\n", "websocket"},
			{"websocket not asked for in Connection", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "websocket"},
			{"unasked", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "websocket"},
			{"websocket, answered with h2c", webSocketRequest("a"), "h2c"},
			{"websocket, answered with nothing", webSocketRequest("a"), ""},
		} {
			heard := make(chan string, 1)
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
				head := readHead(c)
				io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+tt.answer+"\r\n\r\n")
				c.SetDeadline(time.Now().Add(patience))
				rest, _ := io.ReadAll(c)
				heard <- head + string(rest)
			})), defaults()))
			c := connect(t, at.AddrPort)
			c.say(tt.request + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
			if r, _ := c.answer("GET"); r.StatusCode != 502 {
				t.Fatalf("%s: got %d, want 502", tt.name, r.StatusCode)
			}
			c.end()
			got := <-heard
			if i := strings.Index(got, "\r\n\r\n"); i+len("\r\n\r\n") != len(got) {
				t.Errorf("%s: the server got %q", tt.name, got)
			}
			if asks := strings.Contains(tt.name, ", answered"); asks != strings.Contains(got, "Upgrade: websocket\r\n") ||
				!asks && strings.Contains(got, "Upgrade") || strings.Contains(got, "HTTP2-Settings") {
				t.Errorf("%s: the server was asked %q", tt.name, got)
			}
		}
	})
}

// readHead reads up to the first empty line.
func readHead(c net.Conn) string {
	var head []byte
	for next := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, next...) {
		if _, err := io.ReadFull(c, next); err != nil {
			break
		}
	}
	return string(head)
}
