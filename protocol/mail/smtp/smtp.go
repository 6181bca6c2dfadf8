// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package smtp is SMTP as a proxy needs it: it reads what strangers on both sides wrote and keeps their dialogue in
// order. It does no I/O, starts no goroutine, knows no clock and keeps no bytes; an event loop shows it bytes.
//
//	client bytes ─▶ Server.Next ─▶ Command, Content, End ─▶ the owner
//	                Server.Answer ◀─ the code that was sent ─┘   │ AppendContent, AppendEnd
//	                                                             ▼
//	                                 Reply ◀─ Client.Next ◀─ backend bytes
//
// Two rules carry it. What two programs can understand in two ways is not sent on: only CRLF ends a line and only
// CRLF.CRLF ends a message; a CR or LF alone is refused or, in messages and where the owner says so, repaired. And
// nothing that was said in clear is believed after STARTTLS, by either side.
//
// RFC 5321 (SMTP), RFC 3207 (STARTTLS), RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8), RFC 2920
// (PIPELINING), RFC 3030 (CHUNKING), RFC 3461 (DSN), RFC 4954 (AUTH), RFC 2034 (ENHANCEDSTATUSCODES).
package smtp

// Limits bound what a peer may send. A zero field means its default.
type Limits struct {
	Line       int // bytes of a command line with its CRLF; default 2 KiB, room for what extensions add to 512
	Secret     int // bytes of a line of an AUTH exchange; default 12 KiB + 2
	Reply      int // bytes of a whole reply; default 16 KiB
	Recipients int // recipients of a message; default 1000
	Errors     int // commands of a session that are wrong; default 20
	Refusals   int // commands of a session that the owner has answered with a refusal; default 100
	Idle       int // commands since the last message that move nothing on; default 100
}

func or(n, usual int) int {
	if n == 0 {
		return usual
	}
	return n
}

func (l *Limits) line() int       { return or(l.Line, 2<<10) }
func (l *Limits) secret() int     { return or(l.Secret, 12<<10+2) } // RFC 4954 §4
func (l *Limits) reply() int      { return or(l.Reply, 16<<10) }
func (l *Limits) recipients() int { return or(l.Recipients, 1000) } // at least 100: RFC 5321 §4.5.3.1.8
func (l *Limits) errors() int     { return or(l.Errors, 20) }
func (l *Limits) refusals() int   { return or(l.Refusals, 100) }
func (l *Limits) idle() int       { return or(l.Idle, 100) }

// line returns the first line of p without its CRLF, and how many bytes it takes; 0 if its end is not there yet. A CR
// or LF that stands alone is refused: some servers would end the line there.
func line(p []byte, limit int) ([]byte, int, Refusal) {
	for i, c := range p {
		if i >= limit {
			return nil, 0, LineTooLong
		}
		if c == '\n' {
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

// number reads a decimal of at most 20 digits that fits an int64. RFC 1870 §3.
func number(p []byte) (n int64, ok bool) {
	if len(p) == 0 || len(p) > 20 {
		return 0, false
	}
	for _, c := range p {
		if c < '0' || c > '9' || n > (1<<63-1-int64(c-'0'))/10 {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// word cuts the first word off p; words are separated by spaces.
func word(p []byte) (first, rest []byte) {
	for i, c := range p {
		if c == ' ' {
			for i < len(p) && p[i] == ' ' {
				i++
			}
			return trimEnd(p, i), p[i:]
		}
	}
	return p, nil
}

// trimEnd returns p[:end] without the spaces at its end.
func trimEnd(p []byte, end int) []byte {
	for end > 0 && p[end-1] == ' ' {
		end--
	}
	return p[:end]
}
