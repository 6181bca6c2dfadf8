// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// maxAnswers bounds the answers to key updates that wait for a peer, in bytes.
const maxAnswers = 32 << 10

var (
	errWait    = error(waitError{})
	errAnswers = errors.New("relay: too many key updates")
)

// waitError tells crypto/tls that there are no bytes now. Being temporary it does not break the connection: the next
// Read goes on in the middle of a record.
type waitError struct{}

func (waitError) Error() string   { return "relay: no bytes yet" }
func (waitError) Timeout() bool   { return true }
func (waitError) Temporary() bool { return true }

// tlsState is TLS on a connection. crypto/tls reads and writes through it as if it were the socket.
//
// It has two lives. During the handshake, which computes and waits, crypto/tls runs on a goroutine: the loop brings
// it bytes, and it sends by itself. Afterwards everything is on the loop, and a Read that finds no bytes returns
// errWait.
type tlsState struct {
	conn    *tls.Conn
	owner   *Conn
	server  bool   // which side of TLS we have
	pending bool   // bytes may be left in tls.Conn or in in
	sent    []byte // ciphertext that crypto/tls has written on the loop
	in      []byte // ciphertext that crypto/tls has not read
	answers int    // bytes of answers to key updates since nothing waited to be sent

	gate chan struct{}

	shaking bool    // the goroutine has not come back
	lost    error   // why the connection broke meanwhile,
	told    Handler // of which this one will be told

	mu     sync.Mutex // guards what follows, and in, during the handshake
	more   sync.Cond
	done   bool // the handshake is over: the loop owns everything
	gone   bool // the connection is closed
	ended  bool // the peer has ended its half
	behind bool // output waits on the loop, and more of it must wait behind
	unsent []byte
}

// StartServerTLS makes c a TLS server. Bytes that were not consumed are the beginning of the handshake. When it is
// done the handler's Data sees what was encrypted; before that the handler is told only Timeout and Closed. ready is
// called on the loop after the handshake. The handler's Closed gets ErrBusy if there are too many. If the handshake
// fails, the connection may outlive Closed for a moment, so that the client learns why, and Closed may come a moment
// later, so that we do.
func (c *Conn) StartServerTLS(config *tls.Config, ready func(tls.ConnectionState)) {
	s := c.newTLS()
	s.server = true
	s.conn = tls.Server(s, config)
	s.start(ready)
}

// StartClientTLS makes c a TLS client. What was written before goes first, in clear. ready is called on the loop, once
// and never before StartClientTLS returns: with a connection that has no handler yet, or with the error that has closed
// it: ErrTimeout if the time given to SetTimeout has passed, ErrBusy, what was wrong with the peer's certificate
// (*tls.CertificateVerificationError), what the peer said of ours, or why the connection broke. It is not called if c
// is closed.
//
// In TLS 1.3 a peer that refuses our certificate says so after the handshake: RFC 8446 §4.4.2.4. The handler then
// learns it from Closed.
func (c *Conn) StartClientTLS(config *tls.Config, ready func(tls.ConnectionState, error)) {
	s := c.newTLS()
	s.conn = tls.Client(s, config)
	c.SetHandler(greeting{ready})
	s.start(func(state tls.ConnectionState) {
		c.SetTimeout(0)
		c.SetHandler(nobody{})
		ready(state, nil)
	})
}

func (c *Conn) newTLS() *tlsState {
	c.tls = &tlsState{owner: c, gate: c.loop.all.handshakes.gate, behind: c.Buffered() > 0}
	c.tls.more.L = &c.tls.mu
	return c.tls
}

// start begins the handshake.
func (s *tlsState) start(ready func(tls.ConnectionState)) {
	c := s.owner
	if !c.loop.all.handshakes.start(func() { s.handshake(ready) }) {
		c.loop.Post(func() { c.fail(ErrBusy) })
		return
	}
	s.shaking = true
	c.Resume() // brings what is held back to takeHeld
}

// TLS returns the state of the connection's TLS, or nil.
func (c *Conn) TLS() *tls.ConnectionState {
	if c.tls == nil || !c.tls.done {
		return nil
	}
	s := c.tls.conn.ConnectionState()
	return &s
}

// read takes ciphertext from the socket.
func (s *tlsState) read(c *Conn) {
	p := c.loop.scratch[:]
	n, ok := c.receive(p)
	s.mu.Lock()
	if s.done {
		s.mu.Unlock()
		if ok {
			s.feed(c, p[:n])
		}
		return
	}
	defer s.mu.Unlock()
	switch {
	case c.flags&eof != 0:
		s.ended = true
	case ok:
		s.in = append(s.in, p[:n]...)
		if len(s.in) > maxHandshake {
			c.Pause() // what follows the handshake can wait in the socket until finish
		}
	}
	s.more.Signal()
}

