// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package cdr

import (
	"encoding/json"
	"math"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

// asJSON is what encoding/json makes of a record, which is what readers were promised.
func asJSON(r *Record) ([]byte, error) {
	at := func(t *time.Time) *time.Time {
		if t == nil {
			return nil
		}
		p := plain(*t)
		return &p
	}
	line := struct {
		Record
		Seconds float64 `json:"seconds"`
	}{*r, r.Duration().Truncate(time.Millisecond).Seconds()}
	line.Version = Version
	line.Start, line.End, line.Ring, line.Answer = *at(&r.Start), *at(&r.End), at(r.Ring), at(r.Answer)
	text, err := json.Marshal(line)
	return append(text, '\n'), err
}

// fill sets all fields of a record, down to the last, to what is not zero: one that Append does not know fails the test.
func fill(v reflect.Value, text string, n int64) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(n, n)))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.MustParseAddrPort("[2001:db8::1]:5060")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(n)
	case reflect.Uint64:
		v.SetUint(uint64(n))
	case reflect.Float64:
		v.SetFloat(float64(n) / 7e9)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text, n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), text, n+int64(i))
		}
	}
}

func same(t *testing.T, r *Record) {
	t.Helper()
	want, bad := asJSON(r)
	got, err := r.Append([]byte("before"))
	switch {
	case (err == nil) != (bad == nil):
		t.Errorf("got error %v, want %v", err, bad)
	case err != nil && string(got) != "before":
		t.Errorf("got %q after an error", got)
	case err == nil && string(got) != "before"+string(want):
		t.Errorf("\ngot  %swant before%s", got, want)
	}
}

// TestJSON: a line is what encoding/json writes.
func TestJSON(t *testing.T) {
	t.Parallel()
	for _, r := range calls() {
		same(t, &r)
	}
	same(t, &Record{})
	same(t, &Record{Start: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)})
	for _, f := range []float64{1e-7, 1e-6, 1e20, 1e21, 4.4, math.Inf(1), math.NaN()} {
		same(t, &Record{Media: &Media{ToCaller: Flow{MOS: f}}})
	}
	zoned := netip.AddrPortFrom(netip.MustParseAddr("fe80::1%\"eth0\""), 1)
	same(t, &Record{Caller: Leg{Address: zoned}})
	var whole Record
	fill(reflect.ValueOf(&whole).Elem(), "x", 1_800_000_000)
	same(t, &whole)
}

func FuzzJSON(f *testing.F) {
	for _, text := range []string{"", "plain", "\x00\b\t\n\f\r\x1f \"\\/<>&\x7f", "電話\u2028\u2029\ufffd", "\xff\xc3", "\xe3\x81"} {
		f.Add(text, int64(1_800_000_000_000))
	}
	f.Fuzz(func(t *testing.T, text string, n int64) {
		var r Record
		fill(reflect.ValueOf(&r).Elem(), text, n)
		same(t, &r)
	})
}

func TestAllocations(t *testing.T) {
	r := calls()[0]
	line := make([]byte, 0, maxLine)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Append(line); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func BenchmarkAppend(b *testing.B) {
	r := calls()[0]
	line := make([]byte, 0, maxLine)
	for b.Loop() {
		if _, err := r.Append(line); err != nil {
			b.Fatal(err)
		}
	}
}
