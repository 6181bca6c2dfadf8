// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"fmt"
	"strings"
	"testing"
)

// pieces feeds bytes to a Stream, so many at a time, as a connection would, and says what came out.
func pieces(data string, step int, l *Limits) string {
	var s Stream
	var m Message
	var out []string
	buffer := []byte{}
	for len(data) > 0 {
		n := min(step, len(data))
		buffer, data = append(buffer, data[:n]...), data[n:]
		for {
			n, what, err := s.Next(buffer, &m, l)
			if what == Whole {
				body, _ := m.Body()
				bad := m.Parse(buffer[:n], l)
				if bad == nil {
					out = append(out, fmt.Sprintf("%s:%s", m.Method(), body))
				} else {
					out = append(out, fmt.Sprintf("%s:%s!", m.Method(), body))
				}
			} else if what != Part {
				out = append(out, []string{Ping: "ping", Pong: "pong"}[what])
			}
			if err != nil {
				return strings.Join(append(out, err.Reason), " ")
			}
			if what == Part {
				break
			}
			buffer = buffer[n:]
		}
	}
	return strings.Join(out, " ")
}

// TestStream: messages are found, and refused, alike however the bytes are cut.
func TestStream(t *testing.T) {
	t.Parallel()
	one := "INFO sip:a SIP/2.0\r\nl: 3\r\n\r\nabc"
	for _, test := range []struct {
		name, data, want string
		limits           *Limits
	}{
		{"two", one + one, "INFO:abc INFO:abc", nil},
		{"no body", "BYE sip:a SIP/2.0\r\nContent-Length: 0\r\n\r\n" + one, "BYE: INFO:abc", nil},
		{"a body that looks like a head", "BYE sip:a SIP/2.0\r\nl: 8\r\n\r\nab\r\n\r\ncd" + one, "BYE:ab\r\n\r\ncd INFO:abc", nil},
		{"ping", "\r\n\r\n" + one + "\r\n\r\n" + one, "pong ping INFO:abc pong ping INFO:abc", nil},
		{"pings", "\r\n\r\n\r\n\r\n\r", "pong ping pong ping", nil},
		{"line ends before each", "\r\n" + one + "\r\n" + one, "pong INFO:abc pong INFO:abc", nil},
		{"line ends before a message", "\r\n" + one, "pong INFO:abc", nil},
		{"no length", "BYE sip:a SIP/2.0\r\n\r\n", ErrNoLength.Reason, nil},
		{"bad length", "BYE sip:a SIP/2.0\r\nl: x\r\n\r\n", ErrLength.Reason, nil},
		{"two lengths", "BYE sip:a SIP/2.0\r\nl: 1\r\nl: 1\r\n\r\n", ErrLength.Reason, nil},
		{"a broken field", "BYE sip:a SIP/2.0\r\nx\r\nl: 1\r\n\r\nz" + one, "BYE:z! INFO:abc", nil},
		{"no SIP", "GET / HTTP/1.1\r\n\r\n", ErrStartLine.Reason, nil},
		{"a lone CR", "\r0\r", ErrControl.Reason, nil},
		{"a lone LF", "\n" + one, ErrControl.Reason, nil},
		{"long head", "BYE sip:a SIP/2.0\r\nx: " + strings.Repeat("x", 100), ErrLongHead.Reason, &Limits{Head: 100}},
		{"long body", "BYE sip:a SIP/2.0\r\nl: 101\r\n\r\n", ErrLongBody.Reason, &Limits{Body: 100}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, step := range []int{1, 2, 3, 7, len(test.data)} {
				if got := pieces(test.data, step, test.limits); got != test.want {
					t.Errorf("%d at a time: got %q, want %q", step, got, test.want)
				}
			}
		})
	}
}

func TestDemux(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]Piece{
		"": Part, "\r\n": Pong, "\r\n\r\n": Ping, "\x00\x01\x00\x00\x21\x12\xa4\x42123456789012": STUN, "OPTIONS": Whole, "\x00\x01": Whole,
	} {
		if got := Demux([]byte(data)); got != want {
			t.Errorf("%q is %d, want %d", data, got, want)
		}
	}
}
