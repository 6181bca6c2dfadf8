// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Greeting is a protocol whose servers speak first.
type Greeting uint8

// The greetings.
const (
	NoGreeting Greeting = iota
	SMTP
	IMAP
	POP3
	AnyMail // any of them: for a service whose pools speak several
)

// String returns the word of the site file.
func (g Greeting) String() string { return [...]string{"none", "smtp", "imap", "pop3", "mail"}[g] }

// maxGreeting bounds what a server may say.
const maxGreeting = 64 << 10

// manner is how a protocol greets, and how it is left.
type manner struct {
	welcome string // what a greeting begins with
	leave   string
	bye     string // what the last answer begins with
	ask     string // for TLS
	agreed  string // what the answer to that begins with
}

// manners are in the order of the constants. RFC 5321 §4.2, §4.1.1.10; RFC 9051 §7.1, §6.1.3; RFC 1939 §4, §6; for TLS
// RFC 3207 §4, RFC 9051 §6.2.1, RFC 2595 §4.
var manners = [...]manner{
	SMTP: {"220", "QUIT\r\n", "221", "STARTTLS\r\n", "220"},
	IMAP: {"* OK", "probe LOGOUT\r\n", "probe OK", "probe STARTTLS\r\n", "probe OK"},
	POP3: {"+OK", "QUIT\r\n", "+OK", "STLS\r\n", "+OK"},
}

// Greet waits for a server to greet, takes its leave, and is content if it has understood that.
func Greet(ctx context.Context, t Target) Result {
	r := begin(t)
	c := r.connect(ctx)
	if c == nil {
		return r.Result
	}
	defer c.Close()
	s := c
	if t.Start == AtOnce {
		s = r.greet(ctx, c)
	} else if !r.preface(ctx, c) {
		s = nil
	}
	if s == nil {
		return r.Result
	}
	lines := bufio.NewReader(io.LimitReader(s, maxGreeting))
	m, err := t.Greeting.welcome(lines)
	if !r.end(ctx, "greeting", plain(err)) {
		return r.Result
	}
	if t.Start != AtOnce {
		if s = r.startTLS(ctx, s, lines, m); s == nil {
			return r.Result
		}
		if _, encrypted := s.(*tls.Conn); encrypted {
			lines = bufio.NewReader(io.LimitReader(s, maxGreeting))
		}
	}
	if _, err = io.WriteString(s, m.leave); err == nil {
		err = m.left(lines)
	}
	r.end(ctx, "answer", plain(err))
	return r.Result
}

// plain says what a server in TLS has to say in words.
func plain(err error) error {
	switch {
	case isAlert(err):
		return Explain(err)
	case errors.Is(err, io.EOF):
		return errors.New("ended in the middle")
	}
	return err
}

// welcome reads a greeting, which may have several lines in SMTP, and returns whose manner it is.
func (g Greeting) welcome(lines *bufio.Reader) (manner, error) {
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return manner{}, err
		}
		for i, m := range manners {
			if i == int(NoGreeting) || g != AnyMail && g != Greeting(i) || !strings.HasPrefix(line, m.welcome) {
				continue
			}
			if rest := line[len(m.welcome):]; i != int(SMTP) || rest[0] != '-' {
				return m, nil
			}
			break
		}
		if !strings.HasPrefix(line, "220-") || g != SMTP && g != AnyMail {
			return manner{}, fmt.Errorf("greeted with %.60q", strings.TrimRight(line, "\r\n"))
		}
	}
}

// left reads until the last answer. IMAP says BYE before it.
func (m *manner) left(lines *bufio.Reader) error {
	for {
		line, err := lines.ReadString('\n')
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(line, m.bye):
			return nil
		case !strings.HasPrefix(line, "* "):
			return fmt.Errorf("answered %.60q", strings.TrimRight(line, "\r\n"))
		}
	}
}
