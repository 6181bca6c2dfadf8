// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// TestMalformed has one row for each way in which a request can be malformed. It costs the stream, the owner is never
// told, and the connection goes on: RFC 9113 §8.1.1.
func TestMalformed(t *testing.T) {
	t.Parallel()
	get := []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a"}
	without := func(name string) []string {
		i := slices.Index(get, name)
		return slices.Delete(slices.Clone(get), i, i+2)
	}
	with := func(name, value string) []string {
		c := slices.Clone(get)
		c[slices.Index(get, name)+1] = value
		return c
	}
	and := func(pairs ...string) []string { return append(slices.Clone(get), pairs...) }
	for _, tt := range []struct {
		name   string // the rule, with the section that has it
		fields []string
		want   *Error
	}{
		{"upper case, RFC 9113 §8.2.1", and("X-A", "b"), errName},
		{"space in a name, RFC 9113 §8.2.1", and("x a", "b"), errName},
		{"CR LF in a name, RFC 9113 §8.2.1", and("x\r\nhost", "b"), errName},
		{"colon in a name, RFC 9113 §8.2.1", and("x:a", "b"), errName},
		{"NUL in a name, RFC 9113 §8.2.1", and("x\x00", "b"), errName},
		{"not ASCII in a name, RFC 9113 §8.2.1", and("x\xe9", "b"), errName},
		{"no name, RFC 9113 §8.2.1", and("", "b"), errName},
		{"CR LF in a value, RFC 9113 §8.2.1", and("x", "a\r\nTransfer-Encoding: chunked"), errValue},
		{"LF in a value, RFC 9113 §8.2.1", and("x", "a\nb"), errValue},
		{"CR in a value, RFC 9113 §8.2.1", and("x", "a longer value\rb"), errValue},
		{"NUL in a value, RFC 9113 §8.2.1", and("x", "a\x00b"), errValue},
		{"DEL in a value, RFC 9110 §5.5", and("x", "a longer value\x7f"), errValue},
		{"space before a value, RFC 9113 §8.2.1", and("x", " a"), errValue},
		{"HTAB after a value, RFC 9113 §8.2.1", and("x", "a\t"), errValue},
		{"Connection, RFC 9113 §8.2.2", and("connection", "keep-alive"), errHop},
		{"Keep-Alive, RFC 9113 §8.2.2", and("keep-alive", "5"), errHop},
		{"Proxy-Connection, RFC 9113 §8.2.2", and("proxy-connection", "x"), errHop},
		{"Transfer-Encoding, RFC 9113 §8.2.2", and("transfer-encoding", "chunked"), errHop},
		{"Upgrade, RFC 9113 §8.2.2", and("upgrade", "h2c"), errHop},
		{"TE, RFC 9113 §8.2.2", and("te", "trailers, deflate"), errTE},
		{"unknown pseudo-header field, RFC 9113 §8.3", append([]string{":test", "x"}, get...), errPseudo},
		{":protocol unasked, RFC 8441 §4", append([]string{":protocol", "websocket"}, get...), errPseudo},
		{":status in a request, RFC 9113 §8.3", append([]string{":status", "200"}, get...), errPseudo},
		{"after another field, RFC 9113 §8.3", and("x", "a", ":path", "/"), errLatePseudo},
		{"missing until another field, RFC 9113 §8.3", append(append(without(":path"), "x", "a"), ":path", "/"), errNoPseudo},
		{":method twice, RFC 9113 §8.3", append([]string{":method", "GET"}, get...), errTwicePseudo},
		{":scheme twice, RFC 9113 §8.3", append([]string{":scheme", "https"}, get...), errTwicePseudo},
		{":path twice, RFC 9113 §8.3", append([]string{":path", "/x"}, get...), errTwicePseudo},
		{":authority twice, RFC 9113 §8.3", append([]string{":authority", "b"}, get...), errTwicePseudo},
		{"no :method, RFC 9113 §8.3.1", without(":method"), errNoPseudo},
		{"no :scheme, RFC 9113 §8.3.1", without(":scheme"), errNoPseudo},
		{"no :path, RFC 9113 §8.3.1", without(":path"), errNoPseudo},
		{"no field at all, RFC 9113 §8.3.1", nil, errNoPseudo},
		{"only a field, RFC 9113 §8.3.1", []string{"x", "a"}, errNoPseudo},
		{"another scheme, RFC 9113 §8.3.1", with(":scheme", "ftp"), errScheme},
		{"empty :path, RFC 9113 §8.3.1", with(":path", ""), errPath},
		{":path without slash, RFC 9113 §8.3.1", with(":path", "x"), errPath},
		{"absolute :path, RFC 9113 §8.3.1", with(":path", "http://b/"), errPath},
		{"asterisk of GET, RFC 9113 §8.3.1", with(":path", "*"), errPath},
		{"request in :path", with(":path", "/ HTTP/1.1\r\nHost: b\r\n\r\nGET /"), errValue},
		{"space in :path", with(":path", "/ HTTP/1.1"), errPath},
		{"HTAB in :path", with(":path", "/\tHTTP/1.1"), errPath},
		{"request in :method", with(":method", "GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"), errValue},
		{"target in :method", with(":method", "GET /x"), errMethod},
		{"empty :method", with(":method", ""), errMethod},
		{"CR LF in :authority", with(":authority", "a\r\nx: y"), errValue},
		{"empty :authority, RFC 9113 §8.3.1", with(":authority", ""), errAuthority},
		{"CR LF in :scheme", with(":scheme", "https\r\n"), errValue},
		{"Host differs, RFC 9113 §8.3.1", and("host", "b"), errHost},
		{"Content-Length twice, RFC 9110 §8.6", and("content-length", "0", "content-length", "0"), errLength},
		{"Content-Length list, RFC 9110 §8.6", and("content-length", "0, 0"), errLength},
		{"Content-Length sign, RFC 9110 §8.6", and("content-length", "+0"), errLength},
		{"Content-Length empty, RFC 9110 §8.6", and("content-length", ""), errLength},
		{"Content-Length too large, RFC 9110 §8.6", and("content-length", "9999999999999999999999"), errLength},
		{"Content-Length without body, RFC 9113 §8.1.1", and("content-length", "5"), errBody},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, indexed := range []bool{true, false} { // as literals, and once more out of the table
				c := NewServer(NewShared(), &Limits{})
				r := &record{conn: c}
				p := newClientPeer()
				if !indexed {
					p.encoder.SetMaxDynamicTableSize(0)
				}
				p.head(1, true, tt.fields...)
				p.head(3, true, tt.fields...)
				p.request(5, "GET", true)
				if err := feed(c, r, p.Bytes(), p.Len()); err != nil {
					t.Fatal(err)
				}
				refused := "refused: " + tt.want.Reason
				want := []string{refused, refused, `5 opened "GET / HTTP/1.1\r\nhost: a\r\n\r\n" end=true`}
				if !slices.Equal(r.events, want) {
					t.Errorf("got %q, want %q", r.events, want)
				}
				if got := frames(t, c.AppendOutput(nil)); !slices.Contains(got, "1 reset: 1") || !slices.Contains(got, "3 reset: 1") {
					t.Errorf("frames: %q", got)
				}
			}
		})
	}
}

