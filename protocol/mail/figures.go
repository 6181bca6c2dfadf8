// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
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
	outcomesKept: {Name: "kyozon_mail_outcomes_kept", Noun: "outcomes kept", Help: "Outcomes that clients may not have heard of, and may ask for again."},
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
	return r
}

// read reads what is counted of one service. What it no longer has is still there: a counter never goes back.
func (m *memory) read(r *reading, s *service.Service) {
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
