// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/protocol/mail/imap"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/login/logintest"
)

// FuzzServer holds that it does not matter in which pieces a client sends, and that what is said of a login to a backend
// is read there as the same login.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		"a CAPABILITY\r\nb LOGIN {3}\r\ntim {6}\r\nsecret\r\nc NOOP\r\n", "a LOGIN \"t\\\"i\" {2+}\r\n\xff\n\r\n",
		"a AUTHENTICATE PLAIN\r\nAHRpbQBzZWNyZXQ=\r\nb X\r\n", "a AUTHENTICATE PLAIN AHRpbQBzZWNyZXQ=\r\n",
		"a ID (\"x\" NIL)\r\nb LOGOUT\r\n", "a LOGIN {0}\r\n {0+}\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		outcomes := []login.Outcome{login.Answered, login.Challenged, login.Unavailable, login.Answered}
		whole := logintest.Serve(&imap.Server{Secure: true}, sent, 0, nil, outcomes...)
		bytewise := logintest.Serve(&imap.Server{Secure: true}, sent, 1, nil, outcomes...)
		// A literal that is too large is refused with its command only if none of it has come.
		if whole != bytewise && !strings.Contains(whole, "line-too-long") {
			t.Errorf("whole: %s\nbyte by byte: %s", whole, bytewise)
		}
		s := imap.Server{Secure: true}
		for p := []byte(sent); ; {
			e, n := s.Next(p)
			p = p[n:]
			switch {
			case e.Kind == login.Attempt:
				replayed(t, e.Login)
				s.Tell(login.Answered)
			case e.Kind == login.Wanted:
				s.Know([]byte{})
			case e.Kind == login.Close || e.Kind == login.More && n == 0:
				return
			}
		}
	})
}

// replayed says a login to a backend that reads it as we read clients.
func replayed(t *testing.T, want *login.Login) {
	for _, offers := range []string{"X", "LITERAL+", "SASL-IR"} {
		c := imap.Client{Login: want}
		s := imap.Server{Secure: true}
		e, _ := c.Next([]byte("* OK [CAPABILITY " + offers + "] x\r\n"))
		var said []byte
		for {
			if e.Kind != login.Send {
				t.Fatalf("%q with %s: %v", said, offers, e)
			}
			said = append(said, e.Text...)
			got, n := s.Next(said)
			if got.Kind == login.Reply && n == 0 {
				e, _ = c.Next(got.Text)
				continue
			}
			if got.Kind != login.Attempt || n != len(said) {
				t.Fatalf("%q is read as %v", said, got)
			}
			l := got.Login
			if !bytes.Equal(l.Tag, want.Tag) || !bytes.Equal(l.User, want.User) || !bytes.Equal(l.Password, want.Password) ||
				!bytes.Equal(l.Mechanism, want.Mechanism) || !bytes.Equal(l.Message, want.Message) {
				t.Fatalf("%q is read as %+v, want %+v", said, l, want)
			}
			break
		}
	}
}

// FuzzClient holds that it does not matter in which pieces a backend says what it says.
func FuzzClient(f *testing.F) {
	for _, s := range []string{
		"* OK [CAPABILITY IMAP4rev1 ID] x\r\n* ID (\"a\" {1}\r\nb)\r\nkyozon OK x\r\na1 OK y\r\n* z",
		"* OK x\r\n* CAPABILITY X\r\nkyozon OK x\r\n", "* BYE\r\n", "* PREAUTH\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, said string) {
		ask := func(step int) string {
			c := imap.Client{Login: &login.Login{Tag: []byte("a1"), User: []byte("tim"), Password: []byte("\xff")},
				Identity: told("[2001:db8::1]:4711", "[2001:db8::25]:143")}
			return logintest.Ask(&c, said, step)
		}
		if whole, bytewise := ask(0), ask(1); whole != bytewise {
			t.Errorf("whole: %s\nbyte by byte: %s", whole, bytewise)
		}
	})
}
