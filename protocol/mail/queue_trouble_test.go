// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/service"
)

// offer says a message as far as its end.
func (c *client) offer(text string) string {
	c.t.Helper()
	c.do("MAIL FROM:<a@example>", "250")
	c.do("RCPT TO:<b@example>", "250")
	c.do("DATA", "354")
	c.say(text, ".")
	return c.hear()
}

// TestQueueFull: what has no room is refused for now, by number, by size and on a full disk; what was taken is all there, once,
// and when there is room again, all goes on.
func TestQueueFull(t *testing.T) {
	t.Parallel()
	big := strings.Repeat(strings.Repeat("x", 70)+"\r\n", 500)
	for _, test := range []struct {
		name   string
		change func(*Queue)
		disk   bool
	}{
		{"messages", func(q *Queue) { q.Messages = 7 }, false},
		{"bytes", func(q *Queue) { q.Size = service.Bytes(6 * len(big)) }, false},
		{"disk", func(*Queue) {}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			if test.disk {
				mountSmall(t, b.state)
			}
			var open atomic.Bool
			m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
				m.Reply = func(line string) string {
					if line == "DATA" && !open.Load() {
						return "451 4.3.2 Later"
					}
					return ""
				}
			})
			c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), keeps(SpeechLMTP, test.change)).at)
			c.do("EHLO client.example", "250")
			taken, reply := 0, ""
			for ; taken < 200; taken++ {
				if reply = c.offer(fmt.Sprint(taken, "\r\n", big)); !strings.HasPrefix(reply, "250 ") {
					break
				}
			}
			if !strings.HasPrefix(reply, "452 4.3.1 ") || taken < 5 {
				t.Fatalf("%d messages were taken, then %q", taken, reply)
			}
			if test.disk {
				if err := os.Remove(filepath.Join(b.state, "ballast")); err != nil {
					t.Fatal(err)
				}
			}
			open.Store(true)
			b.waitFor("that the queue is empty", func() bool {
				b.fronts().queues.retry(service.All) // all is an answer that never fails
				return len(b.fronts().queues.list()) == 0
			})
			b.waitFor("that there is room again", func() bool { return strings.HasPrefix(c.offer("last\r\n"+big), "250 ") })
			b.empties()
			had := make(map[string]int)
			for _, got := range m.Messages() {
				first, _, _ := strings.Cut(strings.SplitN(got.Text, "\r\n", 4)[3], "\r\n")
				had[first]++
			}
			for n := range taken {
				if had[fmt.Sprint(n)] != 1 {
					t.Errorf("message %d is there %d times", n, had[fmt.Sprint(n)])
				}
			}
			if had["last"] != 1 || len(had) != taken+1 {
				t.Errorf("got %v", had)
			}
		})
	}
}

// mountSmall puts a small file system at a folder, with something in it that can be removed.
func mountSmall(t testing.TB, folder string) {
	t.Helper()
	if err := syscall.Mount("none", folder, "tmpfs", 0, "size=2m"); err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatalf("mount a small file system: %v", err)
		}
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(folder, "ballast"), make([]byte, 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestQueueHostile: whatever a server says, or does not say, no message is lost and none takes another's place. It is tried
// again, and in the end a server has it.
func TestQueueHostile(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, at, reply string
		tried           int  // attempts that the message is charged with
		twice           bool // the server has it, and has not said so
	}{
		{"no greeting", "", "close", 0, false},
		{"no service", "", "554 No", 0, false},
		{"not for now", "", "421 Busy", 0, false},
		{"not greeted back", "LHLO", "502 What", 0, false},
		{"gone at MAIL", "MAIL", "close", 0, false},
		{"busy at MAIL", "MAIL", "421 Busy", 0, false},
		{"later at MAIL", "MAIL", "451 Later", 1, false},
		{"gone at RCPT", "RCPT", "close", 1, false},
		{"later at RCPT", "RCPT", "450 Later", 1, false},
		{"no answer", "RCPT", "2", 1, false},
		{"gone at DATA", "DATA", "close", 1, false},
		{"taken before it is sent", "DATA", "250 Ok", 1, false},
		{"gone behind the message", ". ", "close", 1, false},
		{"gone with the message", ". ", "keep and close", 1, true},
		{"later", ". ", "452 Full", 1, false},
		{"a second question", ". ", "354 More", 1, false},
		{"an answer without end", ". ", "250-Ok\r\n251 Ok", 1, true},
		{"an endless answer", ". ", strings.Repeat("250-Ok\r\n", 5000), 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			var asked atomic.Int64 // how often the moment has come: first for the client, then for his message
			m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
				m.Reply = func(line string) string {
					if !strings.HasPrefix(line, test.at) || test.at == "" && line != "" {
						return ""
					}
					before := int64(2)
					if test.at == "DATA" || test.at == ". " {
						before = 1
					}
					if asked.Add(1) == before {
						return test.reply
					}
					return ""
				}
			})
			c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), keeps(SpeechLMTP)).at)
			c.do("EHLO client.example", "250")
			if got := c.offer("hello"); !strings.HasPrefix(got, "250 2.0.0 Kept") {
				t.Fatalf("got %q", got)
			}
			c.do("QUIT", "221")
			b.waitFor("that the message waits", func() bool {
				all := b.fronts().queues.list()
				return len(all) == 1 && !all[0].Busy && all[0].Last != ""
			})
			if got := b.fronts().queues.list()[0]; got.Attempts != test.tried {
				t.Errorf("listed %+v, want %d attempts", got, test.tried)
			}
			if n, err := b.fronts().queues.retry(service.All); n != 1 || err != nil {
				t.Errorf("retried %d, %v", n, err)
			}
			b.empties()
			want := map[bool]int{false: 1, true: 2}[test.twice]
			if got := m.Messages(); len(got) != want {
				t.Errorf("the server has %d messages, want %d", len(got), want)
			}
			if test.at == ". " && test.reply != "452 Full" { // the server has said nothing of the message
				b.waitFor("that it is counted", func() bool { return b.outcomesOf().Lost == 1 })
			} else if lost := b.outcomesOf().Lost; lost != 0 {
				t.Errorf("%d may be there twice", lost)
			}
		})
	}
}

