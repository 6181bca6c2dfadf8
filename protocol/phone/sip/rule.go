// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Error is a rule that a message broke. A request is answered with Status, if it can be answered at all; a response is
// dropped. RFC 3261 §18.3.
type Error struct {
	Status int
	Reason string // for the log
}

// Error returns the reason.
func (e *Error) Error() string { return "sip: " + e.Reason }

// Rules of the index: whether these bytes are a message.
var (
	ErrShort     = &Error{400, "message ends within its head"}
	ErrLongHead  = &Error{513, "head too long"}                            // RFC 3261 §21.5.7
	ErrStartLine = &Error{400, "neither a request line nor a status line"} // RFC 3261 §7.1, §7.2
	ErrVersion   = &Error{505, "version other than SIP/2.0"}               // RFC 3261 §21.5.6
	ErrFields    = &Error{400, "too many fields"}
	ErrField     = &Error{400, "field without a name and a colon"} // RFC 3261 §7.3.1
	ErrControl   = &Error{400, "NUL, bare CR or bare LF in the head"}
	ErrLength    = &Error{400, "Content-Length is not one number"}
	ErrNoLength  = &Error{400, "no Content-Length on a stream"}    // RFC 3261 §18.3
	ErrLongBody  = &Error{513, "body too long"}                    // RFC 3261 §21.5.7
	ErrBody      = &Error{400, "body shorter than Content-Length"} // RFC 3261 §18.3
)

// Rules of single values.
var (
	ErrHost    = &Error{400, "host is neither a name nor an address"}
	ErrURI     = &Error{400, "URI cannot be read"}
	ErrScheme  = &Error{416, "URI scheme is none of sip, sips and tel"} // RFC 3261 §8.2.2.1
	ErrVia     = &Error{400, "Via cannot be read"}
	ErrBranch  = &Error{400, "branch has the magic cookie and nothing more"} // RFC 4475 §3.2.1
	ErrAddress = &Error{400, "address cannot be read"}
	ErrCSeq    = &Error{400, "CSeq cannot be read"}
	ErrCallID  = &Error{400, "Call-ID cannot be read"}
	ErrHops    = &Error{400, "Max-Forwards cannot be read"}
)

// Rules of whole messages.
var (
	ErrMissing  = &Error{400, "no Via, From, To, Call-ID or CSeq"}                    // RFC 3261 §8.1.1
	ErrTwice    = &Error{400, "field that may come once came again"}                  // RFC 3261 §7.3.1
	ErrTarget   = &Error{400, "Request-URI has headers"}                              // RFC 3261 §19.1.1
	ErrMethods  = &Error{400, "CSeq names another method than the request"}           // RFC 3261 §8.1.1.5
	ErrManyVias = &Error{400, "response with the Via of others"}                      // RFC 3261 §8.1.3.3
	ErrAOR      = &Error{400, "REGISTER for what is neither sip nor sips"}            // RFC 3261 §10.2
	ErrStar     = &Error{400, "Contact: * that does not stand alone with Expires: 0"} // RFC 3261 §10.3
)

// Rules of what we can do.
var (
	ErrMethod      = &Error{501, "method not implemented"}             // RFC 3261 §21.5.2
	ErrExtension   = &Error{420, "extension required that we lack"}    // RFC 3261 §8.2.2.3
	ErrType        = &Error{415, "body of a type that we do not know"} // RFC 3261 §8.2.3
	ErrNotAccepted = &Error{406, "nothing that we send is accepted"}   // RFC 3261 §21.4.7
	ErrTooManyHops = &Error{483, "no hops left"}                       // RFC 3261 §16.3
)
