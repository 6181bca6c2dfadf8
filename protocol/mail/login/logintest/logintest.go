// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package logintest drives the machines of package login for tests, and writes down what they say.
package logintest

import (
	"fmt"
	"strings"

	"github.com/kyozon/kyozon/protocol/mail/login"
)

// Serve shows s what a client sends, as much at a time as step says (0: all), and returns what is to be done, a line for
// each event. Backends answer each login and each line of an exchange with the outcomes, in turn; what they can do is
// known, or, if offers is nil, is asked for and then is empty.
func Serve(s login.Server, sent string, step int, offers []byte, outcomes ...login.Outcome) string {
	if offers != nil {
		s.Know(offers)
	}
	var w writer
	var buffer []byte
	for len(sent) > 0 {
		n := len(sent)
		if step > 0 {
			n = min(step, n)
		}
		buffer, sent = append(buffer, sent[:n]...), sent[n:]
		for {
			e, n := s.Next(buffer)
			if n > len(buffer) {
				return fmt.Sprintf("%s: %d of %d bytes taken", &w, n, len(buffer))
			}
			buffer = buffer[n:]
			w.event(e)
			switch e.Kind {
			case login.Upgrade:
				w.event(s.Tell(login.Secured))
			case login.Wanted:
				s.Know([]byte{})
			case login.Attempt, login.Line:
				if len(outcomes) == 0 {
					return w.String()
				}
				w.event(s.Tell(outcomes[0]))
				outcomes = outcomes[1:]
			case login.Close:
				return w.String()
			}
			if e.Kind == login.More && n == 0 {
				break
			}
		}
	}
	return w.String()
}

// Ask shows c what a backend says, as much at a time as step says, and returns what is to be done.
func Ask(c login.Client, said string, step int) string {
	if step == 0 {
		return Show(c, said)
	}
	var pieces []string
	for len(said) > 0 {
		n := min(step, len(said))
		pieces, said = append(pieces, said[:n]), said[n:]
	}
	return Show(c, pieces...)
}

// Show shows c what a backend says piece by piece, and returns what is to be done. What comes after Encrypt has been encrypted.
func Show(c login.Client, pieces ...string) string {
	var w writer
	var buffer []byte
	for i, piece := range pieces {
		buffer = append(buffer, piece...)
		for {
			e, n := c.Next(buffer)
			if n > len(buffer) {
				return fmt.Sprintf("%s: %d of %d bytes taken", &w, n, len(buffer))
			}
			buffer = buffer[n:]
			w.event(e)
			switch e.Kind {
			case login.Encrypt:
				w.event(c.Secured())
			case login.Accepted:
				if left := string(buffer) + strings.Join(pieces[i+1:], ""); left != "" {
					fmt.Fprintf(&w, "left %q\n", left)
				}
			}
			if e.Kind >= login.Accepted && e.Kind != login.Encrypt {
				return w.String()
			}
			if n == 0 {
				break
			}
		}
	}
	return w.String()
}

type writer struct{ strings.Builder }

var kinds = [...]string{login.Reply: "reply", login.Upgrade: "upgrade", login.Wanted: "wanted", login.Attempt: "attempt",
	login.Line: "line", login.Close: "close", login.Send: "send", login.Asked: "asked", login.Inform: "inform",
	login.Accepted: "accepted", login.Denied: "denied", login.Learned: "learned", login.Encrypt: "encrypt", login.Failed: "failed"}

func (w *writer) event(e login.Event) {
	if e.Kind == login.More {
		return
	}
	fmt.Fprint(w, kinds[e.Kind])
	if len(e.Text) > 0 {
		fmt.Fprintf(w, " %q", e.Text)
	}
	if l := e.Login; l != nil {
		fmt.Fprintf(w, " %s user=%q", l.Tag, l.User)
		if l.Mechanism == nil {
			fmt.Fprintf(w, " password=%q", l.Password)
		} else {
			fmt.Fprintf(w, " %s %q", l.Mechanism, l.Message)
		}
	}
	if e.Refusal != 0 {
		fmt.Fprintf(w, " (%v)", e.Refusal)
	}
	fmt.Fprintln(w)
}
