// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

// Refusal is why something was not taken, or 0. Its text is the label in metrics.
type Refusal uint8

// The refusals.
const (
	_                 Refusal = iota
	LineTooLong               // a command or reply without end
	BareLineEnd               // CR or LF alone, in a command, a reply or a message
	Unrecognized              // no such command
	Syntax                    // a command whose argument is wrong
	Parameter                 // a parameter that was not offered or is wrong
	Sequence                  // a command out of order
	Untrusted                 // XCLIENT and the like: only we tell a backend who a client is
	Pipelined                 // bytes behind a command that must be the last, in clear behind STARTTLS above all
	TooManyErrors             // a client that does nothing right
	TooManyRecipients         // more recipients than a message may have
	BadReply                  // a backend's reply that is none
	Unasked                   // a backend's reply to nothing
	Refusals                  // how many there are
)

// Error returns the name of r, for errors and metrics.
func (r Refusal) Error() string {
	if int(r) < len(refusals) {
		return refusals[r].name
	}
	return "smtp: unknown refusal"
}

// Reply returns what a client is told, with its CRLF; "" if the refusal is of a backend.
func (r Refusal) Reply() string {
	if int(r) < len(refusals) {
		return refusals[r].reply
	}
	return ""
}

// Fatal says whether the connection must be closed: what follows on it cannot be told apart.
func (r Refusal) Fatal() bool {
	switch r {
	case LineTooLong, BareLineEnd, Pipelined, TooManyErrors, BadReply, Unasked:
		return true
	default:
		return false
	}
}

// refusals has the codes of RFC 5321 §4.2.3 and RFC 3463 §3. 452 for recipients: RFC 5321 §4.5.3.1.10.
var refusals = [...]struct{ name, reply string }{
	LineTooLong:       {"line-too-long", "500 5.5.2 Line too long\r\n"},
	BareLineEnd:       {"bare-line-end", "521 5.5.2 Bare CR or LF\r\n"},
	Unrecognized:      {"unrecognized", "500 5.5.1 Command unrecognized\r\n"},
	Syntax:            {"syntax", "501 5.5.4 Syntax error in argument\r\n"},
	Parameter:         {"parameter", "555 5.5.4 Parameter not recognized\r\n"},
	Sequence:          {"sequence", "503 5.5.1 Bad sequence of commands\r\n"},
	Untrusted:         {"untrusted", "550 5.7.1 Not for clients\r\n"},
	Pipelined:         {"pipelined", "521 5.5.0 Sent before its time\r\n"},
	TooManyErrors:     {"too-many-errors", "421 4.7.0 Too many errors\r\n"},
	TooManyRecipients: {"too-many-recipients", "452 4.5.3 Too many recipients\r\n"},
	BadReply:          {"bad-reply", ""},
	Unasked:           {"unasked-reply", ""},
}
