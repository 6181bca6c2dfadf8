// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"fmt"
	"strings"
	"time"
)

// Result is what a server has said to a recipient.
type Result struct {
	Code  int    // 0 if it has said nothing: it could not be asked
	Reply string // the whole reply, or why there is none
}

// Outcome is what has become of a message at a server.
type Outcome struct {
	Server  string   // who has said it, or ""
	Results []Result // of the recipients that were Left, in their order
	Done    func()   // called from anywhere when what follows is written; not at all if it cannot be. May be nil
}

// The actions of reports. RFC 3464 §2.3.3.
const (
	failed    = "failed"
	delayed   = "delayed"
	delivered = "delivered"
	relayed   = "relayed"
)

// Finish says what has become of a message. A code of another class than 2 and 5 has the recipient tried again. It reads
// from the disk.
func (q *Queue) Finish(m *Message, o Outcome, now time.Time) {
	t := q.terms(m.Service)
	q.mu.Lock()
	m.state.Attempts++
	m.state.Next = now.Add(schedule(m.state.Attempts))
	slow := m.slow(t, now)
	var told []reported
	for n, i := range m.Left() {
		r, e := o.Results[n], &m.state.Ends[i]
		e.Reply = short(clean(r.Reply), maxState/len(m.Recipients))
		one := reported{recipient: i}
		switch {
		case r.Code/100 == 2:
			one.action, one.status = delivered, statusOf(r, "2.0.0")
			if m.Relayed { // RFC 3464 §2.3.3: nobody says any more what becomes of it
				one.action = relayed
			}
		case r.Code/100 == 5:
			one.action, one.status = failed, statusOf(r, "5.0.0")
		case m.expired(t, now): // RFC 3463 §3.5: X.4.7 is that the time is up
			one.action, one.status = failed, statusOf(r, "4.4.7")
		case slow:
			one.action, one.status = delayed, statusOf(r, "4.4.7")
		}
		e.Done = one.action != "" && one.action != delayed
		if one.action != "" {
			told = append(told, one)
		}
		if !e.Done {
			m.state.Last = e.Reply
		}
	}
	m.state.Warned = m.state.Warned || slow
	q.mu.Unlock()
	q.tell(m, o, told, now)
}

// tell writes the report to the sender if he wants one, and goes on.
func (q *Queue) tell(m *Message, o Outcome, told []reported, now time.Time) {
	wanted := m.wanted(told)
	if len(wanted) == 0 {
		q.finished(m, told, o.Done)
		return
	}
	text, err := q.report(m, o.Server, wanted, now)
	if err == nil {
		err = q.send(m, text, now, func(err error) { q.reported(m, told, o.Done, err) })
	}
	if err != nil {
		q.reported(m, told, o.Done, err)
	}
}

// wanted returns those of which the sender is to be told.
func (m *Message) wanted(all []reported) (wanted []reported) {
	if len(m.Sender) == 0 { // RFC 5321 §4.5.5: a report is not reported on
		return nil
	}
	for _, r := range all {
		if m.Recipients[r.recipient].wants(r.action) {
			wanted = append(wanted, r)
		}
	}
	return wanted
}

// reported goes on when the report is written. Without it the recipients that failed do not end: what became of them
// would be known to nobody. Those that were delivered do.
func (q *Queue) reported(m *Message, told []reported, done func(), err error) {
	if err == nil {
		q.finished(m, told, done)
		return
	}
	q.mu.Lock()
	kept := told[:0]
	for _, r := range told {
		if r.action == failed {
			m.state.Ends[r.recipient].Done = false
			m.state.Last = fmt.Sprintf("no report could be written: %v", err)
			continue
		}
		kept = append(kept, r)
	}
	q.mu.Unlock()
	q.finished(m, kept, done)
}

// finished settles a message that has no more recipients, and keeps what became of another.
func (q *Queue) finished(m *Message, told []reported, done func()) {
	q.count(m, told)
	q.mu.Lock()
	switch {
	case m.dropped:
		q.dropLocked(m, done)
	case len(m.Left()) == 0:
		q.settleLocked(m, done)
	default:
		before := m.stateID
		m.stateID = q.journal.Append(progress, written(func() {
			if before != 0 {
				q.journal.Settle(before)
			}
			if done != nil {
				done()
			}
		}), encode(m.state))
		q.options.Sums.count(m, func(c *Counts) { c.Deferred++ })
		q.pushLocked(m)
	}
	q.mu.Unlock()
	q.changed()
}

// count counts what was told of recipients, and says in the log what is told to nobody.
func (q *Queue) count(m *Message, told []reported) {
	for _, r := range told {
		q.options.Sums.count(m, func(c *Counts) {
			switch {
			case r.action == delivered, r.action == relayed:
				c.Delivered++
			case r.action == failed:
				c.Failed++
				if len(m.Sender) == 0 {
					c.Unreported++
				}
			}
		})
		if r.action == failed && len(m.Sender) == 0 {
			q.options.Log.Warn("mail from nobody has failed, and nobody is told", "service", m.Service, "pool", m.Pool,
				"recipient", clean(string(m.Recipients[r.recipient].Path)), "err", m.state.Ends[r.recipient].Reply)
		}
	}
}

// send adds a report to the queue. done is called unless it returns an error.
func (q *Queue) send(about *Message, text []byte, now time.Time, done func(error)) error {
	t, ok := q.options.Terms(about.Service)
	if !ok {
		return errNoReports
	}
	pool := t.Reports
	if pool == "" {
		pool = about.Pool
	}
	m := &Message{Service: about.Service, Pool: pool, Client: about.Client, Dialled: about.Dialled, Helo: []byte(t.Name),
		EightBit: true, Arrived: now, Recipients: []Recipient{{Path: about.Sender, Notify: Never}}, held: int64(len(text))}
	q.options.Sums.hold(m) // also if there is no room: else nobody would know
	d := q.draft(m)
	d.Write(text, nil)
	d.Commit(func(err error) {
		if err == nil {
			q.options.Sums.count(about, func(c *Counts) { c.Reports++ })
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

// maxLast is how much of a reply is kept, and maxState how much of all that are kept of a message: they must fit a record,
// in which some characters take six bytes.
const (
	maxLast  = 500
	maxState = 128 << 10
)

func short(s string, most int) string { return s[:min(len(s), most)] }
