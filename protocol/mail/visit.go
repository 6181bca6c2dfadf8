// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/relay"
)

// visit is a client's connection to a backend until the login there has come to its end, and its handler.
type visit struct {
	mailbox *mailbox     // nil when it has left
	login   *login.Login // nil only asks what the backend can do
	flow    *backend.Flow
	out     login.Client
	counts  metrics.Counts
}

// dialled is called when a backend has been reached, or none can be.
func (v *visit) dialled(f *backend.Flow, err error) {
	m := v.mailbox
	switch {
	case m == nil && err == nil: // the client has gone
		f.Conn.Close()
		f.End(metrics.Counts{}, metrics.ClientReset)
	case m == nil:
	case err != nil:
		m.table.route.Refused(m.conn.Loop(), backend.Client{Addr: m.conn.Remote(), Dialled: m.conn.Local()}, err)
		v.mailbox, m.visit = nil, nil
		v.answer(m, login.Unavailable, nil)
	default:
		v.flow = f
		f.Counts, f.Cut = func() metrics.Counts { return v.counts }, v.cut
		id := login.Identity{Client: f.Carried(), Dialled: f.Dialled()}
		id.Told = f.Pool.Spec.Handover == backend.HandoverAuto || f.Pool.Spec.Handover == m.tongue.handover
		v.out = m.tongue.client(id, v.login, privacy(&f.Pool.Spec))
		if v.login != nil {
			f.Metrics().Request()
		}
		f.Conn.SetHandler(v)
		f.Conn.SetTimeout(loginTime)
	}
}

// Data implements relay.Handler.
func (v *visit) Data(c *relay.Conn, p []byte) (used int) {
	for v.mailbox != nil {
		e, n := v.out.Next(p[used:])
		used += n
		v.counts.ToClient += uint64(n)
		if e.Kind == login.More && n == 0 {
			return used
		}
		c.SetTimeout(loginTime)
		if v.do(e); e.Kind == login.Accepted {
			return used
		}
	}
	return len(p)
}

// do does what the backend's machine says.
func (v *visit) do(e login.Event) {
	m := v.mailbox
	switch e.Kind {
	case login.Send:
		v.send(e.Text)
	case login.Encrypt:
		v.encrypt()
	case login.Inform:
		m.conn.Write(e.Text)
	case login.Asked:
		v.flow.Conn.SetTimeout(0) // it is the client's turn
		m.told(login.Challenged, e.Text)
	case login.Learned:
		m.learn(v.out.Offers())
		v.drop(metrics.Fine)
		m.resume()
	case login.Accepted:
		m.learn(v.out.Offers())
		v.mailbox, m.visit = nil, nil
		m.open(v.flow, v.counts, e.Text)
	case login.Denied:
		m.learn(v.out.Offers())
		v.drop(metrics.LoginFailed)
		m.visitors.logins[denied].Add(1)
		m.told(login.Answered, e.Text)
	case login.Failed:
		v.fail(metrics.ServerFault, e.Refusal)
	}
}

// send writes to the backend.
func (v *visit) send(p []byte) {
	v.counts.ToServer += uint64(len(p))
	v.flow.Conn.Write(p)
	v.flow.Conn.SetTimeout(loginTime)
}

// encrypt goes on in TLS.
func (v *visit) encrypt() {
	v.flow.StartTLS(loginTime, func(err error) {
		switch {
		case v.mailbox == nil: // the client has gone
			v.flow.Conn.Close()
			return
		case err != nil:
			v.fail(metrics.ConnectFailed, err)
			return
		}
		v.flow.Conn.SetHandler(v)
		v.flow.Conn.SetTimeout(loginTime)
		v.do(v.out.Secured())
	})
}

// privacy is how the servers of a pool are spoken to.
func privacy(s *backend.Spec) login.Privacy {
	switch {
	case !s.TLS.Asks():
		return login.Clear
	case s.TLS.Start == probe.Offered:
		return login.Offered
	}
	return login.Required
}

// fail gives the login up for now. A backend that cannot be told who the client is would take him for the edge, which it
// may well trust.
func (v *visit) fail(why metrics.Reason, err error) {
	m := v.mailbox
	if err != nil {
		m.front.all.log.Error("login not brought to a server", "service", m.table.service, "backend", v.flow.Backend.Addr.String(), "err", err)
	}
	v.drop(why)
	v.answer(m, login.Unavailable, nil)
}

// answer tells the client what became of its login, which is not one that failed, or of its question.
func (v *visit) answer(m *mailbox, o login.Outcome, text []byte) {
	if v.login == nil {
		m.in.Know([]byte(m.tongue.least))
		m.resume()
		return
	}
	m.table.route.Limits.GiveBack(limit.FailedLogins, m.conn.Remote().Addr())
	m.visitors.logins[unavailable].Add(1)
	m.told(o, text)
}

// Event implements relay.Handler.
func (v *visit) Event(_ *relay.Conn, e relay.Event) {
	switch e {
	case relay.Ended:
		v.fail(metrics.ServerReset, nil)
	case relay.Timeout:
		v.fail(metrics.ServerTimeout, nil)
	}
}

// Closed implements relay.Handler.
func (v *visit) Closed(*relay.Conn, error) { v.fail(metrics.ServerReset, nil) }

// cut ends the client's session because the drain deadline has passed.
func (v *visit) cut(r metrics.Reason) { v.mailbox.close(r) }

// drop leaves the backend.
func (v *visit) drop(why metrics.Reason) {
	v.mailbox.visit = nil
	v.mailbox = nil
	if v.flow != nil { // else it is told when it has been dialled
		v.flow.Conn.Close()
		v.flow.End(v.counts, why)
	}
}
