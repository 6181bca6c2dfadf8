// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"net/netip"
	"testing"
)

// TestAllocs: reading, checking, editing and answering a message allocates nothing.
func TestAllocs(t *testing.T) {
	data, from := invite(), netip.MustParseAddrPort("[2001:db8::9]:5060")
	var m Message
	var e Editor
	var s Stream
	out, can := make([]byte, 0, 4096), endpoint()
	tag := []byte("x")
	for name, f := range map[string]func(){
		"parse":  func() { _ = m.Parse(data, nil) },
		"check":  func() { _, _ = m.Check(), can.Check(&m) },
		"stream": func() { _, _, _ = s.Next(data, &m, nil) },
		"answer": func() {
			a := Answer{Status: 180, Tag: tag, Dialog: true}
			out = a.Append(out[:0], &m, from)
		},
		"edit": func() {
			e.Edit(&m)
			e.Replace(MaxForwards, tag)
			e.Prepend(Via, tag)
			out, _ = e.Append(out[:0])
		},
	} {
		_ = m.Parse(data, nil)
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	data := invite()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	var m Message
	for b.Loop() {
		if err := m.Parse(data, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	m := parsed(b, invite())
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Check(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAnswer(b *testing.B) {
	m, from := parsed(b, invite()), netip.MustParseAddrPort("[2001:db8::9]:5060")
	out := make([]byte, 0, 4096)
	a := Answer{Status: 180, Tag: []byte("x"), Dialog: true}
	b.ReportAllocs()
	for b.Loop() {
		out = a.Append(out[:0], m, from)
	}
}

func BenchmarkEdit(b *testing.B) {
	m := parsed(b, invite())
	out := make([]byte, 0, 4096)
	value := []byte("69")
	var e Editor
	b.ReportAllocs()
	for b.Loop() {
		e.Edit(m)
		e.Replace(MaxForwards, value)
		e.Target(value)
		out, _ = e.Append(out[:0])
	}
}
