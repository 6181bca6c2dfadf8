// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"hash/maphash"
	"strconv"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transport"
)

// cookie begins a branch. RFC 3261 §8.1.1.7.
const cookie = "z9hG4bK"

// viaTo returns the value of our Via for an INVITE that begins a call: its branch has a mark of who is called, by which the
// call is known if it comes back. It is good until the next. RFC 3261 §16.6, step 8.
func (a *agent) viaTo(w sip.Way, called string) []byte {
	a.vias = transport.Known{}.AppendVia(a.vias[:0], w, []byte(cookie))
	a.vias = a.appendToken(a.core.appendMark(a.vias, called))
	return a.vias
}

// appendMark writes what the branches of calls to an address have in common, in this process.
func (c *core) appendMark(dst []byte, called string) []byte {
	return append(strconv.AppendUint(dst, maphash.String(c.seed, called), 36), '-')
}

// looped says whether a call has been sent to the same address from here before, and has come back: a Via of ours is below
// that of who brings it. RFC 3261 §16.3, step 4. Where somebody on the way has made it another call, Max-Forwards ends it.
func (e *exchange) looped(called string) bool {
	var mark []byte
	first := true
	for value, i := e.message.Field(sip.Via, 0); value != nil; value, i = e.message.Field(sip.Via, i) {
		for value != nil {
			hop, rest, err := sip.ParseVia(value)
			if !first && err == nil {
				if mark == nil {
					mark = e.agent.core.appendMark([]byte(cookie), called)
				}
				if bytes.HasPrefix(hop.Branch, mark) {
					return true
				}
			}
			first, value = false, rest
		}
	}
	return false
}
