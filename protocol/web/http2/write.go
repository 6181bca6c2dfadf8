// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import (
	"bytes"
	"strconv"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// AppendResponse writes the head of r, which is the response to x; with end there is no body. Fields that belong to a
// connection are left out, names are in lower case. An interim response goes before the one that counts, and never
// with end. There is no 101 in HTTP/2: for one nothing is written.
func (c *Conn) AppendResponse(dst []byte, s *Stream, r *http1.Response, x http1.Exchange, end bool) []byte {
	dst = c.AppendOutput(dst)
	if !s.open || s.ended || r.Status == 101 {
		return dst
	}
	dst, at := c.beginHead(dst)
	dst = appendStatus(dst, r.Status)
	for name, value, i := r.NextField(0); name != nil; name, value, i = r.NextField(i) {
		dst = c.shared.names.appendField(dst, name, value)
	}
	if n := r.Declared(x); n >= 0 {
		dst = appendLength(dst, n)
	}
	return c.endHead(dst, at, s, end && !r.Interim())
}

// AppendError writes a whole answer of our own: a status of 4xx or 5xx and one line that says what it means. The stream
// is gone.
func (c *Conn) AppendError(dst []byte, s *Stream, status int, x http1.Exchange) []byte {
	dst = c.AppendOutput(dst)
	if !s.open || s.ended {
		return dst
	}
	dst = c.appendError(dst, s, status, x.Verb)
	c.end(s)
	return c.AppendOutput(dst)
}

// appendError writes the answer. Its body is left out where a window is too small for it.
func (c *Conn) appendError(dst []byte, s *Stream, status int, verb http1.Verb) []byte {
	const line = len("200 \n")
	reason := http1.StatusText(status)
	size := line + len(reason)
	silent := verb == http1.Head || int64(size) > min(c.window, s.window)
	dst, at := c.beginHead(dst)
	dst = appendStatus(dst, status)
	dst = append(dst, answerFields...)
	if !silent || verb == http1.Head {
		dst = appendLength(dst, int64(size))
	}
	dst = frameHead(dst, at, s.ID, silent)
	if silent {
		return dst
	}
	c.window -= int64(size)
	s.window -= int64(size)
	dst = appendHeader(dst, size, frameData, flagEnd, s.ID)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, reason...)
	return append(dst, '\n')
}

// answerFields are content-type: text/plain and cache-control: no-store, encoded.
const answerFields = "\x1f\x10\x0atext/plain" + "\x1f\x09\x08no-store"

// AppendRequest writes the head of r as it goes on to a backend, with the fields of f; with end there is no body.
// scheme is "http" or "https". r must not ask for an upgrade.
func (c *Conn) AppendRequest(dst []byte, s *Stream, r *http1.Request, f http1.Forward, scheme string, end bool) []byte {
	dst = c.AppendOutput(dst)
	if !s.open || s.ID != 0 {
		return dst
	}
	c.name(s, c.nextOwn)
	c.nextOwn += 2
	s.verb = r.Verb
	dst, at := c.beginHead(dst)
	host := r.Authority()
	if len(host) == 0 {
		host = f.Host
	}
	dst = appendTarget(dst, r, scheme, host)
	for name, value, i := r.NextField(0); name != nil; name, value, i = r.NextField(i) {
		dst = c.shared.names.appendField(dst, name, value)
	}
	if r.Framing == http1.Length {
		dst = appendLength(dst, r.Length)
	}
	if r.TakesTrailers() {
		dst = append(dst, teTrailers...)
	}
	if r.Expect100 {
		dst = append(dst, expectContinue...)
	}
	if len(f.Origin) > 0 {
		dst = c.appendOrigin(dst, f.Origin, host)
		dst = c.appendLines(dst, f.Certificates)
	}
	return c.endHead(dst, at, s, end)
}

// Fields that are always the same, encoded.
const (
	teTrailers     = "\x10\x02te\x08trailers"
	expectContinue = "\x1f\x14\x0c100-continue"
)

// appendTarget writes the pseudo-header fields of a request. RFC 9113 §8.3.1.
func appendTarget(dst []byte, r *http1.Request, scheme string, host []byte) []byte {
	switch r.Verb {
	case http1.Get:
		dst = appendIndexed(dst, staticGet)
	case http1.Post:
		dst = appendIndexed(dst, staticPost)
	default:
		dst = appendNamed(dst, staticGet, r.Method)
	}
	if scheme == "https" {
		dst = appendIndexed(dst, staticHTTPS)
	} else {
		dst = appendIndexed(dst, staticHTTP)
	}
	if len(host) > 0 {
		dst = appendNamed(dst, staticAuthority, host)
	}
	switch {
	case string(r.Target) == "/":
		return appendIndexed(dst, staticRoot)
	case r.Target[0] == '?':
		dst = appendInteger(dst, neverIndexed, 4, staticRoot)
		dst = append(appendInteger(dst, 0, 7, 1+len(r.Target)), '/')
		return append(dst, r.Target...)
	}
	return appendNamed(dst, staticRoot, r.Target)
}

