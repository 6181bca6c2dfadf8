// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/probe"
)

// TestGreet: a server that greets and can be left is well, and any other is told what it did.
func TestGreet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		greeting       probe.Greeting
		says, said, at string // its greeting, what it is told, its answer
		want           string
	}{
		{name: "SMTP", greeting: probe.SMTP, says: "220 mx ESMTP\r\n", said: "QUIT", at: "221 2.0.0 Bye\r\n"},
		{name: "SMTP that has much to say", greeting: probe.SMTP, says: "220-mx\r\n220-no spam\r\n220 ESMTP\r\n", said: "QUIT", at: "221 Bye\r\n"},
		{name: "IMAP", greeting: probe.IMAP, says: "* OK [CAPABILITY IMAP4rev1] x\r\n", said: "probe LOGOUT", at: "* BYE x\r\nprobe OK x\r\n"},
		{name: "POP3", greeting: probe.POP3, says: "+OK <1@x>\r\n", said: "QUIT", at: "+OK\r\n"},
		{name: "any is SMTP", greeting: probe.AnyMail, says: "220-mx\r\n220 mx\r\n", said: "QUIT", at: "221 Bye\r\n"},
		{name: "any is IMAP", greeting: probe.AnyMail, says: "* OK x\r\n", said: "probe LOGOUT", at: "* BYE x\r\nprobe OK x\r\n"},
		{name: "any is POP3", greeting: probe.AnyMail, says: "+OK x\r\n", said: "QUIT", at: "+OK\r\n"},
		{name: "SMTP that is closed", greeting: probe.SMTP, says: "554 no service\r\n", want: `greeting: greeted with "554 no service"`},
		{name: "IMAP that is closed", greeting: probe.AnyMail, says: "* BYE full\r\n", want: `greeting: greeted with "* BYE full"`},
		{name: "another", greeting: probe.IMAP, says: "+OK x\r\n", want: `greeting: greeted with "+OK x"`},
		{name: "SMTP is not IMAP", greeting: probe.IMAP, says: "220-x\r\n", want: `greeting: greeted with "220-x"`},
		{name: "silent", greeting: probe.IMAP, want: "greeting: ended in the middle"},
		{name: "deaf", greeting: probe.IMAP, says: "* OK x\r\n", said: "probe LOGOUT", want: "answer: ended in the middle"},
		{name: "confused", greeting: probe.POP3, says: "+OK x\r\n", said: "QUIT", at: "-ERR what\r\n", want: `answer: answered "-ERR what"`},
		{name: "endless", greeting: probe.SMTP, says: strings.Repeat("220-x\r\n", 16<<10), want: "greeting: ended in the middle"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				heard := make(chan string, 1)
				at := servertest.TCP(t, f, func(c *net.TCPConn) {
					io.WriteString(c, tt.says)
					if tt.want != "" && tt.said == "" {
						c.CloseWrite()
					}
					line, _ := bufio.NewReader(c).ReadString('\n')
					heard <- strings.TrimSuffix(line, "\r\n")
					io.WriteString(c, tt.at)
				})
				r := probe.Ask(t.Context(), probe.Target{Addr: at, Greeting: tt.greeting})
				got := ""
				if r.Err != nil {
					got = r.Err.Error()
				}
				if got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if said := <-heard; said != tt.said {
					t.Errorf("it was told %q, want %q", said, tt.said)
				}
			})
		})
	}
}

// TestGreetDovecot: a real server is well.
func TestGreetDovecot(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		d := servertest.OpenDovecot(t, f)
		for _, target := range []probe.Target{{Addr: d.IMAP, Greeting: probe.IMAP}, {Addr: d.POP3, Greeting: probe.POP3},
			{Addr: d.IMAP, Greeting: probe.AnyMail}} {
			if r := probe.Ask(t.Context(), target); r.Err != nil || len(r.Phases) != 3 {
				t.Errorf("%v: %v, %v", target.Greeting, r.Phases, r.Err)
			}
		}
	})
}

// TestGreetStartTLS: who agrees to TLS is asked on in TLS, and nobody else, unless that is all the same.
func TestGreetStartTLS(t *testing.T) {
	t.Parallel()
	server, client := servertest.TLS(t, "mx.example")
	client.ServerName = "mx.example"
	_, other := servertest.TLS(t, "mx.example")
	other.ServerName = "mx.example"
	const agrees, greets = "220 go\r\n", "220-x\r\n220 x\r\n"
	for _, tt := range []struct {
		name     string
		greeting probe.Greeting
		start    probe.Start
		trust    *tls.Config
		says     []string // in clear, each when a line was said
		then     string   // in TLS, if there is any
		heard    string   // in clear
		want     string
	}{
		{"SMTP", probe.SMTP, probe.Required, client, []string{greets, "250-a\r\n250 STARTTLS\r\n", agrees}, "221 x\r\n", "EHLO probe.invalid|STARTTLS", ""},
		{"SMTP, offered", probe.AnyMail, probe.Offered, client, []string{greets, "250 a\r\n", agrees}, "221 x\r\n", "EHLO probe.invalid|STARTTLS", ""},
		{"IMAP", probe.IMAP, probe.Required, client, []string{"* OK x\r\n", "* x\r\nprobe OK x\r\n"}, "* BYE\r\nprobe OK\r\n", "probe STARTTLS", ""},
		{"POP3", probe.POP3, probe.Required, client, []string{"+OK x\r\n", "+OK x\r\n"}, "+OK\r\n", "STLS", ""},
		{"refused", probe.POP3, probe.Required, client, []string{"+OK x\r\n", "-ERR x\r\n"}, "", "STLS", "starttls: the server does not agree to STARTTLS"},
		{"refused, which may be", probe.POP3, probe.Offered, client, []string{"+OK x\r\n", "-ERR x\r\n", "+OK\r\n"}, "", "STLS|QUIT", ""},
		{"more in clear", probe.IMAP, probe.Required, client, []string{"* OK x\r\n", "probe OK x\r\nprobe OK x\r\n"}, "", "probe STARTTLS",
			"starttls: the server has said more in clear behind STARTTLS"},
		{"gone", probe.SMTP, probe.Required, client, []string{greets, "250-a\r\n"}, "", "EHLO probe.invalid", "starttls: no answer: ended in the middle"},
		{"not trusted", probe.POP3, probe.Required, other, []string{"+OK x\r\n", "+OK x\r\n"}, "+OK\r\n", "STLS",
			`tls: certificate was issued by "mx.example", who is not trusted`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				heard := make(chan string, 1)
				at := servertest.TCP(t, f, func(c *net.TCPConn) {
					var all []string
					in := bufio.NewReader(c)
					for i, says := range tt.says {
						if i > 0 {
							line, _ := in.ReadString('\n')
							all = append(all, strings.TrimSuffix(line, "\r\n"))
						}
						io.WriteString(c, says)
					}
					heard <- strings.Join(all, "|")
					if tt.then != "" {
						s := tls.Server(c, server)
						bufio.NewReader(s).ReadString('\n')
						io.WriteString(s, tt.then)
					}
				})
				r := probe.Ask(t.Context(), probe.Target{Addr: at, Greeting: tt.greeting, Start: tt.start, TLS: tt.trust})
				got := ""
				if r.Err != nil {
					got = r.Err.Error()
				}
				if got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				if h := <-heard; h != tt.heard {
					t.Errorf("in clear it was told %q, want %q", h, tt.heard)
				}
			})
		})
	}
}
