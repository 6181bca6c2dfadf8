// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Error is a rule that a peer broke. After it nothing more of the connection can be understood: answer with Status,
// if the peer is a client, and close.
type Error struct {
	Status int    // 502 if a backend broke the rule
	Reason string // for the log
}

// Error returns the reason.
func (e *Error) Error() string { return "http1: " + e.Reason }

// Is says whether target is the same rule, broken by either side.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// byBackend is e when a backend broke the rule. RFC 9110 §15.6.3.
func (e *Error) byBackend() *Error { return &Error{502, e.Reason} }

// Rules of every head.
var (
	ErrBareLF      = &Error{400, "line ends in LF without CR"}                  // RFC 9112 §2.2
	ErrBareCR      = &Error{400, "CR that does not end a line"}                 // RFC 9112 §2.2
	ErrControl     = &Error{400, "control character in the head"}               // RFC 9110 §5.5
	ErrFold        = &Error{400, "field folded over two lines"}                 // RFC 9112 §5.2
	ErrNoColon     = &Error{400, "field without a colon"}                       // RFC 9112 §5
	ErrNoName      = &Error{400, "field without a name"}                        // RFC 9110 §5.1
	ErrName        = &Error{400, "field name is not a token"}                   // RFC 9110 §5.6.2
	ErrColonSpace  = &Error{400, "space between field name and colon"}          // RFC 9112 §5.1
	ErrUnderscore  = &Error{400, "underscore in a field name"}                  // see Limits.Underscores
	ErrManyFields  = &Error{431, "too many fields"}                             // RFC 6585 §5
	ErrLongHead    = &Error{431, "head too long"}                               // RFC 6585 §5
	ErrLength      = &Error{400, "Content-Length is not one number"}            // RFC 9112 §6.3
	ErrTwoLengths  = &Error{400, "more than one Content-Length"}                // RFC 9112 §6.3
	ErrTwoFramings = &Error{400, "Content-Length beside Transfer-Encoding"}     // RFC 9112 §6.1
	ErrCoding      = &Error{400, "Transfer-Encoding is not exactly chunked"}    // RFC 9112 §6.1
	ErrTwoCodings  = &Error{400, "more than one Transfer-Encoding"}             // RFC 9112 §6.1
	ErrOldCoding   = &Error{400, "Transfer-Encoding in HTTP/1.0"}               // RFC 9112 §6.1
	ErrOption      = &Error{400, "Connection names what is not a connection's"} // RFC 9110 §7.6.1
	ErrManyOptions = &Error{400, "Connection names too many fields"}            // ours: their work is a product
	ErrVersion     = &Error{505, "version is neither HTTP/1.1 nor HTTP/1.0"}    // RFC 9112 §2.3
)

// Rules of requests.
var (
	ErrStartLine   = &Error{400, "request line is not method, target, version"} // RFC 9112 §3
	ErrMethod      = &Error{400, "method is not a token"}                       // RFC 9110 §9.1
	ErrLongMethod  = &Error{501, "method too long"}                             // RFC 9112 §3
	ErrRefused     = &Error{501, "method refused"}                              // RFC 9110 §15.6.2
	ErrLongTarget  = &Error{414, "request line too long"}                       // RFC 9112 §3
	ErrTarget      = &Error{400, "target has no form that its method may have"} // RFC 9112 §3.2
	ErrTargetByte  = &Error{400, "target has a byte that no URI has"}           // RFC 3986 §2
	ErrFragment    = &Error{400, "target has a fragment"}                       // RFC 9112 §3.2
	ErrEscape      = &Error{400, "path has a bad escape"}                       // RFC 3986 §2.1
	ErrUserinfo    = &Error{400, "authority has user information"}              // RFC 9110 §4.2.4
	ErrNoHost      = &Error{400, "no Host"}                                     // RFC 9112 §3.2
	ErrTwoHosts    = &Error{400, "more than one Host"}                          // RFC 9112 §3.2
	ErrHost        = &Error{400, "Host is not a host"}                          // RFC 9112 §3.2
	ErrOtherHost   = &Error{400, "Host differs from the target"}                // RFC 9112 §3.2.2
	ErrExpectation = &Error{417, "expectation other than 100-continue"}         // RFC 9110 §10.1.1
)

// Rules of responses.
var (
	ErrStatusLine = &Error{502, "status line is not version, status, reason"} // RFC 9112 §4
	ErrSwitch     = &Error{502, "protocol switched without being asked"}      // RFC 9110 §7.8
	ErrEmpty      = &Error{502, "body where there can be none"}               // RFC 9110 §8.6, RFC 9112 §6.1
)

// Rules of bodies.
var (
	ErrChunkSize   = &Error{400, "chunk size is not a plain hexadecimal number"} // RFC 9112 §7.1
	ErrChunkEnd    = &Error{400, "chunk does not end in CRLF"}                   // RFC 9112 §7.1
	ErrExtension   = &Error{400, "chunk extension too long or malformed"}        // RFC 9112 §7.1.1
	ErrTrailer     = &Error{400, "trailer that would change the framing"}        // RFC 9110 §6.5.1
	ErrLongTrailer = &Error{431, "trailers too long"}                            // RFC 9112 §7.1.2
	ErrTruncated   = &Error{400, "body ended early"}                             // RFC 9112 §8
)