// TestPassedOn has what is not malformed in HTTP/2, but refused by http1 when it reads the head.
func TestPassedOn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		fields []string
		want   *http1.Error
	}{
		{"underscore", []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "a", "x_forwarded_for", "::1"}, http1.ErrUnderscore},
		{"two Hosts", []string{":method", "GET", ":scheme", "https", ":path", "/", "host", "a", "host", "a"}, http1.ErrTwoHosts},
		{"no host", []string{":method", "GET", ":scheme", "https", ":path", "/"}, http1.ErrNoHost},
		{"user information", []string{":method", "GET", ":scheme", "https", ":path", "/", ":authority", "b@a"}, http1.ErrHost},
		{"TRACE", []string{":method", "TRACE", ":scheme", "https", ":path", "/", ":authority", "a"}, http1.ErrRefused},
		{"fragment", []string{":method", "GET", ":scheme", "https", ":path", "/#x", ":authority", "a"}, http1.ErrFragment},
		{"NUL in the path", []string{":method", "GET", ":scheme", "https", ":path", "/%00", ":authority", "a"}, http1.ErrEscape},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := NewServer(NewShared(), &Limits{})
			var got error
			r := &record{conn: c, opened: func(_ *Stream, head []byte, _ bool) {
				var request http1.Request
				_, got = request.Parse(head, &http1.Limits{})
			}}
			p := newClientPeer()
			p.head(1, true, tt.fields...)
			if err := feed(c, r, p.Bytes(), p.Len()); err != nil || !errors.Is(got, tt.want) {
				t.Errorf("got %v, %v, want %v", err, got, tt.want)
			}
		})
	}
}

