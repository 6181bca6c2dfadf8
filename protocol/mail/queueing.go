// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"cmp"
	_ "embed"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/service"
)

// queueSource is this file, whose comments describe keys too.
//
//go:embed queueing.go
var queueSource string

// Queue keeps messages on disk for pools whose servers get them later. A client gets 250 when its message is on disk, and
// not before; each recipient is answered by a server all the same, as long as one can be asked.
type Queue struct {
	// The pools whose messages are kept, and what their servers speak: `lmtp` or `smtp`.
	Pools map[string]Speech `yaml:"pools,required"`

	// The pool that takes reports to senders, of servers of SMTP unless `pools` says otherwise. It must send what the edge
	// sends, and be told nothing of clients. If left out, the servers for which a message was get the report on it.
	Reports string `yaml:"reports"`

	// Domains whose recipients are taken while no server can be asked, for senders that cannot come again; `any` means all.
	// If left out there are none, and senders are told 451: most come again by themselves.
	Unasked []string `yaml:"unasked"`

	// How long a message is tried; 5d if left out. Then its sender gets a report.
	Keep time.Duration `yaml:"keep" range:"1h.."`

	// When a sender is told that his message takes long, once; for example 4h. If left out he is not.
	Warn time.Duration `yaml:"warn" range:"1m.."`

	// How many bytes of messages may wait; 1GiB if left out. On disk there is up to three times as much. Clients are told 452
	// beyond that.
	Size service.Bytes `yaml:"size" range:"1MiB..1024GiB"`

	// How many messages may wait; 100000 if left out.
	Messages int `yaml:"messages" range:"1..10000000"`

	// How many connections to a server there may be at once, to bring messages there; 4 if left out.
	AtOnce int `yaml:"at-once" range:"1..100"`
}

// Speech is what the servers of a pool speak. The zero value is LMTP.
type Speech bool

// The words for it.
const (
	SpeechLMTP Speech = false
	SpeechSMTP Speech = true
)

// UnmarshalText reads "lmtp" or "smtp".
func (s *Speech) UnmarshalText(text []byte) error {
	switch string(text) {
	case "lmtp":
		*s = SpeechLMTP
	case "smtp":
		*s = SpeechSMTP
	default:
		return errSpeech
	}
	return nil
}

// anyDomain is every domain.
const anyDomain = "any"

const (
	usualKeep     = 5 * 24 * time.Hour // RFC 5321 §4.5.4.1: at least 4 or 5 days
	usualRoom     = 1 << 30
	usualMessages = 100_000
	usualAtOnce   = 4
)

// The mistakes that Check finds in it.
var (
	errSpeech     = errors.New("not what servers of a queue speak; write lmtp or smtp")
	errNoQueued   = errors.New("no pool is named; write, for example, pools: {spool: lmtp}")
	errNoPool     = errors.New("there is no such pool")
	errBoxes      = errors.New("mailboxes are opened at these servers: only messages are kept")
	errAutoLMTP   = errors.New("servers of LMTP are not asked what they take; write xclient, proxy-v1, proxy-v2 or none")
	errReports    = errors.New("reports are the edge's own mail, and must be sent on as such; give their pool handover: none and source: edge")
	errNoReports  = errors.New("reports on messages go to these servers, which may know only their own users; name a pool of SMTP")
	errDomainName = errors.New("not a domain; write, for example, example.jp, or any")
	errOpenUnask  = errors.New("while no server can be asked, everybody may send everywhere here, and reports go to senders who may be forged; write allow")
	errWarn       = errors.New("is not before keep, when the message is given up")
)

// SendsTo implements service.Sender.
func (o *Options) SendsTo() []string {
	if o.Queue == nil {
		return nil
	}
	return append(slices.Sorted(maps.Keys(o.Queue.Pools)), o.Queue.Reports)
}

// checkQueue says what is wrong with the queue. serves has the listens that send clients to a pool.
func (o *Options) checkQueue(s *service.Service, serves map[string][]string, at func(err error, warning bool, path ...string)) {
	q := o.Queue
	if q == nil {
		return
	}
	if len(q.Pools) == 0 {
		at(errNoQueued, false, "mail", "queue", "pools")
	}
	for _, name := range slices.Sorted(maps.Keys(q.Pools)) {
		p, ok := s.Pools[name]
		switch {
		case !ok:
			at(errNoPool, false, "mail", "queue", "pools", name)
			continue
		case slices.ContainsFunc(serves[name], func(l string) bool { return dialects[l].mailbox }):
			at(errBoxes, false, "mail", "queue", "pools", name)
		case q.Pools[name] == SpeechLMTP && p.Handover == backend.HandoverAuto:
			at(errAutoLMTP, false, "pools", name, "handover")
		}
		if q.Reports == "" && q.speech(name) == SpeechLMTP {
			at(errNoReports, true, "mail", "queue", "pools", name)
		} else if q.Reports == "" && !sendsOurs(p) {
			at(errReports, false, "mail", "queue", "pools", name)
		}
	}
	if p, ok := s.Pools[q.Reports]; q.Reports != "" && !ok {
		at(errNoPool, false, "mail", "queue", "reports")
	} else if ok && q.speech(q.Reports) == SpeechSMTP && !sendsOurs(p) {
		at(errReports, false, "mail", "queue", "reports")
	}
	for i, d := range q.Unasked {
		if d != anyDomain && !isHostName(d) {
			at(errDomainName, false, "mail", "queue", "unasked", strconv.Itoa(i))
		} else if d == anyDomain && s.Allow.IsZero() {
			at(errOpenUnask, true, "mail", "queue", "unasked", strconv.Itoa(i))
		}
	}
	if q.Warn > 0 && q.Warn >= q.keep() {
		at(errWarn, false, "mail", "queue", "warn")
	}
}

// sendsOurs says whether the servers of a pool get mail as from the edge.
func sendsOurs(p backend.Spec) bool {
	return p.Handover == backend.HandoverNone && p.Source == backend.SourceEdge
}

// speech is what the servers of a pool speak that gets messages out of the queue.
func (q *Queue) speech(pool string) Speech {
	if s, ok := q.Pools[pool]; ok {
		return s
	}
	return SpeechSMTP
}

func (q *Queue) keep() time.Duration { return cmp.Or(q.Keep, usualKeep) }

// terms are those of the messages.
func (q *Queue) terms(name string) queue.Terms {
	return queue.Terms{Name: name, Keep: q.keep(), Warn: q.Warn, Reports: q.Reports,
		Bytes: cmp.Or(int64(q.Size), usualRoom), Messages: cmp.Or(int64(q.Messages), usualMessages)}
}
