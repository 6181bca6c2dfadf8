// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// Start is when TLS begins.
type Start uint8

// The beginnings.
const (
	AtOnce   Start = iota // before a word is said
	Required              // when the server, which speaks first, has been asked for it and agrees: STARTTLS, or STLS
	Offered               // likewise; in clear it is if it does not agree
)

// String returns the word of the site file.
func (s Start) String() string { return [...]string{"off", "required", "opportunistic"}[s] }

// startTLS asks a server that has greeted for TLS, and returns the connection to go on with; nil if there is none.
func (r *run) startTLS(ctx context.Context, c net.Conn, lines *bufio.Reader, m manner) net.Conn {
	agreed, err := m.upgrade(c, lines)
	switch {
	case err == nil && !agreed && r.Target.Start == Offered:
		return c
	case err == nil && !agreed:
		err = errors.New("the server does not agree to STARTTLS")
	case err == nil && lines.Buffered() > 0: // it would be believed as if it had been encrypted
		err = errors.New("the server has said more in clear behind STARTTLS")
	}
	if err != nil {
		r.end(ctx, "starttls", err)
		return nil
	}
	return r.shake(ctx, c)
}

// upgrade asks a server for TLS, and says whether it agrees. SMTP wants to be greeted first: RFC 5321 §4.1.1.1.
func (m *manner) upgrade(c net.Conn, lines *bufio.Reader) (bool, error) {
	if m.welcome == manners[SMTP].welcome {
		if _, err := io.WriteString(c, "EHLO probe.invalid\r\n"); err != nil {
			return false, err
		}
		if _, err := replied(lines, ""); err != nil {
			return false, err
		}
	}
	if _, err := io.WriteString(c, m.ask); err != nil {
		return false, err
	}
	return replied(lines, m.agreed)
}

// replied reads an answer to its last line, and says whether that begins so.
func replied(lines *bufio.Reader, good string) (bool, error) {
	for {
		line, err := lines.ReadString('\n')
		switch {
		case err != nil:
			return false, fmt.Errorf("no answer: %w", plain(err))
		case strings.HasPrefix(line, "* "), len(line) > 3 && line[3] == '-' && line[0] >= '0' && line[0] <= '9': // IMAP tells of itself; SMTP goes on
			continue
		}
		return strings.HasPrefix(line, good), nil
	}
}
