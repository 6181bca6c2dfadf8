// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"strings"
	"testing"
)

// TestEditor: only what is changed changes, byte by byte.
func TestEditor(t *testing.T) {
	t.Parallel()
	text := "INVITE sip:a@b SIP/2.0\r\n" +
		"v : SIP/2.0/UDP c;branch=1,\r\n\tSIP/2.0/UDP d\r\n" +
		"X-Odd:  kept   as\r\n  it is \r\n" +
		"route: <sip:p;lr>\r\n" +
		"s:\r\n" +
		"ROUTE: <sip:q;lr>\r\n" +
		"Max-Forwards:70\r\n" +
		"c: text/plain\r\n" +
		"l: 3\r\n\r\nabc"
	for _, test := range []struct {
		name     string
		edit     func(e *Editor)
		old, new []string
	}{
		{"nothing", func(*Editor) {}, nil, nil},
		{"target", func(e *Editor) { e.Target([]byte("sip:[2001:db8::1]")) }, []string{"sip:a@b"}, []string{"sip:[2001:db8::1]"}},
		{"value", func(e *Editor) { e.Replace(MaxForwards, []byte("69")) }, []string{"Forwards:70"}, []string{"Forwards:69"}},
		{"absent value", func(e *Editor) { e.Replace(Expires, []byte("9")) }, []string{"l: 3\r\n"}, []string{"l: 3\r\nExpires: 9\r\n"}},
		{"one for two", func(e *Editor) { e.Replace(Route, []byte("<sip:r>")) }, []string{"route: <sip:p;lr>", "ROUTE: <sip:q;lr>\r\n"}, []string{"route: <sip:r>", ""}},
		{"all of a kind", func(e *Editor) { e.RemoveAll(Route) }, []string{"route: <sip:p;lr>\r\n", "ROUTE: <sip:q;lr>\r\n"}, []string{"", ""}},
		{"folded", func(e *Editor) { e.RemoveAll(Via) }, []string{"v : SIP/2.0/UDP c;branch=1,\r\n\tSIP/2.0/UDP d\r\n"}, []string{""}},
		{"before its kind", func(e *Editor) { e.Prepend(Via, []byte("x")); e.Prepend(RecordRoute, []byte("y")) }, []string{"v :"}, []string{"Via: x\r\nRecord-Route: y\r\nv :"}},
		{"empty value", func(e *Editor) { e.Set(3, []byte("z")) }, []string{"s:\r\n"}, []string{": z\r\n"}},
		{"body", func(e *Editor) { e.Body("application/sdp", []byte("v=0\r\n")) }, []string{"c: text/plain\r\nl: 3\r\n\r\nabc"},
			[]string{"Content-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"}},
		{"no body", func(e *Editor) { e.Body("", nil) }, []string{"c: text/plain\r\nl: 3\r\n\r\nabc"}, []string{"Content-Length: 0\r\n\r\n"}},
		{"lines", func(e *Editor) { e.AddLines([]byte("X: 1\r\nY: 2\r\n")); e.Add(Expires, []byte("9")) }, []string{"l: 3\r\n"}, []string{"l: 3\r\nX: 1\r\nY: 2\r\nExpires: 9\r\n"}},
		{"out of order", func(e *Editor) { e.Add(Expires, []byte("1")); e.Target([]byte("sip:z")) }, []string{"sip:a@b", "l: 3\r\n"}, []string{"sip:z", "l: 3\r\nExpires: 1\r\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			want := text
			for i := range test.old {
				want = strings.Replace(want, test.old[i], test.new[i], 1)
			}
			var e Editor
			e.Edit(parsed(t, []byte(text)))
			test.edit(&e)
			if got, ok := e.Append(nil); !ok || string(got) != want {
				t.Errorf("%v:\ngot  %q\nwant %q", ok, got, want)
			}
		})
	}
}

// TestEditorRefuses: edits that cannot both be done are not done by half.
func TestEditorRefuses(t *testing.T) {
	t.Parallel()
	var e Editor
	m := parsed(t, invite())
	e.Edit(m)
	e.Remove(0)
	e.Set(0, []byte("x"))
	if got, ok := e.Append(nil); ok {
		t.Errorf("two edits of one field: %q", got)
	}
	e.Edit(m)
	for range maxEdits + 1 {
		e.Add(Route, []byte("<sip:p>"))
	}
	if _, ok := e.Append(nil); ok {
		t.Error("more edits than fit")
	}
	e.Edit(m)
	if got, ok := e.Append(nil); !ok || string(got) != string(invite()) {
		t.Errorf("used again: %v, %q", ok, got)
	}
}
