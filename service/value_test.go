// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service_test

import (
	"errors"
	"testing"

	"github.com/kyozon/kyozon/service"
)

func TestBytes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want service.Bytes
		err  error
	}{
		{text: "0B", want: 0},
		{text: "1B", want: 1},
		{text: "16KiB", want: 16 << 10},
		{text: "16 KiB", want: 16 << 10},
		{text: "3MiB", want: 3 << 20},
		{text: "2GiB", want: 2 << 30},
		{text: "16", err: service.ErrSize},
		{text: "16KB", err: service.ErrSize},
		{text: "16Ki", err: service.ErrSize},
		{text: "1.5KiB", err: service.ErrSize},
		{text: "-1B", err: service.ErrSize},
		{text: "KiB", err: service.ErrSize},
		{text: "", err: service.ErrSize},
		{text: "9223372036854775807GiB", err: service.ErrSize},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			t.Parallel()
			var got service.Bytes
			if err := got.UnmarshalText([]byte(test.text)); !errors.Is(err, test.err) || got != test.want {
				t.Errorf("got %d, %v; want %d, %v", got, err, test.want, test.err)
			}
		})
	}
}

func TestPercent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want service.Percent
		err  error
	}{
		{text: "0%", want: 0},
		{text: "20%", want: 20},
		{text: "0.5%", want: 0.5},
		{text: "100%", want: 100},
		{text: "100.1%", err: service.ErrPercent},
		{text: "20", err: service.ErrPercent},
		{text: "-1%", err: service.ErrPercent},
		{text: "NaN%", err: service.ErrPercent},
		{text: "1e1%", err: service.ErrPercent},
		{text: "0x1p3%", err: service.ErrPercent},
		{text: "%", err: service.ErrPercent},
	}
	for _, test := range tests {
		t.Run(test.text, func(t *testing.T) {
			t.Parallel()
			var got service.Percent
			if err := got.UnmarshalText([]byte(test.text)); !errors.Is(err, test.err) || got != test.want {
				t.Errorf("got %v, %v; want %v, %v", got, err, test.want, test.err)
			}
		})
	}
}

// FuzzBytes holds that what was read is written so that it is read again as the same.
func FuzzBytes(f *testing.F) {
	for _, s := range []string{"0B", "16KiB", "3 MiB", "1GiB", "1024", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var b, again service.Bytes
		if b.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%q became %s and then %s, %v", text, b, again, err)
		}
	})
}

// FuzzPercent is FuzzBytes for percentages.
func FuzzPercent(f *testing.F) {
	for _, s := range []string{"0%", "0.5%", "100%", "33.333%", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var p, again service.Percent
		if p.UnmarshalText([]byte(text)) != nil {
			return
		}
		if err := again.UnmarshalText([]byte(p.String())); err != nil || again != p {
			t.Errorf("%q became %s and then %s, %v", text, p, again, err)
		}
	})
}
