// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// Qmail is a server of the kind of qmail: it knows clients by the address of their connection, and nothing that tells it
// of another. It takes mail for PostfixDomain, and from who is in Relays for everybody; a line that ends with LF alone it
// refuses.
type Qmail struct {
	Addr   netip.AddrPort
	Relays []netip.Prefix // what tcprules has RELAYCLIENT for

	mu       sync.Mutex
	messages []string
}

// NewQmail serves until the test ends.
func NewQmail(t testing.TB, f ip.Family, relays ...netip.Prefix) *Qmail {
	t.Helper()
	q := &Qmail{Relays: relays}
	q.Addr = TCP(t, f, q.serve)
	return q
}

// Messages returns what has been taken, with a Received field that names the client.
func (q *Qmail) Messages(testing.TB) []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.messages)
}

func (q *Qmail) serve(c *net.TCPConn) {
	peer := ip.Canonical(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
	relay := slices.ContainsFunc(q.Relays, func(p netip.Prefix) bool { return p.Contains(peer) })
	in := bufio.NewReader(c)
	say := func(line string) { io.WriteString(c, line+"\r\n") }
	say("220 mx." + PostfixDomain + " ESMTP")
	helo, rcpts := "unknown", 0
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch strings.ToUpper(verb) {
		case "HELO":
			helo = rest
			say("250 mx." + PostfixDomain)
		case "EHLO":
			helo = rest
			say("250-mx." + PostfixDomain + "\r\n250-PIPELINING\r\n250 8BITMIME")
		case "MAIL":
			rcpts = 0
			say("250 ok")
		case "RCPT":
			if !relay && !strings.Contains(rest, "@"+PostfixDomain+">") {
				say("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)")
				continue
			}
			rcpts++
			say("250 ok")
		case "DATA":
			if rcpts == 0 {
				say("503 RCPT first (#5.5.1)")
				continue
			}
			say("354 go ahead")
			text, ok := data(in)
			if !ok {
				say("451 See http://pobox.com/~djb/docs/smtplf.html.")
				return
			}
			q.mu.Lock()
			q.messages = append(q.messages, fmt.Sprintf("Received: from unknown (HELO %s) (%v)\n%s", helo, peer, text))
			q.mu.Unlock()
			say("250 ok 1000000000 qp 4711")
		case "RSET", "NOOP":
			say("250 flushed")
		case "QUIT":
			say("221 mx." + PostfixDomain)
			return
		default:
			say("502 unimplemented (#5.5.1)")
		}
	}
}

// data reads a message; ok is false if a line ends with LF alone.
func data(in *bufio.Reader) (text string, ok bool) {
	var b bytes.Buffer
	for {
		line, err := in.ReadString('\n')
		if err != nil || !strings.HasSuffix(line, "\r\n") {
			return "", false
		}
		if line == ".\r\n" {
			return b.String(), true
		}
		b.WriteString(strings.TrimPrefix(strings.TrimSuffix(line, "\r\n"), ".") + "\n")
	}
}
