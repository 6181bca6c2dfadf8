// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"io"
	"strings"

	"github.com/kyozon/kyozon/edge"
)

// WriteQueue writes a line for each message that is kept, and below it what kept it.
func WriteQueue(w io.Writer, all []edge.QueuedStatus, style Style) error {
	if len(all) == 0 {
		return say(w, "the queue is empty")
	}
	t := newTable(style, "ID", "SERVICE", "POOL", ">SIZE", ">AGE", ">TRIED", ">NEXT", "SENDER", "RECIPIENTS")
	for _, m := range all {
		next := until(t.now, m.Next)
		switch {
		case m.Busy:
			next = "now"
		case !m.Next.After(t.now):
			next = "due"
		}
		t.row(plain(m.ID), plain(m.Service), plain(m.Pool), number(size(m.Size)), number(age(t.now, m.Arrived)), number(count(int64(m.Attempts))),
			number(next), plain("<"+m.Sender+">"), plain(recipients(m.Recipients)))
		if m.Last != "" {
			t.note(plain(m.Last))
		}
	}
	return t.write(w)
}

// recipients names the first of several.
func recipients(all []string) string {
	const most = 3
	text := strings.Join(all[:min(most, len(all))], ", ")
	if len(all) > most {
		text += fmt.Sprintf(" and %d more", len(all)-most)
	}
	return text
}

// stuck says what cannot go.
func stuck(q edge.QueueStatus) string {
	if q.Service == "" {
		return q.Stuck
	}
	if q.Messages == 1 {
		return fmt.Sprintf("1 message for %s/%s is stuck: %s", q.Service, q.Pool, q.Stuck)
	}
	return fmt.Sprintf("%s messages for %s/%s are stuck: %s", count(q.Messages), q.Service, q.Pool, q.Stuck)
}
