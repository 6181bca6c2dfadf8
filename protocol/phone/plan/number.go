// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

// Number is the digits of a telephone number, at most 27. It can be compared.
type Number struct {
	digits [maxDigits]byte
	n      uint8
}

// String returns the digits.
func (n Number) String() string { return string(n.digits[:n.n]) }

// Append adds the digits to dst.
func (n *Number) Append(dst []byte) []byte { return append(dst, n.digits[:n.n]...) }

// Len returns how many digits there are.
func (n *Number) Len() int { return int(n.n) }

// begins says whether the first digits are those of prefix.
func (n *Number) begins(prefix string) bool {
	return len(prefix) <= int(n.n) && string(n.digits[:len(prefix)]) == prefix
}

// after returns n without its first k digits.
func (n *Number) after(k int) (m Number) {
	m.n = uint8(copy(m.digits[:], n.digits[k:n.n]))
	return m
}

// behind puts n behind a prefix. It says false if there is no room.
func (n *Number) behind(prefix string) (m Number, ok bool) {
	k := copy(m.digits[:], prefix)
	k += copy(m.digits[k:], n.digits[:n.n])
	m.n = uint8(k)
	return m, k == len(prefix)+int(n.n)
}

// Privacy is what a caller asks for by a prefix, for this call. RFC 3323 §4.2 has what becomes of it in SIP.
type Privacy uint8

// What is asked for.
const (
	NoPrefix Privacy = iota // what was agreed for the line
	Withhold                // the caller's number is not shown
	Show                    // it is, though the line's are not
)

// String returns the word of the country file.
func (p Privacy) String() string { return [...]string{"none", "withhold", "show"}[p] }

// Read returns the national form of what was dialled or came in a URI, and what its prefix asked for. A number that
// begins with + is global and has no prefixes; that of the own country loses its code. It says false if something
// else than digits is there, or too many: the parameters of a URI must be cut off. It does not allocate.
func (c *Country) Read(text string) (n Number, privacy Privacy, ok bool) {
	global := text != "" && text[0] == '+'
	if global {
		text = text[1:]
	}
	for i := range len(text) {
		switch b := text[i]; {
		case isDigit(b) && int(n.n) < maxDigits:
			n.digits[n.n] = b
			n.n++
		case b == '-' || b == '.' || b == '(' || b == ')': // visual separators: RFC 3966 §5.1.1
		default:
			return Number{}, NoPrefix, false
		}
	}
	if global {
		n, ok = c.national(&n)
		return n, NoPrefix, ok
	}
	for _, p := range c.privacy {
		if n.begins(p.digits) {
			n, privacy = n.after(len(p.digits)), p.asks
			break
		}
	}
	if n.begins(c.International) { // dialled as if from abroad
		if abroad := n.after(len(c.International)); abroad.begins(c.Code) {
			n, ok = c.national(&abroad)
			return n, privacy, ok
		}
	}
	return n, privacy, true
}

// national returns the national form of a global number without its +. Behind the country's code stands no trunk
// prefix, and nothing that would make a call abroad or choose a carrier: +81 03 and +81 10 1 212 are no numbers, and
// would be taken for others.
func (c *Country) national(n *Number) (m Number, ok bool) {
	if n.n == 0 {
		return m, false
	}
	if !n.begins(c.Code) {
		return n.behind(c.International)
	}
	rest := n.after(len(c.Code))
	if rest.n > 0 && rest.begins(c.Trunk) {
		return m, false
	}
	if m, ok = rest.behind(c.Trunk); !ok || m.begins(c.International) || c.chosen(&m) > 0 {
		return Number{}, false
	}
	return m, true
}

// AppendGlobal adds the global form of a number in national form, with its +. It says false and adds nothing if there
// is none: 110 is reached from within the country only, and so is what follows the choice of a carrier.
func (c *Country) AppendGlobal(dst []byte, n Number) ([]byte, bool) {
	switch {
	case n.begins(c.International):
		return append(append(dst, '+'), n.digits[len(c.International):n.n]...), true
	case c.chosen(&n) > 0 || !n.begins(c.Trunk):
		return dst, false
	}
	dst = append(append(dst, '+'), c.Code...)
	return append(dst, n.digits[len(c.Trunk):n.n]...), true
}
