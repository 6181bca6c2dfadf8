// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package cdr

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

var errNumber = errors.New("a number that JSON does not have")

// line is JSON that is written field by field, as encoding/json writes the same record: that looks at types while it writes,
// which was a twentieth of the cost of a call.
type line struct {
	b   []byte
	err error // the first
}

// name writes the name of a field, and what comes before it.
func (l *line) name(s string) {
	if l.b[len(l.b)-1] != '{' {
		l.b = append(l.b, ',')
	}
	l.b = append(append(append(l.b, '"'), s...), '"', ':')
}

func (l *line) open(name string) {
	l.name(name)
	l.b = append(l.b, '{')
}

func (l *line) close() { l.b = append(l.b, '}') }

func (l *line) text(name, value string) {
	l.name(name)
	l.b = appendText(l.b, value)
}

func (l *line) textIf(name, value string) {
	if value != "" {
		l.text(name, value)
	}
}

func (l *line) flagIf(name string, value bool) {
	if value {
		l.name(name)
		l.b = append(l.b, "true"...)
	}
}

func (l *line) number(name string, n int) {
	l.name(name)
	l.b = strconv.AppendInt(l.b, int64(n), 10)
}

func (l *line) numberIf(name string, n int) {
	if n != 0 {
		l.number(name, n)
	}
}

func (l *line) count(name string, n uint64) {
	l.name(name)
	l.b = strconv.AppendUint(l.b, n, 10)
}

// measure writes a number with a fraction: with an exponent where it is very small or large.
func (l *line) measure(name string, f float64) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		l.fail(errNumber)
		return
	}
	l.name(name)
	form := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		form = 'e'
	}
	l.b = strconv.AppendFloat(l.b, f, form, -1, 64)
	if n := len(l.b); form == 'e' && l.b[n-3] == '-' && l.b[n-2] == '0' { // e-07
		l.b = append(l.b[:n-2], l.b[n-1])
	}
}

func (l *line) measureIf(name string, f float64) {
	if f != 0 {
		l.measure(name, f)
	}
}

// time writes one in UTC and whole milliseconds.
func (l *line) time(name string, t time.Time) {
	l.name(name)
	b, err := plain(t).AppendText(append(l.b, '"'))
	if err != nil {
		l.fail(err)
		return
	}
	l.b = append(b, '"')
}

func (l *line) timeIf(name string, t *time.Time) {
	if t != nil {
		l.time(name, *t)
	}
}

func (l *line) address(name string, a netip.AddrPort) {
	l.name(name)
	if a.Addr().Zone() != "" {
		l.b = appendText(l.b, a.String())
		return
	}
	l.b = append(l.b, '"')
	if a != (netip.AddrPort{}) {
		l.b = a.AppendTo(l.b)
	}
	l.b = append(l.b, '"')
}

func (l *line) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

const hex = "0123456789abcdef"

// appendText writes a string. What would end a line or a string, or be read as HTML, is escaped; what is not UTF-8 becomes
// U+FFFD.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c, size := rune(s[i]), 1
		switch {
		case plainly(s[i]):
			i++
			continue
		case c >= utf8.RuneSelf:
			c, size = utf8.DecodeRuneInString(s[i:])
			if (c != utf8.RuneError || size > 1) && c != '\u2028' && c != '\u2029' {
				i += size
				continue
			}
		}
		dst = appendEscaped(append(dst, s[from:i]...), c)
		i += size
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}

// plainly says whether a character of ASCII stands for itself.
func plainly(c byte) bool {
	return ' ' <= c && c < utf8.RuneSelf && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

func appendEscaped(dst []byte, c rune) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', byte(c))
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	return append(dst, '\\', 'u', hex[c>>12&15], hex[c>>8&15], hex[c>>4&15], hex[c&15])
}

// Append adds r as a line, with its end, and its duration, which whoever bills looks for first. Times are in UTC and
// whole milliseconds.
func (r *Record) Append(dst []byte) ([]byte, error) {
	l := &line{b: append(dst, '{')}
	l.number("version", Version)
	l.text("id", r.ID)
	l.time("start", r.Start)
	l.timeIf("ring", r.Ring)
	l.timeIf("answer", r.Answer)
	l.time("end", r.End)
	l.text("from", r.From)
	l.text("to", r.To)
	l.text("dialled", r.Dialled)
	l.text("class", r.Class)
	l.flagIf("withheld", r.Withheld)
	l.flagIf("emergency", r.Emergency)
	l.textIf("route", r.Route)
	l.leg("caller", &r.Caller)
	if r.Called != nil {
		l.leg("called", r.Called)
	}
	if r.Media != nil {
		l.media(r.Media)
	}
	l.text("ended-by", r.EndedBy)
	l.numberIf("status", r.Status)
	l.number("cause", r.Cause)
	l.textIf("reason", r.Reason)
	l.measure("seconds", r.Duration().Truncate(time.Millisecond).Seconds())
	l.close()
	if l.err != nil {
		return dst, fmt.Errorf("write cdr: %w", l.err)
	}
	return append(l.b, '\n'), nil
}

func (l *line) leg(name string, g *Leg) {
	l.open(name)
	l.text("network", g.Network)
	l.text("family", g.Family)
	l.text("peer", g.Peer)
	l.address("address", g.Address)
	l.text("call-id", g.CallID)
	l.textIf("media", g.Media)
	l.numberIf("tried", g.Tried)
	l.close()
}

func (l *line) media(m *Media) {
	l.open("media")
	l.text("path", m.Path)
	l.textIf("relayed", m.Relayed)
	l.flow("to-caller", &m.ToCaller)
	l.flow("to-called", &m.ToCalled)
	l.close()
}

func (l *line) flow(name string, f *Flow) {
	if *f == (Flow{}) {
		return
	}
	l.open(name)
	l.count("packets", f.Packets)
	l.count("bytes", f.Bytes)
	if f.Lost != 0 {
		l.count("lost", f.Lost)
	}
	l.measureIf("jitter", f.Jitter)
	l.measureIf("mos", f.MOS)
	if f.Strangers != 0 {
		l.count("strangers", f.Strangers)
	}
	l.close()
}
