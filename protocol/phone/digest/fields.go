// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"bytes"
	"strings"
)

const (
	maxHeader = 2 << 10
	maxFields = 24
)

// Fields are the parameters of a challenge or of credentials. The slices lie in the bytes parsed; of a quoted value they
// are what stands between the quotes, unchanged, as it is hashed. RFC 7616 §3.4.5.
type Fields struct {
	Username, Realm, Nonce, URI, Response, CNonce, Opaque []byte

	Algorithm Algorithm // MD5 if none is said
	Auth      bool      // qop has auth
	Stale     bool
	Count     []byte // nc

	qop   bool // there is one
	plain bool // algorithm is said
	seen  uint16
}

// names are the parameters that are read; others are passed over. RFC 7616 §3.3, §3.4.
var names = [...]string{"username", "realm", "nonce", "uri", "response", "cnonce", "opaque", "algorithm", "qop", "stale", "nc"}

// Parse reads the value of an Authorization or WWW-Authenticate field, or their sisters of proxies. It returns one of the
// errors of a header.
func (f *Fields) Parse(value []byte) error {
	*f = Fields{Algorithm: MD5}
	if len(value) > maxHeader {
		return ErrLong
	}
	value = trim(value)
	if len(value) < 7 || !isName(value[:6], "digest") || !space(value[6]) {
		return ErrScheme
	}
	rest := value[7:]
	for n := 0; ; n++ {
		rest = trim(rest)
		if n == maxFields {
			return ErrMany
		}
		var name, text []byte
		var ok bool
		if name, text, rest, ok = parameter(rest); !ok {
			return ErrSyntax
		}
		if err := f.set(name, text); err != nil {
			return err
		}
		rest = trim(rest)
		if len(rest) == 0 {
			return nil
		}
		if rest[0] != ',' {
			return ErrSyntax
		}
		rest = rest[1:]
	}
}

// Empty says whether credentials have no response yet: they only say who will ask. RFC 8760 §2.7.
func (f *Fields) Empty() bool { return len(f.Response) == 0 }

func space(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func trim(p []byte) []byte {
	for len(p) > 0 && space(p[0]) {
		p = p[1:]
	}
	return p
}

// parameter reads name=value, with spaces where SIP allows them. RFC 3261 §25.1 has the grammar.
func parameter(p []byte) (name, text, rest []byte, ok bool) {
	n := token(p)
	name, rest = p[:n], trim(p[n:])
	if n == 0 || len(rest) == 0 || rest[0] != '=' {
		return nil, nil, nil, false
	}
	rest = trim(rest[1:])
	if len(rest) == 0 {
		return nil, nil, nil, false
	}
	if rest[0] != '"' {
		n = token(rest)
		return name, rest[:n], rest[n:], n > 0
	}
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			return name, rest[1:i], rest[i+1:], true
		case c == '\\':
			i++
		case c < ' ' && c != '\t' || c == 0x7f:
			return nil, nil, nil, false
		}
	}
	return nil, nil, nil, false
}

// tokens has a bit for each byte of a token: letters, digits and -.!%*_+`'~. RFC 3261 §25.1.
var tokens = [4]uint64{0x03ff6ca200000000, 0x47ffffff87fffffe}

// token returns how many bytes of p are one. A URI without quotes is none, and refused.
func token(p []byte) int {
	for i, c := range p {
		if tokens[c>>6]>>(c&63)&1 == 0 {
			return i
		}
	}
	return len(p)
}

// isName says whether a name is one of ours, which are in lower case.
func isName(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func (f *Fields) set(name, text []byte) error {
	which := 0
	for which < len(names) && (len(name) != len(names[which]) || !isName(name, names[which])) {
		which++
	}
	if which == len(names) {
		return nil
	}
	if f.seen>>which&1 == 1 {
		return ErrTwice
	}
	f.seen |= 1 << which
	switch names[which] {
	case "username":
		f.Username = text
	case "realm":
		f.Realm = text
	case "nonce":
		f.Nonce = text
	case "uri":
		f.URI = text
	case "response":
		f.Response = text
	case "cnonce":
		f.CNonce = text
	case "opaque":
		f.Opaque = text
	case "algorithm":
		f.algorithm(text)
	case "qop":
		f.qop = true
		f.Auth = listed(text, "auth")
	case "stale":
		f.Stale = isName(text, "true")
	case "nc":
		f.Count = text
		if _, ok := f.count(); !ok && len(text) > 0 {
			return ErrCount
		}
	}
	return nil
}

func (f *Fields) algorithm(text []byte) {
	f.plain = true
	f.Algorithm = Unknown
	for _, a := range [...]Algorithm{MD5, SHA256} {
		if strings.EqualFold(string(text), a.String()) {
			f.Algorithm = a
		}
	}
}

// listed says whether a word is in a list like "auth,auth-int".
func listed(list []byte, word string) bool {
	for len(list) > 0 {
		var one []byte
		one, list, _ = bytes.Cut(list, []byte(","))
		if isName(bytes.TrimSpace(one), word) {
			return true
		}
	}
	return false
}

// count reads nc: eight hexadecimal digits. RFC 7616 §3.4.
func (f *Fields) count() (n uint32, ok bool) {
	if len(f.Count) != 8 {
		return 0, false
	}
	for _, c := range f.Count {
		switch {
		case c >= '0' && c <= '9':
			n = n<<4 | uint32(c-'0')
		case c >= 'a' && c <= 'f':
			n = n<<4 | uint32(c-'a'+10)
		case c >= 'A' && c <= 'F':
			n = n<<4 | uint32(c-'A'+10)
		default:
			return 0, false
		}
	}
	return n, true
}
