// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import "bytes"

// Reply is a whole reply of a server. It lies in the bytes that were shown.
type Reply struct {
	Code int
	Raw  []byte // all lines with their CRLF, as they may be passed on
}

// ParseReply reads a reply at the beginning of p and returns how many bytes it takes; 0 if its end is not there yet.
// All lines must have the same code. RFC 5321 §4.2, §4.2.1.
func ParseReply(p []byte, l *Limits) (Reply, int, Refusal) {
	var r Reply
	for n := 0; ; {
		text, used, refusal := line(p[n:], l.reply()-n)
		if refusal != 0 || used == 0 {
			return Reply{}, 0, refusal
		}
		code := replyCode(text)
		if code == 0 || r.Code != 0 && code != r.Code {
			return Reply{}, 0, BadReply
		}
		r.Code = code
		n += used
		if len(text) == 3 || text[3] == ' ' {
			r.Raw = p[:n]
			return r, n, 0
		}
	}
}

// replyCode returns the code that a line of a reply begins with, or 0. RFC 5321 §4.2.
func replyCode(p []byte) int {
	if len(p) < 3 || len(p) > 3 && p[3] != ' ' && p[3] != '-' {
		return 0
	}
	if p[0] < '2' || p[0] > '5' || p[1] < '0' || p[1] > '9' || p[2] < '0' || p[2] > '9' {
		return 0
	}
	for _, c := range p[3:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0
		}
	}
	return int(p[0]-'0')*100 + int(p[1]-'0')*10 + int(p[2]-'0')
}

// Lines yields the text of each line, without the code.
func (r Reply) Lines(yield func([]byte) bool) {
	for p := r.Raw; len(p) > 0; {
		var text []byte
		text, p, _ = bytes.Cut(p, []byte("\r\n"))
		if !yield(text[min(4, len(text)):]) {
			return
		}
	}
}

// Enhanced returns the enhanced status code that r begins with, as 5.7.1, or nil if there is none or its class is not
// that of the code. RFC 2034 §4.
func (r Reply) Enhanced() []byte {
	if r.Code/100 == 3 { // RFC 2034 §4: these have none
		return nil
	}
	for text := range r.Lines {
		code, _ := word(text)
		parts := bytes.Split(code, []byte("."))
		if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != r.Code/100 {
			return nil
		}
		for _, p := range parts[1:] {
			if _, ok := number(p); !ok || len(p) > 3 {
				return nil
			}
		}
		return code
	}
	return nil
}
