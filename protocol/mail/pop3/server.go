// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package pop3

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/sasl"
)

// Server is our side towards a client. The zero value with its fields set is ready for a connection whose greeting is
// sent. It implements login.Server.
type Server struct {
	Limits   login.Limits
	StartTLS bool // STLS is offered
	Clear    bool // passwords may go in clear
	Secure   bool // the connection is encrypted from its first byte

	secured bool // it has become so
	state   state
	known   []byte // what backends can do
	user    []byte // of USER
	asked   bool   // the first message of the running AUTH was asked for
	faults  int
	out     []byte
}

type state uint8

const (
	commands state = iota
	upgrade        // behind STLS: nothing is read in clear any more
	waiting        // a login, or a line of one, has no answer yet
	exchange       // the client's next line belongs to a login
	over
)

func (s *Server) insecure() bool { return !s.Secure && !s.secured && !s.Clear }

// Greeting appends the greeting. It has no timestamp: there is no APOP. RFC 1939 §4, §7.
func (s *Server) Greeting(dst []byte) []byte { return append(dst, "+OK Ready.\r\n"...) }

// Know implements login.Server.
func (s *Server) Know(offers []byte) { s.known = offers }

// Next implements login.Server.
func (s *Server) Next(p []byte) (login.Event, int) {
	switch {
	case len(p) == 0 || s.state == waiting || s.state == over:
		return login.Event{}, 0
	case s.state == upgrade:
		return s.refuse(login.Pipelined), len(p)
	}
	line, n, refusal := login.NextLine(p, s.Limits.MaxCommand())
	switch {
	case refusal != 0:
		return s.refuse(refusal), len(p)
	case n == 0:
		return login.Event{}, 0
	case s.state == exchange: // "*" goes to the backend too: it ends the exchange there
		s.state = waiting
		return login.Event{Kind: login.Line, Text: p[:n]}, n
	}
	name, rest := split(line)
	if is(name, "AUTH") {
		return s.auth(p, n, rest)
	}
	event := s.command(name, rest, len(line) > len(name), len(p) > n)
	if event.Kind == login.Wanted {
		n = 0
	}
	return event, n
}

// command reads a line. argued: something follows the name; more: the client has sent bytes behind the line.
func (s *Server) command(name, rest []byte, argued, more bool) login.Event {
	switch {
	case is(name, "USER"):
		return s.name(rest)
	case is(name, "PASS"):
		return s.pass(rest, argued)
	case is(name, "XCLIENT"):
		return s.refuse(login.Untrusted)
	case is(name, "CAPA") && !argued:
		if s.known == nil {
			return login.Event{Kind: login.Wanted}
		}
		s.out = s.appendOffers(s.out[:0])
		return login.Event{Kind: login.Reply, Text: s.out}
	case is(name, "STLS") && !argued:
		switch {
		case !s.StartTLS || s.Secure || s.secured:
			return s.refuse(login.Unknown)
		case more: // would be believed as if it had been encrypted
			return s.refuse(login.Pipelined)
		}
		s.state, s.user = upgrade, nil // RFC 2595 §4: what is known of the client is forgotten
		e := s.say("+OK Begin TLS negotiation now.\r\n")
		e.Kind = login.Upgrade
		return e
	case is(name, "QUIT") && !argued:
		s.state = over
		e := s.say("+OK Logging out.\r\n")
		e.Kind = login.Close
		return e
	case is(name, "CAPA"), is(name, "STLS"), is(name, "QUIT"):
		return s.refuse(login.Syntax)
	}
	return s.refuse(login.Unknown)
}

// name keeps the argument of USER. That a user exists is not said before the password is right. RFC 1939 §7.
func (s *Server) name(user []byte) login.Event {
	switch {
	case s.insecure():
		return s.refuse(login.Insecure)
	case len(user) == 0 || len(user) > sasl.MaxUser:
		return s.refuse(login.Nobody)
	}
	s.user = bytes.Clone(user)
	return s.say("+OK Send your password.\r\n")
}

