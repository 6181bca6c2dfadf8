// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

// SameFamily says whether each m-line of an answer that has media has them in the family of the offer. RFC 6157 §4.1.
func SameFamily(offer, answer *Session) bool {
	for i := range min(offer.count, answer.count) {
		o, a := &offer.media[i], &answer.media[i]
		if o.Live() && a.Live() && a.Kind != Unspecified && o.Kind != Unspecified && o.Family != a.Family {
			return false
		}
	}
	return true
}