// TestQueueGenerations: a reload changes where messages go, and keeps those that wait; a pool that goes and comes back has
// its own again. What is left when the last generation has gone is there for the next process.
func TestQueueGenerations(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	at := make([]netip.AddrPort, 2)
	for i := range at {
		var err error
		if at[i], err = servertest.FreeAddr(ip.V4); err != nil {
			t.Fatal(err)
		}
	}
	unasked := func(q *Queue) { q.Unasked = []string{anyDomain} }
	e := b.serve(t, "smtp", ip.V6, to(at[0]), keeps(SpeechLMTP, unasked))
	c := dial(t, e.at)
	c.do("EHLO client.example", "250")
	for n := range 3 {
		if got := c.offer(fmt.Sprint(n)); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("got %q", got)
		}
	}
	l := service.Listen{Name: "smtp", Addr: tcpAddr(e.at)}
	b.build(t, l, to(at[0]), nil) // keeps nothing any more
	held := b.fronts().queues.held()
	if len(held) != 1 || held[0].Messages != 3 || !strings.Contains(held[0].Stuck, `"existing" of "x"`) {
		t.Errorf("held %+v", held)
	}
	b.build(t, l, to(at[1]), keeps(SpeechLMTP, unasked)) // other servers
	if held := b.fronts().queues.held(); len(held) != 1 || held[0].Stuck != "" {
		t.Errorf("held %+v", held)
	}
	m := servertest.NewMailAt(t, at[1], nil)
	b.waitFor("that all are delivered", func() bool {
		b.fronts().queues.retry(service.All) // all is an answer that never fails
		return len(m.Messages()) == 3
	})
	b.empties()
}

// TestQueueHandedOver: what an edge leaves, the next one takes over, also while the two are there at once.
func TestQueueHandedOver(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	gate := make(chan struct{})
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			if line == "DATA" {
				<-gate
			}
			return ""
		}
	})
	var benches []*bench
	var ends []func()
	for n := range 2 {
		b := newBench(t)
		b.state, b.stopped = state, make(chan struct{}) // never: an end waits for what is under way
		benches = append(benches, b)
		e := b.serve(t, "smtp", ip.V6, to(m.Addr), keeps(SpeechLMTP, func(q *Queue) { q.AtOnce = 1 }))
		ends = append(ends, e.end)
		c := dial(t, e.at)
		c.do("EHLO client.example", "250")
		for i := range 5 {
			if got := c.offer(fmt.Sprint(n, i)); !strings.HasPrefix(got, fmt.Sprintf("250 2.0.0 Kept as %d-", n+1)) {
				t.Fatalf("got %q", got)
			}
		}
		c.do("QUIT", "221")
	}
	var once sync.WaitGroup
	once.Go(ends[0])
	benches[0].waitFor("that it ends", benches[0].fronts().queues.isStopping)
	close(gate)
	once.Wait()
	benches[1].fronts().queues.life.Lock()
	benches[1].fronts().queues.adopt()
	benches[1].fronts().queues.life.Unlock()
	benches[1].fronts().queues.rouse()
	benches[1].empties()
	had := make(map[string]int)
	for _, got := range m.Messages() {
		had[strings.SplitN(got.Text, "\r\n", 4)[3]]++
	}
	if len(had) != 10 || len(m.Messages()) != 10 {
		t.Errorf("got %v", had)
	}
	if got := benches[1].sums("existing"); got.Messages != 0 || got.Bytes != 0 {
		t.Errorf("counted %+v", got)
	}
	benches[1].waitFor("that nothing is under way", benches[1].gone)
	ends[1]()
	if left, err := os.ReadDir(filepath.Join(state, "mail", "queue")); err != nil || len(left) != 0 {
		t.Errorf("%d journals are left, %v", len(left), err)
	}
}

