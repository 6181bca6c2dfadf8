// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

// attribute is what becomes of an attribute when media are relayed.
type attribute uint8

const (
	keep      attribute = iota
	rtcp                // written anew
	direction           // written anew where the address said hold
	group               // ANAT and BUNDLE go
	ice                 // goes
	alternate           // goes: other addresses for the same media
)

// attributes are all that say something about addresses.
var attributes = map[string]attribute{
	"rtcp": rtcp,

	"sendrecv": direction, "sendonly": direction, "recvonly": direction, "inactive": direction,

	"group": group, "bundle-only": group,

	"candidate": ice, "remote-candidates": ice, // RFC 8839 §5.1, §5.2
	"ice-lite": ice, "ice-mismatch": ice, // RFC 8839 §5.3
	"ice-ufrag": ice, "ice-pwd": ice, // RFC 8839 §5.4
	"ice-pacing": ice, "ice-options": ice, // RFC 8839 §5.5, §5.6
	"end-of-candidates": ice, // RFC 8840

	"altc": alternate, // RFC 6947
	"alt":  alternate, // of a draft that was never one

	"source-filter": alternate, // RFC 4570 §3: whom media may come from, which is now the relay
}

// attributeOf returns what an attribute is, by its name.
func attributeOf(name []byte) attribute { return attributes[string(name)] }
