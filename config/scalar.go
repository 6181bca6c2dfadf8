// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"encoding"
	"errors"
	"math"
	"net/netip"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/service"
)

// words is a type that holds one of a few words, as the index of the word.
type words interface{ words() []string }

// Types of scalars that the decoder knows by themselves, because a mistake in one deserves a good answer.
func isType[T any](t reflect.Type) bool { return t == reflect.TypeFor[T]() }

// isScalar says whether t may be written as one word.
func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// scalar decodes the text of n into v.
func (d *decoder) scalar(n *node, v reflect.Value) {
	switch into := v.Addr().Interface().(type) {
	case words:
		d.word(n, v, into.words())
	case *time.Duration:
		d.duration(n, into)
	case *netip.Addr:
		d.addr(n, into)
	case *netip.AddrPort:
		d.addrPort(n, into)
	case *netip.Prefix:
		d.prefix(n, into)
	case *service.Path:
		d.path(n, into)
	case encoding.TextUnmarshaler:
		d.text(n, into)
	default:
		d.basic(n, v)
	}
}

// word finds the word that n is, and sets v to its index.
func (d *decoder) word(n *node, v reflect.Value, all []string) {
	for i, w := range all {
		if w == n.text {
			v.SetUint(uint64(i))
			return
		}
	}
	d.fail(n, "must be %s, not %q", enumerate(all, "or"), n.text)
}

// text decodes what reads itself.
func (d *decoder) text(n *node, into encoding.TextUnmarshaler) {
	err := into.UnmarshalText([]byte(n.text))
	switch {
	case err == nil:
	case errors.Is(err, service.ErrSize):
		d.fail(n, "%q is not a size; write, for example, 16KiB", n.text)
	case errors.Is(err, limit.ErrRate):
		d.fail(n, "%q is not a rate; write 1 to 1000000 in a second, minute or hour, for example 100/s, 30/m or 500/h", n.text)
	case errors.Is(err, service.ErrPercent):
		d.fail(n, "%q is not a percentage from 0%% to 100%%; write, for example, 20%%", n.text)
	default:
		d.fail(n, "%q: %v", n.text, err)
	}
}

// basic decodes what Go itself has.
func (d *decoder) basic(n *node, v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(n.text == "true")
		if n.text != "true" && n.text != "false" {
			d.fail(n, "must be true or false, not %q", n.text)
		}
	case reflect.String:
		v.SetString(n.text)
		if n.text == "" {
			d.fail(n, "must not be empty")
		}
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(n.text, v.Type().Bits())
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.fail(n, "%q is not a number", n.text)
			return
		}
		v.SetFloat(f)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		u, err := strconv.ParseUint(n.text, 10, v.Type().Bits())
		if err != nil {
			d.fail(n, "%q is not a whole number from 0", n.text)
			return
		}
		v.SetUint(u)
	default:
		i, err := strconv.ParseInt(n.text, 10, v.Type().Bits())
		if err != nil {
			d.fail(n, "%q is not a whole number", n.text)
			return
		}
		v.SetInt(i)
	}
}

// duration decodes, for example, 500ms, 1h30m or 36d.
func (d *decoder) duration(n *node, into *time.Duration) {
	v, err := parseDuration(n.text)
	switch {
	case errors.Is(err, errNoUnit):
		d.fail(n, "%q has no unit; write, for example, %ss", n.text, n.text)
	case err != nil:
		d.fail(n, "%q is not a duration; write, for example, 500ms, 5s, 2m or 36d", n.text)
	}
	*into = v
}

var (
	errNoUnit   = errors.New("config: duration without a unit")
	errDuration = errors.New("config: not a duration")
)

// parseDuration is time.ParseDuration with days of 24 hours and without signs.
func parseDuration(text string) (time.Duration, error) {
	if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		return 0, errNoUnit
	}
	if strings.ContainsAny(text, "+-") {
		return 0, errDuration
	}
	var days time.Duration
	if before, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 16) // 65535 days are far from what a Duration holds
		if err != nil {
			return 0, errDuration
		}
		days, text = time.Duration(n)*24*time.Hour, cmp.Or(after, "0s")
	}
	rest, err := time.ParseDuration(text)
	if err != nil || days+rest < days {
		return 0, errDuration
	}
	return days + rest, nil
}

// limit checks a value, or each of a list, against the range in its tag: "1..256" or, open above, "1ms..".
func (d *decoder) limit(n *node, v reflect.Value, limits string) {
	if l, ok := reflect.TypeAssert[interface{ inner() reflect.Value }](v.Addr()); ok {
		v = l.inner()
	}
	if limits == "" || n.bad {
		return
	}
	if v.Kind() == reflect.Slice {
		for i, item := range n.items {
			d.limit(item, v.Index(i), limits)
		}
		return
	}
	low, high, _ := strings.Cut(limits, "..")
	if number(v) >= bound(low, v) && (high == "" || number(v) <= bound(high, v)) {
		return
	}
	if high == "" {
		d.fail(n, "must be %s or more", low)
		return
	}
	d.fail(n, "must be from %s to %s", low, high)
}

// number returns the value of an integer, a duration or a size.
func number(v reflect.Value) int64 {
	if v.CanUint() {
		return int64(min(v.Uint(), 1<<63-1))
	}
	return v.Int()
}

// bound returns a limit of v. A tag that cannot be read is a mistake of ours, which the tests of the tags find.
func bound(text string, v reflect.Value) int64 {
	if isType[time.Duration](v.Type()) {
		t, _ := parseDuration(text)
		return int64(t)
	}
	if isType[service.Bytes](v.Type()) {
		var b service.Bytes
		_ = b.UnmarshalText([]byte(text))
		return int64(b)
	}
	i, _ := strconv.ParseInt(text, 10, 64)
	return i
}

// path makes the name of a file absolute.
func (d *decoder) path(n *node, into *service.Path) {
	if n.text == "" {
		d.fail(n, "must not be empty")
		return
	}
	if !filepath.IsAbs(n.text) {
		*into = service.Path(filepath.Join(d.dir, n.text))
		return
	}
	*into = service.Path(filepath.Clean(n.text))
}