// appendOrigin writes what a backend is told of the client: origin is from http1.AppendOrigin, lines of which the last
// is to be completed with the host.
func (c *Conn) appendOrigin(dst, origin, host []byte) []byte {
	for len(origin) > 0 {
		line, rest, more := bytes.Cut(origin, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(": "))
		if !more && len(host) > 0 {
			return c.appendForwarded(dst, name, value, host)
		}
		dst = c.shared.names.appendField(dst, name, value)
		origin = rest
	}
	return dst
}

// appendForwarded writes the last line of an origin with its host, and the host once more as many servers want it.
func (c *Conn) appendForwarded(dst, name, value, host []byte) []byte {
	dst = c.shared.names.appendField(dst, name, nil)
	dst = appendInteger(dst[:len(dst)-1], 0, 7, len(value)+len(`;host=""`)+len(host))
	dst = append(dst, value...)
	dst = append(dst, `;host="`...)
	dst = append(dst, host...)
	dst = append(dst, '"')
	dst = append(dst, "\x10\x10x-forwarded-host"...)
	return appendText(dst, host)
}

// AppendData writes n bytes of p, as many as the peer's windows allow; with end and if that is all of p, the stream's
// half is over. If it is less, Owner.Writable tells when to go on with the rest. Of an empty p only the end is written.
func (c *Conn) AppendData(dst []byte, s *Stream, p []byte, end bool) (out []byte, n int) {
	dst = c.AppendOutput(dst)
	if !s.open || s.ended {
		return dst, 0
	}
	for n < len(p) {
		k := int(min(int64(len(p)-n), maxFrame, c.window, s.window, c.turn))
		if k <= 0 {
			c.await(s)
			return dst, n
		}
		last := end && n+k == len(p)
		dst = appendHeader(dst, k, frameData, endFlag(last), s.ID)
		dst = append(dst, p[n:n+k]...)
		n += k
		c.window -= int64(k)
		s.window -= int64(k)
		c.turn -= int64(k)
		if k >= worthwhile || last {
			c.idle.earn(dataEarns(k), idleCredit)
		}
	}
	switch {
	case !end:
		return dst, n
	case len(p) == 0:
		dst = appendHeader(dst, 0, frameData, flagEnd, s.ID)
	}
	c.end(s)
	return c.AppendOutput(dst), n
}

func endFlag(end bool) uint8 {
	if end {
		return flagEnd
	}
	return 0
}

// AppendTrailers writes trailers, lines like "Name: value\r\n", and ends the stream's half. Without any it only ends it.
func (c *Conn) AppendTrailers(dst []byte, s *Stream, lines []byte) []byte {
	if len(lines) == 0 {
		dst, _ = c.AppendData(dst, s, nil, true)
		return dst
	}
	dst = c.AppendOutput(dst)
	if !s.open || s.ended {
		return dst
	}
	dst, at := c.beginHead(dst)
	dst = c.appendLines(dst, lines)
	return c.endHead(dst, at, s, true)
}

// appendLines writes fields that are lines like "Name: value\r\n".
func (c *Conn) appendLines(dst, lines []byte) []byte {
	for len(lines) > 0 {
		var line []byte
		line, lines, _ = bytes.Cut(lines, []byte("\r\n"))
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && len(name) > 0 {
			dst = c.shared.names.appendField(dst, name, bytes.Trim(value, " \t"))
		}
	}
	return dst
}

// beginHead begins HEADERS at dst[at:].
func (c *Conn) beginHead(dst []byte) (out []byte, at int) {
	at = len(dst)
	dst = appendHeader(dst, 0, frameHeaders, 0, 0)
	if c.resize { // RFC 7541 §4.2: our encoder has no table, so that it fits whatever the peer allows
		c.resize = false
		dst = append(dst, 0x20)
	}
	return dst, at
}

// endHead ends the HEADERS at dst[at:], and with end our half of s.
func (c *Conn) endHead(dst []byte, at int, s *Stream, end bool) []byte {
	dst = frameHead(dst, at, s.ID, end)
	if end {
		c.end(s)
		dst = c.AppendOutput(dst)
	}
	return dst
}

// frameHead makes of the HEADERS at dst[at:] as many frames as it takes. RFC 9113 §4.3.
func frameHead(dst []byte, at int, stream uint32, end bool) []byte {
	size := len(dst) - at - headerSize
	more := max(0, size-1) / maxFrame // frames after the first
	for range more {
		dst = append(dst, make([]byte, headerSize)...)
	}
	for i := more; i > 0; i-- {
		from := at + headerSize + i*maxFrame
		p := dst[from : from+min(maxFrame, size-i*maxFrame)]
		to := from + i*headerSize
		copy(dst[to:], p)
		appendHeader(dst[:to-headerSize], len(p), frameContinuation, endHeadersFlag(i == more), stream)
	}
	appendHeader(dst[:at], min(size, maxFrame), frameHeaders, endFlag(end)|endHeadersFlag(more == 0), stream)
	return dst
}

func endHeadersFlag(end bool) uint8 {
	if end {
		return flagEndHeaders
	}
	return 0
}
