// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/service"
)

// keeps has the messages of the pool kept.
func keeps(s Speech, more ...func(*Queue)) func(*Options) {
	return func(o *Options) {
		o.Queue = &Queue{Pools: map[string]Speech{"existing": s}}
		for _, change := range more {
			change(o.Queue)
		}
	}
}

// sums are the counts of a pool.
func (b *bench) sums(pool string) queue.Counts {
	return b.fronts().queues.sums.Counts()[queue.Destination{Service: "x", Pool: pool}]
}

// empties waits until nothing is in the queue.
func (b *bench) empties() {
	b.t.Helper()
	b.waitFor("that the queue is empty", func() bool { return len(b.fronts().queues.list()) == 0 })
}

// A message is kept, of every size and over every crossing, the client is told so, and each recipient gets it.
func TestQueue(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		for _, speech := range []Speech{SpeechLMTP, SpeechSMTP} {
			b := newBench(t)
			m := servertest.NewMail(t, x.Backend, nil)
			c := dial(t, b.serve(t, "smtp", x.Client, to(m.Addr), keeps(speech)).at)
			if got := c.do("EHLO client.example", "250"); !strings.Contains(got, "CHUNKING") || strings.Contains(got, "SMTPUTF8") ||
				strings.Contains(got, "DSN") != (speech == SpeechLMTP) {
				t.Errorf("offered %q", got)
			}
			want := make(map[string]int)
			for i, size := range []int{0, 1, 4000, 300_000, 1_000_000} {
				text := message(size)
				c.do("MAIL FROM:<a@example> SIZE=1 BODY=8BITMIME", "250")
				c.do("RCPT TO:<b@example>", "250")
				c.do("RCPT TO:<c@example>", "250")
				if i%2 == 1 {
					half := len(text) / 2
					fmt.Fprintf(c.conn, "BDAT %d\r\n%sBDAT %d LAST\r\n%s", half, text[:half], len(text)-half, text[half:])
					c.want("250")
				} else {
					c.do("DATA", "354")
					io.WriteString(c.conn, stuffed(text)+".\r\n")
				}
				c.want("250 2.0.0 Kept as 1-")
				want[text]++
			}
			c.do("QUIT", "221")
			c.ends()
			b.empties()
			copies, each := make(map[string]int), 1
			for _, got := range m.Messages() {
				trace, text, _ := strings.Cut(got.Text, "\r\n\t")
				by, text, _ := strings.Cut(text, "\r\n\t")
				_, text, _ = strings.Cut(text, "\r\n")
				address := iptest.Loopback(x.Client).String()
				if x.Client == ip.V6 {
					address = "IPv6:" + address
				}
				if trace != "Received: from client.example (["+address+"])" || by != "by mx.example with ESMTP;" {
					t.Errorf("traced %q %q", trace, by)
				}
				if got.Mail != "MAIL FROM:<a@example> BODY=8BITMIME" || got.Helo != "mx.example" {
					t.Errorf("got %q, %q", got.Mail, got.Helo)
				}
				copies[text] += len(got.Rcpt)
			}
			for text := range want {
				if copies[text] != 2*each {
					t.Errorf("%d bytes: %d recipients have it, want 2", len(text), copies[text])
				}
			}
			if got := b.sums("existing"); got != (queue.Counts{Added: 5, Delivered: 10}) {
				t.Errorf("counted %+v", got)
			}
		}
	})
}

// Recipients are answered by a server, which is told addresses only and gets the message later.
func TestQueueAsked(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	gate := make(chan struct{})
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			switch {
			case strings.Contains(line, "<unknown@"):
				return "550 5.1.1 No such user"
			case line == "DATA":
				<-gate
			}
			return ""
		}
	})
	c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), keeps(SpeechLMTP)).at)
	c.do("EHLO client.example", "250")
	c.do("MAIL FROM:<a@example> SIZE=100 RET=FULL ENVID=Q", "250")
	c.do("RCPT TO:<unknown@example> NOTIFY=NEVER", "550 5.1.1 No such user")
	c.do("RCPT TO:<b@example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B@example", "250")
	c.do("DATA", "354")
	c.say("hello", ".")
	c.want("250 2.0.0 Kept")
	all := b.fronts().queues.list()
	if len(all) != 1 || !slices.Equal(all[0].Recipients, []string{"b@example"}) || all[0].Sender != "a@example" {
		t.Errorf("listed %+v", all)
	}
	close(gate)
	b.waitFor("the report", func() bool { return len(m.Messages()) == 2 })
	report := m.Messages()[1]
	if report.Mail != "MAIL FROM:<>" && report.Mail != "MAIL FROM:<> BODY=8BITMIME" || !strings.Contains(report.Text, "Original-Envelope-Id: Q") ||
		!strings.Contains(report.Text, "Original-Recipient: rfc822; B@example") || !strings.Contains(report.Text, "Remote-MTA: dns; server.example") {
		t.Errorf("reported %+v", report)
	}
	b.empties()
}

