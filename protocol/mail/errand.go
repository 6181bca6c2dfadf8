// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/protocol/mail/lmtp"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
	"github.com/kyozon/kyozon/relay"
)

const (
	takeTime    = 10 * time.Minute // RFC 5321 §4.5.3.2.6: for the answer to a message
	mostErrands = 100              // messages over one connection: then the servers are picked anew
)

// errand brings messages out of a queue to a server, one after the other, and is the handler of the connection.
//
//	begin ─▶ dialled ─▶ lmtp.Client: Write ─▶ … ─▶ Content ─▶ feed: pieces of the journal ─▶ done ─▶ the next, or QUIT
type errand struct {
	queues  *queues
	holding *holding
	way     *way
	message *queue.Message
	backend *backend.Backend
	loop    *relay.Loop

	flow     *backend.Flow // nil when it is over
	out      lmtp.Client
	counts   metrics.Counts
	count    int // messages
	piece    int // which comes next
	sending  bool
	reading  bool
	start    bool // what comes next begins a line
	delivery *outcome.Delivery
}

// begin connects to the server.
func (e *errand) begin() {
	client := backend.Client{Addr: e.message.Client, Dialled: e.message.Dialled}
	e.way.route(e.message).DialTo(e.loop, e.backend, client, e.dialled)
}

func (e *errand) dialled(f *backend.Flow, err error) {
	if err != nil {
		e.queues.done(e, result{holding: e.holding, message: e.message, untried: err.Error()}, true)
		return
	}
	e.flow = f
	f.Counts, f.Cut = func() metrics.Counts { return e.counts }, func(metrics.Reason) { e.lost("the edge has ended", metrics.Drained) }
	e.out = lmtp.Client{Host: e.way.name, SMTP: e.way.smtp, TLS: e.asksTLS()}
	if f.Backend.Told().Handover == backend.HandoverXclient {
		e.out.Whose = &smtp.Identity{Client: f.Carried(), Dialled: f.Dialled(), Helo: e.message.Helo}
	}
	e.out.Open(e.envelope())
	f.Conn.SetHandler(e)
	f.Conn.SetTimeout(greetTime)
}

// asksTLS says whether the server is asked for TLS.
func (e *errand) asksTLS() lmtp.TLS {
	t := e.backend.Pool().Spec.TLS
	switch {
	case !t.Asks():
		return lmtp.Clear
	case t.Start == probe.Required:
		return lmtp.Needed
	}
	return lmtp.Offered
}

// envelope is what the server is told of the message.
func (e *errand) envelope() lmtp.Message {
	m := lmtp.Message{Sender: e.message.Sender, EightBit: e.message.EightBit}
	for _, i := range e.message.Left() {
		m.Recipients = append(m.Recipients, e.message.Recipients[i].Path)
	}
	e.piece, e.sending, e.start, e.delivery = 0, false, true, nil
	e.count++
	return m
}

// Data implements relay.Handler.
func (e *errand) Data(_ *relay.Conn, p []byte) (used int) {
	for e.flow != nil {
		step, lines, n := e.out.Next(p[used:])
		used += n
		e.counts.ToClient += uint64(n)
		switch step {
		case lmtp.More:
			return used
		case lmtp.Write:
			e.send(lines)
			e.flow.Conn.SetTimeout(replyTime)
		case lmtp.Content:
			e.sending = true
			e.feed()
		case lmtp.Shake:
			e.flow.StartTLS(replyTime, e.shaken)
			return used
		case lmtp.Done:
			e.done(metrics.Fine)
		}
	}
	return len(p)
}

// shaken goes on in TLS.
func (e *errand) shaken(err error) {
	switch {
	case e.flow == nil:
	case err != nil:
		e.lost(err.Error(), metrics.ConnectFailed)
	default:
		e.flow.Conn.SetHandler(e)
		e.send(e.out.Secured())
		e.flow.Conn.SetTimeout(replyTime)
	}
}

// Event implements relay.Handler.
func (e *errand) Event(_ *relay.Conn, v relay.Event) {
	switch {
	case v == relay.Drained:
		if e.sending && !e.reading {
			e.feed()
		}
	case v == relay.Timeout:
		e.lost("the server says nothing", metrics.ServerTimeout)
	default:
		e.lost("the server has gone", metrics.ServerReset)
	}
}

