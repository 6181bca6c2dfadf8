// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Rules of a message. Who breaks one loses the stream. RFC 9113 §8.1.1.
var (
	errName        = &Error{ProtocolError, "field name is not a token in lower case"}         // RFC 9113 §8.2.1
	errValue       = &Error{ProtocolError, "field value has a control byte or outer space"}   // RFC 9113 §8.2.1
	errHop         = &Error{ProtocolError, "field that belongs to a connection"}              // RFC 9113 §8.2.2
	errTE          = &Error{ProtocolError, "TE other than trailers"}                          // RFC 9113 §8.2.2
	errPseudo      = &Error{ProtocolError, "pseudo-header field that does not exist here"}    // RFC 9113 §8.3
	errLatePseudo  = &Error{ProtocolError, "pseudo-header field after another field"}         // RFC 9113 §8.3
	errTwicePseudo = &Error{ProtocolError, "pseudo-header field twice"}                       // RFC 9113 §8.3
	errNoPseudo    = &Error{ProtocolError, "no :method, :scheme or :path"}                    // RFC 9113 §8.3.1
	errMethod      = &Error{ProtocolError, ":method is not a token"}                          // RFC 9110 §9.1
	errScheme      = &Error{ProtocolError, ":scheme is neither http nor https"}               // RFC 9113 §8.3.1
	errPath        = &Error{ProtocolError, ":path is not a path"}                             // RFC 9113 §8.3.1
	errAuthority   = &Error{ProtocolError, ":authority is empty"}                             // RFC 9113 §8.3.1
	errHost        = &Error{ProtocolError, "host differs from :authority"}                    // RFC 9113 §8.3.1
	errLength      = &Error{ProtocolError, "content-length is not one number"}                // RFC 9110 §8.6
	errBody        = &Error{ProtocolError, "body is not as long as content-length says"}      // RFC 9113 §8.1.1
	errStatus      = &Error{ProtocolError, ":status is not three digits"}                     // RFC 9113 §8.3.2
	errSwitch      = &Error{ProtocolError, "status 101"}                                      // RFC 9113 §8.6
	errInterim     = &Error{ProtocolError, "interim response that ends the stream"}           // RFC 9113 §8.1
	errNoResponse  = &Error{ProtocolError, "body before the response"}                        // RFC 9113 §8.1
	errTrailer     = &Error{ProtocolError, "trailer that would change the framing"}           // RFC 9110 §6.5.1
	errUnended     = &Error{ProtocolError, "second head that does not end the stream"}        // RFC 9113 §8.1
	errClosed      = &Error{StreamClosed, "frame after the end of a stream"}                  // RFC 9113 §5.1
	errNoIncrement = &Error{ProtocolError, "window of a stream opened by nothing"}            // RFC 9113 §6.9
	errWindow      = &Error{FlowControlError, "window of a stream overflows, or is not kept"} // RFC 9113 §6.9.1
	errConcurrent  = &Error{RefusedStream, "more streams than allowed"}                       // RFC 9113 §5.1.2
	errLongHead    = &Error{EnhanceYourCalm, "head too long, or of too many fields: 431"}     // RFC 6585 §5
	errConnect     = &Error{ConnectError, "CONNECT: 501"}                                     // RFC 9110 §15.6.2
	errPriority    = &Error{FrameSizeError, "PRIORITY not of 5 bytes"}                        // RFC 9113 §6.3
)

// Rules of a connection.
var (
	errPreface       = &Error{ProtocolError, "no preface"}                                  // RFC 9113 §3.4
	errFirst         = &Error{ProtocolError, "first frame is not SETTINGS"}                 // RFC 9113 §3.4
	errFrameSize     = &Error{FrameSizeError, "frame too long, or not as long as its type"} // RFC 9113 §4.2
	errStreamID      = &Error{ProtocolError, "frame on a stream where it cannot be"}        // RFC 9113 §5.1.1
	errIdle          = &Error{ProtocolError, "frame on an idle stream"}                     // RFC 9113 §5.1
	errGone          = &Error{StreamClosed, "frame on a closed stream"}                     // RFC 9113 §5.1
	errPadding       = &Error{ProtocolError, "padding longer than its frame"}               // RFC 9113 §6.1
	errSetting       = &Error{ProtocolError, "setting out of range"}                        // RFC 9113 §6.5.2
	errInitialWindow = &Error{FlowControlError, "initial window too large"}                 // RFC 9113 §6.5.2
	errPush          = &Error{ProtocolError, "PUSH_PROMISE"}                                // RFC 9113 §8.4
	errContinuation  = &Error{ProtocolError, "header block interrupted, or not begun"}      // RFC 9113 §6.10
	errNoRoom        = &Error{ProtocolError, "window of the connection opened by nothing"}  // RFC 9113 §6.9
	errConnWindow    = &Error{FlowControlError, "window overflows, or is not kept"}         // RFC 9113 §6.9.1
	errCompression   = &Error{CompressionError, "header block cannot be read"}              // RFC 9113 §4.3
	errLongBlock     = &Error{EnhanceYourCalm, "header block too long"}                     // RFC 9113 §10.5.1
	errResets        = &Error{EnhanceYourCalm, "too many streams reset"}                    // CVE-2023-44487, CVE-2025-8671
	errFlood         = &Error{EnhanceYourCalm, "too many frames that bring nothing about"}  // RFC 9113 §10.5
)
