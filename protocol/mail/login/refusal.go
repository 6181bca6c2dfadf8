// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package login

// Refusal says why something that a peer said is not taken.
type Refusal uint8

// The refusals. Those of a client come first, then those of a backend.
const (
	LineTooLong   Refusal = iota + 1
	BareLineEnd           // a CR, LF or NUL that stands alone
	Syntax                // a command whose arguments cannot be read
	Unknown               // no command, or none before the login
	Untrusted             // a word between a proxy and its server
	Insecure              // a password that would go in clear
	Mechanism             // a SASL mechanism that cannot be carried
	Nobody                // a first message that names no user
	Cancelled             // by the client
	Pipelined             // bytes in clear behind STARTTLS or STLS
	TooManyErrors         // of one session

	BadReply // cannot be read, or does not answer what was said
	Bye      // the backend has ended the session
	Untold   // the backend cannot be told who the client is, or does not want to be
	Referred // the backend sends the client to another address
	Preauth  // the backend has let somebody in without being asked
	NoTLS    // the backend does not agree to TLS
)

// names has a word for each, for logs and metrics.
var names = [...]string{LineTooLong: "line-too-long", BareLineEnd: "bare-line-end", Syntax: "syntax",
	Unknown: "unknown-command", Untrusted: "untrusted", Insecure: "insecure", Mechanism: "mechanism", Nobody: "nobody",
	Cancelled: "cancelled", Pipelined: "pipelined", TooManyErrors: "too-many-errors",
	BadReply: "bad-reply", Bye: "bye", Untold: "handover-refused", Referred: "referral", Preauth: "preauth",
	NoTLS: "no-starttls"}

// Error returns the word.
func (r Refusal) Error() string {
	if int(r) < len(names) && names[r] != "" {
		return "login: " + names[r]
	}
	return "login: unknown refusal"
}

// Fatal says whether the connection to a client must be closed: what follows on it cannot be told apart.
func (r Refusal) Fatal() bool {
	switch r {
	case LineTooLong, BareLineEnd, Pipelined, TooManyErrors:
		return true
	default:
		return false
	}
}
