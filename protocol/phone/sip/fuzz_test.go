// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func seed(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob("testdata/rfc*/*.dat")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(invite())
}

// FuzzMessage: nothing panics; a message that is taken goes out as it came; an answer to a good request is a good
// response; and a message in which a field was set differs in that field only.
func FuzzMessage(f *testing.F) {
	seed(f)
	from := netip.MustParseAddrPort("[2001:db8::1]:5060")
	f.Fuzz(func(t *testing.T, data []byte) {
		var m, r Message
		err := m.Parse(data, nil)
		if err == nil {
			err = m.Check()
		}
		for i := range m.Fields() {
			if _, name, value := m.At(i); !bytes.Contains(data, name) || !bytes.Contains(data, value) {
				t.Fatalf("field %d is not in the message", i)
			}
		}
		_, _ = endpoint().Check(&m), endpoint().CheckForward(&m)
		_, _ = m.CheckRegister(), m.Ours()
		a := Answer{Status: 420, Tag: []byte("x"), Dialog: true}
		if m.Answerable() {
			if e := r.Parse(a.Append(nil, &m, from), nil); err == nil && e != nil && e != ErrLongHead && e != ErrFields {
				t.Fatalf("answer to %q: %v", data, e)
			}
			if err == nil && r.Check() != nil && r.Fields() > 0 {
				t.Fatalf("answer to %q: %v", data, r.Check())
			}
		}
		if h, _ := m.Top(); err == nil && m.Request() && !folded(m.Get(Via)) {
			if method, branch, err := Outline(data); err != nil || !bytes.Equal(method, m.Method()) || !bytes.Equal(branch, h.Branch) {
				t.Fatalf("outline of %q: %q, %q", data, method, branch)
			}
		}
		if err != nil {
			return
		}
		var e Editor
		e.Edit(&m)
		body, _ := m.Body()
		out, ok := e.Append(nil)
		if want := append(bytes.Clone(m.Head()), body...); !ok || !bytes.Equal(out, want) {
			t.Fatalf("sent on as %q, came as %q", out, want)
		}
		e.Replace(MaxForwards, []byte("7"))
		if out, ok = e.Append(nil); !ok || r.Parse(out, nil) != nil && len(data) < defaultHead-30 && m.Fields() < defaultMany {
			t.Fatalf("edited to %q", out)
		}
		if got := r.Get(MaxForwards); string(got) != "7" && m.Fields() < defaultMany && len(data) < defaultHead-30 {
			t.Fatalf("set Max-Forwards to %q", got)
		}
	})
}

// FuzzStream: messages come out alike whether the bytes come at once or one by one, and nothing is taken twice.
func FuzzStream(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		l := &Limits{Head: 1024, Body: 1024}
		got, want := pieces(string(data), 1, l), pieces(string(data), max(1, len(data)), l)
		if got != want {
			t.Fatalf("one by one %q, at once %q", got, want)
		}
	})
}

// FuzzAddress: what is read at a glance is what is read with care.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"<sip:a@b>;tag=c", "<sip:a@b>", "<sip:a@b>;tag=c;x=y, <sip:c>", "<sip:a@b>;tag", "<sip:a@b>;", "<sip:a@b>;x=\"y;tag=z\";tag=1",
		"<sip:a@b>;tag=", "<sip:a<b>;tag=1", "<>;tag=1", "<sip:a@b> ;tag=1", "*", "<sip:a@b>;Tag=c", "sip:a@b;tag=c", "<sip:a@b>;tag =c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a, wantA Address
		var u, wantU URI
		rest, err := parseAddress(b, &a, &u)
		wantRest, wantErr := parseAnyAddress(b, &wantA, &wantU)
		if err != wantErr || (rest == nil) != (wantRest == nil) || !bytes.Equal(rest, wantRest) || !reflect.DeepEqual(a, wantA) || !reflect.DeepEqual(u, wantU) {
			t.Errorf("%q: got %v, %v, %q, %v, want %v, %v, %q, %v", b, a, u, rest, err, wantA, wantU, wantRest, wantErr)
		}
		if want, _ := Param(a.Params, "tag"); !bytes.Equal(a.Tag(), want) {
			t.Errorf("%q: got tag %q, want %q", b, a.Tag(), want)
		}
	})
}

// folded says whether a value goes over several lines.
func folded(value []byte) bool { return bytes.IndexByte(value, '\n') >= 0 }

// FuzzCut: what is seen at a glance is what is found byte by byte.
func FuzzCut(f *testing.F) {
	for _, s := range []string{"", ",", "a,b", `"a,b",c`, "<a,b>,c", "<a,b", `"a`, "a>,<b", "<a>,b<", `<"a",b>`} {
		f.Add([]byte(s), byte(','))
	}
	f.Fuzz(func(t *testing.T, b []byte, sep byte) {
		if sep == '"' || sep == '<' || sep == '>' { // nobody cuts there
			return
		}
		before, after, ok := cut(b, sep)
		wantBefore, wantAfter, wantOK := cutSlowly(b, sep)
		if !bytes.Equal(before, wantBefore) || !bytes.Equal(after, wantAfter) || (after == nil) != (wantAfter == nil) || ok != wantOK {
			t.Errorf("cut %q at %q: got %q, %q, %v, want %q, %q, %v", b, sep, before, after, ok, wantBefore, wantAfter, wantOK)
		}
	})
}
