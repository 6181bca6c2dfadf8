// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"encoding/binary"
	"math"
	"testing"
)

// A tone is known by its frequency, alone and beside another.
func TestTone(t *testing.T) {
	t.Parallel()
	const rate = 8000
	file := append([]byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x02\x00"), make([]byte, 12)...)
	binary.LittleEndian.PutUint32(file[24:], rate)
	binary.LittleEndian.PutUint16(file[34:], 16)
	file = append(file, "data\x00\x00\x00\x00"...)
	for i := range rate {
		v := 9000*math.Sin(2*math.Pi*440*float64(i)/rate) + 3000*math.Cos(2*math.Pi*1000*float64(i)/rate)
		file = binary.LittleEndian.AppendUint16(file, uint16(int16(v)))
		file = binary.LittleEndian.AppendUint16(file, 0x7fff) // the other channel
	}
	samples, got := readWave(file)
	if got != rate || len(samples) != rate {
		t.Fatalf("got %d samples at %d a second", len(samples), got)
	}
	for _, test := range []struct{ hz, want float64 }{{440, 0.9}, {1000, 0.1}, {700, 0}} {
		if got := EnergyAt(samples, test.hz/rate); math.Abs(got-test.want) > 0.01 {
			t.Errorf("%v Hz: got %v of the energy, want %v", test.hz, got, test.want)
		}
	}
	for n := range 44 { // whatever is missing of the head
		if _, rate := readWave(file[:n]); rate != 0 {
			t.Errorf("%d bytes are a file", n)
		}
	}
}
