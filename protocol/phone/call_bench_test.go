// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// callPlace is an agent between two trunks, without a network but for the ACK: what it sends is heard. Calls are made on its loop.
type callPlace struct {
	*agent
	tb           testing.TB
	at, from, to netip.AddrPort
	heard        [][]byte // since the last message that came
	calls        int
}

// openCallPlace makes one, with records and a journal.
func openCallPlace(tb testing.TB) *callPlace {
	tb.Helper()
	loops, err := relay.Open(1)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan bool)
	go func() {
		loops.Run(ctx)
		close(ended)
	}()
	tb.Cleanup(func() {
		cancel()
		<-ended
		loops.Close()
	})
	sink, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { sink.Close() })
	ours, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { ours.Close() })
	p := &callPlace{tb: tb, at: ours.LocalAddr().(*net.UDPAddr).AddrPort(), from: sink.LocalAddr().(*net.UDPAddr).AddrPort()}
	p.to = netip.AddrPortFrom(p.from.Addr(), p.from.Port()^1)
	dir := tb.TempDir()
	c := newCore(slog.New(slog.DiscardHandler), loops, dir, "", "")
	c.settings.Store(p.settings(c, dir))
	c.calls.hold()
	tb.Cleanup(func() { c.calls.release(func() {}) })
	raw, err := ours.SyscallConn()
	if err != nil {
		tb.Fatal(err)
	}
	if bad := raw.Control(func(fd uintptr) {
		var socket *relay.Datagrams
		if socket, err = loops.OpenDatagrams(int(fd), c.open); err == nil {
			tb.Cleanup(socket.Close)
		}
	}); bad != nil || err != nil {
		tb.Fatal(bad, err)
	}
	p.agent = c.agents[0]
	p.table.Send = func(_ sip.Way, b []byte) { p.heard = append(p.heard, bytes.Clone(b)) }
	return p
}

// settings are those of two trunks.
func (p *callPlace) settings(c *core, dir string) *settings {
	text := fmt.Sprintf(`site: bench
services:
  phone:
    protocol: phone
    listen: {net: [%q]}
    phone:
      domain: %s
      numbers: {plan: japan}
      trunks:
        from: {gateways: [%q], network: net, onward: [to]}
        to: {gateways: [%q], network: net}
      routes: [{to: [emergency, 0ab-j], via: to}]
      cdr: calls.jsonl
`, p.at, domain, p.from, p.to)
	cfg, err := config.Parse(filepath.Join(dir, "site.yaml"), []byte(text), []service.Protocol{Protocol()}, config.Options{})
	if err != nil {
		p.tb.Fatal(err)
	}
	s := cfg.Services[0]
	o := s.Options.(*Options)
	named := o.networks(s)
	set := &settings{options: o, networks: make(map[netip.AddrPort]*network), guard: c.guardOf(domain), plan: o.Compile()}
	for _, l := range s.Listen {
		n := named[l.Name]
		n.routes = [2]*backend.Route{{}, {}}
		set.networks[l.AddrPort] = n
	}
	if err := set.makeTrunks(named, nil); err != nil {
		p.tb.Fatal(err)
	}
	set.publish(c.answers.Load())
	return set
}

// spoken is what both ends say of media.
const spoken = "v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nc=IN IP6 ::1\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0 101\r\n" +
	"a=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n"

// call makes a whole call, on the loop, and returns how many messages were sent for it.
//
//	INVITE ─▶ INVITE ◀─ 180, 200 ◀─ 180, 200 ─▶ ACK, BYE ─▶ ACK, BYE ◀─ 200 ◀─ 200
func (p *callPlace) call() (sent int) {
	p.calls++
	take := func(m []byte, from netip.AddrPort) {
		p.heard = p.heard[:0]
		p.take(m, sip.Way{Local: p.at, Remote: from})
		sent += len(p.heard)
	}
	take(p.request("INVITE", "sip:0398765432@"+domain, "<sip:0398765432@"+domain+">", 1, spoken), p.from)
	invite := p.last("INVITE ")
	take(played(invite, "180 Ringing", p.to, ""), p.to)
	take(played(invite, "200 OK", p.to, spoken), p.to)
	answer := p.last("SIP/2.0 200 ")
	to, target := line(answer, "To: "), line(answer, "Contact: ")
	target = target[1 : len(target)-1]
	take(p.request("ACK", target, to, 1, ""), p.from)
	take(p.request("BYE", target, to, 2, ""), p.from)
	p.last("SIP/2.0 200 ")
	take(played(p.last("BYE "), "200 OK", p.to, ""), p.to)
	return sent
}

