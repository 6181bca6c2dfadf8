// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import "bytes"

// Verb is what a command asks for.
type Verb uint8

// The verbs.
const (
	Other Verb = iota
	Helo
	Ehlo
	Mail
	Rcpt
	Data
	Bdat
	Rset
	Noop
	Vrfy
	Help
	Quit
	StartTLS
	Auth
	Xclient // XCLIENT, XFORWARD and XOIP: words between a proxy and its server
)

// verbs is in the order of the constants.
var verbs = [...]string{
	"", "HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "VRFY", "HELP", "QUIT", "STARTTLS", "AUTH", "XCLIENT",
}

// Command is one line of a client. Its slices lie in the bytes that were shown.
type Command struct {
	Verb Verb
	Line []byte   // all of it, without CRLF
	Arg  []byte   // what follows the verb
	Path []byte   // MAIL, RCPT: what stands between < and >, without a source route; HELO, EHLO: the name
	Rest []byte   // MAIL, RCPT: the parameters
	Size int64    // MAIL: SIZE=, or 0; BDAT: the bytes that follow
	Last bool     // BDAT: the last chunk
	UTF8 bool     // MAIL: SMTPUTF8
	Uses Keywords // MAIL, RCPT: the extensions that the parameters belong to
}

// ParseCommand reads a line without its CRLF.
func ParseCommand(p []byte) (Command, Refusal) {
	c := Command{Line: p}
	for _, b := range p {
		if b < ' ' && b != '\t' || b == 0x7f {
			return c, Syntax
		}
	}
	name, rest := word(p)
	c.Arg = trimEnd(rest, len(rest))
	for i := 1; i < len(verbs); i++ {
		if bytes.EqualFold(name, []byte(verbs[i])) {
			c.Verb = Verb(i)
		}
	}
	if bytes.EqualFold(name, []byte("XFORWARD")) || bytes.EqualFold(name, []byte("XOIP")) {
		c.Verb = Xclient
	}
	return c, c.parse()
}

func (c *Command) parse() Refusal {
	switch c.Verb {
	case Other:
		return Unrecognized
	case Xclient:
		return Untrusted
	case Helo, Ehlo:
		c.Path, _ = word(c.Arg)
		return unless(len(c.Path) > 0 && ascii(c.Path)) // it goes on to the backend
	case Data, Rset, Quit, StartTLS:
		return unless(len(c.Arg) == 0) // RFC 5321 §4.1.1, RFC 3207 §4
	case Auth, Vrfy:
		return unless(len(c.Arg) > 0)
	case Bdat:
		return c.chunk()
	case Mail:
		return c.envelope("FROM:")
	case Rcpt:
		return c.envelope("TO:")
	default:
		return 0
	}
}

func unless(ok bool) Refusal {
	if ok {
		return 0
	}
	return Syntax
}

// chunk reads what follows BDAT. RFC 3030 §2.
func (c *Command) chunk() Refusal {
	size, rest := word(c.Arg)
	var ok bool
	c.Size, ok = number(size)
	c.Last = bytes.EqualFold(rest, []byte("LAST"))
	return unless(ok && (len(rest) == 0 || c.Last))
}

// envelope reads what follows MAIL or RCPT. RFC 5321 §4.1.1.2, §4.1.1.3.
func (c *Command) envelope(before string) Refusal {
	if len(c.Arg) < len(before) || !bytes.EqualFold(c.Arg[:len(before)], []byte(before)) {
		return Syntax
	}
	// RFC 5321 §3.3 has no space after the colon; old clients write one, and it means nothing else.
	p := bytes.TrimLeft(c.Arg[len(before):], " ")
	if len(p) > 0 && p[0] != '<' {
		return c.bare(p)
	}
	end := pathEnd(p)
	if end < 0 || end+1 < len(p) && p[end+1] != ' ' {
		return Syntax
	}
	c.Path = p[1:end]
	if len(c.Path) > 0 && c.Path[0] == '@' { // a source route, which is ignored: RFC 5321 §4.1.1.3
		_, after, ok := bytes.Cut(c.Path, []byte(":"))
		if !ok || len(after) == 0 {
			return Syntax
		}
		c.Path = after
	}
	if c.Verb == Rcpt && len(c.Path) == 0 {
		return Syntax
	}
	c.Rest = bytes.TrimLeft(p[end+1:], " ")
	return c.parameters()
}

// bare reads an address without < and >. RFC 5321 §4.1.2 wants them; old devices leave them out, and servers that may
// not be touched have always taken it. It is the server that decides.
func (c *Command) bare(p []byte) Refusal {
	c.Path, c.Rest = word(p)
	if bytes.ContainsAny(c.Path, "<>\"\t") {
		return Syntax
	}
	return c.parameters()
}

func ascii(p []byte) bool {
	for _, b := range p {
		if b >= 0x80 {
			return false
		}
	}
	return true
}

// pathEnd returns where the > of p is, or -1. One in a quoted string is part of an address. RFC 5321 §4.1.2.
func pathEnd(p []byte) int {
	if len(p) == 0 || p[0] != '<' {
		return -1
	}
	quoted := false
	for i := 1; i < len(p); i++ {
		switch c := p[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '>':
			return i
		case c == '<' || c == ' ' || c == '\t':
			return -1
		}
	}
	return -1
}
