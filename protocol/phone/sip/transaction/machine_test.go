// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const ms = int64(time.Millisecond)

func (d Do) String() string {
	var words []string
	for i, w := range []string{"send", "pass", "ack", "trying", "timeout", "end"} {
		if d&(1<<i) > 0 {
			words = append(words, w)
		}
	}
	if words == nil {
		return "-"
	}
	return strings.Join(words, "+")
}

// play lets a machine live through a script: a number is a response that came to a client, or an answer of a server's
// user; "again", "ack", "cancel" and "failed" are what they say; "to 500" is the time in milliseconds, up to which all
// timers fire. It returns what was done, timers with their time.
func play(k Kind, reliable bool, script string) string {
	var m Machine
	t := &Timers{}
	now := int64(1e12)
	start := now
	out := []string{m.Start(k, reliable, t, now).String()}
	words := strings.Fields(script)
	for i := 0; i < len(words); i++ {
		var d Do
		switch w := words[i]; w {
		case "again":
			d = m.Request()
		case "ack":
			d = m.ACK(t, now)
		case "cancel":
			m.Cancel(t, now)
		case "failed":
			d = m.Failed()
		case "to":
			i++
			until, _ := strconv.ParseInt(words[i], 10, 64)
			for until = start + until*ms; m.Next() > 0 && m.Next() <= until; {
				now = m.Next()
				out = append(out, fmt.Sprintf("%d:%v", (now-start)/ms, m.Time(t, now)))
			}
			now = until
			continue
		default:
			status, _ := strconv.Atoi(w)
			if k == InviteClient || k == Client {
				d = m.Response(status, t, now)
			} else {
				d = m.Answer(status, t, now)
			}
		}
		out = append(out, d.String())
	}
	return strings.Join(out, " ")
}

// TestMachines is RFC 3261 §17 and RFC 6026 §7 as scripts: each arrow of their figures is in one of them.
func TestMachines(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		kind     Kind
		reliable bool
		script   string
		want     string
	}{
		// RFC 6026 §7.2, figure 5 of RFC 3261.
		{"A and B", InviteClient, false, "to 99000", "send 500:send 1500:send 3500:send 7500:send 15500:send 31500:send 32000:timeout+end"},
		{"B alone", InviteClient, true, "to 99000", "send 32000:timeout+end"},
		{"no timer in Proceeding", InviteClient, false, "to 600 180 to 999000 183", "send 500:send pass pass"},
		{"2xx: M, and all that come", InviteClient, false, "180 200 200 180 486 to 99000", "send pass pass pass - - 32000:end"},
		{"2xx over TCP", InviteClient, true, "200 to 99000", "send pass 32000:end"},
		{"failure: D, and ACK each time", InviteClient, false, "100 486 486 200 180 to 99000", "send pass pass+ack ack - - 32000:end"},
		{"failure over TCP", InviteClient, true, "486 486", "send pass+ack+end -"},
		{"transport", InviteClient, false, "failed to 99000", "send end"},
		{"ACK cannot be sent", InviteClient, false, "404 failed", "send pass+ack end"},
		{"cancelled and silent", InviteClient, false, "100 to 60000 cancel to 199000", "send pass - 92000:timeout+end"},
		{"cancelled and answered", InviteClient, false, "100 cancel 487 to 99000", "send pass - pass+ack 32000:end"},
		{"cancelled too early", InviteClient, true, "cancel to 99000", "send - 32000:timeout+end"},

		// RFC 3261, figure 6.
		{"E and F", Client, false, "to 99000", "send 500:send 1500:send 3500:send 7500:send 11500:send 15500:send 19500:send 23500:send 27500:send 31500:send 32000:timeout+end"},
		{"F alone", Client, true, "to 99000", "send 32000:timeout+end"},
		{"E is T2 in Proceeding", Client, false, "to 600 100 to 9000 100 to 13000", "send 500:send pass 4600:send 8600:send pass 12600:send"},
		{"F in Proceeding", Client, true, "100 to 99000", "send pass 32000:timeout+end"},
		{"final: K", Client, false, "200 200 to 99000", "send pass - 5000:end"},
		{"final over TCP", Client, true, "404", "send pass+end"},
		{"transport of others", Client, false, "100 failed", "send pass end"},

		// RFC 6026 §7.1, figure 7 of RFC 3261.
		{"100 after 200 ms, once", InviteServer, false, "again to 99000 again", "pass send 200:trying send"},
		{"no 100 if the user answers", InviteServer, false, "180 to 99000 again 183", "pass send send send"},
		{"2xx: L", InviteServer, false, "200 again ack 200 180 486 to 99000", "pass send - pass send - - 32000:end"},
		{"2xx over TCP", InviteServer, true, "200 ack to 99000", "pass send pass 32000:end"},
		{"failure: G and H", InviteServer, false, "486 to 99000", "pass send 500:send 1500:send 3500:send 7500:send 11500:send 15500:send 19500:send 23500:send 27500:send 31500:send 32000:timeout+end"},
		{"failure over TCP: H", InviteServer, true, "486 to 99000", "pass send 32000:timeout+end"},
		{"ACK: I", InviteServer, false, "486 to 600 again ack ack again to 99000", "pass send 500:send send - - - 5600:end"},
		{"ACK over TCP", InviteServer, true, "486 ack", "pass send end"},
		{"one final answer", InviteServer, false, "486 200 404 180", "pass send - - -"},
		{"transport is not told", InviteServer, false, "180 failed 200 failed", "pass send - send -"},
		{"ACK before an answer", InviteServer, false, "ack", "pass -"},

		// RFC 3261, figure 8.
		{"nothing to send yet", Server, false, "again 100 again 200 again 200 100 to 99000", "pass - send send send send - - 32000:end"},
		{"final over reliable", Server, true, "200", "pass send+end"},
		{"user says nothing", Server, false, "to 99000 200", "pass 32000:timeout+end -"},
		{"transport of an answer", Server, false, "200 failed", "pass send end"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := play(test.kind, test.reliable, test.script); got != test.want {
				t.Errorf("%s\ngot  %s\nwant %s", test.script, got, test.want)
			}
		})
	}
}

// TestTimers: a trunk may have other intervals.
func TestTimers(t *testing.T) {
	t.Parallel()
	var m Machine
	m.Start(Client, false, &Timers{T1: 100 * time.Millisecond, T2: 150 * time.Millisecond}, 0)
	var at []int64
	for m.Next() > 0 && len(at) < 3 {
		now := m.Next()
		m.Time(&Timers{T1: 100 * time.Millisecond, T2: 150 * time.Millisecond}, now)
		at = append(at, now/ms)
	}
	if got := fmt.Sprint(at, m.end/ms); got != "[100 250 400] 6400" {
		t.Errorf("got %s", got)
	}
}