// takeHeld takes the ciphertext that came before TLS was started.
func (s *tlsState) takeHeld(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b := c.in.first; b != nil; b = b.next {
		s.in = append(s.in, b.bytes()...)
	}
	c.in.clear(&c.loop.all.buffers)
	s.more.Signal()
}

// feed decrypts p and keeps what the handler has no wish for now. What comes after close_notify is ignored: RFC 8446
// §6.1.
func (s *tlsState) feed(c *Conn, p []byte) {
	switch {
	case c.flags&eof != 0:
		return
	case len(s.in) > 0:
		s.in = append(s.in, p...)
		s.drain(c)
		return
	}
	s.in = p
	if s.drain(c); len(s.in) > 0 {
		s.in = append([]byte(nil), s.in...)
	}
}

// drain decrypts what there is and shows it to the handler.
func (s *tlsState) drain(c *Conn) {
	s.pending = true
	for s.pending && c.flags&(paused|owed|closed|closing) == 0 {
		err := s.decrypt(c)
		switch {
		case err == nil || errors.Is(err, errWait) || c.flags&closed != 0:
		case errors.Is(err, io.EOF):
			c.flags |= eof
			s.in = nil
		default:
			c.fail(err)
		}
	}
	if len(s.in) == 0 {
		s.in = nil // keeps no memory while the connection is idle
	}
}

// decrypt delivers as many records as there are and have room.
func (s *tlsState) decrypt(c *Conn) (err error) {
	p, n := c.space(c.loop.plain[:]), 0
	for n < len(p) && err == nil {
		var k int
		k, err = s.conn.Read(p[n:])
		n += k
	}
	s.pending = err == nil
	if len(s.sent) > 0 && !s.answer(c) {
		return errAnswers
	}
	if n > 0 {
		c.arrive(p[:n])
	}
	return err
}

// answer sends the answer to a key update: RFC 8446 §4.6.3. A peer that asks for many and reads none would have us keep
// them; then it returns false.
func (s *tlsState) answer(c *Conn) bool {
	if c.out.size == 0 {
		s.answers = 0
	}
	s.answers += len(s.sent)
	s.transmit(c)
	return s.answers <= maxAnswers
}

// write encrypts p into as few sends as possible.
func (s *tlsState) write(c *Conn, p []byte) {
	if !s.done {
		return
	}
	s.sent = c.loop.cipher[:0]
	_, err := s.conn.Write(p)
	c.loop.cipher = s.sent[:0]
	s.transmit(c)
	if err != nil {
		c.failLater(err)
	}
}

// end sends close_notify. RFC 8446 §6.1.
func (s *tlsState) end(c *Conn) {
	if !s.done {
		return
	}
	s.conn.CloseWrite() // fails only if writing has failed before
	s.transmit(c)
}

func (s *tlsState) transmit(c *Conn) {
	if p := s.sent; len(p) > 0 {
		s.sent = nil
		c.transmit(p)
	}
}

// close ends a handshake that is under way.
func (s *tlsState) close() {
	s.mu.Lock()
	s.gone = true
	s.mu.Unlock()
	s.more.Signal()
}

// Read implements net.Conn for crypto/tls.
func (s *tlsState) Read(p []byte) (int, error) {
	if s.done {
		if len(s.in) == 0 {
			return 0, errWait
		}
		return s.take(p), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in) == 0 && !s.gone && !s.ended {
		<-s.gate
		for len(s.in) == 0 && !s.gone && !s.ended {
			s.more.Wait()
		}
		s.mu.Unlock()
		s.gate <- struct{}{}
		s.mu.Lock()
	}
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	return s.take(p), nil
}

func (s *tlsState) take(p []byte) int {
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n
}

// Write implements net.Conn for crypto/tls.
func (s *tlsState) Write(p []byte) (int, error) {
	if s.done {
		s.sent = append(s.sent, p...)
		return len(p), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return 0, os.ErrClosed
	}
	rest := p
	if !s.behind {
		if n, errno := send(int(s.owner.fd), p); errno == 0 {
			rest = p[n:]
		}
	}
	if len(rest) > 0 {
		s.behind = true
		s.unsent = append(s.unsent, rest...)
		s.owner.loop.Post(s.flush)
	}
	return len(p), nil
}

// The rest of net.Conn, which crypto/tls asks for but does not need here: the loop has the deadlines.

func (s *tlsState) Close() error                     { return nil }
func (s *tlsState) LocalAddr() net.Addr              { return unixAddr{} }
func (s *tlsState) RemoteAddr() net.Addr             { return unixAddr{} }
func (s *tlsState) SetDeadline(time.Time) error      { return nil }
func (s *tlsState) SetReadDeadline(time.Time) error  { return nil }
func (s *tlsState) SetWriteDeadline(time.Time) error { return nil }

// unixAddr stands for an address that nobody asks for.
type unixAddr struct{}

func (unixAddr) Network() string { return "loop" }
func (unixAddr) String() string  { return "loop" }
