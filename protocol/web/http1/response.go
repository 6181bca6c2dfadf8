// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

// Response is the head of a response. Its zero value is ready for Parse, and may be used again for the next one.
// Slices point into the bytes parsed.
type Response struct {
	Status  int // 100 to 999
	Reason  []byte
	Minor   uint8 // of the version: HTTP/1.Minor
	Framing Framing
	Length  int64 // of the body, if Framing is Length

	// KeepAlive says that the backend's connection may serve another request when the body has ended, if the request
	// has been sent whole.
	KeepAlive bool

	head
	usual bool // the status line is what we would write
}

// Interim says whether another response to the same request follows. RFC 9110 §15.2. After 101 none does: the
// connection is a WebSocket's.
func (r *Response) Interim() bool { return r.Status < 200 && r.Status != 101 }

// Parse reads the head of a response to x at the start of p and returns its length. If p does not hold all of it yet,
// n is 0: call again with the same bytes and more; they may have moved. After an error, always an *Error with status
// 502, the connection must be closed.
func (r *Response) Parse(p []byte, x Exchange, l *Limits) (n int, err error) {
	if !r.busy {
		r.begin()
	}
	n, e := r.parse(p, x, l)
	if e != nil {
		r.busy = false
		return 0, e.byBackend()
	}
	r.busy = n == 0
	return n, nil
}

func (r *Response) parse(p []byte, x Exchange, l *Limits) (n int, err *Error) {
	if r.first == 0 {
		limit := min(len(p), l.head())
		end, err := r.line(p[:limit])
		if err != nil {
			return 0, err
		}
		if end < 0 {
			if limit < len(p) || limit == l.head() {
				return 0, ErrLongHead
			}
			return 0, nil
		}
		if err = r.statusLine(p[:end]); err != nil {
			return 0, err
		}
		r.next, r.first = end+2, end+2
	}
	if n, err = r.lines(p, l, true); n == 0 || err != nil {
		return 0, err
	}
	return n, r.finish(x)
}

// statusLine reads version, status and reason. RFC 9112 §4. Some servers leave out the space before no reason.
func (r *Response) statusLine(p []byte) (err *Error) {
	const reason = len("HTTP/1.1 200 ")
	if len(p) < reason-1 || p[8] != ' ' || len(p) >= reason && p[12] != ' ' {
		return ErrStatusLine
	}
	if r.minor, err = parseVersion(p[:8], ErrStatusLine); err != nil {
		return err
	}
	r.Status = 0
	for _, c := range p[9:12] {
		if c-'0' > 9 {
			return ErrStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 {
		return ErrStatusLine
	}
	r.usual = r.minor == 1 && len(p) >= reason
	return nil
}

// finish makes of the lines what a Response says.
func (r *Response) finish(x Exchange) *Error {
	r.Minor, r.Reason = r.minor, nil
	if reason, end := len("HTTP/1.1 200 "), r.first-2; end > reason {
		r.Reason = r.buf[reason:end]
	}
	if err := r.frame(); err != nil {
		return err
	}
	if err := r.connection(); err != nil {
		return err
	}
	r.KeepAlive = r.keepAlive()
	r.Framing, r.Length = r.framing, r.length
	switch {
	case r.Status < 200 || r.Status == 204:
		// RFC 9110 §8.6, RFC 9112 §6.1: these say nothing of a body. Many servers write "Content-Length: 0", which means
		// no more than nothing; AppendResponse leaves it out. Anything else is a body for somebody.
		if r.framing == Chunked || r.framing == Length && r.length > 0 {
			return ErrEmpty
		}
		r.Framing = NoBody
		if r.Status == 101 {
			return r.checkSwitch(x)
		}
	case r.Status == 304 || x.Verb == Head: // the fields describe what would have been sent
		r.Framing = NoBody
	case r.framing == NoBody:
		r.Framing, r.KeepAlive = UntilClose, false
	}
	return nil
}

// checkSwitch holds a 101 against what was asked for. RFC 9110 §7.8.
func (r *Response) checkSwitch(x Exchange) *Error {
	r.KeepAlive = false
	if !x.Upgrade || !r.seen.has(kindUpgrade) || r.twice.has(kindUpgrade) ||
		!foldText(r.text(r.last(kindUpgrade)), "websocket") {
		return ErrSwitch
	}
	return nil
}

// Persists says whether the client's connection may serve another request when the response has been sent.
func (r *Response) Persists(x Exchange) bool {
	return x.KeepAlive && r.Framing != UntilClose && r.Status != 101 && !r.unframed(x)
}

// unframed says that the body must be sent without its chunks, until we close: RFC 9112 §6.1, a client of HTTP/1.0
// knows no transfer codings.
func (r *Response) unframed(x Exchange) bool { return x.Minor == 0 && r.Framing == Chunked }

// Chunks says whether the body goes in chunks to the client that asked x.
func (r *Response) Chunks(x Exchange) bool { return r.Framing == Chunked && !r.unframed(x) }

// Body returns what follows the head.
func (r *Response) Body(x Exchange) Body {
	b := newBody(r.Framing, r.Length)
	b.unframed = r.unframed(x)
	return b
}
