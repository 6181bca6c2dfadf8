// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package transport has the rules by which messages travel: what comes of one, where an answer goes, what a Via
// says, and when UDP gives way to TCP. It opens no socket.
//
//	message  ─▶ Judge ─▶ take it · answer 400 · drop
//	request  ─▶ Choose, by its size and family ─▶ Known.AppendVia ─▶ sent ─▶ refused ─▶ Fallback
//	answer   ─▶ AnswerWay ─▶ sent
//
// Each message is written for one socket, and so for one family.
//
// RFC 3261 §18, RFC 3581 (rport).
package transport

// Hot path: no allocation per packet.

import (
	"bytes"
	"net/netip"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// Verdict is what comes of what came.
type Verdict uint8

// The verdicts.
const (
	Drop   Verdict = iota
	Take           // a message, which has been checked
	Answer         // a request that cannot be taken: answer it with the status of the error
)

// Judge says what to do with a message that Parse has read, with the error that it has returned. A request that can be
// recognised is answered, whatever is wrong with it; a response is dropped in silence, and so is what is none of the two.
// RFC 3261 §18.3.
func Judge(m *sip.Message, err *sip.Error) (Verdict, *sip.Error) {
	if err == nil {
		err = m.Check()
	}
	switch {
	case err == nil:
		return Take, nil
	case m.Answerable():
		return Answer, err
	}
	return Drop, err
}

// AnswerWay returns how the answer to a request goes that came on w with h as its top Via: on its connection or, over UDP,
// from the socket it came to, to where it came from; to the port of sent-by, unless rport asks for its own.
// RFC 3261 §18.2.2 has answers follow maddr; we do not, because by it anybody could have us send to anybody.
// RFC 3581 §4.
func AnswerWay(h *sip.Hop, w sip.Way) sip.Way {
	if w.Transport.Reliable() || h.AsksPort {
		return w
	}
	w.Remote = netip.AddrPortFrom(w.Remote.Addr(), orPort(h.SentBy.Port, w.Transport))
	return w
}

func orPort(p uint16, t sip.Transport) uint16 {
	if p == 0 {
		return t.Port()
	}
	return p
}

const (
	// large4 is RFC 3261 §18.1.1 for a path whose MTU is not known.
	large4 = 1300
	// large6 is the same with the MTU that each IPv6 path has, less the 200 bytes by which an answer may be longer:
	// nobody on the way cuts IPv6 packets, and many drop those that were cut. RFC 8200 §5, RFC 7872 §3.
	large6 = 1280 - 200

	// What fits into one datagram: all of IPv4, and an IPv6 packet that is not cut.
	most4 = 65535 - 20 - 8
	most6 = 1280 - 40 - 8
)

// Choose returns the transport for a request of so many bytes: TCP for UDP if it is large. RFC 3261 §18.1.1.
func Choose(t sip.Transport, size int, f ip.Family) sip.Transport {
	limit := large4
	if f == ip.V6 {
		limit = large6
	}
	if t == sip.UDP && size > limit {
		return sip.TCP
	}
	return t
}

// Fallback says whether a request that went over TCP for its size alone may go over UDP after all, because the peer has
// no TCP: it refused the connection, rather than being silent. RFC 3261 §18.1.1. What would have to be cut over IPv6 may
// not: it would be lost, again and again.
func Fallback(size int, f ip.Family) bool {
	if f == ip.V6 {
		return size <= most6
	}
	return size <= most4
}

// Known is the address that peers know a socket by, where it is not its own. RFC 3261 §18.1.1.
type Known struct{ netip.AddrPort }

// of returns the address by which a peer on w reaches us. It is of the family of the socket, whatever else is known.
func (k Known) of(w sip.Way) netip.AddrPort {
	if k.IsValid() && ip.FamilyOf(k.Addr()) == ip.FamilyOf(w.Local.Addr()) {
		return k.AddrPort
	}
	return w.Local
}

// AppendVia writes the value of our Via for a request that goes out on w. Rport is asked for always. RFC 3261 §18.1.1,
// RFC 3581 §3.
func (k Known) AppendVia(dst []byte, w sip.Way, branch []byte) []byte {
	at := k.of(w)
	dst = append(dst, "SIP/2.0/"...)
	dst = append(dst, w.Transport.String()...)
	dst = append(dst, ' ')
	dst = sip.AppendHost(dst, at.Addr(), at.Port())
	dst = append(dst, ";rport;branch="...)
	return append(dst, branch...)
}

// AppendContact writes the URI by which a peer on w reaches us, in brackets. The scheme is SIPS where the request was.
// RFC 3261 §12.1.1; §26.2.2 deprecates transport=tls, without which a peer would not come over TLS to a SIP URI.
func (k Known) AppendContact(dst []byte, w sip.Way, s sip.Scheme, user []byte) []byte {
	at := k.of(w)
	if s == sip.SIPS {
		dst = append(dst, "<sips:"...)
	} else {
		dst = append(dst, "<sip:"...)
	}
	if len(user) > 0 {
		dst = append(dst, user...)
		dst = append(dst, '@')
	}
	dst = sip.AppendHost(dst, at.Addr(), at.Port())
	switch {
	case w.Transport == sip.TCP:
		dst = append(dst, ";transport=tcp"...)
	case w.Transport == sip.TLS && s == sip.SIP:
		dst = append(dst, ";transport=tls"...)
	}
	return append(dst, '>')
}

// Retransport writes the value of a Via of ours with another transport, as it must be when one gives way to another.
// RFC 3261 §18.1.1.
func Retransport(dst, via []byte, t sip.Transport) []byte {
	slash := bytes.LastIndexByte(via[:max(0, bytes.IndexByte(via, ' '))], '/')
	space := bytes.IndexByte(via, ' ')
	if slash < 0 {
		return append(dst, via...)
	}
	dst = append(dst, via[:slash+1]...)
	dst = append(dst, t.String()...)
	return append(dst, via[space:]...)
}

// KeepAlive is what is sent over a connection to see whether it is there, and what answers it. RFC 5626 §4.4.1.
const (
	KeepAlive = "\r\n\r\n"
	KeptAlive = "\r\n"
)
