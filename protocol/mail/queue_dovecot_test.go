// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/service"
)

// mails are what is new in a mailbox.
func mails(t testing.TB, d *servertest.Dovecot, user string) (all []string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(d.Mailbox(user), "new", "*")) // the pattern is right
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.ReplaceAll(string(text), "\n", "\r\n"))
	}
	return all
}

// TestDovecotLMTP: a real server answers for each recipient, before the message and behind it; who can have it has it, once,
// who cannot now gets it later, and who is not there is refused to the client at once.
func TestDovecotLMTP(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		d := servertest.OpenDovecotLMTP(t, x.Backend, "now-none@example", "stuck-none@example", "now-xclient@example", "stuck-xclient@example")
		for _, h := range []backend.Handover{backend.HandoverNone, backend.HandoverXclient} {
			t.Run(h.String(), func(t *testing.T) {
				b := newBench(t)
				spec := to(d.LMTP)
				spec.Handover = h
				e := b.serveAbroadAs(t, "smtp", x.Client, spec, keeps(SpeechLMTP))
				now, stuck := "now-"+h.String()+"@example", "stuck-"+h.String()+"@example"
				if err := os.WriteFile(d.Mailbox(stuck), nil, 0o600); err != nil { // where its mailbox should be
					t.Fatal(err)
				}
				c := dial(t, e.at)
				if got := c.do("EHLO client.example", "250"); !strings.Contains(got, "PIPELINING") || !strings.Contains(got, "8BITMIME") {
					t.Errorf("offered %q", got)
				}
				c.say("MAIL FROM:<a@example> SIZE=10000 BODY=8BITMIME", "RCPT TO:<"+now+">", "RCPT TO:<nobody@example>", "RCPT TO:<"+stuck+">", "DATA")
				c.want("250")
				c.want("250")
				c.want("550 5.1.1")
				c.want("250")
				c.want("354")
				c.say("Subject: caf\xc3\xa9", "", "..hello", ".")
				c.want("250 2.0.0 Kept")
				b.waitFor("that one recipient waits", func() bool {
					all := b.fronts().queues.list()
					return len(all) == 1 && slices.Equal(all[0].Recipients, []string{stuck}) && !all[0].Busy
				})
				if last := b.fronts().queues.list()[0].Last; !strings.HasPrefix(last, "451 4.2.0 ") {
					t.Errorf("it waits for %q", last)
				}
				if err := os.Remove(d.Mailbox(stuck)); err != nil {
					t.Fatal(err)
				}
				if n, err := b.fronts().queues.retry(service.All); n != 1 || err != nil {
					t.Errorf("retried %d, %v", n, err)
				}
				b.empties()
				for _, user := range []string{now, stuck} {
					all := mails(t, d, user)
					if len(all) != 1 || !strings.HasSuffix(all[0], "\r\nSubject: caf\xc3\xa9\r\n\r\n.hello\r\n") || !strings.Contains(all[0], "Return-Path: <a@example>") ||
						!strings.Contains(all[0], fmt.Sprintf("Received: from client.example ([%s])", literal(abroad(x.Client).Addr()))) {
						t.Errorf("%s has %q", user, all)
					}
					seen := strings.Contains(all[0], "Received: from mx.example (["+abroad(x.Client).Addr().String()+"])")
					if seen != (h == backend.HandoverXclient) {
						t.Errorf("%v: the server has written %q", h, all[0])
					}
				}
			})
		}
	})
}
