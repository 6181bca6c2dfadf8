// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/sasl"
)

// Server is our side towards a client. The zero value with its fields set is ready for a connection whose greeting is
// sent. It implements login.Server.
type Server struct {
	Limits   login.Limits
	StartTLS bool // it is offered
	Clear    bool // passwords may go in clear
	Secure   bool // the connection is encrypted from its first byte

	secured bool // it has become so
	state   state
	known   []byte // what backends can do
	asked   int    // pieces of the running command that the client was asked for
	faults  int
	login   *login.Login // that waits for its outcome
	out     []byte
}

type state uint8

const (
	commands state = iota
	upgrade        // behind STARTTLS: nothing is read in clear any more
	waiting        // a login, or a line of one, has no answer yet
	exchange       // the client's next line belongs to a login
	over
)

func (s *Server) insecure() bool { return !s.Secure && !s.secured && !s.Clear }

// Greeting appends the greeting, with what the client may call if that is known. RFC 9051 §7.1.
func (s *Server) Greeting(dst []byte) []byte {
	dst = append(dst, "* OK "...)
	if s.known != nil {
		dst = append(s.appendOffers(append(dst, '[')), "] "...)
	}
	return append(dst, "Ready.\r\n"...)
}

// Know implements login.Server.
func (s *Server) Know(offers []byte) { s.known = offers }

// Next implements login.Server.
func (s *Server) Next(p []byte) (login.Event, int) {
	switch {
	case len(p) == 0 || s.state == waiting || s.state == over:
		return login.Event{}, 0
	case s.state == upgrade:
		return s.refuse(nil, login.Pipelined), len(p)
	case s.state == exchange:
		return s.line(p)
	}
	n, event := s.frame(p)
	if n == 0 || event.Kind != login.More {
		return event, n
	}
	s.asked = 0
	if event = s.command(p, n); event.Kind == login.Wanted {
		n = 0
	}
	return event, n
}

// frame returns the bytes of the command that p begins with, or what must be said before it can be whole.
func (s *Server) frame(p []byte) (int, login.Event) {
	limit := s.Limits.MaxCommand()
	for pos, pieces := 0, 0; ; {
		line, used, refusal := login.NextLine(p[pos:], limit-pos)
		if refusal != 0 {
			return len(p), s.refuse(nil, refusal)
		}
		if used == 0 {
			return 0, login.Event{}
		}
		size, waits, follows := literal(line)
		begin := pos == 0
		if pos += used; !follows {
			return s.second(p, pos, begin)
		}
		switch {
		case size <= maxLiteral && size <= limit-pos:
		case waits && pos == len(p):
			s.asked = 0
			r := parser{p}
			return pos, s.refuse(r.tag(), login.Syntax)
		default: // its bytes would be read as commands
			return len(p), s.refuse(nil, login.LineTooLong)
		}
		if waits {
			if pieces++; pieces > s.asked {
				s.asked = pieces
				return 0, s.say("+ OK\r\n")
			}
		}
		if len(p)-pos < size {
			return 0, login.Event{}
		}
		pos += size
	}
}

// second finds the line that follows AUTHENTICATE, if it has no initial response: the client's first message, for which
// it is asked. Line and message are taken together, so that nothing of the first must be kept. RFC 9051 §6.2.2.
func (s *Server) second(p []byte, n int, begin bool) (int, login.Event) {
	if !begin {
		return n, login.Event{}
	}
	r := parser{p[:n]}
	tag := r.tag()
	if tag == nil || !r.space() || !bytes.EqualFold(r.atom(), []byte("AUTHENTICATE")) || !r.space() {
		return n, login.Event{}
	}
	kind := sasl.Lookup(r.atom())
	if kind == sasl.None || !r.end() || s.insecure() {
		return n, login.Event{}
	}
	if s.asked == 0 {
		s.asked = 1
		return 0, s.say("+ " + kind.Prompt() + "\r\n")
	}
	_, used, refusal := login.NextLine(p[n:], s.Limits.MaxCommand()-n)
	if refusal != 0 {
		return len(p), s.refuse(nil, refusal)
	}
	if used == 0 {
		return 0, login.Event{}
	}
	return n + used, login.Event{}
}

