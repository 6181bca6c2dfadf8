// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/phone/parts"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// accepts are the types of bodies with descriptions.
const accepts = "Accept: application/sdp, multipart/mixed\r\n"

// inBody finds what a message says of media in its body.
func inBody(m *sip.Message) (parts.Place, parts.Verdict) {
	b := body(m)
	if len(b) == 0 {
		return parts.Place{}, parts.None
	}
	return parts.Find(m.Get(sip.ContentType), b)
}

// describes says whether the body of a message has a description of media.
func describes(m *sip.Message) bool {
	_, v := inBody(m)
	return v == parts.Found
}

// descriptionOf returns the description of a message that has one.
func descriptionOf(m *sip.Message) []byte {
	place, v := inBody(m)
	if v != parts.Found {
		return nil
	}
	return place.Of(body(m))
}

// unread is the answer to a request whose body may have a description that we do not see: with it, one end would be shown the
// addresses of the other. RFC 3261 §21.4.13, §21.4.27.
func unread(v parts.Verdict) *sip.Answer {
	if v == parts.Sealed {
		return &sip.Answer{Status: 493}
	}
	return &sip.Answer{Status: 415, Lines: []byte(accepts)}
}

// unseen is the status of a refusal of such a message within a call.
func unseen(m *sip.Message, v parts.Verdict) int {
	if !m.Request() {
		return unrelayed
	}
	return unread(v).Status
}

// bodyType returns the type of a body. The usual one takes no memory.
func bodyType(m *sip.Message) string {
	if kind := m.Get(sip.ContentType); string(kind) != typeSDP {
		return string(kind)
	}
	return typeSDP
}

// bears says whether the bodies of a message are offers and answers.
func bears(m *sip.Message) bool {
	seq, err := m.Sequence()
	if err != nil {
		return false
	}
	switch string(seq.Method) {
	case "INVITE", "UPDATE", "PRACK", "ACK":
		return true
	}
	return false
}

// several says whether a type is that of several parts.
func several(kind []byte) bool {
	const multipart = "multipart/"
	return len(kind) > len(multipart) && bytes.EqualFold(kind[:len(multipart)], []byte(multipart))
}

// given returns what the end of a leg gets of the body of a message of the other, and its type. A telephone, or a trunk that is
// none of ours, gets of several parts the description alone: what gateways tell each other beside it may name who has
// withheld his number.
func (l *leg) given(m *sip.Message) (kind string, b []byte) {
	kind, b = bodyType(m), body(m)
	if !several(m.Get(sip.ContentType)) {
		return kind, b
	}
	if g := l.agent.core.settings.Load().gatewayOf(l.home()); g != nil && !g.trunk.foreign {
		return kind, b
	}
	switch place, v := inBody(m); {
	case v == parts.Found:
		return typeSDP, place.Of(b)
	case v == parts.None || !bears(m):
		return "", nil
	}
	return kind, b // it is refused
}

// described returns the body of a message of the other end as the end of l is to have it, and what pass says.
func (l *leg) described(m *sip.Message, answer bool) ([]byte, int) {
	kind, b := l.given(m)
	if l.media == nil || len(b) == 0 {
		return b, passed
	}
	place, v := parts.Find([]byte(kind), b)
	switch {
	case v == parts.None, v != parts.Found && !bears(m):
		return b, passed
	case v != parts.Found:
		return nil, unseen(m, v)
	}
	text, status := l.media.pass(l.peer.side(), place.Of(b), answer)
	if status == passed {
		text = place.Put(b, text)
	}
	return text, status
}

// kind is the type of what described returns.
func (l *leg) kind(m *sip.Message) string {
	kind, _ := l.given(m)
	return kind
}

// confides says whether who is called may hear what gateways tell each other.
func (b *branch) confides() bool { return b.call.trunk != nil && !b.call.trunk.foreign }

// body returns the body of the INVITE of a branch with another description, and its type.
func (b *branch) body(m *sip.Message, place parts.Place, text []byte) (kind string, whole []byte) {
	if several(m.Get(sip.ContentType)) && b.confides() {
		return bodyType(m), place.Put(body(m), text)
	}
	return typeSDP, text
}
