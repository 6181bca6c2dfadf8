// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Error is one mistake, or one warning, and where it is.
type Error struct {
	File         string
	Line, Column int    // from 1; a column is a character, not a byte
	Text         string // the line of the file
	Err          error
}

// Error returns, for example, `site.yaml:7:5: unknown key "lisen"; did you mean "listen"?`.
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %v", e.File, e.Line, e.Column, e.Err)
}

// Unwrap returns what is wrong.
func (e *Error) Unwrap() error { return e.Err }

// errorJSON is an Error on its way from one process to another.
type errorJSON struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Text    string `json:"text"`
	Message string `json:"message"`
}

// MarshalJSON implements json.Marshaler.
func (e *Error) MarshalJSON() ([]byte, error) {
	return json.Marshal(errorJSON{e.File, e.Line, e.Column, e.Text, e.Err.Error()})
}

// UnmarshalJSON implements json.Unmarshaler. Of what was wrong there are only the words left.
func (e *Error) UnmarshalJSON(data []byte) error {
	var j errorJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*e = Error{File: j.File, Line: j.Line, Column: j.Column, Text: j.Text, Err: errors.New(j.Message)}
	return nil
}

// The colours of a terminal (ECMA-48 SGR).
const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	plain = "\x1b[0m"
)

// Format writes e as a compiler does: the error, the line of the file, and a mark under the place.
func (e *Error) Format(w io.Writer, color bool) {
	paint := func(tone, s string) string {
		if !color {
			return s
		}
		return tone + s + plain
	}
	place := fmt.Sprintf("%s:%d:%d:", e.File, e.Line, e.Column)
	fmt.Fprintf(w, "%s %s\n    %s\n    %s%s\n",
		paint(bold, place), paint(red, e.Err.Error()), e.Text, indent(e.Text, e.Column-1), paint(red, "^"))
}

// indent returns blanks as wide as the first n characters of line, keeping tabs and the width of kanji and kana.
func indent(line string, n int) string {
	var b strings.Builder
	for _, r := range line {
		if n--; n < 0 {
			break
		}
		switch {
		case r == '\t':
			b.WriteRune(r)
		case wide(r):
			b.WriteRune('\u3000') // the blank of that width
		default:
			b.WriteByte(' ')
		}
	}
	return b.String()
}

// wide says whether a terminal shows r two columns wide: the blocks of Unicode Standard Annex 11 in which
// East Asian text is written.
func wide(r rune) bool {
	return r >= 0x1100 && r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x20000 && r <= 0x3fffd
}

// Errors returns the mistakes that err, which Load or Parse returned, consists of. An error that is not a mistake
// in the file, such as a file that cannot be read, is none.
func Errors(err error) []*Error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		var all []*Error
		for _, e := range joined.Unwrap() {
			all = append(all, Errors(e)...)
		}
		return all
	}
	if one, ok := errors.AsType[*Error](err); ok {
		return []*Error{one}
	}
	return nil
}

// Join returns an error that consists of mistakes, as Load does; nil if there are none.
func Join(mistakes []*Error) error {
	errs := make([]error, len(mistakes))
	for i, e := range mistakes {
		errs[i] = e
	}
	return errors.Join(errs...)
}

// report collects what is wrong with one file, so that all of it is told at once.
type report struct {
	file     string
	lines    []string
	mistakes []*Error
	warnings []*Error
}

// fail reports a mistake at n. Whoever checks n, or what n is part of, can see that it is bad and need not
// complain about what follows from it.
func (r *report) fail(n *node, format string, args ...any) {
	r.mistakes = append(r.mistakes, r.at(n, fmt.Errorf(format, args...)))
	for ; n != nil; n = n.parent {
		n.bad = true
	}
}

// warn reports what is allowed but should be looked at.
func (r *report) warn(n *node, format string, args ...any) {
	r.warnings = append(r.warnings, r.at(n, fmt.Errorf(format, args...)))
}

// at returns an error at the place of n, brought inside the file whatever the YAML library says of its end.
func (r *report) at(n *node, err error) *Error {
	e := &Error{File: r.file, Line: 1, Column: 1, Err: err}
	if n != nil {
		e.Line, e.Column = n.line, n.column
	}
	e.Line = max(1, min(e.Line, len(r.lines)))
	e.Text = r.lines[e.Line-1]
	e.Column = max(1, min(e.Column, len([]rune(e.Text))+1))
	return e
}

// err returns the mistakes in the order of the file, joined, or nil.
func (r *report) err() error {
	slices.SortStableFunc(r.mistakes, inOrder)
	slices.SortStableFunc(r.warnings, inOrder)
	return Join(r.mistakes)
}

// inOrder compares the places of a and b in their file.
func inOrder(a, b *Error) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
}
