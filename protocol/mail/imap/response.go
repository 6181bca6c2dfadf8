// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/mail/login"
)

// response is one thing that a backend says. It lies in the bytes that were shown.
type response struct {
	tag    []byte // "*" and "+" too
	status []byte // OK, NO, BAD, BYE, PREAUTH, CAPABILITY …: the first word
	code   []byte // of the status, what stands between [ and ]
	text   []byte // what follows the first word
	raw    []byte
}

// parseResponse reads the response that p begins with and returns how many bytes it takes; 0 if its end is not there yet.
func parseResponse(p []byte, limit int) (r response, n int, refusal login.Refusal) {
	for {
		line, used, refusal := login.NextLine(p[n:], limit-n)
		if refusal != 0 {
			return response{}, 0, login.BadReply
		}
		if used == 0 {
			return response{}, 0, 0
		}
		if n == 0 {
			r.split(line)
		}
		n += used
		size, _, follows := literal(line)
		if !follows {
			break
		}
		if size > limit-n {
			return response{}, 0, login.BadReply
		}
		if len(p)-n < size {
			return response{}, 0, 0
		}
		n += size
	}
	r.raw = p[:n]
	if len(r.tag) == 0 {
		return response{}, 0, login.BadReply
	}
	return r, n, 0
}

func (r *response) split(line []byte) {
	r.tag, r.text, _ = bytes.Cut(line, []byte(" "))
	if string(r.tag) == "+" {
		return
	}
	r.status, r.text, _ = bytes.Cut(r.text, []byte(" "))
	if len(r.text) > 0 && r.text[0] == '[' {
		if end := bytes.IndexByte(r.text, ']'); end > 0 {
			r.code = r.text[1:end]
		}
	}
}

func (r *response) is(status string) bool { return bytes.EqualFold(r.status, []byte(status)) }

// offers returns what a response says that the backend can do, or nil. RFC 9051 §7.1, §7.2.2.
func (r *response) offers() []byte {
	const name = "CAPABILITY"
	if r.is(name) {
		return r.text
	}
	if len(r.code) > len(name) && bytes.EqualFold(r.code[:len(name)], []byte(name)) && r.code[len(name)] == ' ' {
		return r.code[len(name)+1:]
	}
	return nil
}

// refers says whether a response sends the client elsewhere. RFC 2221 §4.1.
func (r *response) refers() bool {
	const name = "REFERRAL"
	return len(r.code) > len(name) && bytes.EqualFold(r.code[:len(name)], []byte(name)) && r.code[len(name)] == ' '
}