// last returns what was heard last that begins so.
func (p *callPlace) last(begins string) []byte {
	for _, message := range slices.Backward(p.heard) {
		if bytes.HasPrefix(message, []byte(begins)) {
			return message
		}
	}
	p.tb.Fatalf("call %d: want %q, heard %q", p.calls, begins, p.heard)
	return nil
}

// request is one of the caller's.
func (p *callPlace) request(method, target, to string, seq int, body string) []byte {
	contact := ""
	if body != "" {
		contact = fmt.Sprintf("Contact: <sip:client@%v>\r\nContent-Type: application/sdp\r\n", p.from)
	}
	return fmt.Appendf(nil, "%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %v;branch=z9hG4bK%d%[1]s\r\nMax-Forwards: 70\r\nFrom: <sip:0312345678@%[5]s>;tag=client%[4]d\r\n"+
		"To: %[6]s\r\nCall-ID: %[4]d@bench\r\nCSeq: %[7]d %[1]s\r\n%[8]sContent-Length: %[9]d\r\n\r\n%[10]s", method, target, p.from, p.calls, domain, to, seq,
		contact, len(body), body)
}

// played is the answer of who is called.
func played(request []byte, status string, at netip.AddrPort, body string) []byte {
	m := append(append([]byte("SIP/2.0 "), status...), "\r\n"...)
	for _, name := range []string{"Via: ", "From: ", "To: ", "Call-ID: ", "CSeq: "} {
		m = append(append(m, name...), line(request, name)...)
		if name == "To: " && !strings.Contains(line(request, name), ";tag=") {
			m = append(m, ";tag=server"...)
		}
		m = append(m, "\r\n"...)
	}
	if body != "" {
		m = append(m, "Content-Type: application/sdp\r\n"...)
	}
	return fmt.Appendf(m, "Contact: <sip:server@%v>\r\nContent-Length: %d\r\n\r\n%s", at, len(body), body)
}

// line returns the value of a field that begins a line so.
func line(m []byte, name string) string {
	_, rest, _ := bytes.Cut(m, []byte("\r\n"+name))
	value, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(value)
}

// run calls fn on the loop.
func (p *callPlace) run(fn func()) {
	done := make(chan bool)
	p.loop.Post(func() {
		defer close(done)
		fn()
	})
	<-done
}

// BenchmarkCall is a call from one trunk to another, both ends of which are played here too, without the network.
func BenchmarkCall(b *testing.B) {
	p := openCallPlace(b)
	b.ReportAllocs()
	before := held()
	b.ResetTimer()
	began := spent()
	p.run(func() {
		for range b.N {
			p.call()
		}
	})
	b.ReportMetric(float64(spent()-began)/float64(b.N), "cpu-ns/op")
	b.StopTimer()
	after := held()
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(b.N), "held-B/op")
	b.ReportMetric(float64(after.HeapObjects-before.HeapObjects)/float64(b.N), "held/op")
	runtime.KeepAlive(p)
}

// mostCallAllocs is what a whole call takes, with some 70 of both ends, which are played here.
const mostCallAllocs = 180

// TestCallAllocs: a call is six messages that come and six that go, and takes no more memory than it must.
func TestCallAllocs(t *testing.T) {
	p := openCallPlace(t)
	var got float64
	p.run(func() {
		p.call()
		got = testing.AllocsPerRun(300, func() { p.call() })
	})
	t.Logf("%v allocations", got)
	if got > mostCallAllocs {
		t.Errorf("got %v allocations, want at most %d", got, mostCallAllocs)
	}
}

// held is what is not garbage.
func held() (m runtime.MemStats) {
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// spent is the processor time of the process, in nanoseconds: a machine with other work is slow by the clock.
func spent() int64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // it always works
	return u.Utime.Nano() + u.Stime.Nano()
}
