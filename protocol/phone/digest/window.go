// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package digest

// ways is how many nonces share a place, which is as large as a line of a processor's cache: of more, the oldest is forgotten.
const ways = 3

// Window remembers which counts of which nonces were used, so that credentials that were overheard are of no use twice.
// It never grows: a full place forgets its oldest nonce, and takes none that is as old as what it has. It is for one
// goroutine.
type Window struct {
	places []place
}

// place is what was seen of some nonces.
type place struct {
	names [ways]name   // 0 if there is none
	seen  [ways]uint64 // which of the 64 counts below and with the highest
	high  [ways]uint32 // the highest count
}

// name tells nonces of a place apart: the time when one was made, above 20 bits of its tag. Where two have the same, what was
// used of the one counts as used of the other.
type name uint64

func nameOf(tag uint64, made int64) name { return name(made)<<20 | name(tag>>44) }

// made orders by time.
func (n name) made() uint64 { return uint64(n >> 20) }

// NewWindow returns one for about that many clients at once, 21 bytes each.
func NewWindow(clients int) *Window {
	n := 1
	for n*ways < clients {
		n *= 2
	}
	return &Window{places: make([]place, n)}
}

// take says whether a count of a nonce is used for the first time, and remembers it. It says false also of a nonce that
// it may have forgotten.
func (w *Window) take(tag uint64, made int64, count uint32) bool {
	p := &w.places[tag%uint64(len(w.places))]
	n, oldest := nameOf(tag, made), 0
	for i := range p.names {
		if p.names[i] == n {
			return p.take(i, count)
		}
		if p.names[i] < p.names[oldest] {
			oldest = i
		}
	}
	if n.made() <= p.names[oldest].made() { // what was forgotten was never younger than what is here
		return false
	}
	p.names[oldest], p.high[oldest], p.seen[oldest] = n, count, 1
	return true
}

// take says whether count is new. Requests may overtake each other, but not by more than 63.
func (p *place) take(i int, count uint32) bool {
	high, seen := &p.high[i], &p.seen[i]
	if count > *high {
		*seen = *seen<<min(count-*high, 64) | 1
		*high = count
		return true
	}
	bit := uint64(1) << (*high - count)
	if *high-count > 63 || *seen&bit != 0 {
		return false
	}
	*seen |= bit
	return true
}
