// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"container/heap"
	"fmt"
	"strings"
	"time"
)

// Result is what a server has said to a recipient.
type Result struct {
	Code  int    // 0 if it has said nothing: it could not be asked
	Reply string // the whole reply, or why there is none
}

// Finish says what the servers have said to the recipients that were Left, in their order; server is who said it, or
// empty. A code of another class than 2 and 5 has the recipient tried again. It reads from the disk.
func (q *Queue) Finish(m *Message, server string, results []Result, now time.Time) {
	q.mu.Lock()
	m.state.Attempts++
	m.state.Next = now.Add(schedule(m.state.Attempts))
	expired := !now.Before(m.Arrived.Add(q.options.Keep))
	var told []reported
	for n, i := range m.Left() {
		r, e := results[n], &m.state.Ends[i]
		e.Reply = clean(r.Reply)
		switch {
		case r.Code/100 == 2:
			e.Done = true
			q.counts.Delivered++
			told = append(told, reported{recipient: i, action: "delivered", status: statusOf(r, "2.0.0")})
		case r.Code/100 == 5:
			e.Done = true
			told = append(told, reported{recipient: i, action: "failed", status: statusOf(r, "5.0.0")})
		case expired: // RFC 3463 §3.5: X.4.7 is that the time is up
			e.Done = true
			told = append(told, reported{recipient: i, action: "failed", status: statusOf(r, "4.4.7")})
		default:
			m.state.Last = e.Reply
		}
	}
	q.mu.Unlock()
	wanted := m.wanted(told)
	if len(wanted) == 0 {
		q.finished(m, told)
		return
	}
	text, err := q.report(m, server, wanted, now)
	if err == nil {
		err = q.send(m, text, now, func(err error) { q.reported(m, told, err) })
	}
	if err != nil {
		q.reported(m, told, err)
	}
}

// wanted returns those of which the sender is to be told.
func (m *Message) wanted(all []reported) (wanted []reported) {
	if len(m.Sender) == 0 { // RFC 5321 §4.5.5: a report is not reported on
		return nil
	}
	for _, r := range all {
		n := m.Recipients[r.recipient].Notify
		if r.action == "delivered" && (n == Success || n == Both) || r.action == "failed" && (n == Usual || n == Failure || n == Both) {
			wanted = append(wanted, r)
		}
	}
	return wanted
}

// reported goes on when the report is written. Without it the recipients that failed do not end: what became of them
// would be known to nobody. Those that were delivered do.
func (q *Queue) reported(m *Message, told []reported, err error) {
	if err == nil {
		q.finished(m, told)
		return
	}
	q.mu.Lock()
	kept := told[:0]
	for _, r := range told {
		if r.action == "failed" {
			m.state.Ends[r.recipient].Done = false
			m.state.Last = fmt.Sprintf("no report could be written: %v", err)
			continue
		}
		kept = append(kept, r)
	}
	q.mu.Unlock()
	q.finished(m, kept)
}

// finished settles a message that has no more recipients, and keeps what became of another.
func (q *Queue) finished(m *Message, told []reported) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range told {
		if r.action == "failed" {
			q.counts.Failed++
		}
	}
	if m.dropped || len(m.Left()) == 0 {
		if m.dropped {
			q.counts.Dropped++
		}
		q.settleLocked(m)
		return
	}
	before := m.stateID
	m.stateID = q.journal.Append(progress, nil, encode(m.state))
	if before != 0 {
		q.journal.Settle(before)
	}
	m.busy = false
	heap.Push(&q.due, m)
	q.rouse()
}

// send adds a report to the queue. done is called unless it returns an error.
func (q *Queue) send(about *Message, text []byte, now time.Time, done func(error)) error {
	pool, ok := q.options.Report(about.Service)
	if !ok {
		return errNoReports
	}
	d := q.Draft(&Message{Service: about.Service, Pool: pool, Client: about.Client, Dialled: about.Dialled, Helo: []byte(q.options.Name),
		EightBit: true, Arrived: now, Recipients: []Recipient{{Path: about.Sender, Notify: Never}}})
	d.Write(text)
	d.Commit(func(err error) {
		if err == nil {
			q.mu.Lock()
			q.counts.Reports++
			q.mu.Unlock()
		}
		done(err)
	})
	return nil
}

// clean makes one printable line of a reply, of bounded length.
func clean(reply string) string {
	reply = strings.TrimRight(reply, "\r\n")
	if len(reply) > maxLast {
		reply = reply[:maxLast]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return -1
		case r == '\n', r == '\t':
			return ' '
		case r < ' ', r > '~':
			return '?'
		}
		return r
	}, reply)
}

// maxLast is how much of a reply is kept.
const maxLast = 500
