// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package login is what IMAP and POP3 have in common, as a proxy needs it: what happens until a mailbox is open. The
// machines of packages imap and pop3 read what strangers wrote and say, in the words of this package, what is to be
// done. They do no I/O, start no goroutine and know no clock.
//
//	client bytes ─▶ Server.Next ─▶ Event ─▶ the owner ─▶ Event ◀─ Client.Next ◀─ backend bytes
//	                Server.Tell ◀─ Outcome ─┘ picks the user's backend
//
// Once the backend has let the user in, both sides are handed to each other and nobody reads any more.
package login

import (
	"net/netip"

	"github.com/kyozon/kyozon/protocol/mail/sasl"
)

// Kind is what is to be done.
type Kind uint8

// The kinds. The first are of a Server, then come those of a Client.
const (
	More    Kind = iota // nothing yet
	Reply               // write Text to the client
	Upgrade             // write Text to the client, then speak TLS; what has been received by then was not encrypted
	Wanted              // the client asks what the backends can do, which the server does not know: Know it and go on
	Attempt             // Login; to be answered by Tell
	Line                // Text is the client's next line of an exchange, for the backend
	Close               // write Text to the client, and close

	Send     // write Text to the backend
	Asked    // write Text to the client: the backend wants its next line
	Inform   // write Text to the client, and go on
	Accepted // write Text to the client, and hand the connections to each other
	Denied   // write Text to the client: the backend does not let the user in
	Learned  // the backend has said what it can do, and nothing more was wanted
	Encrypt  // speak TLS to the backend, then call Secured: all that is shown was not encrypted
	Failed   // the backend is of no use: Refusal says why
)

// Event is one thing that is to be done. Text is valid until the next call.
type Event struct {
	Kind    Kind
	Text    []byte
	Login   *Login
	Refusal Refusal // of what was answered by Reply or Close; why of Failed
}

// Login is a client's wish to open a mailbox. It is its own: nothing of it lies in what was shown.
type Login struct {
	Tag  []byte // of the IMAP command
	User []byte // whose mailbox it is

	Password []byte // of LOGIN, USER and PASS

	Mechanism []byte // of AUTHENTICATE and AUTH; nil for the former
	Kind      sasl.Kind
	Message   []byte // the first message of the client, in base64
}

// Outcome is what became of an Event.
type Outcome uint8

// The outcomes.
const (
	Secured     Outcome = iota // of Upgrade: the connection is encrypted from now on
	Challenged                 // of Attempt or Line: the client's next line belongs to the exchange
	Answered                   // of Attempt or Line: the client was told that he may not come in
	Unavailable                // of Attempt or Line: the backend cannot be asked
	TooMany                    // of Attempt: there were too many of them
)

// Server is our side towards a client.
type Server interface {
	// Next returns what is to be done for what p begins with, and how many bytes of p are done with. While an Attempt
	// is not answered it returns More.
	Next(p []byte) (Event, int)

	// Tell says what became of an event, and returns what is to be done about it: nothing, Reply or Close.
	Tell(o Outcome) Event

	// Know says what the backends can do, as Client.Offers has returned it. It must not change any more.
	Know(offers []byte)
}

// Client is our side towards a backend.
type Client interface {
	// Next returns what is to be done for what p begins with, and how many bytes of p are done with.
	Next(p []byte) (Event, int)

	// Offers returns what the backend can do before a login, nil until it has said so.
	Offers() []byte

	// Secured says that Encrypt has been done, and returns what is to be done next.
	Secured() Event
}

// Privacy says whether a backend is asked for TLS.
type Privacy uint8

// The kinds of privacy.
const (
	Clear    Privacy = iota // it is not asked, or TLS has been spoken from the first byte
	Offered                 // TLS if it agrees
	Required                // and nothing else
)

// Identity is whom a backend is told that it serves, in the words of its protocol.
type Identity struct {
	Told    bool           // it is told at all
	Client  netip.AddrPort // the client, or the stand-in of its prefix
	Dialled netip.AddrPort // the address that the client came to
}

// Limits bound what a peer may send. A zero field means its default. All of them are below what an event loop keeps
// for a connection.
type Limits struct {
	Command  int // bytes of a command with its literals, or of a line of an exchange; default 16 KiB
	Response int // bytes of what a backend says at once; default 16 KiB
	Errors   int // refused commands and logins of a session; default 10
}

func or(n, usual int) int {
	if n == 0 {
		return usual
	}
	return n
}

// MaxCommand returns the limit of a command. A token of OAUTHBEARER may have many kilobytes.
func (l *Limits) MaxCommand() int { return or(l.Command, 16<<10) }

// MaxResponse returns the limit of a response.
func (l *Limits) MaxResponse() int { return or(l.Response, 16<<10) }

// MaxErrors returns the limit of refused commands.
func (l *Limits) MaxErrors() int { return or(l.Errors, 10) }

// NextLine returns the first line of p without its CRLF, and how many bytes it takes; 0 if its end is not there yet. A CR
// or LF that stands alone is refused: some programs would end the line there. So is NUL, which ends the text for others.
func NextLine(p []byte, limit int) ([]byte, int, Refusal) {
	for i, c := range p {
		if i >= limit {
			return nil, 0, LineTooLong
		}
		if c == '\n' || c == 0 {
			return nil, 0, BareLineEnd
		}
		if c != '\r' || i+1 == len(p) {
			continue
		}
		if p[i+1] != '\n' {
			return nil, 0, BareLineEnd
		}
		if i+2 > limit {
			return nil, 0, LineTooLong
		}
		return p[:i], i + 2, 0
	}
	if len(p) >= limit {
		return nil, 0, LineTooLong
	}
	return nil, 0, 0
}
