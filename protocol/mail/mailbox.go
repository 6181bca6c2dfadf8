// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/relay"
)

// tongue is what IMAP and POP3 say in different words.
type tongue struct {
	client   func(login.Identity, *login.Login, login.Privacy) login.Client
	handover backend.Handover // by which a backend is told who the client is
	least    string           // what a backend can do of which nothing is known
	refused  string           // to who may not come in
	restart  string           // to who must come again
	silent   string           // to who has said nothing for long
}

// server is the machine of a client's side.
type server interface {
	login.Server
	Greeting(dst []byte) []byte
}

// mailbox is a client until its mailbox is open, and the handler of its connection.
//
//	Data ─▶ login.Server ─▶ answered here
//	                     └▶ Attempt ─▶ route.Dial by user ─▶ visit ─ login.Client ─▶ relay.Splice
//
// Behind the login nothing of it is left: the connections are handed to each other, and a session that waits for mail
// (RFC 9051 §6.3.13, IDLE) holds neither a goroutine nor a buffer.
type mailbox struct {
	front  *front
	table  *table
	tongue *tongue
	conn   *relay.Conn
	in     server
	visit  *visit

	visitors *visitors // among whom it is counted

	waits  bool // a backend is asked: nothing more is read
	paused bool // something more has come meanwhile
	over   bool
}

// offers is what the backends of a front can do, as one of them has said.
type offers struct {
	words []byte
	at    int64 // on the loops' clock
}

// offersFor is how long it is believed.
const offersFor = time.Minute

// loginTime is how long a backend may take for each step of a login. Some make who was wrong wait.
const loginTime = time.Minute

// newMailbox begins with a client.
func newMailbox(f *front, t *table, c *relay.Conn, w *tongue, in server) {
	m := &mailbox{front: f, table: t, tongue: w, conn: c, in: in, visitors: t.visitors}
	m.visitors.begin()
	c.SetHandler(m)
	switch {
	case !t.route.Allows(c.Remote().Addr()):
		t.route.Count(metrics.Denied)
		m.end(w.refused)
	case t.ending.Load():
		m.end(w.restart)
	default:
		if o := f.offers.Load(); o != nil && c.Loop().Now()-o.at < int64(offersFor) {
			m.in.Know(o.words)
		}
		c.Write(m.in.Greeting(f.scratch(c)))
		c.SetTimeout(t.options.Timeouts.Command)
	}
}

// scratch is where what is sent is rendered. It is free again when it has been written.
func (f *front) scratch(c *relay.Conn) []byte { return f.all.locals[c.Loop().ID()].out[:0] }

// Data implements relay.Handler.
func (m *mailbox) Data(c *relay.Conn, p []byte) (used int) {
	for !m.over {
		if m.waits {
			if used < len(p) {
				m.paused = true
				c.Pause()
			}
			return used
		}
		e, n := m.in.Next(p[used:])
		used += n
		if e.Kind == login.More && n == 0 || e.Kind == login.Upgrade {
			m.do(e)
			return used
		}
		m.do(e)
	}
	return len(p)
}

// do does what the client's machine says.
func (m *mailbox) do(e login.Event) {
	switch e.Kind {
	case login.Reply:
		m.conn.Write(e.Text)
		m.conn.SetTimeout(m.table.options.Timeouts.Command)
	case login.Close:
		if e.Refusal != 0 {
			m.table.route.Count(metrics.ClientFault)
		}
		m.end(string(e.Text))
	case login.Upgrade:
		m.conn.Write(e.Text)
		m.visitors.end() // until the handshake is done
		m.table.shake(m.conn, func() {
			m.visitors.here.Add(1)
			m.in.Tell(login.Secured)
			m.conn.SetHandler(m)
			m.conn.SetTimeout(m.table.options.Timeouts.Command)
		})
	case login.Wanted:
		m.call(backend.Client{}, nil)
	case login.Attempt:
		m.attempt(e.Login)
	case login.Line:
		m.wait()
		m.visit.send(e.Text)
	}
}

