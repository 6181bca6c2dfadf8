// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package scan has content engines look at a message before a server gets it: clamd for viruses, rspamd for all that needs
// the message and the true address of the client together: SPF, DKIM, DMARC, greylists, content.
//
//	message ─┬─▶ clamd   INSTREAM ───────▶ virus? ───────────┐
//	         └─▶ rspamd  POST /checkv2 ──▶ action, symbols ──┴─▶ Verdict: refuse, or pass with these fields on top
//
// Both look at once. They are reached over addresses of either family, server by server if there are several; an engine
// that cannot be reached, or says nothing in time, is down, and then the message comes again later, or passes, as the file
// says. Check blocks and is for goroutines; how many run at once is bounded.
package scan

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/mail/policy"
)

// The values of Options where nothing else is said.
const (
	DefaultTimeout = time.Minute
	DefaultLargest = 25 << 20
)

const (
	atOnce  = 16  // messages that are looked at
	waiting = 512 // that wait for it
)

// errBusy means that too many messages wait.
var errBusy = errors.New("scan: too many messages wait")

// Options of engines.
type Options struct {
	Clamd  []netip.AddrPort // servers to ask, one after the other; none means that there is no such engine
	Rspamd []netip.AddrPort
	Down   Down
	Auth   policy.Mode   // what becomes of mail over IPv6 that neither SPF nor DKIM speaks for
	Time   time.Duration // for each message
	Size   int64         // the largest message that is looked at
	Counts *Counts       // nil if nobody wants to know
}

// Down says what becomes of a message that an engine cannot look at. The zero value is that it comes again.
type Down uint8

// The choices.
const (
	Refuse Down = iota
	Pass
)

// Message is what is looked at, and where it comes from.
type Message struct {
	Client     netip.Addr
	Hello      string   // the name that it has given
	Name       string   // its reverse name, if it is confirmed
	From       string   // without brackets
	Recipients []string // likewise
	Size       int64
	Text       io.ReaderAt
}

// Verdict is what the engines say.
type Verdict struct {
	Reply   string // what the client is told instead of 250, with its CRLF; "" if the message passes
	Reason  Reason
	Fields  []byte // lines to be put before the message
	Unasked error  // why an engine did not look
	Auth    bool   // neither SPF nor DKIM speaks for it
}

// Reason is why a message is refused.
type Reason uint8

// The reasons.
const (
	Fine   Reason = iota
	Virus         // clamd has found one
	Reject        // rspamd says so
	Later         // rspamd says that it shall come again
	Auth          // neither SPF nor DKIM speaks for it
	Broken        // an engine is down
	Reasons
)

// String returns the reason as it is in labels.
func (r Reason) String() string {
	return [Reasons]string{"fine", "virus", "reject", "later", "authentication", "engine-down"}[r]
}

// Engines look at messages. Check may be called from anywhere.
type Engines struct {
	options Options
	http    *http.Client
	first   [2]atomic.Int64 // server that clamd and rspamd were last reached at
	gate    chan struct{}
	waits   atomic.Int64
}

// New returns engines. Close them.
func New(o Options) *Engines {
	if o.Time == 0 {
		o.Time = DefaultTimeout
	}
	if o.Size == 0 {
		o.Size = DefaultLargest
	}
	e := &Engines{options: o, gate: make(chan struct{}, atOnce)}
	e.http = &http.Client{
		Transport:     &http.Transport{DialContext: dial, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return e
}

// Close waits for those who look, and closes the connections that are kept. Who calls Check later is served all the same.
func (e *Engines) Close() {
	for range atOnce {
		e.gate <- struct{}{}
	}
	for range atOnce {
		<-e.gate
	}
	e.http.CloseIdleConnections()
}

// Check has the engines look at a message. It returns when all have, or at the deadline.
func (e *Engines) Check(ctx context.Context, m *Message) Verdict {
	ctx, cancel := context.WithTimeout(ctx, e.options.Time)
	defer cancel()
	v := e.check(ctx, m)
	e.options.Counts.add(m.Client, &v)
	return v
}

func (e *Engines) check(ctx context.Context, m *Message) Verdict {
	if m.Size > e.options.Size {
		return Verdict{}
	}
	if err := e.enter(ctx); err != nil {
		return e.down(err)
	}
	defer func() { <-e.gate }()
	var virus string
	var opinion opinion
	var errVirus, errOpinion error
	var wg sync.WaitGroup
	if len(e.options.Clamd) > 0 {
		wg.Go(func() {
			errVirus = e.each(ctx, e.options.Clamd, &e.first[0], func(at netip.AddrPort) (err error) {
				virus, err = clamd(ctx, at, m)
				return err
			})
		})
	}
	if len(e.options.Rspamd) > 0 {
		wg.Go(func() {
			errOpinion = e.each(ctx, e.options.Rspamd, &e.first[1], func(at netip.AddrPort) (err error) {
				opinion, err = e.rspamd(ctx, at, m)
				return err
			})
		})
	}
	wg.Wait()
	return e.judge(m, virus, &opinion, errors.Join(errVirus, errOpinion))
}

// enter waits until a message may be looked at.
func (e *Engines) enter(ctx context.Context) error {
	if e.waits.Add(1) > waiting {
		e.waits.Add(-1)
		return errBusy
	}
	defer e.waits.Add(-1)
	select {
	case e.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// each asks server after server until one can say, beginning with the one that could last time.
func (e *Engines) each(ctx context.Context, all []netip.AddrPort, first *atomic.Int64, ask func(netip.AddrPort) error) (err error) {
	begin := int(first.Load())
	for i := range all {
		n := (begin + i) % len(all)
		if err = ask(all[n]); err == nil {
			first.Store(int64(n))
			return nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return err
}

// judge puts together what was found. What one engine has found counts, whatever another could not.
func (e *Engines) judge(m *Message, virus string, o *opinion, err error) Verdict {
	silent := o.silent() && ip.FamilyOf(m.Client) == ip.V6 && e.options.Auth != policy.Off
	switch {
	case virus != "":
		return Verdict{Reason: Virus, Reply: "554 5.7.1 The message has a virus: " + clip(virus) + "\r\n", Unasked: err}
	case o.Action == "reject":
		return Verdict{Reason: Reject, Reply: "554 5.7.1 " + o.text("The message is not wanted") + "\r\n", Unasked: err}
	case o.Action == "soft reject":
		return Verdict{Reason: Later, Reply: "451 4.7.1 " + o.text("Come again later") + "\r\n", Unasked: err}
	case silent && e.options.Auth == policy.Enforce: // RFC 7372 §3.4; for now only, so that the sender tries IPv4
		return Verdict{Reason: Auth, Reply: "450 4.7.26 Neither SPF nor DKIM speaks for the message\r\n", Auth: true, Unasked: err}
	case err != nil:
		v := e.down(err)
		v.Fields, v.Auth = o.fields(), silent
		return v
	}
	return Verdict{Fields: o.fields(), Auth: silent}
}

// down is the verdict where an engine could not look.
func (e *Engines) down(err error) Verdict {
	if e.options.Down == Pass {
		return Verdict{Unasked: err}
	}
	return Verdict{Reason: Broken, Reply: "451 4.3.0 The message cannot be looked at now\r\n", Unasked: err}
}

const mostSaid = 200 // bytes of what an engine says that the client is told

// clip returns the part of a text that can stand in a reply or in a field of a request.
func clip(text string) string {
	var b strings.Builder
	for i := 0; i < len(text) && b.Len() < mostSaid; i++ {
		if c := text[i]; c >= ' ' && c <= '~' {
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}
