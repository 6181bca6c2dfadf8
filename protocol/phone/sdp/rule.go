// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import "errors"

// Rules of every description. A SIP server answers 400 or 488.
var (
	ErrLong       = errors.New("sdp: description too long")
	ErrLines      = errors.New("sdp: too many lines")
	ErrManyMedia  = errors.New("sdp: too many m-lines")
	ErrLine       = errors.New("sdp: line is not a letter, =, and text") // RFC 8866 §5
	ErrVersion    = errors.New("sdp: does not begin with v=0")           // RFC 8866 §5.1
	ErrOrigin     = errors.New("sdp: o= is not one line of six words")   // RFC 8866 §5.2
	ErrConnection = errors.New("sdp: c= is not IN, IP4 or IP6, address") // RFC 8866 §5.7
	ErrNoAddress  = errors.New("sdp: m-line without any c=")             // RFC 8866 §5.7
	ErrMediaLine  = errors.New("sdp: m= is not media, port, protocol")   // RFC 8866 §5.14
	ErrRTCP       = errors.New("sdp: a=rtcp is not a port and address")  // RFC 3605 §2.1
)

// ErrEndpoints is returned by Append.
var ErrEndpoints = errors.New("sdp: not an endpoint for each m-line, or no address")
