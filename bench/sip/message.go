// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strconv"
)

// A message is looked at here as lines of text. It is our own, or an answer to our own, so that little can be in it: what the
// programs write is known, and a client that understood more would take the processor from them.

// fieldOf returns the value of the first field of a name, without white space at its ends, or nil.
func fieldOf(m []byte, name string) []byte {
	for line := range bytes.Lines(m) {
		if rest, ok := cutName(line, name); ok {
			return rest
		}
		if len(line) <= 2 {
			return nil
		}
	}
	return nil
}

// cutName returns the value of a line that is a field of a name.
func cutName(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}

// uriOf returns the URI in the angle brackets of a value, or all of it.
func uriOf(value []byte) []byte {
	_, rest, ok := bytes.Cut(value, []byte{'<'})
	if !ok {
		return value
	}
	uri, _, _ := bytes.Cut(rest, []byte{'>'})
	return uri
}

// statusOf returns the status of a response, 0 of a request.
func statusOf(m []byte) int {
	if len(m) < 12 || string(m[:8]) != "SIP/2.0 " {
		return 0
	}
	n, err := strconv.Atoi(string(m[8:11]))
	if err != nil {
		return 0
	}
	return n
}

// methodOf returns the method of a request, or that which a response answers.
func methodOf(m []byte) string {
	seq := fieldOf(m, "CSeq")
	return string(seq[bytes.LastIndexByte(seq, ' ')+1:])
}

// appendAnswer writes the response to a request: what it has of Via, Record-Route, From, To, Call-ID and CSeq, To with a tag,
// and more lines.
func appendAnswer(dst, request []byte, status, more, body string) []byte {
	dst = append(append(append(dst, "SIP/2.0 "...), status...), "\r\n"...)
	for line := range bytes.Lines(request) {
		if len(line) <= 2 {
			break
		}
		name, _, _ := bytes.Cut(line, []byte{':'})
		switch string(name) {
		case "To":
			dst = append(dst, bytes.TrimSpace(line)...)
			if !bytes.Contains(line, []byte(";tag=")) {
				dst = append(dst, ";tag=server"...)
			}
			dst = append(dst, "\r\n"...)
		case "Via", "Record-Route", "From", "Call-ID", "CSeq":
			dst = append(dst, line...)
		}
	}
	return appendBody(append(dst, more...), body)
}

// appendBody ends the head of a message, and adds a description.
func appendBody(dst []byte, body string) []byte {
	if body != "" {
		dst = append(dst, "Content-Type: application/sdp\r\n"...)
	}
	dst = append(strconv.AppendInt(append(dst, "Content-Length: "...), int64(len(body)), 10), "\r\n\r\n"...)
	return append(dst, body...)
}
