// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"crypto/tls"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// counted returns the counts of an edge that are not zero: "messages_total x ipv6 ipv4 taken" → 1.
func (e *edge) counted(t *testing.T) map[string]int64 {
	t.Helper()
	all := make(map[string]int64)
	for _, c := range e.server.Counts() {
		if len(c.Values) != len(c.Metric.Labels) {
			t.Errorf("%s has labels %q and values %q", c.Metric.Name, c.Metric.Labels, c.Values)
		}
		key := strings.Join(append([]string{strings.TrimPrefix(c.Metric.Name, "kyozon_mail_")}, c.Values...), " ")
		if _, again := all[key]; again {
			t.Errorf("%s is there twice", key)
		}
		if all[key] = c.Value; c.Value == 0 {
			delete(all, key)
		}
	}
	return all
}

// refusedBy returns how often each rule has refused clients.
func (e *edge) refusedBy() map[string]int64 {
	all := make(map[string]int64)
	for _, r := range e.server.Refusals() {
		all[r.Family.String()+" "+r.Rule] += r.Count
	}
	return all
}

// until waits until the counts of an edge are these.
func (b *bench) until(t *testing.T, e *edge, want map[string]int64) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cmp.Equal(want, e.counted(t)) {
		if time.Now().After(deadline) {
			t.Fatalf("counts (-want +got):\n%s", cmp.Diff(want, e.counted(t)))
		}
		runtime.Gosched()
	}
}

// TestCounts: what servers say to messages and recipients is counted by crossing, and so is who comes and what the edge
// itself refuses.
func TestCounts(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
			m.Reply = func(line string) string {
				switch {
				case strings.HasPrefix(line, "MAIL FROM:<spam@"), strings.HasPrefix(line, "RCPT TO:<nobody@"):
					return "550 5.1.1 No"
				case strings.HasPrefix(line, "RCPT TO:<full@"):
					return "452 4.2.2 Full"
				}
				return ""
			}
		})
		e := b.serve(t, "smtp", x.Client, to(m.Addr), func(o *Options) { o.MessageSize = 100 })
		c := dial(t, e.at)
		f, fs := x.Client.String(), x.Client.String()+" "+x.Backend.String()
		b.until(t, e, map[string]int64{"sessions_total x " + f + " smtp": 1, "sessions_active x " + f + " smtp": 1})
		c.do("EHLO client.example", "250")
		c.do("MAIL FROM:<spam@example>", "550")
		c.do("MAIL FROM:<>", "250")
		c.do("RCPT TO:<nobody@example>", "550")
		c.do("RCPT TO:<full@example>", "452")
		c.do("RCPT TO:<a@example>", "250")
		c.do("RCPT TO:<b@example>", "250")
		c.do("DATA", "354")
		c.say("hello", ".")
		c.want("250")
		c.do("MAIL FROM:<>", "250")
		c.do("RCPT TO:<a@example>", "250")
		c.do("DATA", "354")
		c.say(strings.Repeat("x", 101), ".")
		c.want("552")
		c.do("MAIL FROM:<> SIZE=101", "552")
		c.do("XCLIENT ADDR=192.0.2.1", "550")
		c.do("QUIT", "221")
		c.ends()
		b.until(t, e, map[string]int64{
			"sessions_total x " + f + " smtp":   1,
			"messages_total x " + fs + " taken": 1, "messages_total x " + fs + " refused": 1,
			"recipients_total x " + fs + " taken": 3, "recipients_total x " + fs + " refused": 1, "recipients_total x " + fs + " later": 1,
		})
		if diff := cmp.Diff(map[string]int64{f + " too-large": 2, f + " untrusted": 1}, e.refusedBy()); diff != "" {
			t.Errorf("refusals (-want +got):\n%s", diff)
		}
	})
}

// TestCountsUnknown: a message of which a server has not said what became of it may be there twice.
func TestCountsUnknown(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	reached, gate := make(chan struct{}, 1), make(chan struct{})
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			if line != "." {
				return ""
			}
			reached <- struct{}{}
			<-gate
			return "keep and close"
		}
	})
	e := b.serve(t, "smtp", ip.V6, to(m.Addr), nil)
	c := dial(t, e.at)
	c.submit("hello")
	<-reached
	gate <- struct{}{}
	c.want("451 4.4.2")
	c.submit("hello, who is told nothing")
	<-reached
	c.reset()
	b.waitFor("that the client is gone", func() bool { return b.gone() })
	gate <- struct{}{}
	b.until(t, e, map[string]int64{"sessions_total x ipv6 smtp": 1, "messages_total x ipv6 ipv4 unknown": 2, "recipients_total x ipv6 ipv4 taken": 4,
		"doubtful_total server": 2})
}

// TestCountsRepeats: a message that comes again is counted, and an outcome that is kept for a client.
func TestCountsRepeats(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	reached, gate := make(chan struct{}, 1), make(chan struct{})
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			if line == "." {
				reached <- struct{}{}
				<-gate
			}
			return ""
		}
	})
	e := b.serve(t, "smtp", ip.V6, to(m.Addr), nil)
	c := dial(t, e.at)
	c.submit("hello")
	<-reached
	c.reset()
	gate <- struct{}{}
	want := map[string]int64{"sessions_total x ipv6 smtp": 1, "messages_total x ipv6 ipv4 taken": 1, "recipients_total x ipv6 ipv4 taken": 2, "outcomes_kept": 1}
	b.until(t, e, want)
	c = dial(t, e.at)
	c.submit("hello")
	c.want("250")
	c.do("QUIT", "221")
	c.ends()
	delete(want, "outcomes_kept")
	want["sessions_total x ipv6 smtp"], want["recipients_total x ipv6 ipv4 taken"], want["repeats_total x ipv6"] = 2, 4, 1
	b.until(t, e, want)
}

// TestCountsMailbox: sessions are counted until their mailbox is closed, whether TLS begins in between or not, and logins by
// what became of them.
func TestCountsMailbox(t *testing.T) {
	t.Parallel()
	o, trust := certificate(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		p := newIMAP(t, x.Backend, "* OK hello")
		e := b.serve(t, "imap", x.Client, to(p.at), func(all *Options) { all.TLS = o })
		f := x.Client.String()
		gone := newClient(t, dialPlain(t, e.at)) // begins TLS, and goes
		gone.want("* OK")
		gone.do("a STARTTLS", "a OK")
		gone.conn.Close()
		conn := dialPlain(t, e.at)
		c := newClient(t, conn)
		c.want("* OK")
		c.do("a STARTTLS", "a OK")
		c = newClient(t, tls.Client(conn, trust))
		c.do("b LOGIN me wrong", "b NO")
		b.until(t, e, map[string]int64{"sessions_total x " + f + " imap": 2, "sessions_active x " + f + " imap": 1, "logins_total x " + f + " imap denied": 1})
		c.do("c LOGIN me secret", "c OK")
		c.do("d idle", "D IDLE")
		b.until(t, e, map[string]int64{"sessions_total x " + f + " imap": 2, "sessions_active x " + f + " imap": 1, "logins_total x " + f + " imap denied": 1,
			"logins_total x " + f + " imap accepted": 1})
		conn.Close()
		b.until(t, e, map[string]int64{"sessions_total x " + f + " imap": 2, "logins_total x " + f + " imap denied": 1, "logins_total x " + f + " imap accepted": 1})
	})
}
