// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import (
	"bytes"
	"slices"
	"strconv"
)

// Keywords are the extensions of a server that can be carried. Those that we do not know are not in it, so that none
// is offered to a client.
type Keywords struct {
	Pipelining, EightBit, SMTPUTF8, Chunking, Binary, DSN, Enhanced, StartTLS bool

	HasSize bool
	Size    int64 // 0: no fixed limit

	HasAuth bool
	Auth    []byte // its mechanisms; lies in the reply

	Xclient []byte // the attributes that the server takes, never offered; lies in the reply
}

// ParseKeywords reads a reply to EHLO. RFC 5321 §4.1.1.1.
func ParseKeywords(r Reply) (k Keywords) {
	first := true
	for text := range r.Lines {
		if first { // the server's name and greeting
			first = false
			continue
		}
		name, rest := word(text)
		k.set(string(bytes.ToUpper(name)), rest)
	}
	k.Binary = k.Binary && k.Chunking // RFC 3030 §3: one needs the other
	return k
}

func (k *Keywords) set(name string, rest []byte) {
	switch name {
	case "PIPELINING":
		k.Pipelining = true
	case "8BITMIME":
		k.EightBit = true
	case "SMTPUTF8":
		k.SMTPUTF8 = true
	case "CHUNKING":
		k.Chunking = true
	case "BINARYMIME":
		k.Binary = true
	case "DSN":
		k.DSN = true
	case "ENHANCEDSTATUSCODES":
		k.Enhanced = true
	case "STARTTLS":
		k.StartTLS = true
	case "SIZE":
		k.HasSize = true
		k.Size, _ = number(rest)
	case "AUTH":
		k.HasAuth, k.Auth = len(rest) > 0, rest
	case "XCLIENT":
		k.Xclient = rest
	}
}

// Lacks says whether c uses an extension that is not in k.
func (k *Keywords) Lacks(c *Command) bool {
	u := &c.Uses
	return u.HasSize && !k.HasSize || u.EightBit && !k.EightBit || u.SMTPUTF8 && !k.SMTPUTF8 ||
		u.Binary && !k.Binary || u.DSN && !k.DSN || u.HasAuth && !k.HasAuth
}

// AppendKeywords appends a reply to EHLO that offers k in the name of host.
func AppendKeywords(dst []byte, host string, k Keywords) []byte {
	dst = append(append(dst, "250-"...), host...)
	last := len(dst) - len(host) - 1
	add := func(ok bool, name string) {
		if ok {
			dst = append(dst, "\r\n250-"...)
			last = len(dst) - 1
			dst = append(dst, name...)
		}
	}
	add(k.Pipelining, "PIPELINING")
	add(k.HasSize, "SIZE")
	if k.HasSize && k.Size > 0 {
		dst = strconv.AppendInt(append(dst, ' '), k.Size, 10)
	}
	add(k.StartTLS, "STARTTLS")
	add(k.HasAuth, "AUTH ")
	if k.HasAuth {
		dst = append(dst, k.Auth...)
	}
	add(k.Enhanced, "ENHANCEDSTATUSCODES")
	add(k.EightBit, "8BITMIME")
	add(k.DSN, "DSN")
	add(k.SMTPUTF8, "SMTPUTF8")
	add(k.Chunking, "CHUNKING")
	add(k.Binary && k.Chunking, "BINARYMIME")
	dst[last] = ' '
	return append(dst, "\r\n"...)
}

// And returns what both k and o offer. Of the mechanisms of AUTH those that both have.
func (k Keywords) And(o *Keywords) Keywords {
	k.Pipelining = k.Pipelining && o.Pipelining
	k.EightBit = k.EightBit && o.EightBit
	k.SMTPUTF8 = k.SMTPUTF8 && o.SMTPUTF8
	k.Chunking = k.Chunking && o.Chunking
	k.Binary = k.Binary && o.Binary
	k.DSN = k.DSN && o.DSN
	k.Enhanced = k.Enhanced && o.Enhanced
	k.StartTLS = k.StartTLS && o.StartTLS
	k.HasSize = k.HasSize && o.HasSize
	if k.Size == 0 || o.Size > 0 && o.Size < k.Size {
		k.Size = o.Size
	}
	var both [][]byte
	for m := range bytes.FieldsSeq(k.Auth) {
		if slices.ContainsFunc(bytes.Fields(o.Auth), func(n []byte) bool { return bytes.EqualFold(m, n) }) {
			both = append(both, m)
		}
	}
	k.Auth = bytes.Join(both, []byte(" "))
	k.HasAuth = len(both) > 0
	return k
}

// Same says whether k and o offer the same.
func (k *Keywords) Same(o *Keywords) bool {
	return k.flags() == o.flags() && k.Size == o.Size && bytes.Equal(k.Auth, o.Auth) && bytes.Equal(k.Xclient, o.Xclient)
}

// flags are what k offers without more words.
func (k *Keywords) flags() [10]bool {
	return [...]bool{k.Pipelining, k.EightBit, k.SMTPUTF8, k.Chunking, k.Binary, k.DSN, k.Enhanced, k.StartTLS, k.HasSize, k.HasAuth}
}
