// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// Message is what a Mail was given.
type Message struct {
	Helo    string
	Xclient string // the attributes by which the client was told
	Mail    string // the command
	Rcpt    []string
	Text    string
}

// Mail is a small server of SMTP, and of LMTP to those who say LHLO, that keeps what it is given. It understands BDAT and
// XCLIENT whether or not they are offered.
type Mail struct {
	Addr netip.AddrPort

	// Offers are the keywords of its answer to EHLO.
	Offers []string

	// TLS, if set, is spoken after STARTTLS, which then is offered.
	TLS *tls.Config

	// Reply, if set, returns what is said to a command, or to a message (".") that has come whole: "" for what is usual,
	// "close" for nothing, ever. In LMTP it is asked for each accepted recipient (". RCPT TO:<a@example>").
	Reply func(line string) string

	mu       sync.Mutex
	messages []Message
	commands []string
	clear    []string
}

// NewMail serves until the test ends. change, if it is not nil, is called before.
func NewMail(t testing.TB, f ip.Family, change func(*Mail)) *Mail {
	t.Helper()
	return NewMailAt(t, netip.AddrPortFrom(iptest.Loopback(f), 0), change)
}

// NewMailAt is NewMail at an address that may be known before.
func NewMailAt(t testing.TB, at netip.AddrPort, change func(*Mail)) *Mail {
	t.Helper()
	m := &Mail{Offers: []string{"PIPELINING", "SIZE 10000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"}}
	if change != nil {
		change(m)
	}
	m.Addr = TCPAt(t, at, m.serve)
	return m
}

// Messages returns what has been accepted, in order.
func (m *Mail) Messages() []Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.messages)
}

// Clear returns those of Commands that came without TLS.
func (m *Mail) Clear() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.clear)
}

// Commands returns the first words of all commands of all clients.
func (m *Mail) Commands() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.commands)
}

// dialogue is one client of a Mail.
type dialogue struct {
	*Mail
	conn net.Conn
	in   *bufio.Reader
	out  io.Writer
	tls  bool
	now  Message
	text bytes.Buffer

	lmtp     bool
	open     bool // MAIL has been accepted
	accepted []string
}

func (m *Mail) serve(c *net.TCPConn) {
	d := &dialogue{Mail: m, conn: c, in: bufio.NewReader(c), out: c}
	if !d.answer("", "220 server.example ESMTP") {
		return
	}
	for {
		line, err := d.in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		verb, rest, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		m.mu.Lock()
		m.commands = append(m.commands, verb)
		if !d.tls {
			m.clear = append(m.clear, verb)
		}
		m.mu.Unlock()
		if !d.command(verb, line, rest) || verb == "QUIT" {
			return
		}
	}
}

// answer returns false if the connection is to be closed.
func (d *dialogue) answer(line, usual string) (ok bool) {
	return d.say(d.reply(line, usual))
}

// reply returns what is to be said.
func (d *dialogue) reply(line, usual string) string {
	if d.Reply != nil {
		if r := d.Reply(line); r != "" {
			return r
		}
	}
	return usual
}

func (d *dialogue) say(reply string) bool {
	if reply == "close" {
		return false
	}
	_, err := io.WriteString(d.out, reply+"\r\n")
	return err == nil
}

func (d *dialogue) command(verb, line, rest string) bool {
	switch verb {
	case "RSET":
		d.open = false
		return d.answer(line, "250 2.0.0 Ok")
	case "EHLO", "LHLO":
		d.open = false
		d.lmtp = verb == "LHLO"
		d.now = Message{Helo: rest, Xclient: d.now.Xclient}
		offers := d.Offers
		if d.TLS != nil && !d.tls {
			offers = append([]string{"STARTTLS"}, offers...)
		}
		return d.answer(line, "250-"+strings.Join(append([]string{"server.example"}, offers[:len(offers)-1]...), "\r\n250-")+
			"\r\n250 "+offers[len(offers)-1])
	case "STARTTLS":
		if d.TLS == nil {
			return d.answer(line, "502 5.5.1 Not here")
		}
		return d.answer(line, "220 2.0.0 Go on") && d.secure()
	case "XCLIENT":
		d.now.Xclient = rest
		return d.answer(line, "220 server.example ESMTP")
	case "MAIL":
		if d.open {
			return d.say("503 5.5.1 There is a transaction already")
		}
		d.now, d.accepted = Message{Helo: d.now.Helo, Xclient: d.now.Xclient, Mail: line}, nil
		reply := d.reply(line, "250 2.1.0 Ok")
		d.open = strings.HasPrefix(reply, "2")
		return d.say(reply)
	case "RCPT":
		d.now.Rcpt = append(d.now.Rcpt, line)
		reply := d.reply(line, "250 2.1.5 Ok")
		if strings.HasPrefix(reply, "2") {
			d.accepted = append(d.accepted, line)
		}
		return d.say(reply)
	case "DATA":
		reply := d.reply(line, "354 Go on")
		if !d.say(reply) {
			return false
		}
		return !strings.HasPrefix(reply, "354") || d.data() && d.keep()
	case "BDAT":
		var size int64
		var last string
		fmt.Sscan(rest, &size, &last)
		p := make([]byte, size)
		if _, err := io.ReadFull(d.in, p); err != nil {
			return false
		}
		d.text.Write(p)
		if last == "" {
			return d.answer(line, "250 2.0.0 Ok")
		}
		return d.keep()
	case "QUIT":
		return d.answer(line, "221 2.0.0 Bye")
	}
	return d.answer(line, "250 2.0.0 Ok")
}

// secure goes on in TLS.
func (d *dialogue) secure() bool {
	c := tls.Server(d.conn, d.TLS)
	d.in, d.out, d.tls = bufio.NewReader(c), c, true
	d.now = Message{}
	return c.Handshake() == nil
}

// data reads to the end of a message as a server does that has never heard of smuggling: a dot between two LF is one.
func (d *dialogue) data() bool {
	for {
		line, err := d.in.ReadString('\n')
		if err != nil {
			return false
		}
		if strings.TrimRight(line, "\r\n") == "." {
			return true
		}
		d.text.WriteString(strings.TrimPrefix(line, "."))
	}
}

// keep takes the message, unless the answer to it is another.
func (d *dialogue) keep() bool {
	d.now.Text, d.open = d.text.String(), false
	d.text.Reset()
	if d.lmtp {
		return d.keepEach()
	}
	r := ""
	if d.Reply != nil {
		r = d.Reply(".")
	}
	if r == "" || strings.HasPrefix(r, "250") || r == "keep and close" {
		d.mu.Lock()
		d.messages = append(d.messages, d.now)
		d.mu.Unlock()
	}
	switch r {
	case "close", "keep and close":
		return false
	case "":
		r = "250 2.0.0 Ok: queued as 1"
	}
	_, err := io.WriteString(d.out, r+"\r\n")
	return err == nil
}

// keepEach takes the message for each accepted recipient: a message is kept for those whose answer is good.
func (d *dialogue) keepEach() bool {
	for _, to := range d.accepted {
		r := d.reply(". "+to, "250 2.0.0 Ok: saved")
		if strings.HasPrefix(r, "250") || r == "keep and close" {
			got := d.now
			got.Rcpt = []string{to}
			d.mu.Lock()
			d.messages = append(d.messages, got)
			d.mu.Unlock()
		}
		if r == "keep and close" || !d.say(r) {
			return false
		}
	}
	return true
}
