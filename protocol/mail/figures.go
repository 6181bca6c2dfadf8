// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/protocol/mail/scan"
	"github.com/kyozon/kyozon/service"
)

// The metrics, in the order of the table.
const (
	sessionsTotal = iota
	sessionsActive
	loginsTotal
	messagesTotal
	recipientsTotal
	scannedTotal
	repeatsTotal
	doubtfulTotal
	outcomesKept
	queueMessages
	queueBytes
	queueOldest
	queueAdded
	queueRecipients
	queueDeferred
	queueReports
	queueDropped
	lookupsTotal
)

// figures is read only.
var figures = [...]service.Metric{
	sessionsTotal: {Name: "kyozon_mail_sessions_total", Noun: "sessions", Help: "Clients that have come.",
		Labels: []string{"service", "client_family", "listen"}},
	sessionsActive: {Name: "kyozon_mail_sessions_active", Noun: "sessions now", Help: "Clients that are connected.",
		Labels: []string{"service", "client_family", "listen"}, Sessions: true},
	loginsTotal: {Name: "kyozon_mail_logins_total", Noun: "logins", Help: "Logins, by what has become of them.",
		Labels: []string{"service", "client_family", "listen", "outcome"}},
	messagesTotal: {Name: "kyozon_mail_messages_total", Noun: "messages", Help: "Messages that servers were to take, by what has become of them.",
		Labels: []string{"service", "client_family", "backend_family", "outcome"}},
	recipientsTotal: {Name: "kyozon_mail_recipients_total", Noun: "recipients", Help: "Recipients that servers were asked for, by their answers.",
		Labels: []string{"service", "client_family", "backend_family", "outcome"}},
	scannedTotal: {Name: "kyozon_mail_scanned_total", Noun: "messages scanned", Help: "Messages that content engines were to look at, by their verdict.",
		Labels: []string{"service", "client_family", "verdict"}},
	repeatsTotal: {Name: "kyozon_mail_repeats_total", Noun: "messages come again",
		Help:   "Messages that have come again and were answered with what a server had said before.",
		Labels: []string{"service", "client_family"}},
	doubtfulTotal: {Name: "kyozon_mail_doubtful_total", Noun: "messages that may be there twice",
		Help:   "Messages that may be delivered twice, because an edge has died, or a server was lost, before it was known what had become of them.",
		Labels: []string{"lost"}},
	lookupsTotal: {Name: "kyozon_mail_lookups_total", Noun: "users looked up", Help: "Users who logged in, by what the directory of mailboxes has said of them.",
		Labels: []string{"service", "outcome"}},
	outcomesKept: {Name: "kyozon_mail_outcomes_kept", Noun: "outcomes kept", Help: "Outcomes that clients may not have heard of, and may ask for again."},
	queueMessages: {Name: "kyozon_mail_queue_messages", Noun: "messages in the queue", Help: "Messages that are kept until a server has them.",
		Labels: []string{"service", "pool"}},
	queueBytes: {Name: "kyozon_mail_queue_bytes", Noun: "bytes in the queue", Help: "Bytes of messages that are kept.",
		Labels: []string{"service", "pool"}},
	queueOldest: {Name: "kyozon_mail_queue_oldest_seconds", Noun: "seconds that the oldest waits", Help: "How long the oldest message has been kept.",
		Labels: []string{"service", "pool"}},
	queueAdded: {Name: "kyozon_mail_queue_added_total", Noun: "messages kept", Help: "Messages that were kept, reports among them.",
		Labels: []string{"service", "pool"}},
	queueRecipients: {Name: "kyozon_mail_queue_recipients_total", Noun: "recipients of kept messages",
		Help:   "Recipients of kept messages, by their end: delivered, failed, or unreported, which has failed too and nobody could be told.",
		Labels: []string{"service", "pool", "outcome"}},
	queueDeferred: {Name: "kyozon_mail_queue_deferred_total", Noun: "attempts that were too early", Help: "Attempts after which a message had to wait.",
		Labels: []string{"service", "pool"}},
	queueReports: {Name: "kyozon_mail_queue_reports_total", Noun: "reports to senders", Help: "Reports to senders about messages for the pool.",
		Labels: []string{"service", "pool"}},
	queueDropped: {Name: "kyozon_mail_queue_dropped_total", Noun: "messages dropped by hand", Help: "Messages that were dropped by hand.",
		Labels: []string{"service", "pool"}},
}

