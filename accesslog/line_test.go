// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// at is when the records of the tests ended.
func at() time.Time {
	return time.Date(2026, 11, 25, 14, 3, 7, 120_450_000, time.FixedZone("JST", 9*3600))
}

// full returns a record in which nothing is zero.
func full() *Record {
	r := &Record{Request: true, TLS: 0x0304, Service: "shop", Client: netip.MustParseAddrPort("[2001:db8:1:2::7]:51234"),
		StandIn: netip.MustParseAddr("100.64.0.17"), Pool: "existing", Backend: netip.MustParseAddrPort("10.0.1.11:80"),
		Reused: true, Retries: 1, Reason: metrics.ServerTimeout, Counts: metrics.Counts{ToServer: 412, ToClient: 160},
		Wait: 210 * time.Microsecond, First: 1100 * time.Microsecond, Total: 30 * time.Second, Version: 20, Status: 504}
	r.SetRequest([]byte("GET"), []byte("shop.example.jp"), []byte("/cart?id=7"))
	return r
}

// oracle writes r by log/slog.
func oracle(r *Record, at time.Time) string {
	var out bytes.Buffer
	msg, method, host, path := "flow", "", "", ""
	if r.Request {
		msg = "request"
		method, host, path = cutText(r.texts())(r)
	}
	var attrs []slog.Attr
	add := func(present bool, a slog.Attr) {
		if present {
			attrs = append(attrs, a)
		}
	}
	add(r.Service != "", slog.String("service", r.Service))
	add(r.Client.IsValid(), slog.Any("client", r.Client.Addr()))
	add(r.Client.IsValid(), slog.Int("port", int(r.Client.Port())))
	add(r.StandIn.IsValid(), slog.Any("stand-in", r.StandIn))
	if r.Backend.IsValid() {
		if r.Client.IsValid() {
			c := ip.Crossing{Client: ip.FamilyOf(r.Client.Addr()), Backend: ip.FamilyOf(r.Backend.Addr())}
			attrs = append(attrs, slog.String("crossing", c.String()))
		}
		add(r.Pool != "", slog.String("pool", r.Pool))
		attrs = append(attrs, slog.Any("backend", r.Backend))
	}
	add(r.TLS != 0, slog.String("tls", map[uint16]string{0x0303: "1.2", 0x0304: "1.3"}[r.TLS]))
	if r.Request {
		add(r.Version != 0, slog.String("protocol", map[uint8]string{10: "HTTP/1.0", 11: "HTTP/1.1", 20: "HTTP/2"}[r.Version]))
		add(method != "", slog.String("method", method))
		add(host != "", slog.String("host", host))
		add(path != "", slog.String("path", path))
		add(r.Status != 0, slog.Int("status", int(r.Status)))
	}
	attrs = append(attrs, slog.Uint64("to-server-bytes", r.Counts.ToServer), slog.Uint64("to-client-bytes", r.Counts.ToClient))
	add(r.Wait != 0, slog.Int64("wait-us", r.Wait.Microseconds()))
	add(r.First != 0, slog.Int64("first-byte-us", r.First.Microseconds()))
	attrs = append(attrs, slog.Int64("total-us", r.Total.Microseconds()))
	add(r.Reused, slog.Bool("reused", true))
	add(r.Retries != 0, slog.Int("retries", int(r.Retries)))
	add(r.Reason != metrics.Fine, slog.String("reason", r.Reason.String()))
	record := slog.NewRecord(at, slog.LevelInfo, msg, 0)
	record.AddAttrs(attrs...)
	slog.NewJSONHandler(&out, nil).Handle(context.Background(), record)
	return out.String()
}

// cutText says how the texts of a record are to be written.
func cutText(method, host, path []byte) func(r *Record) (string, string, string) {
	show := func(p []byte, t text) string {
		if !t.cut {
			return string(p)
		}
		return string(wholeCharacters(p)) + "…"
	}
	return func(r *Record) (string, string, string) {
		return show(method, r.method), show(host, r.host), show(path, r.path)
	}
}

