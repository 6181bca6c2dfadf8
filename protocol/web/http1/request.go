// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

// Request is the head of a request. Its zero value is ready for Parse, and may be used again for the next request.
// Slices point into the bytes parsed; what Host and Authority return is in the Request.
type Request struct {
	Method []byte
	Verb   Verb

	// Target is the origin-form ("/path?query", or "?query" where an absolute-form had no path) or "*".
	Target []byte

	Minor     uint8 // of the version: HTTP/1.Minor
	Framing   Framing
	Length    int64 // of the body, if Framing is Length
	KeepAlive bool  // the client would use the connection again
	Expect100 bool  // the client waits for 100 (Continue) before it sends the body

	// Upgrade says that the client asks for a WebSocket, the one protocol that may be switched to. RFC 6455 §4.1.
	// Clear it to refuse: the request then goes on as an ordinary one.
	Upgrade bool

	head
	start requestLine
	place authority
	star  [1]byte // what Target points to if it is "*"
}

// Parse reads a request head at the start of p and returns its length. If p does not hold all of it yet, n is 0: call
// again with the same bytes and more; they may have moved. After an error, always an *Error, the connection must be
// closed.
func (r *Request) Parse(p []byte, l *Limits) (n int, err error) {
	if !r.busy {
		r.begin()
		r.place.size, r.place.host = 0, 0
	}
	n, e := r.parse(p, l)
	if e != nil {
		r.busy = false
		return 0, e
	}
	r.busy = n == 0
	return n, nil
}

func (r *Request) parse(p []byte, l *Limits) (n int, err *Error) {
	if r.first == 0 {
		if err = r.readLine(p, l.line()); err != nil || r.first == 0 {
			return 0, err
		}
	}
	if n, err = r.lines(p, l, l.Underscores); n == 0 || err != nil {
		return 0, err
	}
	if l.Underscores && r.disguised() {
		return 0, ErrUnderscore
	}
	return n, r.finish()
}

// disguised says whether a server that cannot tell '_' from '-' would find a field in the head that means something to
// us, or that only we may write.
func (r *Request) disguised() bool {
	var plain [64]byte // longer than any name that kindOf knows, or the part of it that it looks at
	for i := range r.fields[:r.count] {
		f := &r.fields[i]
		if !f.under {
			continue
		}
		name := plain[:copy(plain[:], r.name(f))]
		for k, c := range name {
			if c == '_' {
				name[k] = '-'
			}
		}
		if kindOf(name) != endToEnd {
			return true
		}
	}
	return false
}

// readLine reads the request line, and the one empty line that may come before it: RFC 9112 §2.2, for clients that
// end a POST with one.
func (r *Request) readLine(p []byte, limit int) *Error {
	if r.next == 0 && len(p) > 0 && p[0] == '\r' {
		if len(p) == 1 {
			return nil
		}
		if p[1] != '\n' {
			return ErrBareCR
		}
		r.next, r.scan = 2, 2
	}
	limit += r.next
	p = p[:min(len(p), limit)]
	end, err := r.line(p)
	if err != nil {
		return err
	}
	if end < 0 {
		if len(p) == limit {
			return ErrLongTarget
		}
		return nil
	}
	if err = r.start.parse(p, r.next, end); err != nil {
		return err
	}
	r.next, r.first = end+2, end+2
	return nil
}

// finish makes of the lines what a Request says.
func (r *Request) finish() *Error {
	s := &r.start
	r.minor = s.minor
	r.Verb, r.Minor = s.verb, s.minor
	r.Method, r.Target = r.buf[s.method[0]:s.method[1]], r.buf[s.target[0]:s.target[1]]
	if s.star {
		r.star[0] = '*'
		r.Target = r.star[:]
	}
	if err := r.setPlace(); err != nil {
		return err
	}
	if err := r.frame(); err != nil {
		return err
	}
	r.Framing, r.Length = r.framing, r.length
	if err := r.connection(); err != nil {
		return err
	}
	r.KeepAlive = r.keepAlive()
	r.Upgrade = r.asksForWebSocket()
	return r.setExpect()
}

// setPlace finds the host that is asked for. RFC 9112 §3.2 and §3.2.2.
func (r *Request) setPlace() *Error {
	s := &r.start
	switch {
	case r.twice.has(kindHost):
		return ErrTwoHosts
	case !r.seen.has(kindHost) && r.minor == 1:
		return ErrNoHost
	case r.seen.has(kindHost):
		if err := r.place.set(r.text(r.last(kindHost))); err != nil {
			return err
		}
	}
	if s.authority[1] == 0 {
		return nil
	}
	return r.setAbsolute(r.buf[s.authority[0]:s.authority[1]])
}

// setAbsolute holds the authority of an absolute-form against the Host. RFC 9112 §3.2.2 has a proxy replace a Host
// that differs; we refuse it, because some server behind us may look at the other one.
func (r *Request) setAbsolute(text []byte) *Error {
	var a authority
	if err := a.set(text); err != nil {
		return err
	}
	if !r.seen.has(kindHost) {
		r.place = a
		return nil
	}
	if !r.place.same(&a, r.start.port) {
		return ErrOtherHost
	}
	return nil
}

// setExpect reads Expect. RFC 9110 §10.1.1: it means nothing from HTTP/1.0, and nothing without a body.
func (r *Request) setExpect() *Error {
	r.Expect100 = false
	if !r.seen.has(kindExpect) || r.minor == 0 {
		return nil
	}
	if r.twice.has(kindExpect) || !foldText(r.text(r.last(kindExpect)), "100-continue") {
		return ErrExpectation
	}
	r.Expect100 = r.Framing != NoBody
	return nil
}

// asksForWebSocket says whether the request is the one upgrade that we know. Every other one, h2c above all, would
// open a tunnel through which requests pass unseen (CVE-2026-88008), so it is left out. RFC 9110 §7.8.
func (r *Request) asksForWebSocket() bool {
	return r.seen.has(kindUpgrade) && !r.twice.has(kindUpgrade) && r.options.upgrade &&
		r.Verb == Get && r.minor == 1 && r.Framing == NoBody && foldText(r.text(r.last(kindUpgrade)), "websocket")
}

// foldText is fold for a text that may be anything.
func foldText(p []byte, lower string) bool { return isToken(p) && fold(p, lower) }

// Host returns the host asked for in its canonical form: in lower case, an IPv6 address in brackets, without a port.
// It is empty if an HTTP/1.0 client named none.
func (r *Request) Host() []byte { return r.place.name() }

// Authority returns the host with the port, if the client named one.
func (r *Request) Authority() []byte { return r.place.all() }

// Exchange returns what is needed of the request when the response comes.
func (r *Request) Exchange() Exchange {
	return Exchange{Verb: r.Verb, Minor: r.Minor, KeepAlive: r.KeepAlive, Upgrade: r.Upgrade}
}

// Body returns what follows the head.
func (r *Request) Body() Body { return newBody(r.Framing, r.Length) }
