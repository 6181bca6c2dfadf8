// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzServer shows the same bytes whole and one by one: what a client gets done must not depend on how they arrive.
// Groups that may not be pipelined are told by what has arrived, so they are left out.
func FuzzServer(f *testing.F) {
	f.Add(envelope + "BDAT 3\r\nabcBDAT 0 LAST\r\nQUIT\r\n")
	f.Add("EHLO a\r\nAUTH LOGIN\r\nx\r\nNOOP\r\n")
	f.Add("EHLO a\r\nMAIL FROM:<\"a>\"@b> SIZE=1\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		whole := play(&Server{Offers: offers()}, in, len(in)+1)
		single := play(&Server{Offers: offers()}, in, 1)
		if strings.Contains(whole, "pipelined") || strings.Contains(single, "STARTTLS") {
			return
		}
		if whole != single {
			t.Errorf("whole: %s; byte by byte: %s", whole, single)
		}
	})
}

// FuzzContent sends a message on and reads it again.
func FuzzContent(f *testing.F) {
	f.Add([]byte(".\r\n..\r\nabc"), 2)
	f.Add([]byte("\r\n.\r\n"), 1)
	f.Fuzz(func(t *testing.T, text []byte, size int) {
		left := bytes.ReplaceAll(text, []byte("\r\n"), nil)
		if size < 1 || bytes.ContainsAny(left, "\r\n") {
			return
		}
		var wire []byte
		start := true
		for p := range pieces(text, size) {
			wire, start = AppendContent(wire, p, start)
		}
		wire = AppendEnd(wire, start)
		if at := bytes.Index(append([]byte("\r\n"), wire...), []byte("\r\n.\r\n")); at+3 != len(wire) {
			t.Fatalf("%q has an end at %d", wire, at)
		}
		var c content
		var got []byte
		done := false
		for p := range pieces(wire, size) {
			for len(p) > 0 {
				text, n, whole, refusal := c.next(p)
				if refusal != 0 || done {
					t.Fatalf("%q: %v", wire, refusal)
				}
				got, p, done = append(got, text...), p[n:], whole
			}
		}
		want := text
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\r\n")) {
			want = append(bytes.Clone(text), "\r\n"...)
		}
		if !done || !bytes.Equal(got, want) {
			t.Errorf("got %q, whole %v; want %q", got, done, want)
		}
	})
}

func pieces(p []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(p) > 0 {
			n := min(size, len(p))
			if !yield(p[:n]) {
				return
			}
			p = p[n:]
		}
	}
}

// FuzzReply proves that a reply that was taken is what is passed on: whole lines with one code.
func FuzzReply(f *testing.F) {
	f.Add([]byte("250-a\r\n250 2.0.0 b\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, n, refusal := ParseReply(in, &Limits{})
		if refusal != 0 || n == 0 {
			return
		}
		again, m, refusal := ParseReply(r.Raw, &Limits{})
		if refusal != 0 || m != n || again.Code != r.Code || !bytes.HasSuffix(r.Raw, []byte("\r\n")) {
			t.Errorf("%q: again %d bytes of %d, %v", in, m, n, refusal)
		}
		offer := AppendKeywords(nil, "a", ParseKeywords(r))
		if _, m, refusal := ParseReply(offer, &Limits{Reply: 1 << 20}); refusal != 0 || m != len(offer) {
			t.Errorf("%q: offers %q: %v", in, offer, refusal)
		}
	})
}