// pass reads the argument of PASS, spaces and all. RFC 1939 §7.
func (s *Server) pass(password []byte, argued bool) login.Event {
	switch {
	case s.insecure():
		return s.refuse(login.Insecure)
	case s.user == nil || !argued:
		return s.refuse(login.Syntax)
	}
	l := &login.Login{User: s.user, Password: bytes.Clone(password)}
	s.user = nil
	return s.attempt(l)
}

// auth reads AUTH, whose line takes the first n bytes of p: the mechanism, and the first message of the client on the
// same line or on the next, for which it is asked. Both lines are taken together, so that nothing of the first must be
// kept. RFC 5034 §4.
func (s *Server) auth(p []byte, n int, rest []byte) (login.Event, int) {
	name, message := split(rest)
	kind := sasl.Lookup(name)
	next := len(name) == len(rest)
	switch {
	case len(name) == 0:
		return s.refuse(login.Syntax), n
	case s.insecure():
		return s.refuse(login.Insecure), n
	case kind == sasl.None:
		return s.refuse(login.Mechanism), n
	}
	if next {
		if !s.asked {
			s.asked = true
			return s.say("+ " + kind.Prompt() + "\r\n"), 0
		}
		line, used, refusal := login.NextLine(p[n:], s.Limits.MaxCommand()-n)
		switch {
		case refusal != 0:
			return s.refuse(refusal), len(p)
		case used == 0:
			return login.Event{}, 0
		case string(line) == "*":
			return s.refuse(login.Cancelled), n + used
		}
		message, n = line, n+used
	} else if string(message) == "=" { // one that is empty
		message = nil
	}
	s.asked = false
	user, ok := kind.User(nil, message)
	if !ok {
		return s.refuse(login.Nobody), n
	}
	return s.attempt(&login.Login{User: user, Mechanism: bytes.ToUpper(name), Kind: kind, Message: bytes.Clone(message)}), n
}

func (s *Server) attempt(l *login.Login) login.Event {
	s.state = waiting
	return login.Event{Kind: login.Attempt, Login: l}
}

// Tell implements login.Server. RFC 3206 §4, §5.
func (s *Server) Tell(o login.Outcome) (e login.Event) {
	switch o {
	case login.Secured:
		s.secured, s.state = true, commands
		return e
	case login.Challenged:
		s.state = exchange
		return e
	}
	s.state = commands
	switch o {
	case login.Unavailable:
		return s.say("-ERR [SYS/TEMP] Mailboxes cannot be reached now.\r\n")
	case login.TooMany:
		e = s.say("-ERR [SYS/TEMP] Too many failed logins, try again later.\r\n")
	}
	if s.faults++; s.faults >= s.Limits.MaxErrors() {
		s.state = over
		e.Kind, e.Refusal = login.Close, login.TooManyErrors
	}
	return e
}

func (s *Server) say(text string) login.Event {
	s.out = append(s.out[:0], text...)
	return login.Event{Kind: login.Reply, Text: s.out}
}

// refusals has what a client is told. RFC 3206 §5 has [AUTH].
var refusals = [...]string{
	login.LineTooLong:   "-ERR Line too long.\r\n",
	login.BareLineEnd:   "-ERR Only CRLF ends a line.\r\n",
	login.Syntax:        "-ERR Syntax error.\r\n",
	login.Unknown:       "-ERR Not a command before login.\r\n",
	login.Untrusted:     "-ERR Not for clients.\r\n",
	login.Insecure:      "-ERR Not without TLS.\r\n",
	login.Mechanism:     "-ERR Mechanism not supported.\r\n",
	login.Nobody:        "-ERR [AUTH] No user is named.\r\n",
	login.Cancelled:     "-ERR Cancelled.\r\n",
	login.Pipelined:     "-ERR Sent before its time.\r\n",
	login.TooManyErrors: "-ERR Too many errors.\r\n",
}

func (s *Server) refuse(r login.Refusal) login.Event {
	s.asked = false
	s.faults++
	if !r.Fatal() && s.faults >= s.Limits.MaxErrors() {
		r = login.TooManyErrors
	}
	e := s.say(refusals[r])
	e.Refusal = r
	if r.Fatal() {
		s.state, e.Kind = over, login.Close
	}
	return e
}
