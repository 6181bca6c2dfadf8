// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package cause

import (
	"bytes"
	"strconv"
)

// maxReason bounds the values of a message together.
const maxReason = 1 << 10

// Reason is what the Reason fields of a message say, as far as it has numbers. Several values of one protocol are not
// allowed; the first counts. RFC 3326 §2.
type Reason struct {
	SIP  int // a status code, or 0
	Q850 Cause
	Text []byte // of the value that was read last with one, between its quotes; valid as long as the bytes parsed
}

// Add reads the value of a Reason field, which may be a list. What it does not understand it passes over, as RFC 3326
// §2 lets it.
func (r *Reason) Add(value []byte) {
	if len(value) > maxReason {
		return
	}
	for len(value) > 0 {
		var one []byte
		one, value = cut(value, ',')
		protocol, rest := cut(one, ';')
		number, text := parameters(rest)
		switch protocol = trim(protocol); {
		case number == 0:
			continue
		case bytes.EqualFold(protocol, []byte("SIP")) && r.SIP == 0 && number >= 100 && number <= 699:
			r.SIP = number
		case bytes.EqualFold(protocol, []byte("Q.850")) && r.Q850 == 0 && number <= 127:
			r.Q850 = Cause(number)
		default:
			continue
		}
		if text != nil {
			r.Text = text
		}
	}
}

// parameters returns the cause and the text of a value.
func parameters(p []byte) (number int, text []byte) {
	for len(p) > 0 {
		var one []byte
		one, p = cut(p, ';')
		name, value, _ := bytes.Cut(one, []byte("="))
		value = trim(value)
		switch {
		case bytes.EqualFold(trim(name), []byte("cause")) && len(value) <= 3:
			if n, err := strconv.Atoi(string(value)); err == nil && n > 0 {
				number = n
			}
		case bytes.EqualFold(trim(name), []byte("text")) && len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"':
			text = value[1 : len(value)-1]
		}
	}
	return number, text
}

func trim(p []byte) []byte { return bytes.Trim(p, " \t\r\n") }

// cut cuts p at the first such byte that is not between quotes.
func cut(p []byte, at byte) (before, after []byte) {
	quoted := false
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == at && !quoted:
			return p[:i], p[i+1:]
		}
	}
	return p, nil
}

// Append adds the value of a Reason field that says what r does, or nothing if it says nothing.
func (r *Reason) Append(dst []byte) []byte {
	if r.SIP != 0 {
		dst = strconv.AppendInt(append(dst, "SIP;cause="...), int64(r.SIP), 10)
	}
	if r.Q850 != 0 {
		if r.SIP != 0 {
			dst = append(dst, ", "...)
		}
		dst = strconv.AppendInt(append(dst, "Q.850;cause="...), int64(r.Q850), 10)
		if name := r.Q850.String(); name != "" {
			dst = append(append(append(dst, `;text="`...), name...), '"')
		}
	}
	return dst
}
