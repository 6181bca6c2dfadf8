// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/service"
)

// usualFields are those of an ordinary response.
const usualFields = "Server: nginx/1.24.0\r\nDate: Wed, 25 Nov 2026 05:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\n" +
	"Last-Modified: Tue, 24 Nov 2026 05:00:00 GMT\r\nETag: \"674402d0-400\"\r\nCache-Control: max-age=60\r\n" +
	"Accept-Ranges: bytes\r\nContent-Length: 1024\r\n"

// responseOf parses a response with the given fields.
func responseOf(t testing.TB, fields string) *http1.Response {
	t.Helper()
	r := new(http1.Response)
	head := "HTTP/1.1 200 OK\r\n" + fields + "\r\n"
	if n, err := r.Parse([]byte(head), http1.Exchange{Verb: http1.Get, Minor: 1}, &http1.Limits{}); n == 0 || err != nil {
		t.Fatalf("%q: %d, %v", head, n, err)
	}
	return r
}

// literalPool has two servers.
func literalPool() *backend.Pool {
	return backend.NewPool(backend.PoolOptions{Service: "shop", Book: backend.NewBook(1), Spec: backend.Spec{Name: "existing",
		Servers: []backend.Server{{Addr: netip.MustParseAddrPort("10.0.1.11:80")}, {Addr: netip.MustParseAddrPort("10.0.1.12:80")}}}})
}

// lookAt returns what is found in a response, a line each.
func lookAt(t *testing.T, host string, fields string) (found []string) {
	t.Helper()
	var e evidence
	e.of("shop").look(responseOf(t, fields), literalPool(), []byte(host))
	for _, f := range e.findings([]*service.Service{{Name: "shop"}}) {
		own := ""
		if f.Backend {
			own = " own"
		}
		found = append(found, fmt.Sprintf("%s/%s %s %v%s %d: %s", f.Service, f.Pool, f.Place, f.Address, own, f.Count, f.Example))
	}
	return found
}