// attempt brings a login to the user's backend.
func (m *mailbox) attempt(l *login.Login) {
	m.table = m.front.current.Load()
	if !m.table.route.Admit(limit.FailedLogins, m.conn.Remote().Addr(), m.conn.Loop().Now()) {
		m.visitors.logins[limited].Add(1)
		m.do(m.in.Tell(login.TooMany))
		return
	}
	m.seek(l)
}

// userKey is what stands for a user where a backend is chosen: the same in every process, and never 0. Domains are the
// same in either case, and so, on most servers, is what stands before them.
func userKey(user []byte) uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range user {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return max(h, 1)
}

// call reaches a backend, with a login or to ask what it can do.
func (m *mailbox) call(client backend.Client, l *login.Login) {
	m.wait()
	client.Addr, client.Dialled = m.conn.Remote(), m.conn.Local()
	v := &visit{mailbox: m, login: l}
	m.visit = v
	m.table.route.Dial(m.conn.Loop(), client, false, v.dialled)
}

// wait says that a backend is asked. How long that takes is not the client's fault.
func (m *mailbox) wait() {
	m.waits = true
	m.conn.SetTimeout(0)
}

// resume reads on.
func (m *mailbox) resume() {
	m.waits = false
	if m.over {
		return
	}
	m.conn.SetTimeout(m.table.options.Timeouts.Command)
	if m.paused {
		m.paused = false
		m.conn.Resume()
	}
}

// told says what became of a login, and reads on.
func (m *mailbox) told(o login.Outcome, text []byte) {
	m.conn.Write(text)
	m.do(m.in.Tell(o))
	m.resume()
}

// learn keeps what a backend can do.
func (m *mailbox) learn(words []byte) {
	if words == nil {
		return
	}
	m.front.offers.Store(&offers{words, m.conn.Loop().Now()})
	m.in.Know(words)
}

// open hands the connections to each other: the backend has let the user in.
func (m *mailbox) open(f *backend.Flow, c metrics.Counts, text []byte) {
	m.table.route.Limits.GiveBack(limit.FailedLogins, m.conn.Remote().Addr())
	m.conn.Write(text)
	m.over = true
	f.Metrics().Add(c)
	v := m.visitors // all that is left of m
	v.logins[accepted].Add(1)
	p := relay.Splice(m.conn, f.Conn, m.table.options.Timeouts.Mailbox, func(c metrics.Counts, r metrics.Reason) {
		f.End(c, r)
		v.end()
	})
	f.Counts, f.Cut = p.Counts, p.Cut
}

// Event implements relay.Handler.
func (m *mailbox) Event(_ *relay.Conn, e relay.Event) {
	switch {
	case e == relay.Drained:
	case e == relay.Timeout:
		m.table.route.Count(metrics.ClientTimeout)
		m.end(m.tongue.silent)
	default: // who ends his half before he is logged in has gone: no server is kept for him
		m.close(metrics.ClientReset)
	}
}

// Closed implements relay.Handler.
func (m *mailbox) Closed(*relay.Conn, error) { m.close(metrics.ClientReset) }

// end says a last word and closes.
func (m *mailbox) end(text string) {
	m.conn.Write([]byte(text))
	m.leave(metrics.Fine)
	m.conn.Linger(lingerTime)
}

// close ends the session without a word.
func (m *mailbox) close(r metrics.Reason) {
	m.leave(r)
	m.conn.Close()
}

func (m *mailbox) leave(r metrics.Reason) {
	if !m.over {
		m.over = true
		m.visitors.end()
	}
	if v := m.visit; v != nil {
		v.drop(r)
	}
}

// drain says goodbye if nobody follows and no backend is asked; who has a mailbox open is not asked.
func (m *mailbox) drain() {
	if m.front.current.Load().ending.Load() && !m.waits {
		m.end(m.tongue.restart)
	}
}
