// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import (
	"bytes"
	"net/netip"
	"strconv"
)

// Identity is who a client is.
type Identity struct {
	Client  netip.AddrPort
	Dialled netip.AddrPort // where he has connected to
	Name    []byte         // of his address, confirmed; nil if there is none or nobody has looked
	Helo    []byte
}

// AppendXclient appends the command by which a server of Postfix's dialect is told who a client is. attributes are those
// that it has offered: it refuses others. What is not said it would go on to take from our own connection, so what is not
// known is said to be unavailable. http://www.postfix.org/XCLIENT_README.html.
func AppendXclient(dst, attributes []byte, i Identity) []byte {
	dst = append(dst, "XCLIENT"...)
	for name := range bytes.FieldsSeq(attributes) {
		switch string(bytes.ToUpper(name)) {
		case "ADDR":
			dst = appendAddr(append(dst, " ADDR="...), i.Client.Addr())
		case "PORT":
			dst = strconv.AppendUint(append(dst, " PORT="...), uint64(i.Client.Port()), 10)
		case "NAME":
			dst = appendName(append(dst, " NAME="...), i.Name)
		case "REVERSE_NAME":
			dst = appendName(append(dst, " REVERSE_NAME="...), i.Name)
		case "HELO":
			dst = appendXtext(append(dst, " HELO="...), i.Helo)
		case "PROTO":
			dst = append(dst, " PROTO=ESMTP"...)
		case "DESTADDR":
			dst = appendAddr(append(dst, " DESTADDR="...), i.Dialled.Addr())
		case "DESTPORT":
			dst = strconv.AppendUint(append(dst, " DESTPORT="...), uint64(i.Dialled.Port()), 10)
		}
	}
	return append(dst, "\r\n"...)
}

// appendAddr appends an address as in an address literal, without brackets. RFC 5321 §4.1.3.
func appendAddr(dst []byte, a netip.Addr) []byte {
	if a.Is6() {
		dst = append(dst, "IPV6:"...)
	}
	return a.AppendTo(dst)
}

func appendName(dst, name []byte) []byte {
	if len(name) == 0 {
		return append(dst, "[UNAVAILABLE]"...)
	}
	return appendXtext(dst, name)
}

// appendXtext encodes what cannot stand for itself. RFC 3461 §4.
func appendXtext(dst, p []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, b := range p {
		if b < '!' || b > '~' || b == '+' || b == '=' {
			dst = append(dst, '+', digits[b>>4], digits[b&15])
		} else {
			dst = append(dst, b)
		}
	}
	return dst
}
