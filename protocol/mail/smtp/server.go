// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

// Kind is what Server.Next found.
type Kind uint8

// The kinds.
const (
	More    Kind = iota // nothing yet
	Asked               // a command; to be answered, and the code told to Answer
	Text                // some of a message
	Whole               // the end of a message, or of a chunk; to be answered, and the code told to Answer
	Secret              // a line of an AUTH exchange; to be answered, and the code told to Answer
	Refused             // to be answered with the refusal's reply, which Answer need not be told
)

// Event is one thing that a client did. Its slices lie in the bytes that were shown.
type Event struct {
	Kind    Kind
	Command Command // Asked
	Text    []byte  // Text, Secret
	Last    bool    // Whole: no chunk follows
	Refusal Refusal // Refused
}

// Server is our side towards a client: it says what the client may do next. The zero value with its fields set is
// ready for a connection whose greeting was sent.
type Server struct {
	Limits Limits
	Offers Keywords // what was offered to the client, from the answer to EHLO on
	Secure bool     // the connection is encrypted
	Repair bool     // a CR or LF that stands alone in a message is made a space or a line end, not refused

	state      state
	open       bool // the command before has no answer yet
	verb       Verb // of that command
	greeted    bool
	extended   bool // by EHLO
	sender     bool // MAIL was accepted
	utf8       bool
	binary     bool
	authed     bool
	chunked    bool // BDAT has begun
	last       bool
	early      bool // more than DATA has come before its answer
	recipients int  // accepted
	faults     int
	refusals   int
	idle       int
	left       int64 // of a chunk
	content    content
}

type state uint8

const (
	commands state = iota
	message        // behind DATA
	chunk          // behind BDAT
	discard        // behind a BDAT that was refused
	secrets        // within AUTH
	upgrade        // behind STARTTLS: nothing is read in clear any more
	lost           // what follows cannot be told from commands
)

// Next returns what p begins with, and how many bytes of p are done with. While an answer is owed it returns More.
func (s *Server) Next(p []byte) (Event, int) {
	switch {
	case s.open:
		return Event{}, 0
	case s.state == message:
		return s.nextContent(p)
	case s.state == chunk:
		return s.nextChunk(p)
	case s.state == discard:
		return s.skip(p)
	case len(p) == 0:
		return Event{}, 0
	case s.state == upgrade || s.state == lost:
		return Event{Kind: Refused, Refusal: Pipelined}, 0
	case s.state == secrets:
		return s.nextSecret(p)
	}
	text, n, refusal := line(p, s.Limits.line())
	if refusal != 0 {
		return Event{Kind: Refused, Refusal: refusal}, 0
	}
	if n == 0 {
		return Event{}, 0
	}
	c, refusal := ParseCommand(text)
	if refusal == 0 {
		refusal = s.allowed(&c, len(p) > n)
	}
	if refusal != 0 {
		return s.refuse(refusal, c, n)
	}
	s.open, s.verb = true, c.Verb
	s.early = c.Verb == Data && len(p) > n
	if c.Verb == Bdat {
		if !s.chunked {
			s.content = content{repair: s.Repair, chunks: true}
		}
		s.open, s.state, s.left, s.last, s.chunked = false, chunk, c.Size, c.Last, true
	}
	if c.Verb == Mail {
		s.utf8, s.binary = c.UTF8, c.Uses.Binary
	}
	return Event{Kind: Asked, Command: c}, n
}

// refuse counts a fault. What follows a BDAT is taken even if the command is refused, or its bytes would be read as
// commands; where its size cannot be read the connection ends. RFC 3030 §2.
func (s *Server) refuse(r Refusal, c Command, n int) (Event, int) {
	s.faults++
	switch {
	case c.Verb == Bdat && r == Syntax:
		r = Pipelined
	case c.Verb == Bdat:
		s.state, s.left = discard, c.Size
	case s.faults >= s.Limits.errors():
		r = TooManyErrors
	}
	return Event{Kind: Refused, Refusal: r, Command: c}, n
}

// allowed says what is wrong with c now. more: the client has sent bytes behind it. RFC 5321 §4.1.4.
func (s *Server) allowed(c *Command, more bool) Refusal {
	if s.refusals >= s.Limits.refusals() && c.Verb != Quit {
		return TooManyErrors
	}
	switch c.Verb {
	case Mail:
		if !s.greeted || s.sender {
			return Sequence
		}
	case Rcpt:
		if !s.sender || s.chunked {
			return Sequence
		}
		if s.recipients >= s.Limits.recipients() {
			return TooManyRecipients
		}
	case Data:
		if s.recipients == 0 || s.chunked || s.binary { // RFC 3030 §3: BINARYMIME goes by BDAT only
			if more { // the message, from a client that waits for no answer: its lines are no commands
				return Pipelined
			}
			return Sequence
		}
	case Bdat:
		if !s.Offers.Chunking || s.recipients == 0 {
			return Sequence
		}
	case StartTLS:
		return s.startTLS(more)
	case Auth: // RFC 4954 §4: once, and not within a transaction
		if !s.Offers.HasAuth || !s.extended || s.authed || s.sender {
			return Sequence
		}
	}
	if refusal := s.carried(c); refusal != 0 {
		return refusal
	}
	switch c.Verb {
	case Mail, Rcpt, Data, Bdat, Auth, StartTLS, Quit:
	default:
		if s.idle++; s.idle > s.Limits.idle() {
			return TooManyErrors
		}
	}
	return 0
}