// TestRules has the cases of h2spec (http2, by section of RFC 7540, and hpack), for which a stream or the connection is
// lost, and more. Frames are written by golang.org/x/net. Missing are 5.3.1/1 and /2: RFC 9113 §5.3.2 has no
// dependencies any more.
func TestRules(t *testing.T) {
	t.Parallel()
	open := func(p *peer) { p.request(1, "POST", false) }
	closed := func(p *peer) { p.request(1, "GET", true) } // all that have come whole are answered
	raw := func(b ...byte) func(*peer) { return func(p *peer) { p.Write(b) } }
	block := func(b ...byte) func(*peer) {
		return func(p *peer) {
			p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: b, EndStream: true, EndHeaders: true})
		}
	}
	begun := func(p *peer) {
		p.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(":method", "GET")})
	}
	then := func(fs ...func(*peer)) func(*peer) {
		return func(p *peer) {
			for _, f := range fs {
				f(p)
			}
		}
	}
	setting := func(id xhttp2.SettingID, v uint32) func(*peer) {
		return func(p *peer) { p.WriteSettings(xhttp2.Setting{ID: id, Val: v}) }
	}
	for _, tt := range []struct {
		name   string
		in     func(*peer)
		stream *Error // stream 1 is lost
		conn   *Error // all is lost
	}{
		{"3.5/2 preface", func(p *peer) { p.Reset(); p.WriteString("INVALID CONNECTION PREFACE\r\n\r\n") }, nil, errPreface},
		{"3.5 first frame", func(p *peer) { p.Reset(); p.WriteString(Preface); p.WritePing(false, [8]byte{}) }, nil, errFirst},
		{"3.5 first is an ack", func(p *peer) { p.Reset(); p.WriteString(Preface); p.WriteSettingsAck() }, nil, errFirst},
		{"4.1/1 unknown type", raw(0, 0, 8, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), nil, nil},
		{"4.1/2 undefined flag", raw(0, 0, 8, 6, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), nil, nil},
		{"4.1/3 reserved bit", raw(0, 0, 8, 6, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), nil, nil},
		{"4.2/1 DATA of 16 KiB", then(open, func(p *peer) { p.WriteData(1, true, make([]byte, maxFrame)) }), nil, nil},
		{"4.2/2 DATA too long", then(open, func(p *peer) { p.WriteData(1, true, make([]byte, maxFrame+1)) }), nil, errFrameSize},
		{"4.2/3 HEADERS too long", block(make([]byte, maxFrame+1)...), nil, errFrameSize},
		{"4.3/1 invalid block", block(0x40, 0x01), nil, errCompression},
		{"4.3/2 PRIORITY in a block", then(begun, func(p *peer) { p.WritePriority(1, xhttp2.PriorityParam{}) }), nil, errContinuation},
		{"4.3/3 HEADERS in a block", then(begun, func(p *peer) { p.request(3, "GET", true) }), nil, errContinuation},
		{"5.1/1 idle: DATA", func(p *peer) { p.WriteData(1, true, []byte("test")) }, nil, errIdle},
		{"5.1/2 idle: RST_STREAM", func(p *peer) { p.WriteRSTStream(1, 8) }, nil, errIdle},
		{"5.1/3 idle: WINDOW_UPDATE", func(p *peer) { p.WriteWindowUpdate(1, 100) }, nil, errIdle},
		{"5.1/4 idle: CONTINUATION", func(p *peer) { p.WriteContinuation(1, true, p.fields("a", "b")) }, nil, errContinuation},
		{"5.1/5 half closed: DATA", then(func(p *peer) { p.request(1, "PUT", true) }, func(p *peer) { p.WriteData(1, true, []byte("test")) }), errClosed, nil},
		{"5.1/6 half closed: HEADERS", then(func(p *peer) { p.request(1, "PUT", true) }, func(p *peer) { p.head(1, true, "a", "b") }), errClosed, nil},
		{"5.1/7 half closed: CONTINUATION", then(closed, func(p *peer) { p.WriteContinuation(1, true, nil) }), nil, errContinuation},
		{"5.1/8 reset: DATA", then(open, func(p *peer) { p.WriteRSTStream(1, 8); p.WriteData(1, true, []byte("test")) }), nil, errGone},
		{"5.1/9 reset: HEADERS", then(open, func(p *peer) { p.WriteRSTStream(1, 8); p.head(1, true, "a", "b") }), nil, errGone},
		{"5.1/11 closed: DATA", then(closed, func(p *peer) { p.WriteData(1, true, []byte("test")) }), nil, errGone},
		{"5.1/12 closed: HEADERS", then(closed, closed), nil, errGone},
		{"5.1.1/1 even ID", func(p *peer) { p.request(2, "GET", true) }, nil, errStreamID},
		{"5.1.1/2 decreasing ID", then(func(p *peer) { p.request(5, "GET", true); p.request(3, "GET", true) }), nil, errStreamID},
		{"5.5/2 unknown in a block", then(begun, raw(0, 0, 0, 0x16, 0, 0, 0, 0, 1)), nil, errContinuation},
		{"6.1/1 DATA on 0", func(p *peer) { p.WriteData(0, true, []byte("test")) }, nil, errStreamID},
		{"6.1/3 padding too long", then(open, raw(0, 0, 5, 0, 9, 0, 0, 0, 1, 6, 0, 0, 0, 0)), nil, errPadding},
		{"6.1 padding as long as the frame", then(open, raw(0, 0, 5, 0, 9, 0, 0, 0, 1, 5, 0, 0, 0, 0)), nil, errPadding},
		{"6.1 padded and empty", then(open, raw(0, 0, 0, 0, 9, 0, 0, 0, 1)), nil, errFrameSize},
		{"6.2/1 no END_HEADERS, PRIORITY", then(begun, func(p *peer) { p.WritePriority(1, xhttp2.PriorityParam{Weight: 255}) }), nil, errContinuation},
		{"6.2/2 no END_HEADERS, HEADERS", then(begun, func(p *peer) { p.request(3, "GET", true) }), nil, errContinuation},
		{"6.2/3 HEADERS on 0", func(p *peer) { p.request(0, "GET", true) }, nil, errStreamID},
		{"6.2/4 padding too long", raw(0, 0, 5, 1, 0xd, 0, 0, 0, 1, 5, 0x82, 0, 0, 0), nil, errPadding},
		{"6.2 padded and empty", raw(0, 0, 0, 1, 0xd, 0, 0, 0, 1), nil, errFrameSize},
		{"6.2 priority and empty", raw(0, 0, 4, 1, 0x25, 0, 0, 0, 1, 0, 0, 0, 0), nil, errFrameSize},
		{"6.3/1 PRIORITY on 0", func(p *peer) { p.WritePriority(0, xhttp2.PriorityParam{}) }, nil, errStreamID},
		{"6.3/2 PRIORITY of 4 bytes", then(open, raw(0, 0, 4, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0)), errPriority, nil},
		{"6.3 PRIORITY of 4 bytes, idle", raw(0, 0, 4, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0), nil, errPriority},
		{"6.3 PRIORITY, idle", func(p *peer) { p.WritePriority(7, xhttp2.PriorityParam{StreamDep: 7}); open(p) }, nil, nil},
		{"6.4/1 RST_STREAM on 0", func(p *peer) { p.WriteRSTStream(0, 8) }, nil, errStreamID},
		{"6.4/3 RST_STREAM of 3 bytes", then(open, raw(0, 0, 3, 3, 0, 0, 0, 0, 1, 0, 0, 0)), nil, errFrameSize},
		{"6.5/1 SETTINGS ack with payload", raw(0, 0, 6, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), nil, errFrameSize},
		{"6.5/2 SETTINGS on 1", raw(0, 0, 0, 4, 0, 0, 0, 0, 1), nil, errStreamID},
		{"6.5/3 SETTINGS of 3 bytes", raw(0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 3, 0), nil, errFrameSize},
		{"6.5.2/1 ENABLE_PUSH", setting(xhttp2.SettingEnablePush, 2), nil, errSetting},
		{"6.5.2/2 INITIAL_WINDOW_SIZE", setting(xhttp2.SettingInitialWindowSize, 1<<31), nil, errInitialWindow},
		{"6.5.2/3 MAX_FRAME_SIZE too small", setting(xhttp2.SettingMaxFrameSize, 1<<14-1), nil, errSetting},
		{"6.5.2/4 MAX_FRAME_SIZE too large", setting(xhttp2.SettingMaxFrameSize, 1<<24), nil, errSetting},
		{"6.5.2/5 unknown setting", setting(0xff, 1), nil, nil},
		{"6.7/3 PING on 1", raw(0, 0, 8, 6, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), nil, errStreamID},
		{"6.7/4 PING of 6 bytes", raw(0, 0, 6, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), nil, errFrameSize},
		{"6.8/1 GOAWAY on 1", raw(0, 0, 8, 7, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0), nil, errStreamID},
		{"6.8 GOAWAY of 4 bytes", raw(0, 0, 4, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0), nil, errFrameSize},
		{"6.9/1 increment 0", func(p *peer) { p.WriteWindowUpdate(0, 0) }, nil, errNoRoom},
		{"6.9/2 increment 0 on a stream", then(open, func(p *peer) { p.WriteWindowUpdate(1, 0) }), errNoIncrement, nil},
		{"6.9/3 WINDOW_UPDATE of 3 bytes", raw(0, 0, 3, 8, 0, 0, 0, 0, 0, 0, 0, 1), nil, errFrameSize},
		{"6.9.1/2 window overflows", func(p *peer) { p.WriteWindowUpdate(0, maxWindow); p.WriteWindowUpdate(0, maxWindow) }, nil, errConnWindow},
		{"6.9.1/3 window of a stream overflows", then(open, func(p *peer) { p.WriteWindowUpdate(1, maxWindow) }), errWindow, nil},
		{"6.9.2/3 initial window too large", setting(xhttp2.SettingInitialWindowSize, math.MaxUint32), nil, errInitialWindow},
		{"6.9.2 window overflows by a setting", then(open, func(p *peer) { p.WriteWindowUpdate(1, 1) }, setting(xhttp2.SettingInitialWindowSize, maxWindow)), nil, errConnWindow},
		{"6.10/1 CONTINUATION", then(begun, func(p *peer) {
			p.WriteContinuation(1, false, p.fields(":path", "/", ":scheme", "https"))
			p.WriteContinuation(1, true, p.fields(":authority", "a"))
		}), nil, nil},
		{"6.10/2 DATA in a block", then(begun, func(p *peer) { p.WriteData(1, true, nil) }), nil, errContinuation},
		{"6.10/3 CONTINUATION on 0", then(begun, func(p *peer) { p.WriteContinuation(0, true, nil) }), nil, errContinuation},
		{"6.10/4 CONTINUATION after HEADERS", then(open, func(p *peer) { p.WriteContinuation(1, true, nil) }), nil, errContinuation},
		{"6.10/6 CONTINUATION after DATA", then(open, func(p *peer) { p.WriteData(1, false, nil); p.WriteContinuation(1, true, nil) }), nil, errContinuation},
		{"7/2 unknown code", then(open, func(p *peer) { p.WriteGoAway(0, 0xff, nil) }), nil, nil},
		{"8.1/1 second HEADERS does not end", then(open, func(p *peer) { p.head(1, false, "a", "b") }), errUnended, nil},
		{"8.1.2.1/3 pseudo-header field in trailers", then(open, func(p *peer) { p.head(1, true, ":path", "/") }), errPseudo, nil},
		{"8.1.2 upper case in trailers", then(open, func(p *peer) { p.head(1, true, "A", "b") }), errName, nil},
		{"8.1.2 LF in trailers", then(open, func(p *peer) { p.head(1, true, "a", "b\nc: d") }), errValue, nil},
		{"8.1.2.2 connection field in trailers", then(open, func(p *peer) { p.head(1, true, "connection", "x") }), errHop, nil},
		{"RFC 9110 §6.5.1 framing in trailers", then(open, func(p *peer) { p.head(1, true, "content-length", "0") }), errTrailer, nil},
		{"8.1.2.6/1 content-length too small", then(func(p *peer) { p.request(1, "POST", false, "content-length", "1") }, func(p *peer) { p.WriteData(1, false, []byte("test")) }), errBody, nil},
		{"8.1.2.6/2 content-length too large", then(func(p *peer) { p.request(1, "POST", false, "content-length", "9") }, func(p *peer) { p.WriteData(1, false, []byte("test")); p.WriteData(1, true, []byte("test")) }), errBody, nil},
		{"8.1.2.6 content-length and trailers", then(func(p *peer) { p.request(1, "POST", false, "content-length", "9") }, func(p *peer) { p.WriteData(1, false, []byte("test")); p.head(1, true, "a", "b") }), errBody, nil},
		{"8.2/1 PUSH_PROMISE", then(open, func(p *peer) {
			p.WritePushPromise(xhttp2.PushPromiseParam{StreamID: 1, PromiseID: 3, BlockFragment: p.fields(":method", "GET"), EndHeaders: true})
		}), nil, errPush},
		{"hpack 2.3.3/1 index too large", block(0x82, 0xff, 0x00), nil, errCompression},
		{"hpack 2.3.3/2 index of a name too large", block(0x7f, 0x00, 0x01, 'a'), nil, errCompression},
		{"hpack 4.2/1 size at the end", block(0x82, 0x84, 0x87, 0x20), nil, errCompression},
		{"hpack 5.2/1 padding of a byte", block(0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x84, 0x49, 0x50, 0x9f, 0xff), nil, errCompression},
		{"hpack 5.2/2 padded by zero", block(0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 0x83, 0x49, 0x50, 0x90), nil, errCompression},
		{"hpack 5.2/3 end symbol", block(0x00, 0x85, 0xf2, 0xb2, 0x4a, 0x87, 0xff, 0xff, 0xff, 0xfa, 0x84, 0x27, 0x53), nil, errCompression},
		{"hpack 6.1/1 index 0", block(0x80), nil, errCompression},
		{"hpack 6.3/1 size too large", block(0x3f, 0xe2, 0x1f, 0x82), nil, errCompression},
		{"hpack 5.1 number too large", block(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), nil, errCompression},
		{"hpack 5.1 number cut off", block(0xff, 0xff), nil, errCompression},
		{"hpack 5.2 string cut off", block(0x00, 0x05, 'a'), nil, errCompression},
		{"hpack 4.2 two sizes", block(append([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x82, 0x84, 0x87, 0x41, 1}, 'a')...), nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newClientPeer()
			tt.in(p)
			in := bytes.Clone(p.Bytes())
			ping := newPeer()
			ping.WritePing(false, [8]byte{1})
			in = append(in, ping.Bytes()...)
			for _, step := range []int{len(in), 1, 13} {
				c := NewServer(NewShared(), &Limits{})
				r := &record{conn: c}
				r.opened = func(s *Stream, head []byte, end bool) {
					if end && bytes.HasPrefix(head, []byte("GET")) {
						c.out, _ = c.AppendData(bytes.Clone(c.out), s, nil, true)
					}
				}
				err := feed(c, r, in, step)
				if e, _ := errors.AsType[*Error](err); e != tt.conn {
					t.Fatalf("%d at a time: %v, want %v", step, err, tt.conn)
				}
				got := frames(t, c.AppendOutput(nil))
				last := got[len(got)-1]
				switch {
				case tt.conn != nil:
					if !strings.HasPrefix(last, "goaway") || !strings.HasSuffix(last, fmt.Sprintf(": %d", tt.conn.Code)) {
						t.Errorf("%d at a time: last frame %s", step, last)
					}
				case !strings.HasPrefix(last, "ping"):
					t.Errorf("%d at a time: last frame %s, want the answer to PING", step, last)
				}
				reset := slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "1 reset") })
				if reset != (tt.stream != nil) || reset && !slices.Contains(got, fmt.Sprintf("1 reset: %d", tt.stream.Code)) {
					t.Errorf("%d at a time: frames %q, want stream 1 reset by %v", step, got, tt.stream)
				}
			}
		})
	}
}

