// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"net"
	"strings"
	"testing"
)

// FuzzGreeting holds that what is a greeting of any protocol is one of exactly one of them.
func FuzzGreeting(f *testing.F) {
	for _, s := range []string{"220 x\r\n", "220-x\r\n220 y\r\n221 bye\r\n", "* OK\r\n* BYE\r\nprobe OK\r\n", "+OK\r\n+OK\r\n", "220\n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		n := 0
		for _, g := range []Greeting{SMTP, IMAP, POP3} {
			lines := bufio.NewReader(strings.NewReader(said))
			if m, err := g.welcome(lines); err == nil {
				n++
				m.upgrade(discard{}, lines)
				m.left(lines)
			}
		}
		_, err := AnyMail.welcome(bufio.NewReader(strings.NewReader(said)))
		if (err == nil) != (n == 1) || n > 1 {
			t.Errorf("%q: of any: %v; of %d", said, err, n)
		}
	})
}

// discard is a connection that takes what is said.
type discard struct{ net.Conn }

func (discard) Write(p []byte) (int, error) { return len(p), nil }