// reading collects the series.
type reading []service.Count

func (r *reading) add(metric int, value int64, labels ...string) {
	*r = append(*r, service.Count{Metric: figures[metric], Values: labels, Value: value})
}

// counts reads all that is counted of some services, and beside them.
func (f *fronts) counts(services []*service.Service) []service.Count {
	var r reading
	for _, s := range services {
		f.memory(s.Name).read(&r, s)
	}
	var c outcome.Counts
	if b := f.outcomes.book.Load(); b != nil {
		c = b.Counts()
	}
	r.add(doubtfulTotal, c.Doubtful, "edge")
	r.add(doubtfulTotal, c.Lost, "server")
	r.add(outcomesKept, c.Kept)
	f.queues.read(&r, time.Now())
	return r
}

// read reads what is counted of kept messages, also of pools that there are no more.
func (q *queues) read(r *reading, now time.Time) {
	oldest := make(map[queue.Destination]time.Time)
	for _, h := range q.each() {
		h.queue.Oldest(oldest)
	}
	all := q.sums.Counts()
	for _, d := range slices.SortedFunc(maps.Keys(all), func(a, b queue.Destination) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool))
	}) {
		c := all[d]
		r.add(queueMessages, c.Messages, d.Service, d.Pool)
		r.add(queueBytes, c.Bytes, d.Service, d.Pool)
		age := time.Duration(0)
		if at, ok := oldest[d]; ok {
			age = max(0, now.Sub(at))
		}
		r.add(queueOldest, int64(age/time.Second), d.Service, d.Pool)
		r.add(queueAdded, c.Added, d.Service, d.Pool)
		r.add(queueRecipients, c.Delivered, d.Service, d.Pool, "delivered")
		r.add(queueRecipients, c.Failed-c.Unreported, d.Service, d.Pool, "failed")
		r.add(queueRecipients, c.Unreported, d.Service, d.Pool, "unreported")
		r.add(queueDeferred, c.Deferred, d.Service, d.Pool)
		r.add(queueReports, c.Reports, d.Service, d.Pool)
		r.add(queueDropped, c.Dropped, d.Service, d.Pool)
	}
}

// read reads what is counted of one service. What it no longer has is still there: a counter never goes back.
func (m *memory) read(r *reading, s *service.Service) {
	if s.Options.(*Options).Users != nil { // made by our own Protocol
		for l := range lookups {
			r.add(lookupsTotal, m.lookups[l].Load(), s.Name, l.String())
		}
	}
	carries := make(map[ip.Family]bool)
	for _, e := range m.tally.entrances() {
		d, f, v := dialects[e.listen], e.family.String(), m.tally.at(e)
		r.add(sessionsTotal, v.come.Load(), s.Name, f, e.listen)
		r.add(sessionsActive, v.here.Load(), s.Name, f, e.listen)
		if d.mailbox || d.login {
			for t := range trials {
				r.add(loginsTotal, v.logins[t].Load(), s.Name, f, e.listen, t.String())
			}
		}
		carries[e.family] = carries[e.family] || !d.mailbox
	}
	for _, x := range ip.Crossings() {
		if !carries[x.Client] {
			continue
		}
		for e := range ends {
			r.add(messagesTotal, m.tally.messages[x.Index()][e].Load(), s.Name, x.Client.String(), x.Backend.String(), e.String())
			if e != unknown { // of a recipient nothing has been taken yet
				r.add(recipientsTotal, m.tally.recipients[x.Index()][e].Load(), s.Name, x.Client.String(), x.Backend.String(), e.String())
			}
		}
	}
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		if !carries[f] {
			continue
		}
		r.add(repeatsTotal, m.tally.repeats[index(f)].Load(), s.Name, f.String())
		for v := range scan.Reasons {
			if s.Options.(*Options).Scan != nil { // made by our own Protocol
				r.add(scannedTotal, m.scans.Judged(f, v), s.Name, f.String(), v.String())
			}
		}
	}
}