// TestQueueAtOnce: a server has only so many connections, and several messages go over one.
func TestQueueAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var now, most, hellos atomic.Int64
	gate := make(chan struct{})
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			switch {
			case strings.HasPrefix(line, "LHLO mx.example"):
				hellos.Add(1)
			case line == "DATA":
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-gate
			case strings.HasPrefix(line, ". "):
				now.Add(-1)
			}
			return ""
		}
	})
	c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), keeps(SpeechLMTP, func(q *Queue) { q.AtOnce = 2 })).at)
	c.do("EHLO client.example", "250")
	for n := range 20 {
		if got := c.offer(fmt.Sprint(n)); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("got %q", got)
		}
	}
	b.waitFor("two connections", func() bool { return now.Load() == 2 })
	close(gate)
	b.empties()
	if most.Load() != 2 || hellos.Load() > 4 {
		t.Errorf("%d at once, %d connections", most.Load(), hellos.Load())
	}
	if got := b.sums("existing"); got != (queue.Counts{Added: 20, Delivered: 20}) {
		t.Errorf("counted %+v", got)
	}
}

// TestQueueCrowd: who names more than a record holds is refused, and nothing is left of it.
func TestQueueCrowd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := servertest.NewMail(t, ip.V4, nil)
	c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), keeps(SpeechLMTP)).at)
	c.do("EHLO client.example", "250")
	c.do("MAIL FROM:<a@example>", "250")
	long := strings.Repeat("x", 480)
	for n := range 1000 {
		c.do(fmt.Sprintf("RCPT TO:<%d%s@example> ORCPT=rfc822;%s", n, long, long), "250")
	}
	c.do("DATA", "354")
	c.say("hello", ".")
	c.want("452 4.5.3")
	if got := b.sums("existing"); got != (queue.Counts{}) {
		t.Errorf("counted %+v", got)
	}
	b.empties()
}

// TestQueueTLS: a message goes in TLS to a server with which TLS must be spoken, and to no other.
func TestQueueTLS(t *testing.T) {
	t.Parallel()
	good, _ := servertest.TLS(t, "mta.example")
	trust, _ := servertest.Files(t, t.TempDir(), good)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		change := keeps(SpeechLMTP, func(q *Queue) { q.Unasked = []string{anyDomain} })
		plain := tlsMail(t, x.Backend, nil, "")
		e := b.serve(t, "smtp", x.Client, speaking(probe.Required, "mta.example", trust, plain.Addr), change)
		c := dial(t, e.at)
		c.do("EHLO client.example", "250")
		if got := c.offer("hello"); !strings.HasPrefix(got, "250 ") {
			t.Fatalf("got %q", got)
		}
		b.waitFor("that it waits", func() bool {
			all := b.fronts().queues.list()
			return len(all) == 1 && all[0].Last == "the server does not offer STARTTLS" && all[0].Attempts == 0
		})
		if slices.Contains(plain.Commands(), "MAIL") {
			t.Errorf("in clear it heard %q", plain.Commands())
		}
		secure := tlsMail(t, x.Backend, good, "")
		b.build(t, service.Listen{Name: "smtp", Addr: tcpAddr(e.at)}, speaking(probe.Required, "mta.example", trust, secure.Addr), change)
		b.empties()
		if got := strings.Join(secure.Clear(), " "); len(secure.Messages()) != 1 || got != "LHLO STARTTLS" {
			t.Errorf("it has %d messages, and heard %q in clear", len(secure.Messages()), got)
		}
	})
}
