// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The kinds of values below may stand in the Options of any protocol: package config decodes them as they are
// written, with their unit.

// ErrSize means that a text is not a number of bytes.
var ErrSize = errors.New(`service: not a size; write, for example, 16KiB`)

// ErrPercent means that a text is not a percentage.
var ErrPercent = errors.New(`service: not a percentage; write, for example, 20%`)

// Bytes is a number of bytes, written with its unit: B, KiB, MiB or GiB.
type Bytes int64

// sizeUnits are the units of Bytes, each 1024 times the one before it.
const sizeUnits = "B KiB MiB GiB"

// UnmarshalText reads, for example, "16KiB". A number alone has no unit and is refused. Returns ErrSize.
func (b *Bytes) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "BiKMG")
	unit := strings.TrimLeft(string(text)[len(digits):], " ")
	n, err := strconv.ParseUint(strings.TrimRight(digits, " "), 10, 63)
	if err != nil {
		return ErrSize
	}
	for i, name := range strings.Fields(sizeUnits) {
		if unit != name {
			continue
		}
		if n > math.MaxInt64>>(10*i) {
			return ErrSize
		}
		*b = Bytes(n << (10 * i))
		return nil
	}
	return ErrSize
}

// MarshalText writes b as UnmarshalText reads it, in the largest unit that loses nothing.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String returns, for example, "16KiB".
func (b Bytes) String() string {
	units := strings.Fields(sizeUnits)
	i := 0
	for b != 0 && b%1024 == 0 && i < len(units)-1 {
		b /= 1024
		i++
	}
	return strconv.FormatInt(int64(b), 10) + units[i]
}

// Percent is a part of a hundred, from 0 to 100, written with the sign: 20% or 0.5%.
type Percent float64

// UnmarshalText reads, for example, "20%". Returns ErrPercent.
func (p *Percent) UnmarshalText(text []byte) error {
	digits, ok := strings.CutSuffix(string(text), "%")
	if !ok || strings.Trim(digits, "0123456789.") != "" { // ParseFloat alone takes 1e1, 0x1p3 and NaN
		return ErrPercent
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || v > 100 {
		return ErrPercent
	}
	*p = Percent(v)
	return nil
}

// MarshalText writes p as UnmarshalText reads it.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String returns, for example, "20%".
func (p Percent) String() string {
	return fmt.Sprintf("%s%%", strconv.FormatFloat(float64(p), 'f', -1, 64))
}

// Path is the name of a file. Where the site file says shop.pem, config makes it the absolute name of shop.pem
// beside the site file, so that it does not matter where the program was started.
type Path string