// command reads the command that takes the first n bytes of p.
func (s *Server) command(p []byte, n int) login.Event {
	r := parser{p[:n]}
	tag := r.tag()
	if tag == nil || !r.space() {
		return s.refuse(nil, login.Syntax)
	}
	name := string(bytes.ToUpper(r.atom()))
	switch name {
	case "LOGIN":
		return s.logIn(tag, &r)
	case "AUTHENTICATE":
		return s.authenticate(tag, &r)
	case "ID": // RFC 2971 §3.1
		if !r.space() || !r.params() || !r.end() {
			return s.refuse(tag, login.Syntax)
		}
		return s.say("* ID NIL\r\n", string(tag), " OK ID completed.\r\n")
	case "CAPABILITY", "NOOP", "LOGOUT", "STARTTLS":
		if !r.end() {
			return s.refuse(tag, login.Syntax)
		}
		return s.simple(tag, name, len(p) > n)
	}
	return s.refuse(tag, login.Unknown)
}

// simple answers a command without arguments. more: the client has sent bytes behind it.
func (s *Server) simple(tag []byte, name string, more bool) login.Event {
	switch name {
	case "NOOP":
		return s.say(string(tag), " OK NOOP completed.\r\n")
	case "LOGOUT":
		s.state = over
		e := s.say("* BYE Logging out\r\n", string(tag), " OK Logout completed.\r\n")
		e.Kind = login.Close
		return e
	case "STARTTLS":
		switch {
		case !s.StartTLS || s.Secure || s.secured:
			return s.refuse(tag, login.Unknown)
		case more: // would be believed as if it had been encrypted. RFC 9051 §6.2.1
			return s.refuse(tag, login.Pipelined)
		}
		s.state = upgrade
		e := s.say(string(tag), " OK Begin TLS negotiation now.\r\n")
		e.Kind = login.Upgrade
		return e
	}
	if s.known == nil {
		return login.Event{Kind: login.Wanted}
	}
	s.out = append(s.appendOffers(append(s.out[:0], "* "...)), "\r\n"...)
	s.out = append(append(s.out, tag...), " OK Capability completed.\r\n"...)
	return login.Event{Kind: login.Reply, Text: s.out}
}

// logIn reads the arguments of LOGIN. RFC 9051 §6.2.3.
func (s *Server) logIn(tag []byte, r *parser) login.Event {
	if s.insecure() {
		return s.refuse(tag, login.Insecure)
	}
	l := &login.Login{Tag: bytes.Clone(tag)}
	ok := r.space()
	if ok {
		l.User, ok = r.str(nil)
	}
	if ok = ok && r.space(); ok {
		l.Password, ok = r.str(nil)
	}
	switch {
	case !ok || !r.end():
		return s.refuse(tag, login.Syntax)
	case len(l.User) == 0 || len(l.User) > sasl.MaxUser:
		return s.refuse(tag, login.Nobody)
	}
	return s.attempt(l)
}

// authenticate reads the arguments of AUTHENTICATE: the mechanism, and the first message on the same line (RFC 4959 §3)
// or on the next.
func (s *Server) authenticate(tag []byte, r *parser) login.Event {
	if !r.space() {
		return s.refuse(tag, login.Syntax)
	}
	name := r.atom()
	kind := sasl.Lookup(name)
	var message []byte
	next := bytes.HasPrefix(r.p, []byte("\r\n"))
	if next {
		r.p = r.p[2:]
	} else if !r.space() {
		return s.refuse(tag, login.Syntax)
	}
	message, r.p, _ = bytes.Cut(r.p, []byte("\r\n"))
	switch {
	case len(name) == 0:
		return s.refuse(tag, login.Syntax)
	case s.insecure():
		return s.refuse(tag, login.Insecure)
	case kind == sasl.None:
		return s.refuse(tag, login.Mechanism)
	case next && string(message) == "*":
		return s.refuse(tag, login.Cancelled)
	case !next && string(message) == "=": // one that is empty. RFC 4959 §3
		message = nil
	}
	user, ok := kind.User(nil, message)
	if !ok {
		return s.refuse(tag, login.Nobody)
	}
	return s.attempt(&login.Login{Tag: bytes.Clone(tag), User: user, Mechanism: bytes.ToUpper(name), Kind: kind,
		Message: bytes.Clone(message)})
}

