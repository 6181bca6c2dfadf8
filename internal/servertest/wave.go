// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bytes"
	"encoding/binary"
	"math"
)

// readWave returns the first channel of a WAVE file of 16-bit samples, and their rate. The file may still be written to: the
// length in its head is not looked at. Of what is no such file it returns nothing.
func readWave(file []byte) (samples []float64, rate int) {
	const head = 36 // of RIFF and fmt
	if len(file) < head || string(file[:4]) != "RIFF" || string(file[12:16]) != "fmt " {
		return nil, 0
	}
	channels, bits := int(binary.LittleEndian.Uint16(file[22:])), binary.LittleEndian.Uint16(file[34:])
	data := bytes.Index(file[head:], []byte("data"))
	if channels == 0 || bits != 16 || data < 0 || len(file) < head+data+8 {
		return nil, 0
	}
	for p := file[head+data+8:]; len(p) >= 2*channels; p = p[2*channels:] {
		samples = append(samples, float64(int16(binary.LittleEndian.Uint16(p))))
	}
	return samples, int(binary.LittleEndian.Uint32(file[24:]))
}

// EnergyAt returns the part of the energy of samples that is in a tone, whose frequency is a part of the rate.
func EnergyAt(samples []float64, frequency float64) float64 {
	var re, im, all float64
	for i, v := range samples {
		sin, cos := math.Sincos(2 * math.Pi * frequency * float64(i))
		re, im, all = re+v*cos, im+v*sin, all+v*v
	}
	if all == 0 {
		return 0
	}
	return 2 * (re*re + im*im) / (all * float64(len(samples)))
}
