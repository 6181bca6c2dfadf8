// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"net/smtp"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
)

// deaths are the moments at which the edge is killed: the beginning of what the server then hears, or of what it says.
var deaths = []string{"", "greeting", "EHLO", "MAIL", "RCPT", "DATA", "end", "taken"}

// death is an edge that is to be killed when a server comes to a moment.
type death struct {
	at   string
	edge *exec.Cmd
	done atomic.Bool
}

// strikes kills the edge if the moment has come.
func (d *death) strikes(line string) bool {
	switch d.at {
	case "":
		return false
	case "greeting":
		if line != "" {
			return false
		}
	case "end", "taken":
		if line != "." {
			return false
		}
	default:
		if !strings.HasPrefix(line, d.at) {
			return false
		}
	}
	d.edge.Process.Kill()
	d.edge.Wait()
	d.done.Store(true)
	return true
}

// TestMailKill: whenever the edge is killed, a message that its client goes on to send until it is taken is there, and
// only one that the server had taken before the client could hear of it is there twice.
func TestMailKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var armed atomic.Pointer[death]
	var servers [2]*servertest.Mail
	for i, f := range []ip.Family{ip.V4, ip.V6} {
		servers[i] = servertest.NewMail(t, f, func(m *servertest.Mail) {
			m.Reply = func(line string) string {
				d := armed.Load()
				if d == nil || !d.strikes(line) {
					return ""
				}
				armed.Store(nil)
				if d.at == "end" {
					return "close"
				}
				return ""
			}
		})
	}
	var more strings.Builder
	var at [4]netip.AddrPort
	for i, x := range ip.Crossings() {
		a, err := servertest.FreeAddr(x.Client)
		if err != nil {
			t.Fatal(err)
		}
		at[i] = a
		fmt.Fprintf(&more, "  m%d: {protocol: mail, listen: {smtp: %q}, pools: {mta: {servers: [%q]}}, clients: {%v: {smtp: mta}}, "+
			"mail: {name: mx.example, relay-proof: off}}\n", i, a, servers[i%2].Addr, x.Client)
	}
	w.write(more.String())
	count := 50
	if os.Getenv("KYOZON_SOAK") != "" {
		count = 1000
	}
	p := w.start()
	for n := range count {
		d := &death{at: deaths[n/4%len(deaths)], edge: p}
		armed.Store(d)
		for submit(at[n%4], n) != nil {
			if d.done.Swap(false) {
				p = w.start()
			}
		}
		if armed.Swap(nil) != nil && d.at != "" {
			t.Fatalf("message %d: the edge was not killed at %q", n, d.at)
		}
	}
	copies := map[string]int{}
	for _, m := range servers {
		for _, got := range m.Messages() {
			copies[got.Text]++
		}
	}
	for n := range count {
		want := 1
		if deaths[n/4%len(deaths)] == "taken" {
			want = 2
		}
		if got := copies[text(n)]; got != want {
			t.Errorf("message %d, with the edge killed at %q, is there %d times, want %d", n, deaths[n/4%len(deaths)], got, want)
		}
	}
}

func text(n int) string { return fmt.Sprintf("Subject: %d\r\n\r\nhello\r\n", n) }

// submit sends a message once.
func submit(at netip.AddrPort, n int) error {
	return smtp.SendMail(at.String(), nil, "a@example", []string{"b@example"}, []byte(text(n)))
}
