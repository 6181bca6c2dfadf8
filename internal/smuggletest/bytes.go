// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smuggletest

import (
	"fmt"
	"strings"
)

// bytesAround are the mutations of smuggler: one odd byte at each place around Transfer-Encoding.
func bytesAround() (all []Case) {
	for _, c := range []byte{0x01, 0x04, 0x08, '\t', '\n', '\v', '\f', '\r', 0x1f, ' ', 0x7f, 0xa0, 0xff} {
		for _, p := range places() {
			m := coding{fmt.Sprintf("%s-%02x", p.name, c), strings.ReplaceAll(p.lines, "@", string([]byte{c})), refused}
			switch {
			case strings.IndexByte(p.chunked, c) >= 0:
				m.meaning = chunked
			case strings.IndexByte(p.other, c) >= 0:
				m.meaning = other
			}
			all = append(all, m.cases("smuggler")...)
		}
	}
	return all
}

// place is a template in which @ stands for a byte.
type place struct {
	name, lines    string
	chunked, other string // the bytes that make of it what the name says; all others are refused
}

// places returns the templates of smuggler.
func places() []place {
	return []place{
		{"midspace", "Transfer-Encoding:@chunked", " ", ""},
		{"postspace", "Transfer-Encoding@: chunked", "", ""},
		{"prespace", "@Transfer-Encoding: chunked", "", ""},
		{"endspace", "Transfer-Encoding: chunked@", "", ""},
		{"xprespace", "X: X@Transfer-Encoding: chunked", "", "\t \xa0\xff"},
		{"endspacex", "Transfer-Encoding: chunked@X: X", "", ""},
		{"rxprespace", "X: X\r@Transfer-Encoding: chunked", "\n", ""},
		{"xnprespace", "X: X@\nTransfer-Encoding: chunked", "\r", ""},
		{"endspacerx", "Transfer-Encoding: chunked\r@X: X", "\n", ""},
		{"endspacexn", "Transfer-Encoding: chunked@\nX: X", "\r", ""},
	}
}