// Each recipient has the answer of its own: one has the message, one gets it later, for one the sender gets a report, which
// goes to the pool for it.
func TestQueueEach(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		var later atomic.Int64
		m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
			m.Reply = func(line string) string {
				switch {
				case strings.HasPrefix(line, ". RCPT TO:<never@"):
					return "552 5.2.2 Full"
				case strings.HasPrefix(line, ". RCPT TO:<later@") && later.Add(1) == 1:
					return "452 4.2.2 Full"
				}
				return ""
			}
		})
		relay := servertest.NewMail(t, x.Backend, nil)
		b.more = map[string]backend.Spec{"relay": to(relay.Addr)}
		e := b.serve(t, "smtp", x.Client, to(m.Addr), keeps(SpeechLMTP, func(q *Queue) { q.Reports = "relay" }))
		c := dial(t, e.at)
		c.do("EHLO client.example", "250")
		c.do("MAIL FROM:<a@example>", "250")
		for _, who := range []string{"now", "later", "never"} {
			c.do("RCPT TO:<"+who+"@example>", "250")
		}
		c.do("DATA", "354")
		c.say("Subject: x", "", "hello", ".")
		c.want("250 2.0.0 Kept")
		b.waitFor("the report", func() bool { return len(relay.Messages()) == 1 })
		b.waitFor("that one recipient waits", func() bool {
			all := b.fronts().queues.list()
			return len(all) == 1 && slices.Equal(all[0].Recipients, []string{"later@example"}) && !all[0].Busy
		})
		if got := relay.Messages()[0]; !slices.Equal(got.Rcpt, []string{"RCPT TO:<a@example>"}) || !strings.Contains(got.Text, "Final-Recipient: rfc822; never@example\r\n"+
			"Action: failed\r\nStatus: 5.2.2") || got.Helo != "mx.example" {
			t.Errorf("reported %+v", got)
		}
		all := b.fronts().queues.list()
		if all[0].Last != "452 4.2.2 Full" || all[0].Attempts != 1 || !all[0].Next.After(time.Now()) {
			t.Errorf("listed %+v", all[0])
		}
		if n, err := b.fronts().queues.retry(all[0].ID); n != 1 || err != nil {
			t.Errorf("retried %d, %v", n, err)
		}
		b.empties()
		var got []string
		for _, one := range m.Messages() {
			got = append(got, one.Rcpt...)
		}
		if !slices.Equal(got, []string{"RCPT TO:<now@example>", "RCPT TO:<later@example>"}) {
			t.Errorf("got %q", got)
		}
	})
}

// A report that nobody takes is the end: the sender of none is never told.
func TestQueueDouble(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			if strings.HasPrefix(line, ". ") {
				return "550 5.1.1 No"
			}
			return ""
		}
	})
	c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), keeps(SpeechLMTP)).at)
	c.submit("hello")
	c.want("250 2.0.0 Kept")
	b.waitFor("the end of the report", func() bool { return b.sums("existing").Unreported == 1 })
	b.empties()
	if got := b.sums("existing"); got != (queue.Counts{Added: 2, Failed: 3, Unreported: 1, Reports: 1}) {
		t.Errorf("counted %+v", got)
	}
}

// While no server can be asked, recipients of some domains are taken, others are not; and all get their messages when there
// is a server.
func TestQueueUnasked(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at, err := servertest.FreeAddr(x.Backend)
		if err != nil {
			t.Fatal(err)
		}
		e := b.serve(t, "smtp", x.Client, to(at), keeps(SpeechLMTP, func(q *Queue) { q.Unasked = []string{"example.jp"} }))
		c := dial(t, e.at)
		c.do("EHLO client.example", "250")
		c.do("MAIL FROM:<a@example>", "250")
		c.do("RCPT TO:<b@example>", "451 4.4.1")
		c.do("RCPT TO:<b@Example.JP>", "250")
		c.do("DATA", "354")
		c.say("hello", ".")
		c.want("250 2.0.0 Kept")
		c.do("MAIL FROM:<a@example>", "250")
		c.do("RCPT TO:<b@example>", "451 4.4.1")
		c.do("DATA", "503")
		b.waitFor("that it is known why it waits", func() bool {
			all := b.fronts().queues.list()
			return len(all) == 1 && strings.Contains(all[0].Last, at.String()) && all[0].Attempts == 0
		})
		m := servertest.NewMailAt(t, at, nil)
		if n, err := b.fronts().queues.retry(service.All); n != 1 || err != nil {
			t.Errorf("retried %d, %v", n, err)
		}
		b.empties()
		if got := m.Messages(); len(got) != 1 || !strings.HasSuffix(got[0].Text, "hello\r\n") {
			t.Errorf("got %q", got)
		}
	})
}
