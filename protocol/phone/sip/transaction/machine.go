// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

// Hot path: no allocation per packet.

// Machine is the state of one transaction. Times are nanoseconds of its owner's clock.
type Machine struct {
	kind     Kind
	state    State
	reliable bool

	repeat   int64 // when to send again; 0 is never
	interval int64 // and how long that was
	end      int64 // when the state is left; 0 is never
}

// State returns where the machine stands.
func (m *Machine) State() State { return m.state }

// Next returns when the machine has something to do, or 0.
func (m *Machine) Next() int64 {
	if m.repeat > 0 && (m.end == 0 || m.repeat < m.end) {
		return m.repeat
	}
	return m.end
}

// Start begins: the request of a client goes out, that of a server is the user's.
func (m *Machine) Start(k Kind, reliable bool, t *Timers, now int64) Do {
	*m = Machine{kind: k, reliable: reliable}
	switch k {
	case InviteClient, Client: // RFC 3261 §17.1.1.2: timers A and B; §17.1.2.2: E and F
		m.end = now + t.long()
		m.again(now, t.t1())
		return Send
	case InviteServer: // RFC 3261 §17.2.1
		m.state, m.repeat = Proceeding, now+trying
	case Server: // RFC 4320 §4: after timer F of the client nobody wants to hear of it
		m.end = now + t.long()
	}
	return Pass
}

// again lets the message go out once more, where the transport may have lost it.
func (m *Machine) again(now, interval int64) {
	if m.reliable {
		m.repeat = 0
		return
	}
	m.interval, m.repeat = interval, now+interval
}

// leave enters a state that ends by itself; at once if wait is 0.
func (m *Machine) leave(s State, now, wait int64) Do {
	m.state, m.repeat, m.end = s, 0, now+wait
	if wait == 0 {
		return m.over()
	}
	return 0
}

func (m *Machine) over() Do {
	m.state, m.repeat, m.end = Ended, 0, 0
	return End
}

// linger is how long a machine waits for what the transport may have sent twice: not at all where it does not.
func (m *Machine) linger(wait int64) int64 {
	if m.reliable {
		return 0
	}
	return wait
}

// Response is called when one came for a client.
func (m *Machine) Response(status int, t *Timers, now int64) Do {
	if m.kind == InviteClient {
		return m.inviteResponse(status, t, now)
	}
	switch {
	case m.state > Proceeding: // Completed: it came again
		return 0
	case status < 200: // RFC 3261 §17.1.2.2: in Proceeding, E is T2
		if m.state == Begun && m.repeat > 0 {
			m.again(now, t.t2())
		}
		m.state = Proceeding
		return Pass
	}
	return Pass | m.leave(Completed, now, m.linger(t.t4())) // K
}

// inviteResponse is RFC 3261 §17.1.1.2, and RFC 6026 §7.2 for 2xx.
func (m *Machine) inviteResponse(status int, t *Timers, now int64) Do {
	switch {
	case m.state == Completed && status >= 300:
		return Ack
	case m.state == Accepted && status >= 200 && status < 300:
		return Pass
	case m.state > Proceeding:
		return 0
	case status < 200:
		if m.state == Begun {
			m.state, m.repeat, m.end = Proceeding, 0, 0
		}
		return Pass
	case status < 300:
		return Pass | m.leave(Accepted, now, t.long()) // M
	}
	return Pass | Ack | m.leave(Completed, now, m.linger(timerD))
}

// Cancel is called when CANCEL goes out for an INVITE: an answer is waited for no longer than for one that was never
// answered. RFC 3261 §9.1.
func (m *Machine) Cancel(t *Timers, now int64) {
	if m.kind == InviteClient && m.state == Proceeding && m.end == 0 {
		m.end = now + t.long()
	}
}

// Request is called when the request of a server came again.
func (m *Machine) Request() Do {
	switch {
	case m.state == Proceeding, m.state == Completed:
		return Send
	}
	return 0 // Begun: there is nothing to send. Accepted: RFC 6026 §7.1. Confirmed: it was late
}

// ACK is called when one came for an INVITE that was answered.
func (m *Machine) ACK(t *Timers, now int64) Do {
	switch m.state {
	case Completed:
		return m.leave(Confirmed, now, m.linger(t.t4())) // I
	case Accepted: // RFC 6026 §7.1: the user's, who sends the 2xx until it comes
		return Pass
	}
	return 0
}

// Answer is called when the user answers.
func (m *Machine) Answer(status int, t *Timers, now int64) Do {
	if m.kind == Server {
		return m.answer(status, t, now)
	}
	switch {
	case m.state == Accepted && status >= 200 && status < 300:
		return Send
	case m.state != Proceeding:
		return 0
	case status < 200:
		m.repeat = 0 // 100 needs not be sent any more
		return Send
	case status < 300:
		return Send | m.leave(Accepted, now, t.long()) // RFC 6026 §7.1: L
	}
	m.state, m.end = Completed, now+t.long() // H
	m.again(now, t.t1())                     // G
	return Send
}

// answer is RFC 3261 §17.2.2.
func (m *Machine) answer(status int, t *Timers, now int64) Do {
	switch {
	case m.state > Proceeding:
		return 0
	case status < 200:
		m.state = Proceeding
		return Send
	}
	return Send | m.leave(Completed, now, m.linger(t.long())) // J
}

// Failed is called when the transport could not send, which ends all but the server of an INVITE. RFC 3261 §17.1.4,
// §17.2.4, RFC 6026 §7.1.
func (m *Machine) Failed() Do {
	if m.kind == InviteServer || m.state == Ended {
		return 0
	}
	return m.over()
}

// Time is called when it is Next.
func (m *Machine) Time(t *Timers, now int64) Do {
	if m.end > 0 && now >= m.end {
		silent := m.state <= Proceeding || m.kind == InviteServer && m.state == Completed // B, F, H
		if m.over(); silent {
			return Timeout | End
		}
		return End
	}
	if m.repeat == 0 || now < m.repeat {
		return 0
	}
	if m.kind == InviteServer && m.state == Proceeding {
		m.repeat = 0
		return Trying
	}
	next := m.interval * 2 // A doubles without end
	if m.kind != InviteClient {
		next = min(next, t.t2()) // E, G
	}
	m.again(now, next)
	return Send
}