// TestLine: a line, as an operator reads it.
func TestLine(t *testing.T) {
	t.Parallel()
	want := `{"time":"2026-11-25T14:03:07.12045+09:00","level":"INFO","msg":"request","service":"shop",` +
		`"client":"2001:db8:1:2::7","port":51234,"stand-in":"100.64.0.17","crossing":"6→4","pool":"existing",` +
		`"backend":"10.0.1.11:80","tls":"1.3","protocol":"HTTP/2","method":"GET","host":"shop.example.jp",` +
		`"path":"/cart?id=7","status":504,"to-server-bytes":412,"to-client-bytes":160,"wait-us":210,` +
		`"first-byte-us":1100,"total-us":30000000,"reused":true,"retries":1,"reason":"server-timeout"}` + "\n"
	if diff := cmp.Diff(want, string(appendLine(nil, full(), at()))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLineOracle: each line is what log/slog would have written.
func TestLineOracle(t *testing.T) {
	t.Parallel()
	request := func(method, host, path string) func(*Record) {
		return func(r *Record) { r.SetRequest([]byte(method), []byte(host), []byte(path)) }
	}
	tests := []struct {
		name   string
		change func(*Record)
	}{
		{"full", func(*Record) {}},
		{"nothing", func(r *Record) { *r = Record{} }},
		{"a request that could not be read", func(r *Record) { *r = Record{Request: true, Status: 400, Reason: metrics.ClientFault} }},
		{"flow", func(r *Record) { r.Request = false }},
		{"no backend", func(r *Record) { r.Backend, r.Status, r.Reason = netip.AddrPort{}, 503, metrics.NoneUp }},
		{"IPv6 backend", func(r *Record) { r.Backend = netip.MustParseAddrPort("[fd00:1::21]:80") }},
		{"quotes", request("GET", "a", `/"\`)},
		{"control bytes", request("G\tT", "a\r\nb", "/\x00\x01\x1b[2J\x7f")},
		{"html is not escaped", request("GET", "a", "/<script>&'")},
		{"not UTF-8", request("GET", "a\xff", "/\xc3\x28\xed\xa0\x80")},
		{"line separators", request("GET", "a", "/\u2028\u2029é日本")},
		{"cut", request(strings.Repeat("M", 17), strings.Repeat("h", 200), "/"+strings.Repeat("p", 256))},
		{"cut in a character", request("GET", "a", strings.Repeat("日", 100))},
		{"not cut", request(strings.Repeat("M", 16), strings.Repeat("h", 112), strings.Repeat("p", 256))},
		{"TLS 1.2, HTTP/1.0", func(r *Record) { r.TLS, r.Version = 0x0303, 10 }},
		{"HTTP/1.1", func(r *Record) { r.TLS, r.Version = 0, 11 }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := full()
			test.change(r)
			if diff := cmp.Diff(oracle(r, at()), string(appendLine(nil, r, at()))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestLineCrossings: each crossing has its word.
func TestLineCrossings(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := &Record{Client: netip.AddrPortFrom(iptest.Loopback(c.Client), 1), Backend: netip.AddrPortFrom(iptest.Loopback(c.Backend), 2)}
		if got := string(appendLine(nil, r, at())); !strings.Contains(got, `"crossing":"`+c.String()+`"`) {
			t.Errorf("no %v in %s", c, got)
		}
	})
}

// FuzzLine: whatever a client asks for, the line is one line of JSON, and the one that log/slog would write.
func FuzzLine(f *testing.F) {
	f.Add([]byte("GET"), []byte("shop.example"), []byte("/"))
	f.Add([]byte("\x00\xff\""), []byte("\\u0000"), []byte("/\u2028\xed\xa0\x80\n{"))
	f.Add([]byte("GET"), []byte("é"), bytes.Repeat([]byte("日"), 90))
	f.Fuzz(func(t *testing.T, method, host, path []byte) {
		r := full()
		r.SetRequest(method, host, path)
		got := appendLine(nil, r, at())
		if want := oracle(r, at()); string(got) != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(got, &fields); err != nil || bytes.IndexByte(got, '\n') != len(got)-1 {
			t.Errorf("%q is not one line of JSON: %v", got, err)
		}
	})
}

// TestNoAllocations: what the loops do and what is done for each line allocates nothing.
func TestNoAllocations(t *testing.T) {
	l := New(Options{Loops: 1, Now: func() int64 { return 0 }})
	l.Use(&Target{})
	r, line, when := full(), make([]byte, 0, 4096), at()
	path := []byte("/cart?id=7")
	if n := testing.AllocsPerRun(100, func() {
		r.SetRequest(path, path, path)
		l.Add(0, r)
	}); n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { line = appendLine(line[:0], r, when) }); n != 0 {
		t.Errorf("a line allocates %v times", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, on := range []bool{true, false} {
		b.Run(map[bool]string{true: "on", false: "off"}[on], func(b *testing.B) {
			l := New(Options{Loops: 1, Now: func() int64 { return 0 }})
			if on {
				l.Use(&Target{})
			}
			r := full()
			for b.Loop() {
				l.Add(0, r)
				if q := l.rings.Load(); q != nil { // the writer, for nothing
					(*q)[0].head.Store((*q)[0].tail.Load())
				}
			}
		})
	}
}

func BenchmarkSetRequest(b *testing.B) {
	r, method, host, path := full(), []byte("GET"), []byte("shop.example.jp"), []byte("/catalogue/item/12345?colour=blue")
	for b.Loop() {
		r.SetRequest(method, host, path)
	}
}

func BenchmarkLine(b *testing.B) {
	r, line, when := full(), make([]byte, 0, 4096), time.Now().Truncate(time.Microsecond)
	for b.Loop() {
		line = appendLine(line[:0], r, when)
	}
	b.SetBytes(int64(len(line)))
}

// BenchmarkSlog is BenchmarkLine by log/slog, with its attributes at hand.
func BenchmarkSlog(b *testing.B) {
	var out bytes.Buffer
	h := slog.NewJSONHandler(&out, nil)
	r, when := full(), time.Now()
	for b.Loop() {
		out.Reset()
		method, host, path := r.texts()
		record := slog.NewRecord(when, slog.LevelInfo, "request", 0)
		record.AddAttrs(slog.String("service", r.Service), slog.String("client", r.Client.Addr().String()),
			slog.Int("port", int(r.Client.Port())), slog.String("stand-in", r.StandIn.String()), slog.String("crossing", "6→4"),
			slog.String("pool", r.Pool), slog.String("backend", r.Backend.String()), slog.String("tls", "1.3"),
			slog.String("protocol", "HTTP/2"), slog.String("method", string(method)), slog.String("host", string(host)),
			slog.String("path", string(path)), slog.Int("status", int(r.Status)),
			slog.Uint64("to-server-bytes", r.Counts.ToServer), slog.Uint64("to-client-bytes", r.Counts.ToClient),
			slog.Int64("wait-us", r.Wait.Microseconds()), slog.Int64("first-byte-us", r.First.Microseconds()),
			slog.Int64("total-us", r.Total.Microseconds()), slog.Bool("reused", true), slog.Int("retries", 1),
			slog.String("reason", r.Reason.String()))
		h.Handle(context.Background(), record)
	}
	b.SetBytes(int64(out.Len()))
}
