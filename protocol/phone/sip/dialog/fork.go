// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

// Fork is one INVITE on its way to several devices at once, each of which may be reached by several ways, one after the
// other: a telephone with both families rings once, by IPv6 or, if that leads nowhere, by IPv4. What the caller hears of
// it is one call. RFC 3261 §16.7.
type Fork struct {
	Hunts []Hunt

	Won    bool // by the first 2xx
	Winner int  // its hunt
	Tag    string

	Gone     bool // the caller has given up, and was told so with 487
	Declined bool // by a 6xx: nobody else is tried

	best, at int // the failure to tell the caller, and whose it is
}

// Hunt is one device.
type Hunt struct {
	Ways  int
	Way   int  // that is tried
	Heard bool // it has answered something: no other way is tried
	Done  bool
}

// Step is what an event asks for.
type Step uint8

// The steps.
const (
	Forward Step = 1 << iota // the response goes to the caller
	TryNext                  // the INVITE goes the next way of the hunt
	Stop                     // CANCEL goes to all that are Pending
	Hang                     // nobody waits for this 2xx: it is answered with ACK and BYE. RFC 3261 §13.2.2.4
	Fail                     // the caller is told Best
)

// NewFork returns a fork to as many devices as there are arguments, each with so many ways. The INVITE goes the first way
// of each.
func NewFork(ways ...int) *Fork {
	f := &Fork{Hunts: make([]Hunt, len(ways))}
	for i, n := range ways {
		f.Hunts[i].Ways = n
	}
	return f
}

// Pending says whether a hunt has an INVITE that is not answered yet.
func (f *Fork) Pending(hunt int) bool { return !f.Hunts[hunt].Done }

// Response is called for each response to the INVITE of a hunt, with the tag of its To. One that timed out is 408 and one
// that could not be sent 503, both without a tag. RFC 3261 §8.1.3.1.
func (f *Fork) Response(hunt int, tag string, status int) Step {
	h := &f.Hunts[hunt]
	switch {
	case status/100 == 2:
		return f.answered(hunt, tag)
	case h.Done: // it comes late, as the 200 of another has cancelled it
		return 0
	case status < 200:
		h.Heard = true
		if status == 100 || f.over() {
			return 0 // RFC 3261 §16.7, step 5
		}
		return Forward
	case !f.over() && !f.Declined && h.Way+1 < h.Ways && (status == 430 || status == 503 || status == 408 && !h.Heard):
		h.Way, h.Heard = h.Way+1, false // RFC 3263 §4.3, RFC 5626 §5.3
		return TryNext
	}
	return f.failed(hunt, status)
}

// over says whether the caller waits for nothing more.
func (f *Fork) over() bool { return f.Won || f.Gone }

func (f *Fork) answered(hunt int, tag string) Step {
	f.Hunts[hunt].Done = true
	switch {
	case f.Won && f.Winner == hunt && f.Tag == tag:
		return 0 // it came again: Session.Received says to acknowledge it
	case f.over():
		return Hang
	}
	f.Won, f.Winner, f.Tag = true, hunt, tag
	return Forward | f.stop()
}

// stop asks for CANCEL if there is anybody left to be called off.
func (f *Fork) stop() Step {
	if f.left() > 0 {
		return Stop
	}
	return 0
}

func (f *Fork) left() (n int) {
	for i := range f.Hunts {
		if !f.Hunts[i].Done {
			n++
		}
	}
	return n
}

func (f *Fork) failed(hunt, status int) (s Step) {
	f.Hunts[hunt].Done = true
	if f.best == 0 || better(status, f.best) {
		f.best, f.at = status, hunt
	}
	if f.over() {
		return 0
	}
	if status >= 600 && !f.Declined {
		f.Declined = true
		s = f.stop()
	}
	if f.left() == 0 {
		return Fail
	}
	return s
}

// better says whether one failure tells the caller more than another. RFC 3261 §16.7, step 6.
func better(status, than int) bool { return rank(status) < rank(than) }

// rank orders failures: that nobody wants the caller comes first, then the lowest class, and of 4xx what he can do
// something about.
func rank(status int) int {
	switch status {
	case 401, 407, 415, 420, 484:
		return 399
	case 503:
		return 999
	}
	if status >= 600 {
		return 0
	}
	return status / 100 * 100
}

// Best returns what to tell the caller when all have failed, and whose answer that is. A 503 says that we can do nothing
// for anybody, which is not so: it becomes 500. RFC 3261 §16.7, step 6.
func (f *Fork) Best() (hunt, status int) {
	switch f.best {
	case 0:
		return 0, 408
	case 503:
		return f.at, 500
	}
	return f.at, f.best
}

// GiveUp is called when the caller has sent CANCEL, or has been told that it rings for too long.
func (f *Fork) GiveUp() Step {
	if f.over() {
		return 0
	}
	f.Gone = true
	return f.stop()
}
