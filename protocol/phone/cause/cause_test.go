// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package cause

import "testing"

func TestStatus(t *testing.T) {
	t.Parallel()
	for c, want := range map[Cause]int{
		1: 404, 2: 404, 3: 404, 16: 487, 17: 486, 18: 408, 19: 480, 20: 480, 21: 403, 22: 410, 23: 410, 26: 404, 27: 502, 28: 484, 29: 501, 31: 480,
		34: 503, 38: 503, 41: 503, 42: 503, 47: 503, 55: 403, 57: 403, 58: 503, 65: 488, 70: 488, 79: 501, 87: 403, 88: 503, 102: 504, 111: 500, 127: 500,
		0: 500, 6: 500, 25: 500, 44: 500, 63: 500, 99: 500,
	} {
		if got := c.Status(false); got != want {
			t.Errorf("%d: got %d, want %d", c, got, want)
		}
	}
	if Rejected.Status(true) != 603 || UserBusy.Status(true) != 486 {
		t.Error("only a rejection is final when it is the user's")
	}
}

func TestOfStatus(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]Cause{
		200: 16, 400: 41, 401: 21, 402: 21, 403: 21, 404: 1, 405: 63, 406: 79, 407: 21, 408: 102, 410: 22, 413: 127, 414: 127, 415: 79, 416: 127,
		420: 127, 421: 127, 423: 127, 480: 18, 481: 41, 482: 25, 483: 25, 484: 28, 485: 1, 486: 17, 487: 16, 488: 31, 500: 41, 501: 79, 502: 38,
		503: 41, 504: 102, 505: 127, 513: 127, 600: 17, 603: 21, 604: 1, 606: 31, 607: 31, 301: 31,
	} {
		if got := OfStatus(code); got != want {
			t.Errorf("%d: got %d, want %d", code, got, want)
		}
	}
	if got := Of(503, Reason{Q850: 34}); got != NoCircuit {
		t.Errorf("a Reason counts for nothing: %d", got)
	}
	if got := Of(486, Reason{SIP: 600}); got != UserBusy {
		t.Errorf("a Reason without a cause: %d", got)
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values []string
		sip    int
		q850   Cause
		text   string
	}{
		{[]string{`SIP ;cause=200 ;text="Call completed elsewhere"`}, 200, 0, "Call completed elsewhere"},
		{[]string{`Q.850 ;cause=16 ;text="Terminated"`}, 0, 16, "Terminated"},
		{[]string{`SIP ;cause=600 ;text="Busy Everywhere"`}, 600, 0, "Busy Everywhere"},
		{[]string{`sip;cause=486, q.850;cause=17;text="a, b; \"c\""`}, 486, 17, `a, b; \"c\"`},
		{[]string{`Q.850;cause=34`, `SIP;cause=503`}, 503, 34, ""},
		{[]string{`Q.850;cause=34`, `Q.850;cause=16`}, 0, 34, ""},
		{[]string{`Q.850;cause=128`, `SIP;cause=99`, `SIP;cause=700`, `X;cause=16`, `Q.850;cause=-1`, `Q.850`, `;cause=1`, ``, `,`}, 0, 0, ""},
		{[]string{`Q.850;cause=0016`}, 0, 0, ""},
	} {
		var r Reason
		for _, v := range tt.values {
			r.Add([]byte(v))
		}
		if r.SIP != tt.sip || r.Q850 != tt.q850 || string(r.Text) != tt.text {
			t.Errorf("%q: got %d, %d, %q", tt.values, r.SIP, r.Q850, r.Text)
		}
	}
	for want, r := range map[string]Reason{
		"":              {},
		"SIP;cause=486": {SIP: 486},
		`Q.850;cause=16;text="normal call clearing"`:     {Q850: 16},
		`SIP;cause=503, Q.850;cause=33`:                  {SIP: 503, Q850: 33},
		`SIP;cause=486, Q.850;cause=17;text="user busy"`: {SIP: 486, Q850: 17},
	} {
		if got := string(r.Append(nil)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzReason(f *testing.F) {
	f.Add([]byte(`SIP;cause=486, Q.850;cause=17;text="a\"b"`))
	f.Fuzz(func(t *testing.T, value []byte) {
		var r, again Reason
		r.Add(value)
		again.Add(r.Append(nil))
		if again.SIP != r.SIP || again.Q850 != r.Q850 {
			t.Errorf("%q: %d, %d, and again %d, %d", value, r.SIP, r.Q850, again.SIP, again.Q850)
		}
		if r.SIP != 0 && (r.SIP < 100 || r.SIP > 699) || r.Q850 > 127 {
			t.Errorf("%q: %d, %d", value, r.SIP, r.Q850)
		}
	})
}
