// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/service"
)

// edgeForever is an edge in a process of its own, until it is killed.
func edgeForever(t *testing.T, site string) {
	t.Helper()
	cfg, err := config.Load(site, []service.Protocol{Protocol()})
	if err != nil {
		t.Fatal(err)
	}
	e, err := edge.New(edge.Options{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Version: "test",
		Protocols: []service.Protocol{Protocol()}, Loops: 2, Sockets: listen.NewSet(listen.Options{})})
	if err != nil {
		t.Fatal(err)
	}
	err = e.Run(context.Background(), cfg, func() { os.Stdout.WriteString("ready\n") })
	t.Fatal(err)
}

// process starts the edge in a process of its own. kill kills it.
func (b *bench) process() (kill func()) {
	b.t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestKill$")
	child.Env = append(os.Environ(), "KYOZON_TEST_PHONE_EDGE="+filepath.Join(b.dir, "site.yaml"))
	child.Stderr = b.t.Output()
	out, err := child.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		b.t.Fatalf("the edge says %q: %v", line, err)
	}
	return func() {
		child.Process.Kill()
		child.Wait()
	}
}

// acknowledge has a device send the ACK of an answer that it has heard, which reaches the other.
func acknowledge(from, to *device, heard *sip.Message, seq uint32) {
	from.t.Helper()
	from.send(from.within(heard, "ACK", seq))
	to.want("ACK")
}

// TestKill kills edges, with SIGKILL, in the middle of calls. With the next one each end can end its call, or change it; the
// other hears of that; and each call has one record.
func TestKill(t *testing.T) {
	t.Parallel()
	if site := os.Getenv("KYOZON_TEST_PHONE_EDGE"); site != "" {
		edgeForever(t, site)
		return
	}
	b := newBench(t, ", cdr: calls.jsonl")
	b.end()
	b.write("site.yaml", b.site(", cdr: calls.jsonl"))
	kill := b.process()
	defer func() { kill() }()
	var ids []string
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		begin := func() (caller, callee *device, heard, came *sip.Message) {
			t.Helper()
			caller, callee = b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
			heard, came = b.call(caller, callee, nil, nil)
			ids = append(ids, string(heard.Get(sip.CallID)))
			kill()
			kill = b.process()
			return caller, callee, heard, came
		}
		caller, callee, heard, _ := begin() // the caller ends it
		hangUp(caller, callee, heard, sequence(heard)+1)
		kill() // at once: the record is not lost
		kill = b.process()
		callee.unregister()

		caller, callee, _, came := begin() // the callee does
		hangUp(callee, caller, came, 7)
		callee.unregister()

		caller, callee, heard, came = begin() // who was called changes it, and the edge dies again
		change := withBody(callee.within(came, "INVITE", 7), strings.Replace(callee.offer(), "4000", "4002", 1))
		callee.send(change)
		again := keep(caller.want("INVITE"))
		if !strings.Contains(bodyOf(again), "m=audio 4002 ") {
			t.Errorf("the caller got\n%s", bodyOf(again))
		}
		caller.response(again, 200, caller.offer())
		acknowledge(callee, caller, callee.want("200"), 7)
		kill()
		kill = b.process()
		hangUp(caller, callee, heard, sequence(heard)+1)
		callee.unregister()
	})
	kill()
	b.t = t
	b.start(", cdr: calls.jsonl") // which writes what is not written yet
	got := make(map[string]int)
	for _, r := range b.records() {
		got[r.Caller.CallID]++
		if r.Answer == nil || r.EndedBy == byEdge || r.Cause != 16 {
			t.Errorf("got %+v", r)
		}
	}
	for i, id := range ids {
		if got[id] != 1 {
			t.Errorf("call %d, %s, has %d records", i, id, got[id])
		}
	}
	if len(ids) != 6 || len(got) != len(ids) {
		t.Errorf("%d calls, records of %d", len(ids), len(got))
	}
}

// After a restart sessions are refreshed and expire as if nothing had been, over a connection too.
func TestRestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, ", cdr: calls.jsonl")
	restart := func() {
		b.end()
		b.start(", cdr: calls.jsonl")
	}
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("tcp", f, "05010000002")
		heard, came := b.call(caller, callee, []string{"Allow: UPDATE"}, []string{"Allow: UPDATE"})
		restart()
		in := func(at int64, l *leg) time.Duration { return time.Duration(at - l.agent.loop.Now()).Round(time.Minute) }
		b.legs(func(l *leg) {
			if s := &l.session.Timer; !s.Mine || in(s.Refresh, l) != 15*time.Minute || in(s.Expire, l) != 29*time.Minute {
				t.Errorf("refreshed in %v, over in %v", in(s.Refresh, l), in(s.Expire, l))
			}
		})
		if got := b.counted(); !slices.Contains(got, "calls_active "+f.String()+" "+f.String()+" 1") {
			t.Errorf("counted are %v", got)
		}
		b.core.seats.mu.Lock()
		if n := b.core.seats.taken[seat{name: callee.name}]; n != 1 {
			t.Errorf("%s has %d calls", callee.name, n)
		}
		b.core.seats.mu.Unlock()
		again := b.newDevice("tcp", f, callee.name) // the telephone connects again
		again.callID = callee.callID
		again.send(again.within(came, "INFO", 7))
		caller.response(caller.want("INFO"), 200, "")
		again.want("200")
		b.due()
		again.response(again.want("UPDATE"), 200, "")
		caller.response(caller.want("UPDATE"), 200, "")
		hangUp(caller, again, heard, sequence(heard)+1)
		if got := b.counted(); slices.Contains(got, "calls_active "+f.String()+" "+f.String()+" 1") {
			t.Errorf("counted are %v", got)
		}
		again.unregister()

		callee = b.registered("udp", f, "05010000002")
		b.call(caller, callee, nil, nil)
		b.legs(func(l *leg) {
			l.session.Timer.Expire = l.agent.loop.Now() + int64(time.Millisecond)
			l.save()
		})
		restart() // it expires meanwhile, or just after
		callee.response(keep(callee.want("BYE")), 200, "")
		caller.response(keep(caller.want("BYE")), 200, "")
		callee.unregister()
	})
	b.t = t
	restart()
	b.legs(func(l *leg) { t.Errorf("there is still a leg of %s", l.session.Remote) })
	if n := len(b.records()); n != 4 {
		t.Errorf("%d records, want 4", n)
	}
}