func TestLiterals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, fields string
		want         []string
	}{
		{"usual", usualFields, nil},
		{"location", usualFields + "Location: http://10.0.1.11/login?token=secret\r\n",
			[]string{"shop/existing Location 10.0.1.11 own 1: http://10.0.1.11/login"}},
		{"location with a port", "location:http://10.0.1.12:8080/\r\n",
			[]string{"shop/existing location 10.0.1.12 own 1: http://10.0.1.12:8080/"}},
		{"another server", "Location: https://203.0.113.80/\r\n", []string{"shop/existing Location 203.0.113.80 1: https://203.0.113.80/"}},
		{"no scheme", "Location: //192.0.2.1/\r\n", []string{"shop/existing Location 192.0.2.1 1: //192.0.2.1/"}},
		{"content-location", "Content-Location: http://10.0.1.11/a\r\n",
			[]string{"shop/existing Content-Location 10.0.1.11 own 1: http://10.0.1.11/a"}},
		{"refresh", "Refresh: 5; url=http://10.0.1.11/\r\n", []string{"shop/existing Refresh 10.0.1.11 own 1: 5; url=http://10.0.1.11/"}},
		{"link", "Link: <http://10.0.1.11/a.css>; rel=preload\r\n",
			[]string{"shop/existing Link 10.0.1.11 own 1: <http://10.0.1.11/a.css>"}},
		{"policy", "Content-Security-Policy: default-src 'self' http://198.51.100.7 https://10.0.1.12\r\n",
			[]string{"shop/existing Content-Security-Policy 198.51.100.7 1: default-src 'self' http://198.51.100.7",
				"shop/existing Content-Security-Policy 10.0.1.12 own 1: default-src 'self' http://198.51.100.7 https://10.0.1.12"}},
		{"cookie's domain", "Set-Cookie: sid=s3cr3t; Path=/; Domain=10.0.1.11; Secure\r\n",
			[]string{"shop/existing Set-Cookie 10.0.1.11 own 1: Domain=10.0.1.11"}},
		{"cookie's domain with a dot", "Set-Cookie: sid=s; domain=.192.0.2.1\r\n",
			[]string{"shop/existing Set-Cookie 192.0.2.1 1: domain=.192.0.2.1"}},
		{"cookie's value", "Set-Cookie: route=10.0.1.11; Path=/\r\nset-cookie: a=//10.0.1.11/\r\n", nil},
		{"own in another field", "X-Served-By: 10.0.1.11\r\nVia: 1.1 10.0.1.12:80 (squid)\r\n",
			[]string{"shop/existing X-Served-By 10.0.1.11 own 1: 10.0.1.11", "shop/existing Via 10.0.1.12 own 1: 1.1 10.0.1.12:80"}},
		{"mapped", "Location: http://[::ffff:10.0.1.11]/\r\n",
			[]string{"shop/existing Location 10.0.1.11 own 1: http://[::ffff:10.0.1.11]/"}},
		{"twice", "Location: http://10.0.1.11/a/http://10.0.1.11/b\r\n",
			[]string{"shop/existing Location 10.0.1.11 own 2: http://10.0.1.11/a/http://10.0.1.11/b"}},
		{"client's own address", "X-Your-Address: 198.51.100.9\r\n", nil},
		{"versions", "Server: Apache/2.4.57 (Debian) OpenSSL/3.0.1.2 PHP/8.1.2.3\r\n", nil},
		{"a path with a version", "Location: http://shop.example/files/1.2.3.4/\r\n", nil},
		{"names", "Location: http://10.0.1.11.example/\r\nLink: <http://x10.0.1.11/>\r\nX-A: host-10.0.1.11\r\nX-B: 10.0.1.11-b\r\n", nil},
		{"numbers", "Location: http://10.0.1.256/\r\nLink: <//10.0.1>\r\nX-A: 10.0.1.11.5\r\nX-B: 1.10.0.1.11\r\nX-C: 010.0.1.11\r\n", nil},
		{"long", "Location: http://" + strings.Repeat("a", 200) + "//10.0.1.11/" + strings.Repeat("b", 200) + "\r\n",
			[]string{"shop/existing Location 10.0.1.11 own 1: 10.0.1.11/" + strings.Repeat("b", 90)}},
		{"the end of a sentence", "X-Note: see 10.0.1.11.\r\n", []string{"shop/existing X-Note 10.0.1.11 own 1: see 10.0.1.11."}},
		{"nothing before it", "X-A:10.0.1.11\r\n", []string{"shop/existing X-A 10.0.1.11 own 1: 10.0.1.11"}},
		{"dots", "X-A: ..................\r\nX-B: 1.1.1.\r\nX-C: .1.1.1\r\n", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, lookAt(t, "shop.example", test.fields)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestLiteralsOfTheClient: what the client has called the server is not the server's.
func TestLiteralsOfTheClient(t *testing.T) {
	t.Parallel()
	if found := lookAt(t, "203.0.113.10", "Location: http://203.0.113.10/next\r\n"); found != nil {
		t.Errorf("found %q", found)
	}
}

// TestLiteralsBounded: a client that has a server write addresses without end does not crowd out the servers' own.
func TestLiteralsBounded(t *testing.T) {
	t.Parallel()
	var e evidence
	l, pool := e.of("shop"), literalPool()
	var wg sync.WaitGroup
	for loop := range 4 {
		wg.Go(func() {
			for i := range 500 {
				l.look(responseOf(t, fmt.Sprintf("Location: //192.0.%d.%d/\r\n", loop, i%250)), pool, nil)
			}
			l.look(responseOf(t, "Location: //10.0.1.11/\r\n"), pool, nil)
		})
	}
	wg.Wait()
	all := e.findings([]*service.Service{{Name: "shop"}, {Name: "another"}})
	last := all[len(all)-1]
	if len(all) != maxLiterals+1 || !last.Backend || last.Count != 4 {
		t.Errorf("%d findings, the last %+v", len(all), last)
	}
}

// FuzzLiterals: what is found stands there, and what a URL names is found.
func FuzzLiterals(f *testing.F) {
	f.Add("Location: http://10.0.1.11/", "")
	f.Add("Set-Cookie: a=b; domain=.10.0.1.11", "10.0.1.11")
	f.Add("X: 1.2.3.4.5.6.7.8 //255.255.255.255 ....1", "x")
	f.Fuzz(func(t *testing.T, line, host string) {
		r := new(http1.Response)
		head := "HTTP/1.1 200 OK\r\n" + line + "\r\nLink: <http://192.0.2.77/>\r\n\r\n"
		if n, err := r.Parse([]byte(head), http1.Exchange{Verb: http1.Get, Minor: 1}, &http1.Limits{}); n != len(head) || err != nil {
			return
		}
		var e evidence
		e.of("shop").look(r, literalPool(), []byte(host))
		last := false
		for _, f := range e.findings([]*service.Service{{Name: "shop"}}) {
			if !strings.Contains(head, f.Address.String()) || !strings.Contains(head, f.Place+":") || !strings.Contains(head, f.Example) {
				t.Errorf("%+v in %q", f, head)
			}
			last = last || f.Place == "Link" && f.Address == netip.MustParseAddr("192.0.2.77")
		}
		if !last && host != "192.0.2.77" && len(e.findings([]*service.Service{{Name: "shop"}})) < maxLiterals {
			t.Errorf("the last field was not found in %q", head)
		}
	})
}

// TestLiteralAllocs: to look allocates nothing, and nothing more for what was seen before.
func TestLiteralAllocs(t *testing.T) {
	var e evidence
	l, pool := e.of("shop"), literalPool()
	for _, fields := range []string{usualFields, "Location: http://10.0.1.11/\r\n"} {
		r := responseOf(t, fields)
		if n := testing.AllocsPerRun(100, func() { l.look(r, pool, nil) }); n != 0 {
			t.Errorf("%q: %v allocations", fields, n)
		}
	}
}

func BenchmarkLiterals(b *testing.B) {
	for name, fields := range map[string]string{
		"usual":    usualFields,
		"apache":   strings.Replace(usualFields, "nginx/1.24.0", "Apache/2.4.57 (Debian) OpenSSL/3.0.1", 1),
		"redirect": usualFields + "Location: http://10.0.1.11/\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			var e evidence
			l, pool, r := e.of("shop"), literalPool(), responseOf(b, fields)
			for b.Loop() {
				l.look(r, pool, nil)
			}
		})
	}
}