// startTLS lets nothing be said in clear behind the command: it would be believed as if it had been encrypted.
// RFC 3207 §4.2.
func (s *Server) startTLS(more bool) Refusal {
	if s.Secure || !s.extended || !s.Offers.StartTLS || s.sender {
		return Sequence
	}
	if more {
		return Pipelined
	}
	return 0
}

// carried says whether the parameters and addresses of c are among what was offered.
func (s *Server) carried(c *Command) Refusal {
	if c.Verb != Mail && c.Verb != Rcpt {
		return 0
	}
	if s.Offers.Lacks(c) {
		return Parameter
	}
	utf8 := s.utf8
	if c.Verb == Mail {
		utf8 = c.UTF8
	}
	for _, b := range c.Path {
		if b >= 0x80 && !utf8 { // RFC 6531 §3.5
			return Syntax
		}
	}
	return 0
}

func (s *Server) nextContent(p []byte) (Event, int) {
	text, n, whole, refusal := s.content.next(p)
	if whole {
		s.state, s.open, s.verb, s.last = commands, true, Data, true
		return Event{Kind: Whole, Last: true}, n
	}
	return told(text, refusal), n
}

func (s *Server) nextChunk(p []byte) (Event, int) {
	if s.left == 0 {
		if text, refusal := s.content.end(); s.last && s.content.at == afterCR && !s.binary {
			s.content.at = inLine
			return told(text, refusal), 0
		}
		s.state, s.open, s.verb = commands, true, Bdat
		return Event{Kind: Whole, Last: s.last}, 0
	}
	if len(p) == 0 {
		return Event{}, 0
	}
	p = p[:min(int64(len(p)), s.left)]
	text, n, refusal := p, len(p), Refusal(0)
	if !s.binary {
		text, n, _, refusal = s.content.next(p)
	}
	s.left -= int64(n)
	return told(text, refusal), n
}

// told is the event of a piece of a message.
func told(text []byte, r Refusal) Event {
	switch {
	case r != 0:
		return Event{Kind: Refused, Refusal: r}
	case len(text) == 0:
		return Event{}
	}
	return Event{Kind: Text, Text: text}
}

func (s *Server) skip(p []byte) (Event, int) {
	n := int(min(int64(len(p)), s.left))
	if s.left -= int64(n); s.left == 0 {
		s.state = commands
	}
	if n == 0 && len(p) > 0 {
		return s.Next(p)
	}
	return Event{}, n
}

func (s *Server) nextSecret(p []byte) (Event, int) {
	text, n, refusal := line(p, s.Limits.secret())
	if refusal != 0 {
		return Event{Kind: Refused, Refusal: refusal}, 0
	}
	if n == 0 {
		return Event{}, 0
	}
	s.open, s.verb = true, Auth
	return Event{Kind: Secret, Text: text}, n
}

// Answer tells s with which code the client was answered. After 220 to STARTTLS, what was received before the answer
// was written must be shown to Next, and only what comes later to TLS.
func (s *Server) Answer(code int) {
	good := code >= 200 && code < 300
	if code >= 400 {
		s.refusals++
	}
	s.open = false
	if s.state == secrets {
		s.state = commands
	}
	switch {
	case s.verb == Data && code == 354:
		s.state, s.content, s.early = message, content{repair: s.Repair}, false
	case s.verb == Data && s.state == commands && s.early:
		s.state = lost
	case s.verb == Auth && code == 334: // RFC 4954 §4
		s.state = secrets
	case s.verb == Data && s.last, s.verb == Bdat && (s.last || !good):
		s.reset() // RFC 3030 §2: a chunk that failed ends the transaction
	case good:
		s.accepted()
	}
}

func (s *Server) accepted() {
	switch s.verb {
	case Helo, Ehlo: // RFC 5321 §4.1.4: a transaction that runs is given up
		s.reset()
		s.greeted, s.extended = true, s.verb == Ehlo
	case Rset:
		s.reset()
	case Mail:
		s.reset()
		s.sender = true
	case Rcpt:
		s.recipients++
	case Data, Bdat:
	case Auth:
		s.authed = true
	case StartTLS:
		s.state = upgrade
	}
}

func (s *Server) reset() {
	if s.verb != Mail { // whose parameters are those of the new transaction
		s.utf8, s.binary = false, false
	}
	s.sender, s.chunked, s.last, s.recipients = false, false, false, 0
}

// Binary says whether the running transaction is of a message with lines of any kind.
func (s *Server) Binary() bool { return s.binary }

// Recipients is how many recipients of the running transaction were accepted.
func (s *Server) Recipients() int { return s.recipients }

// Secured begins anew after the handshake: what the client said before is forgotten. RFC 3207 §4.2.
func (s *Server) Secured() {
	*s = Server{Limits: s.Limits, Secure: true, faults: s.faults}
}
