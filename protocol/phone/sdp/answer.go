// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"bytes"
	"fmt"
)

// Check says what is wrong with an answer, or nil. The error wraps one of the rules of answers and names the m-line.
func Check(offer, answer *Session) error {
	if offer.count != answer.count {
		return ErrCount
	}
	for i := range offer.media[:offer.count] {
		if err := checkMedia(offer, answer, i); err != nil {
			return fmt.Errorf("m-line %d: %w", i+1, err)
		}
	}
	return nil
}

func checkMedia(offer, answer *Session, i int) error {
	o, a := &offer.media[i], &answer.media[i]
	switch {
	case !bytes.EqualFold(offer.Name(i), answer.Name(i)):
		return ErrName
	case a.Port == 0:
		return nil
	case o.Port == 0:
		return ErrRevived
	case o.Family != a.Family:
		return ErrFamily
	case !answers(o.Direction, a.Direction):
		return ErrDirection
	}
	return nil
}

// answers says whether a direction answers one: nobody sends to who does not receive. RFC 3264 §6.1.
func answers(offer, answer Direction) bool {
	sends := func(d Direction) bool { return d == SendRecv || d == SendOnly }
	receives := func(d Direction) bool { return d == SendRecv || d == RecvOnly }
	return (receives(offer) || !sends(answer)) && (sends(offer) || !receives(answer))
}