func (s *Server) attempt(l *login.Login) login.Event {
	s.state, s.login = waiting, l
	return login.Event{Kind: login.Attempt, Login: l}
}

// line returns the client's next line of an exchange. "*" goes to the backend too: it ends the exchange there.
func (s *Server) line(p []byte) (login.Event, int) {
	_, n, refusal := login.NextLine(p, s.Limits.MaxCommand())
	if refusal != 0 {
		return s.refuse(nil, refusal), len(p)
	}
	if n == 0 {
		return login.Event{}, 0
	}
	s.state = waiting
	return login.Event{Kind: login.Line, Text: p[:n]}, n
}

// Tell implements login.Server.
func (s *Server) Tell(o login.Outcome) (e login.Event) {
	switch o {
	case login.Secured:
		s.secured, s.state = true, commands
		return e
	case login.Challenged:
		s.state = exchange
		return e
	}
	tag := string(s.login.Tag)
	s.state, s.login = commands, nil
	switch o {
	case login.Unavailable:
		return s.say(tag, " NO [UNAVAILABLE] Mailboxes cannot be reached now.\r\n")
	case login.TooMany:
		e = s.say(tag, " NO [UNAVAILABLE] Too many failed logins, try again later.\r\n")
	}
	if s.faults++; s.faults >= s.Limits.MaxErrors() {
		s.state = over
		e = login.Event{Kind: login.Close, Text: append(e.Text, "* BYE Too many errors.\r\n"...), Refusal: login.TooManyErrors}
	}
	return e
}

func (s *Server) say(parts ...string) login.Event {
	s.out = s.out[:0]
	for _, p := range parts {
		s.out = append(s.out, p...)
	}
	return login.Event{Kind: login.Reply, Text: s.out}
}

// refuse answers a command that is not taken. A nil tag is of a command that could not be read. RFC 9051 §7.1,
// RFC 5530 §3.
func (s *Server) refuse(tag []byte, r login.Refusal) login.Event {
	s.asked = 0
	s.faults++
	if !r.Fatal() && s.faults >= s.Limits.MaxErrors() {
		r = login.TooManyErrors
	}
	at := "*"
	if tag != nil {
		at = string(tag)
	}
	var e login.Event
	switch r {
	case login.Insecure:
		e = s.say(at, " NO [PRIVACYREQUIRED] Not without TLS.\r\n")
	case login.Mechanism:
		e = s.say(at, " NO Mechanism not supported.\r\n")
	case login.Nobody:
		e = s.say(at, " NO [AUTHENTICATIONFAILED] No user is named.\r\n")
	case login.Cancelled:
		e = s.say(at, " BAD Cancelled.\r\n")
	case login.Unknown:
		e = s.say(at, " BAD Not a command before login.\r\n")
	case login.Pipelined:
		e = s.say("* BYE Sent before its time.\r\n")
	case login.TooManyErrors:
		e = s.say("* BYE Too many errors.\r\n")
	case login.LineTooLong:
		e = s.say("* BYE Command too long.\r\n")
	case login.BareLineEnd:
		e = s.say("* BYE Only CRLF ends a line.\r\n")
	default:
		e = s.say(at, " BAD Syntax error.\r\n")
	}
	e.Refusal = r
	if r.Fatal() {
		s.state, e.Kind = over, login.Close
	}
	return e
}
