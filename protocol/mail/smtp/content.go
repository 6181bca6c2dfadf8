// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import "bytes"

// content finds the end of what follows DATA, and the line ends in it. Its zero value stands at the beginning of a
// line.
type content struct {
	at     place
	repair bool // see Server.Repair
	chunks bool // the message comes by BDAT: dots mean nothing, and its end is told by the size
}

type place uint8

const (
	lineStart place = iota
	afterDot        // a dot at the beginning of a line, not given on yet
	afterDotCR
	inLine
	afterCR // a CR, not given on yet
)

// What is given on in place of what was kept back. Nobody may write to them.
const (
	lineBreak = "\r\n"
	space     = " "
)

// next returns the first bytes of p that belong to the message, without the dots that the client added, how many bytes
// of p were used, and whether the message is whole. Only CRLF.CRLF ends it. A CR or LF alone is refused, since some
// servers would end the message there, or repaired: LF becomes CRLF, CR a space. RFC 5321 §2.3.8, §4.1.1.4, §4.5.2.
func (c *content) next(p []byte) (text []byte, n int, whole bool, refusal Refusal) {
	if len(p) == 0 {
		return nil, 0, false, 0
	}
	switch b := p[0]; {
	case c.at == afterDotCR && b == '\n':
		return nil, 1, true, 0
	case c.at == afterCR && b == '\n':
		c.at = lineStart
		return []byte(lineBreak), 1, false, 0
	case c.at == afterCR || c.at == afterDotCR:
		return c.mended(space, 0)
	case b == '\n':
		return c.mended(lineBreak, 1)
	case c.at == lineStart && b == '.' && !c.chunks:
		c.at = afterDot
		return nil, 1, false, 0
	case c.at == afterDot && b == '\r':
		c.at = afterDotCR
		return nil, 1, false, 0
	case b == '\r':
		c.at = afterCR
		return nil, 1, false, 0
	}
	c.at = inLine
	return c.lines(p)
}

// mended gives on text in place of a CR or LF that stands alone, if such are repaired. What follows a line end that was
// repaired is never the beginning of the line that ends a message: RFC 5321 §4.1.1.4.
func (c *content) mended(text string, n int) ([]byte, int, bool, Refusal) {
	if !c.repair {
		return nil, 0, false, BareLineEnd
	}
	c.at = inLine
	return []byte(text), n, false, 0
}

// lines returns as much of p, which begins within a line, as can be given on as it is.
func (c *content) lines(p []byte) ([]byte, int, bool, Refusal) {
	i := 0
	for {
		i = lineEnd(p, i)
		if i+2 >= len(p) || p[i] != '\r' || p[i+1] != '\n' || p[i+2] == '.' && !c.chunks {
			break
		}
		i += 2
	}
	return p[:i], i, false, 0
}

// end says whether a message that came by BDAT may end here.
func (c *content) end() (text []byte, refusal Refusal) {
	if c.at != afterCR {
		return nil, 0
	}
	text, _, _, refusal = c.mended(space, 0)
	return text, refusal
}

// lineEnd returns the index of the first CR or LF in p[i:], or len(p).
func lineEnd(p []byte, i int) int {
	if k := bytes.IndexByte(p[i:], '\n'); k >= 0 {
		p = p[:i+k]
	}
	if k := bytes.IndexByte(p[i:], '\r'); k >= 0 {
		return i + k
	}
	return len(p)
}

// AppendContent appends text as it goes behind DATA. start says whether text begins a line; what is returned says the
// same of what comes next. Text must have whole line ends only, as Server gives it. RFC 5321 §4.5.2.
func AppendContent(dst, text []byte, start bool) ([]byte, bool) {
	for len(text) > 0 {
		if start && text[0] == '.' {
			dst = append(dst, '.')
		}
		k := bytes.IndexByte(text, '\n') + 1
		start = k > 0
		if !start {
			k = len(text)
		}
		dst, text = append(dst, text[:k]...), text[k:]
	}
	return dst, start
}

// AppendEnd appends the end of a message behind DATA. A message that came by BDAT may not end with a line end: it is
// given one. RFC 5321 §4.1.1.4.
func AppendEnd(dst []byte, start bool) []byte {
	if !start {
		dst = append(dst, "\r\n"...)
	}
	return append(dst, ".\r\n"...)
}
