// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// record is a Handler, and the Owner of all streams, that writes down what it is told.
type record struct {
	conn   *Conn
	events []string
	bodies map[uint32]string
	opened func(s *Stream, head []byte, end bool) // called too, if set
	write  func(s *Stream)
	keep   bool // what comes is not consumed
}

func (r *record) note(format string, a ...any) {
	r.events = append(r.events, fmt.Sprintf(format, a...))
}

func (r *record) Opened(s *Stream, head []byte, end bool) {
	s.Owner = r
	r.note("%d opened %q end=%t", s.ID, head, end)
	if r.opened != nil {
		r.opened(s, head, end)
	}
}

func (r *record) Refused(e *Error) { r.note("refused: %s", e.Reason) }

func (r *record) GoingAway(last uint32, code Code) { r.note("going away after %d: %d", last, code) }

func (r *record) Answered(s *Stream, head []byte, end bool) {
	r.note("%d answered %q end=%t", s.ID, head, end)
}

func (r *record) Data(s *Stream, p []byte) {
	if r.bodies == nil {
		r.bodies = map[uint32]string{}
	}
	r.bodies[s.ID] += string(p)
	if !r.keep {
		r.conn.Consumed(s, len(p))
	}
}

func (r *record) Ended(s *Stream, trailers []byte) {
	r.note("%d body %q trailers %q", s.ID, r.bodies[s.ID], trailers)
}

func (r *record) Reset(s *Stream, code Code) { r.note("%d reset: %d", s.ID, code) }

func (r *record) Writable(s *Stream) {
	if r.write != nil {
		r.write(s)
	}
}

// feed shows c the bytes of in, step more at a time, as an event loop would.
func feed(c *Conn, h Handler, in []byte, step int) error {
	from, to := 0, 0
	for to < len(in) {
		to = min(to+step, len(in))
		n, err := c.Read(in[from:to:to], h, 0)
		if err != nil {
			return err
		}
		from += n
	}
	return nil
}

// peer makes what the other end of a connection sends.
type peer struct {
	bytes.Buffer
	*xhttp2.Framer
	encoder *hpack.Encoder
	block   bytes.Buffer
}

func newPeer() *peer {
	p := &peer{}
	p.Framer = xhttp2.NewFramer(&p.Buffer, nil)
	p.AllowIllegalWrites, p.AllowIllegalReads = true, true
	p.encoder = hpack.NewEncoder(&p.block)
	return p
}

// newClientPeer has sent its preface.
func newClientPeer() *peer {
	p := newPeer()
	p.WriteString(Preface)
	p.WriteSettings()
	return p
}

// fields encodes pairs of names and values.
func (p *peer) fields(pairs ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		p.encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(p.block.Bytes())
}

// head sends HEADERS with these fields.
func (p *peer) head(id uint32, end bool, pairs ...string) {
	p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.fields(pairs...), EndStream: end, EndHeaders: true})
}

// request sends a request for / with more fields.
func (p *peer) request(id uint32, method string, end bool, pairs ...string) {
	p.head(id, end, append([]string{":method", method, ":scheme", "https", ":path", "/", ":authority", "a"}, pairs...)...)
}

// frames lists what c owes, in words.
func frames(t testing.TB, out []byte) (list []string) {
	t.Helper()
	fr := xhttp2.NewFramer(nil, bytes.NewReader(bytes.TrimPrefix(out, []byte(Preface))))
	fr.ReadMetaHeaders = hpack.NewDecoder(tableSize, nil)
	for {
		f, err := fr.ReadFrame()
		switch f := f.(type) {
		case nil:
			if se, ok := errors.AsType[xhttp2.StreamError](err); ok {
				t.Fatalf("our frame is malformed: %v", se)
			}
			if err.Error() != "EOF" {
				t.Fatalf("our frames: %v", err)
			}
			return list
		case *xhttp2.SettingsFrame:
			if f.IsAck() {
				list = append(list, "settings ack")
			}
		case *xhttp2.PingFrame:
			list = append(list, fmt.Sprintf("ping %q ack=%t", f.Data[:], f.IsAck()))
		case *xhttp2.RSTStreamFrame:
			list = append(list, fmt.Sprintf("%d reset: %d", f.StreamID, f.ErrCode))
		case *xhttp2.GoAwayFrame:
			list = append(list, fmt.Sprintf("goaway after %d: %d", f.LastStreamID, f.ErrCode))
		case *xhttp2.WindowUpdateFrame:
			list = append(list, fmt.Sprintf("%d window +%d", f.StreamID, f.Increment))
		case *xhttp2.DataFrame:
			list = append(list, fmt.Sprintf("%d data %q end=%t", f.StreamID, f.Data(), f.StreamEnded()))
		case *xhttp2.MetaHeadersFrame:
			var b strings.Builder
			for _, x := range f.Fields {
				fmt.Fprintf(&b, "%s: %s|", x.Name, x.Value)
			}
			list = append(list, fmt.Sprintf("%d head %s end=%t", f.StreamID, b.String(), f.StreamEnded()))
		default:
			list = append(list, fmt.Sprint(f))
		}
	}
}

// parseResponse reads a response as the backend of an exchange would write it.
func parseResponse(t testing.TB, text string, x http1.Exchange) *http1.Response {
	t.Helper()
	r := new(http1.Response)
	if n, err := r.Parse([]byte(text), x, &http1.Limits{}); n != len(text) || err != nil {
		t.Fatalf("Response.Parse(%q) = %d, %v", text, n, err)
	}
	return r
}

// parseRequest reads a request head as text.
func parseRequest(t testing.TB, text string) *http1.Request {
	t.Helper()
	r := new(http1.Request)
	if n, err := r.Parse([]byte(text), &http1.Limits{}); n != len(text) || err != nil {
		t.Fatalf("Request.Parse(%q) = %d, %v", text, n, err)
	}
	return r
}
