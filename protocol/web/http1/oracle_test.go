// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// message is what somebody who reads a request understands.
type message struct {
	Method, Target, Host, Body string
	Fields, Trailers           http.Header
	length                     int // of all of it
}

// read has net/http read a request. It returns false if that is not accepted.
func read(text string) (m message, ok bool) {
	in := strings.NewReader(text)
	br := bufio.NewReader(in)
	r, err := http.ReadRequest(br)
	if err != nil {
		return m, false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return m, false
	}
	return message{r.Method, r.RequestURI, r.Host, string(body), r.Header, r.Trailer, len(text) - in.Len() - br.Buffered()}, true
}

// checkSame has net/http read what came, of which we took a part, and what goes on for it. If it accepts both, it must
// understand the same, but for what a proxy has to change.
func checkSame(t *testing.T, came string, taken int, goesOn string) {
	t.Helper()
	want, ok := read(came)
	if !ok {
		return
	}
	got, ok := read(goesOn)
	if !ok {
		t.Fatalf("net/http refuses what goes on: %q", goesOn)
	}
	if want.length != taken || got.length != len(goesOn) {
		t.Fatalf("net/http takes %d of %q, we take %d; it takes %d of the %d bytes of %q", want.length, came, taken, got.length, len(goesOn), goesOn)
	}
	for name, values := range got.Trailers { // some are left out
		for _, v := range values {
			if !slices.Contains(want.Trailers[name], v) {
				t.Errorf("the trailer %s: %q goes on", name, v)
			}
		}
	}
	want.Trailers, got.Trailers = nil, nil
	if want.Fields["Pragma"] != nil { // net/http makes a Cache-Control of it
		delete(want.Fields, "Cache-Control")
		delete(got.Fields, "Cache-Control")
	}
	want.normalise(t)
	got.normalise(t)
	if want.Host == "" { // HTTP/1.0
		want.Host = got.Host
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(message{}), cmp.FilterPath(func(p cmp.Path) bool {
		return p.String() == "length"
	}, cmp.Ignore())); diff != "" {
		t.Fatalf("%q goes on as %q (-came +goes on):\n%s", came, goesOn, diff)
	}
}

// normalise gives target and host their one form, and takes away the fields that are for the next hop alone and those
// that say who the client is.
func (m *message) normalise(t *testing.T) {
	t.Helper()
	var a authority
	if m.Host != "" {
		if err := a.set([]byte(m.Host)); err != nil {
			t.Fatalf("a request for the host %q is accepted", m.Host)
		}
		m.Host = string(a.all())
	}
	if _, rest, absolute := strings.Cut(m.Target, "://"); absolute && m.Target[0] != '/' {
		switch i := strings.IndexAny(rest, "/?"); {
		case i < 0 && m.Method == "OPTIONS":
			m.Target = "*"
		case i < 0:
			m.Target = "/"
		default:
			m.Target = strings.Replace("/"+rest[i:], "//", "/", 1)
		}
	}
	named := strings.Split(strings.Join(m.Fields["Connection"], ","), ",")
	for name := range m.Fields {
		if kindOf([]byte(name)) != endToEnd || slices.ContainsFunc(named, func(n string) bool { return strings.EqualFold(strings.Trim(n, " \t"), name) }) {
			delete(m.Fields, name)
		}
	}
}

// checkLax has a reader that forgives everything read the head that goes on for r. Whatever some server takes for the
// end of a line or for a space, it must find there only the framing, the host and the client that we have written.
func checkLax(t *testing.T, r *Request, head string) {
	t.Helper()
	lines := strings.FieldsFunc(head, func(c rune) bool { return strings.ContainsRune("\r\n\v\f\x00\x1c\x1d\x1e", c) })
	found := make(map[string][]string)
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		name = strings.TrimFunc(strings.ToLower(name), func(c rune) bool { return c <= ' ' || c >= 0x7f })
		name = strings.ReplaceAll(name, "_", "-")
		found[name] = append(found[name], strings.TrimSpace(value))
	}
	want := map[string]int{"host": 1, "x-forwarded-for": 1, "forwarded": 1, "x-forwarded-proto": 1, "x-real-ip": 0,
		"content-length": 0, "transfer-encoding": 0}
	switch r.Framing {
	case Length:
		want["content-length"] = 1
	case Chunked:
		want["transfer-encoding"] = 1
	}
	for name, n := range want {
		if len(found[name]) != n {
			t.Errorf("%s goes on %d times, want %d: %q\n%q", name, len(found[name]), n, found[name], head)
		}
	}
	if n := strings.Count(head, "\r\n") - 1; len(lines) != n {
		t.Errorf("a forgiving reader finds %d lines, there are %d: %q", len(lines), n, head)
	}
}
