// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import (
	"net/netip"
	"strconv"
)

// Answer is a response to be written. RFC 3261 §8.2.6.
type Answer struct {
	Status int
	Phrase string // the usual one if empty
	Tag    []byte // of To, if the request has none; nil adds none, as for 100
	Dialog bool   // Record-Route is copied: the response may begin a dialog. RFC 3261 §12.1.1

	Lines []byte // further fields, each with its CRLF
	Type  string // of the body
	Body  []byte
}

// Answerable says whether a request, which may be broken, can be answered: it is no ACK, and whoever sent it can tell by
// the Via and the CSeq what is answered. The other fields are copied if they are there: RFC 4475 §3.3.1.
// RFC 3261 §8.2.6.2, §17.1.1.3.
func (m *Message) Answerable() bool {
	if m.method == nil || m.Is("ACK") || !m.Has(CSeq) {
		return false
	}
	h, _ := m.Top()
	return h.Transport != nil
}

// Append writes the response to m, which came from the given address, whether or not it can be parsed whole; it must be
// Answerable. RFC 3261 §8.2.6, and RFC 3581 §4 for the Via.
func (a *Answer) Append(dst []byte, m *Message, from netip.AddrPort) []byte {
	dst = append(dst, "SIP/2.0 "...)
	dst = strconv.AppendInt(dst, int64(a.Status), 10)
	dst = append(dst, ' ')
	if a.Phrase != "" {
		dst = append(dst, a.Phrase...)
	} else {
		dst = append(dst, Phrase(a.Status)...)
	}
	dst = append(dst, "\r\n"...)
	dst = m.appendVias(dst, from)
	for i := range m.count {
		switch k := m.fields[i].kind; {
		case int(m.first[k]) != i+1 && k != RecordRoute: // one that came again is a mistake, which is not copied
		case k == To:
			dst = a.appendTo(dst, m)
		case k == From || k == CallID || k == CSeq || k == RecordRoute && a.Dialog || k == Timestamp && a.Status == 100:
			dst = AppendField(dst, k, m.value(i))
		}
	}
	if a.Status == ErrExtension.Status && a.Lines == nil {
		dst = m.appendUnsupported(dst)
	}
	dst = append(dst, a.Lines...)
	if len(a.Body) > 0 {
		dst = append(dst, "Content-Type: "...)
		dst = append(dst, a.Type...)
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(a.Body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	return append(dst, a.Body...)
}

// appendVias writes all Via fields in order, the first as it is after the message came.
func (m *Message) appendVias(dst []byte, from netip.AddrPort) []byte {
	for value, i := m.Field(Via, 0); value != nil; value, i = m.Field(Via, i) {
		dst = append(dst, "Via: "...)
		if i == int(m.first[Via]) {
			dst = AppendStamped(dst, value, &m.readTop().hop, from)
		} else {
			dst = append(dst, value...)
		}
		dst = append(dst, "\r\n"...)
	}
	return dst
}

func (a *Answer) appendTo(dst []byte, m *Message) []byte {
	dst = append(dst, "To: "...)
	dst = append(dst, m.Get(To)...)
	if to, _, err := m.Address(To); err == nil && a.Tag != nil && to.Tag() == nil {
		dst = append(dst, ";tag="...)
		dst = append(dst, a.Tag...)
	}
	return append(dst, "\r\n"...)
}

// appendUnsupported names all that Require and Proxy-Require ask for: whoever answers with 420 and no Unsupported of
// its own has none of it.
func (m *Message) appendUnsupported(dst []byte) []byte {
	for _, k := range [...]Kind{Require, ProxyRequire} {
		for value, i := m.Field(k, 0); value != nil; value, i = m.Field(k, i) {
			dst = AppendField(dst, Unsupported, value)
		}
	}
	return dst
}

// AppendUnsupported writes the field that names which option tags of the fields of kind k a does not have. RFC 3261
// §8.2.2.3.
func (a *Abilities) AppendUnsupported(dst []byte, m *Message, k Kind) []byte {
	for tag := range a.lacks(m, k) {
		dst = AppendField(dst, Unsupported, tag)
	}
	return dst
}

// AppendField writes one field.
func AppendField(dst []byte, k Kind, value []byte) []byte {
	dst = append(dst, k.String()...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// phrases are those of RFC 3261 §21, RFC 3515 (202), RFC 4028 §6 (422) and RFC 5626 §11 (430, 439).
var phrases = map[int]string{
	100: "Trying", 180: "Ringing", 181: "Call Is Being Forwarded", 182: "Queued", 183: "Session Progress",
	200: "OK", 202: "Accepted",
	300: "Multiple Choices", 301: "Moved Permanently", 302: "Moved Temporarily", 305: "Use Proxy", 380: "Alternative Service",
	400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
	405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
	410: "Gone", 413: "Request Entity Too Large", 414: "Request-URI Too Long", 415: "Unsupported Media Type",
	416: "Unsupported URI Scheme", 420: "Bad Extension", 421: "Extension Required", 422: "Session Interval Too Small",
	423: "Interval Too Brief", 430: "Flow Failed", 439: "First Hop Lacks Outbound Support",
	480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops",
	484: "Address Incomplete", 485: "Ambiguous", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here",
	491: "Request Pending", 493: "Undecipherable",
	500: "Server Internal Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Server Time-out", 505: "Version Not Supported", 513: "Message Too Large",
	600: "Busy Everywhere", 603: "Decline", 604: "Does Not Exist Anywhere", 606: "Not Acceptable",
}

// Phrase returns what is usually written beside a status.
func Phrase(status int) string { return phrases[status] }
