// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import (
	"bytes"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// Timer is the session timer of a leg. RFC 4028.
type Timer struct {
	Least           uint32 // seconds: the shortest interval that we, or they, stand; 0 is 90. RFC 4028 §5
	Interval        uint32 // seconds; 0: no timer
	Mine            bool   // we refresh
	Refresh, Expire int64
}

const leastInterval = 90 // RFC 4028 §5

func (t *Timer) least() uint32 { return max(t.Least, leastInterval) }

// interval reads Session-Expires; 0 if there is none.
func interval(m *sip.Message) uint32 { return sip.Seconds(m.Get(sip.SessionExpires), 0) }

// refresher returns who refreshes: "uas", "" if nothing is said, else "uac".
func refresher(m *sip.Message) string {
	_, params, _ := bytes.Cut(m.Get(sip.SessionExpires), []byte{';'})
	value, _ := sip.Param(params, "refresher")
	switch {
	case len(value) == 0:
		return ""
	case bytes.EqualFold(value, []byte("uas")):
		return "uas"
	}
	return "uac"
}

// asked refuses an interval that is too short, if the client understands that. RFC 4028 §9.
func (t *Timer) asked(m *sip.Message) *sip.Error {
	if n := interval(m); n > 0 && n < t.least() && m.Lists(sip.Supported, "timer") {
		return ErrBrief
	}
	return nil
}

// agreed is a 2xx to INVITE or UPDATE, of theirs or of ours, which begins the interval anew. Where it says nothing and we
// had asked for an interval, we refresh alone. RFC 4028 §7.2, §9, §10.
func (t *Timer) agreed(m *sip.Message, weAsked bool, asked uint32, now int64) {
	n, who := interval(m), refresher(m)
	if n == 0 && weAsked {
		n, who = asked, "uac"
	}
	if n == 0 {
		*t = Timer{Least: t.Least}
		return
	}
	t.Interval, t.Mine = n, (who != "uas") == weAsked
	t.Begin(now)
}

// Begin begins the interval anew. RFC 4028 §10.
func (t *Timer) Begin(now int64) {
	n, second := int64(t.Interval), int64(time.Second)
	t.Refresh, t.Expire = 0, now+(n-min(32, n/3))*second
	if t.Mine {
		t.Refresh = now + n*second/2
	}
}

// Wish is the timer that we want for a session.
type Wish struct {
	Interval uint32 // seconds
	Mine     bool   // we refresh
}

// Agreed returns the timer that the response to a request of ours has; the zero value if it has none.
func Agreed(m *sip.Message) Wish { return Wish{interval(m), refresher(m) == "uas"} }

// AppendAnswer writes the fields of a 2xx to m, an INVITE or UPDATE that asked did not refuse: who refreshes, and how
// often. We want so many seconds, if the client leaves us the choice; 0 wants no timer where it does not. A client that
// knows timers refreshes, unless it says that we do, or leaves it to us and we want to. RFC 4028 §9.
func (t *Timer) AppendAnswer(dst []byte, m *sip.Message, want Wish) []byte {
	n, who := interval(m), refresher(m)
	if who == "" && want.Mine {
		who = "uas"
	}
	knows := m.Lists(sip.Supported, "timer")
	if n == 0 {
		n = want.Interval
	} else if want.Interval > 0 {
		n = min(n, want.Interval)
	}
	if n == 0 {
		return dst
	}
	n = max(n, t.least(), sip.Seconds(m.Get(sip.MinSE), 0))
	switch {
	case !knows:
		who = "uas"
	case who != "uas":
		who = "uac"
		dst = append(dst, "Require: timer\r\n"...)
	}
	dst = append(dst, "Session-Expires: "...)
	dst = strconv.AppendUint(dst, uint64(n), 10)
	dst = append(dst, ";refresher="...)
	return append(append(dst, who...), "\r\n"...)
}
