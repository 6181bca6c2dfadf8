// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// logLine is a line of the access log without what differs from run to run.
type logLine struct {
	Msg, Service, Crossing, Pool, Backend, Reason, Method, Path, Protocol string

	Client   netip.Addr
	StandIn  netip.Addr `json:"stand-in"`
	ToServer int        `json:"to-server-bytes"`
	ToClient int        `json:"to-client-bytes"`
	Status   int
}

// readLog returns the lines of an access log.
func readLog(t *testing.T, name string) (lines []logLine) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for text := range bytes.Lines(data) {
		var l logLine
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// TestLogFlows: each flow over TCP has its line when it has ended, also one that came to nothing.
func TestLogFlows(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		b.log = filepath.Join(b.dir, "access.log")
		server, at, shut := teller(t, c.Backend), b.free(listen.TCP, c.Client), b.free(listen.TCP, c.Client)
		more := "source: client"
		if c.Client == ip.V4 && c.Backend == ip.V6 {
			more = "source: edge" // there are no embedded addresses on loopback
		}
		b.serve(line("echo", "tcp", at, servers([]netip.AddrPort{server}, more)),
			line("shut", "tcp", shut, servers([]netip.AddrPort{server}), fmt.Sprintf("deny: [%q]", client(c.Client).String())))
		s := open(t, at)
		if err := s.echo("hello"); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if !refused(shut, 'x') {
			t.Error("a denied client was served")
		}
		b.stop()
		var got, refusal logLine
		for _, l := range readLog(t, b.log) {
			if l.Service == "echo" {
				got = l
			} else {
				refusal = l
			}
		}
		want := logLine{Msg: "flow", Service: "echo", Crossing: c.String(), Pool: "existing", Backend: server.String(),
			Client: client(c.Client), ToServer: len("hello\n")}
		if c.Client == ip.V6 && c.Backend == ip.V4 {
			want.StandIn = s.saw.Addr()
		}
		got.ToClient = 0 // the greeting has a port in it
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("line (-want +got):\n%s", diff)
		}
		if refusal.Reason != "denied" || refusal.Backend != "" || refusal.Client != client(c.Client) {
			t.Errorf("refusal: %+v", refusal)
		}
	})
}

// TestLogPackets: a flow over UDP has its line, too.
func TestLogPackets(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		b.log = filepath.Join(b.dir, "access.log")
		server, at := packetTeller(t, c.Backend), b.free(listen.UDP, c.Client)
		b.serve(line("game", "udp", at, servers([]netip.AddrPort{server})))
		if _, err := askPackets(dialPackets(t, at)); err != nil {
			t.Fatal(err)
		}
		b.stop()
		lines := readLog(t, b.log)
		if len(lines) != 1 || lines[0].Msg != "flow" || lines[0].Crossing != c.String() || lines[0].ToServer == 0 ||
			lines[0].ToClient == 0 || lines[0].Client != client(c.Client) {
			t.Errorf("%+v", lines)
		}
	})
}

// TestLogRequests: each request has its line, with what was asked for; the flow that carries them has none. An IPv4
// address in a response is a finding.
func TestLogRequests(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		b.log = filepath.Join(b.dir, "access.log")
		server := servertest.HTTP(t, c.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Location", "http://192.0.2.80/index.html")
			fmt.Fprint(w, "hello")
		}))
		at := b.free(listen.TCP, c.Client)
		b.serve(line("shop", "web", at, servers([]netip.AddrPort{server}, "handover: header")))
		browser := browser(t, c.Client, true)
		for range 2 {
			if status, _, err := get(browser, at); status != 200 || err != nil {
				t.Fatal(status, err)
			}
		}
		found := b.edge.Status().Findings
		browser.CloseIdleConnections()
		b.stop()
		lines := readLog(t, b.log)
		for _, l := range lines {
			if l.ToClient < len("hello") {
				t.Errorf("%d bytes to the client", l.ToClient)
			}
			l.ToServer, l.ToClient = 0, 0
			want := logLine{Msg: "request", Service: "shop", Crossing: c.String(), Pool: "existing", Backend: server.String(),
				Client: client(c.Client), Method: "GET", Path: "/", Protocol: "HTTP/1.1", Status: 200}
			if l != want {
				t.Errorf("line %+v\nwant %+v", l, want)
			}
		}
		if len(lines) != 2 {
			t.Errorf("%d lines, want 2", len(lines))
		}
		want := edge.FindingStatus{Service: "shop", Pool: "existing", Field: "Content-Location", Address: "192.0.2.80", Count: 2,
			Example: "http://192.0.2.80/index.html"}
		if len(found) != 1 || found[0] != want {
			t.Errorf("found %+v", found)
		}
	})
}

// TestLogRotate: after a reload that changes nothing the lines are in a new file, and none is lost.
func TestLogRotate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.log = filepath.Join(b.dir, "access.log")
	server, at := teller(t, ip.V4), b.free(listen.TCP, ip.V6)
	site := line("echo", "tcp", at, servers([]netip.AddrPort{server}))
	b.serve(site)
	use := func() {
		before := b.over("echo")
		open(t, at).Close()
		await(t, "the flow has ended", func() bool { return b.over("echo") > before })
	}
	use()
	if err := os.Rename(b.log, b.log+".1"); err != nil {
		t.Fatal(err)
	}
	use()
	if err := b.edge.Reload(b.parse(site)); err == nil || !strings.Contains(err.Error(), "nothing has changed") {
		t.Fatal(err)
	}
	use()
	if old := readLog(t, b.log+".1"); len(old) != 2 {
		t.Errorf("%d lines in the old file, want 2", len(old))
	}
	b.stop()
	if fresh := readLog(t, b.log); len(fresh) != 1 {
		t.Errorf("%d lines in the new file, want 1", len(fresh))
	}
	if s := b.edge.Status().AccessLog; s.Lines != 3 || s.Dropped != 0 || s.Err != "" {
		t.Errorf("%+v", s)
	}
}

// TestLogRefused: a file that cannot be opened is a reason to refuse the site; the log in use goes on. It can be
// turned off.
func TestLogRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	name := filepath.Join(b.dir, "access.log")
	b.log = name
	server, at := teller(t, ip.V6), b.free(listen.TCP, ip.V6)
	site := line("echo", "tcp", at, servers([]netip.AddrPort{server}))
	b.serve(site)
	b.log = filepath.Join(b.dir, "none", "access.log")
	want := "open access log " + b.log + ": no such file or directory"
	if err := b.edge.Reload(b.parse(site)); err == nil || err.Error() != want || b.edge.Status().ReloadErr != want {
		t.Errorf("%v, want %s", err, want)
	}
	if s := b.edge.Status().AccessLog; s.To != name {
		t.Errorf("%+v, want the log to go on", s)
	}
	open(t, at).Close()
	await(t, "the flow has ended", func() bool { return b.over("echo") == 1 })
	b.log = "off"
	b.serve(site)
	open(t, at).Close()
	if s := b.edge.Status().AccessLog; s.To != "" {
		t.Errorf("%+v, want it off", s)
	}
	b.stop()
	if lines := readLog(t, name); len(lines) != 1 {
		t.Errorf("%d lines, want the one of before", len(lines))
	}
}

// over returns how many flows of a service have ended.
func (b *bench) over(name string) (n int64) {
	for _, s := range b.edge.Status().Services {
		if s.Service == name {
			for _, c := range s.Crossings {
				n += c.Opened - c.Active
			}
		}
	}
	return n
}