// TestAgainstHPACK reads what golang.org/x/net encodes, for a while, with tables of all sizes.
func TestAgainstHPACK(t *testing.T) {
	t.Parallel()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	d := table{limit: tableSize}
	h := newHuffman()
	for i := range 3000 {
		block.Reset()
		if i%100 == 0 {
			encoder.SetMaxDynamicTableSize(uint32(i*37) % (tableSize + 1))
		}
		var want strings.Builder
		for k := range i % 7 {
			name := "x-" + strings.Repeat("n", (i+k)%90)
			value := strings.Repeat(string(rune(' '+(i*k)%90)), (i*k)%300) + "."
			if value[0] == ' ' {
				value = "é" + value
			}
			encoder.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: i%5 == 0})
			want.WriteString(name + ": " + value + "\r\n")
		}
		var m message
		m.begin(trailers, &http1.Limits{Head: 1 << 20, Fields: 100})
		if err := d.decode(h, block.Bytes(), &m); err != nil || m.err != nil || string(m.text) != want.String() {
			t.Fatalf("block %d: %v, %v\n got %q\nwant %q", i, err, m.err, m.text, want.String())
		}
	}
}

// TestHuffman has each byte, alone and between others, as golang.org/x/net encodes it.
func TestHuffman(t *testing.T) {
	t.Parallel()
	h := newHuffman()
	for i := range 256 {
		for _, s := range []string{string([]byte{byte(i)}), "a" + string([]byte{byte(i), byte(i), byte(255 - i)}) + "zz01234567890"} {
			got, ok := h.append(nil, hpack.AppendHuffmanString(nil, s))
			if !ok || string(got) != s {
				t.Errorf("%q: got %q, %t", s, got, ok)
			}
		}
	}
}

// TestNames finds each name of the static table, in any case, and no other.
func TestNames(t *testing.T) {
	t.Parallel()
	names := newNames()
	for i, f := range static {
		if i < 15 {
			continue
		}
		if got := names.find([]byte(strings.ToUpper(f.name))); int(got) != i {
			t.Errorf("%s: %d, want %d", f.name, got, i)
		}
		if got := names.find([]byte(f.name + "x")); got != 0 {
			t.Errorf("%sx: %d", f.name, got)
		}
	}
}