// Closed implements relay.Handler.
func (e *errand) Closed(*relay.Conn, error) { e.lost("the connection was lost", metrics.ServerReset) }

// lost gives the connection up.
func (e *errand) lost(why string, reason metrics.Reason) {
	if e.flow != nil {
		e.out.Lost(why)
		e.done(reason)
	}
}

func (e *errand) send(p []byte) {
	e.counts.ToServer += uint64(len(p))
	e.flow.Conn.Write(p)
}

// feed sends as much of the message as the server takes now.
func (e *errand) feed() {
	switch {
	case e.flow.Conn.Full():
		e.flow.Conn.SetTimeout(blockTime)
	case e.piece < len(e.message.Pieces):
		e.flow.Conn.SetTimeout(blockTime)
		e.read()
	default:
		e.sending = false
		e.open()
		e.send(e.out.End(e.start))
		e.flow.Conn.SetTimeout(takeTime)
	}
}

// read reads the next piece of the message and goes on.
func (e *errand) read() {
	e.reading = true
	m, n := e.message, e.piece
	var p []byte
	var err error
	e.queues.all.spool.do(e.loop, func() { p, err = e.holding.queue.Piece(m, n) }, func() {
		e.reading = false
		switch {
		case e.flow == nil || e.message != m || !e.sending: // the server wants no more of it
		case err != nil:
			e.queues.log.Error("message cannot be read", "service", e.way.Service, "message", e.holding.id(m.ID()), "err", err)
			e.lost("the message cannot be read: "+err.Error(), metrics.Fine)
		default:
			e.piece++
			e.content(p)
			e.feed()
		}
	})
}

// content sends a piece of the message.
func (e *errand) content(p []byte) {
	out := e.queues.all.locals[e.loop.ID()].out[:0]
	for len(p) > 0 {
		n := min(len(p), cap(out)/2)
		var text []byte
		text, e.start = smtp.AppendContent(out, p[:n], e.start)
		e.send(text)
		p = p[n:]
	}
}

// open notes that the server is about to get the end of the message: if the edge dies before what has become of it is on
// disk, it may be delivered twice.
func (e *errand) open() {
	book := e.queues.all.outcomes.book.Load()
	if book == nil {
		return
	}
	e.delivery = new(outcome.Delivery)
	now := time.Now()
	book.Begin(e.delivery, sha256.Sum256(fmt.Appendf(nil, "queue %s %d", e.holding.id(e.message.ID()), now.UnixNano())), now)
}

// done takes the results, and goes on with another message or leaves.
func (e *errand) done(why metrics.Reason) {
	r := result{holding: e.holding, message: e.message, outcome: queue.Outcome{Server: e.out.Name()}, delivery: e.delivery}
	good := false
	for _, one := range e.out.Results() {
		r.outcome.Results = append(r.outcome.Results, queue.Result(one))
		good = good || one.Code/100 == 2
		r.lost = r.lost || one.Code == 0
	}
	if !e.out.Begun() {
		r.untried = e.out.Results()[0].Reply
	}
	if good { // a flow is counted as one of the client whose message was its first
		e.flow.Metrics().Request()
	}
	again := e.out.OK() && e.count < mostErrands && e.shares()
	e.queues.done(e, r, !again)
	if !again {
		e.leave(why)
		return
	}
	e.message = e.queues.another(e)
	if e.message == nil {
		e.queues.idle(e)
		e.leave(why)
		return
	}
	e.send(e.out.Again(e.envelope()))
	e.flow.Conn.SetTimeout(replyTime)
}

// shares says whether messages of several clients may go over one connection: the server is not told whose they are.
func (e *errand) shares() bool {
	return e.backend.Told().Handover == backend.HandoverNone && e.backend.Pool().Spec.Source == backend.SourceEdge
}

// leave ends the connection: as the server is used to, if it is in order.
func (e *errand) leave(why metrics.Reason) {
	f := e.flow
	e.flow = nil
	if e.out.OK() {
		e.counts.ToServer += uint64(len("QUIT\r\n"))
		f.Conn.Write([]byte("QUIT\r\n"))
		f.Conn.SetHandler(leaving{})
		f.Conn.SetTimeout(lingerTime)
	} else {
		f.Conn.Abort()
	}
	f.End(e.counts, why)
}
