// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/mail/sasl"
)

// ours are the capabilities that are not a backend's to offer: they concern the client's connection to us, or would have
// the client do before its login what we cannot carry. A referral names an address that the client may not reach.
var ours = [...]string{"STARTTLS", "LOGINDISABLED", "SASL-IR", "LOGIN-REFERRALS", "UNAUTHENTICATE"}

// words yields the words of p.
func words(p []byte, yield func([]byte)) {
	for len(p) > 0 {
		word, rest, _ := bytes.Cut(p, []byte(" "))
		if len(word) > 0 {
			yield(word)
		}
		p = rest
	}
}

func has(offers []byte, name string) (found bool) {
	words(offers, func(w []byte) { found = found || bytes.EqualFold(w, []byte(name)) })
	return found
}

func in(list []string, word []byte) bool {
	for _, name := range list {
		if bytes.EqualFold(word, []byte(name)) {
			return true
		}
	}
	return false
}

// mechanism returns the one that a capability stands for, or nil.
func mechanism(word []byte) []byte {
	if len(word) > 5 && bytes.EqualFold(word[:5], []byte("AUTH=")) {
		return word[5:]
	}
	return nil
}

// appendOffers appends what a client is offered: what backends can do, without what cannot be carried, and what we do
// ourselves. A client that may not log in yet is offered no way to. RFC 9051 §6.1.1, §6.2.3, §7.2.2.
func (s *Server) appendOffers(dst []byte) []byte {
	dst = append(dst, "CAPABILITY"...)
	add := func(word []byte) { dst = append(append(dst, ' '), word...) }
	exchanges, disabled := false, false
	words(s.known, func(w []byte) {
		if m := mechanism(w); m != nil {
			if sasl.Lookup(m) == sasl.None || s.insecure() {
				return
			}
			exchanges = true
		}
		if bytes.EqualFold(w, []byte("LOGINDISABLED")) {
			disabled = true
		}
		if !in(ours[:], w) {
			add(w)
		}
	})
	if exchanges {
		add([]byte("SASL-IR"))
	}
	if s.StartTLS && !s.secured {
		add([]byte("STARTTLS"))
	}
	if s.insecure() || disabled {
		add([]byte("LOGINDISABLED"))
	}
	return dst
}
