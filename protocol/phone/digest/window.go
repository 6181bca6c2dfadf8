// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package digest

// ways is how many nonces share a place; of more, the oldest is forgotten.
const ways = 4

// Window remembers which counts of which nonces were used, so that credentials that were overheard are of no use twice.
// It never grows: a full place forgets its oldest nonce, and takes none that is as old as what it has. It is for one
// goroutine.
type Window struct {
	sets [][ways]use
}

// use is what was seen of a nonce.
type use struct {
	tag  uint64
	made int64  // 0 if the place is free
	high uint32 // the highest count
	seen uint64 // and of the 64 below and with it, which
}

// NewWindow returns one for about that many clients at once, 32 bytes each.
func NewWindow(clients int) *Window {
	n := 1
	for n*ways < clients {
		n *= 2
	}
	return &Window{sets: make([][ways]use, n)}
}

// take says whether a count of a nonce is used for the first time, and remembers it. It says false also of a nonce that
// it may have forgotten.
func (w *Window) take(tag uint64, made int64, count uint32) bool {
	s := &w.sets[tag%uint64(len(w.sets))]
	oldest := 0
	for i := range s {
		if s[i].made == made && s[i].tag == tag {
			return s[i].take(count)
		}
		if s[i].made < s[oldest].made {
			oldest = i
		}
	}
	if made <= s[oldest].made { // what was forgotten was never younger than what is here
		return false
	}
	s[oldest] = use{tag: tag, made: made, high: count, seen: 1}
	return true
}

// take says whether count is new. Requests may overtake each other, but not by more than 63.
func (u *use) take(count uint32) bool {
	if count > u.high {
		u.seen = u.seen<<min(count-u.high, 64) | 1
		u.high = count
		return true
	}
	bit := uint64(1) << (u.high - count)
	if u.high-count > 63 || u.seen&bit != 0 {
		return false
	}
	u.seen |= bit
	return true
}
