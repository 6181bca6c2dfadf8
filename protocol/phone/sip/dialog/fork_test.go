// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import (
	"fmt"
	"strings"
	"testing"
)

// show names steps.
func show(s Step) string {
	var words []string
	for i, w := range []string{"forward", "next", "stop", "hang", "fail"} {
		if s&(1<<i) > 0 {
			words = append(words, w)
		}
	}
	if words == nil {
		return "-"
	}
	return strings.Join(words, "+")
}

// TestFork plays responses, "hunt:status" with a tag after a slash, and "cancel"; "fail" has what the caller is told.
func TestFork(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		ways   []int
		script string
		want   string
	}{
		{"one", []int{1}, "0:100 0:180 0:200/a", "- forward forward"},
		{"the first 2xx wins", []int{1, 1}, "0:180 1:180 1:200/b 0:487", "forward forward forward+stop -"},
		{"a second one is hung up", []int{1, 1}, "1:200/b 0:200/a 0:200/a", "forward+stop hang hang"},
		{"the same again is not", []int{1}, "0:200/a 0:200/a 0:200/z", "forward - hang"},
		{"the same tag of another is", []int{1, 1}, "0:200/a 1:200/a", "forward+stop hang"},
		{"what comes late", []int{1, 1}, "0:486 0:180 0:486 1:486 1:486", "- - - fail:0:486 -"},
		{"ringing after an answer", []int{1, 1}, "1:200/b 0:180", "forward+stop -"},
		{"all fail", []int{1, 1, 1}, "0:486 1:404 2:500", "- - fail:0:486"},
		{"what the caller can mend", []int{1, 1, 1, 1}, "0:503 1:407 2:501 3:404", "- - - fail:1:407"},
		{"lowest class", []int{1, 1, 1}, "0:500 1:486 2:302", "- - fail:2:302"},
		{"503 alone", []int{1}, "0:503", "fail:0:500"},
		{"503 and another", []int{1, 1}, "0:503 1:500", "- fail:1:500"},
		{"nobody wants him", []int{1, 1}, "0:603 1:487", "stop fail:0:603"},
		{"nobody but one", []int{1, 1}, "0:603 1:200/b", "stop forward"},
		{"two decline", []int{1, 1, 1}, "0:600 1:603 2:487", "stop - fail:0:600"},
		{"the last declines", []int{1, 1}, "0:486 1:603", "- fail:1:603"},

		{"IPv6 is silent", []int{2, 1}, "0:408 0:180 1:486 0:200/a", "next forward - forward"},
		{"it could not be sent", []int{2}, "0:503 0:503", "next fail:0:500"},
		{"the flow is gone", []int{3}, "0:430 0:430 0:200/a", "next next forward"},
		{"each way is asked anew", []int{3}, "0:180 0:503 0:408 0:200/a", "forward next next forward"},
		{"it is there, and silent later", []int{2}, "0:180 0:408", "forward fail:0:408"},
		{"it is busy: no other way", []int{2}, "0:486", "fail:0:486"},
		{"no other way after an answer", []int{2, 1}, "1:200/b 0:408", "forward+stop -"},
		{"nor when it was declined", []int{2, 1}, "1:600 0:408", "stop fail:1:600"},

		{"given up", []int{2, 1}, "0:180 cancel 1:180 0:487 1:487", "forward stop - - -"},
		{"given up, and answered", []int{1, 1}, "cancel 0:200/a 1:487", "stop hang -"},
		{"given up, and no other way", []int{2}, "cancel 0:408", "stop -"},
		{"given up too late", []int{1}, "0:200/a cancel", "forward -"},
		{"given up when declined", []int{1, 1}, "0:600 cancel 1:487", "stop stop -"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := NewFork(test.ways...)
			var got []string
			for w := range strings.FieldsSeq(test.script) {
				var s Step
				if w == "cancel" {
					s = f.GiveUp()
				} else {
					var hunt, status int
					w, tag, _ := strings.Cut(w, "/")
					if _, err := fmt.Sscanf(w, "%d:%d", &hunt, &status); err != nil {
						t.Fatal(err)
					}
					s = f.Response(hunt, tag, status)
				}
				text := show(s)
				if s&Fail > 0 {
					hunt, status := f.Best()
					text += fmt.Sprintf(":%d:%d", hunt, status)
				}
				got = append(got, text)
			}
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("%s\ngot  %s\nwant %s", test.script, got, test.want)
			}
		})
	}
}
