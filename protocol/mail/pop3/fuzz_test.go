// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package pop3_test

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/login/logintest"
	"github.com/kyozon/kyozon/protocol/mail/pop3"
)

// FuzzServer holds that it does not matter in which pieces a client sends, and that what is said of a login to a backend
// is read there as the same login.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		"CAPA\r\nUSER tim\r\nPASS  a b \r\nQUIT\r\n", "AUTH PLAIN\r\nAHRpbQBzZWNyZXQ=\r\nX\r\n",
		"AUTH PLAIN AHRpbQBzZWNyZXQ=\r\n", "AUTH LOGIN\r\n*\r\nXCLIENT ADDR=::1\r\n", "USER \xff\r\nPASS\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		outcomes := []login.Outcome{login.Answered, login.Challenged, login.Unavailable, login.Answered}
		whole := logintest.Serve(&pop3.Server{Secure: true}, sent, 0, nil, outcomes...)
		bytewise := logintest.Serve(&pop3.Server{Secure: true}, sent, 1, nil, outcomes...)
		if whole != bytewise {
			t.Errorf("whole: %s\nbyte by byte: %s", whole, bytewise)
		}
		s := pop3.Server{Secure: true}
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
	c := pop3.Client{Login: want}
	s := pop3.Server{Secure: true}
	var said []byte
	for e, _ := c.Next([]byte("+OK x\r\n")); e.Kind == login.Send; {
		said = append(said, e.Text...)
		got, n := s.Next(said)
		said = said[n:]
		if got.Kind == login.Reply {
			e, _ = c.Next(got.Text)
			continue
		}
		l := got.Login
		if got.Kind != login.Attempt || len(said) > 0 || !bytes.Equal(l.User, want.User) || !bytes.Equal(l.Password, want.Password) ||
			!bytes.Equal(l.Mechanism, want.Mechanism) || !bytes.Equal(l.Message, want.Message) {
			t.Fatalf("read as %v %+v, want %+v", got, l, want)
		}
		return
	}
	t.Fatalf("%+v is not said", want)
}

// FuzzClient holds that it does not matter in which pieces a backend says what it says.
func FuzzClient(f *testing.F) {
	f.Add("+OK [XCLIENT] x\r\n+OK\r\n+OK\r\n+OK in\r\n", true)
	f.Add("+OK\r\n+OK\r\nTOP\r\n.\r\n", false)
	f.Add("-ERR\r\n", true)
	f.Fuzz(func(t *testing.T, said string, wants bool) {
		ask := func(step int) string {
			c := pop3.Client{}
			if wants {
				c.Login = &login.Login{User: []byte("tim"), Password: []byte("x")}
				c.Identity = login.Identity{Told: true, Client: netip.MustParseAddrPort("[2001:db8::1]:4711")}
			}
			return logintest.Ask(&c, said, step)
		}
		if whole, bytewise := ask(0), ask(1); whole != bytewise {
			t.Errorf("whole: %s\nbyte by byte: %s", whole, bytewise)
		}
	})
}
