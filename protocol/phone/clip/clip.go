// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package clip reads announcements, and writes them as every telephone understands them: in G.711.
//
//	file ─▶ Parse: WAV, or samples alone ─▶ Clip, by µ-law and by A-law ─▶ played by package media
//
// Nothing is resampled: what is no speech of a telephone network (8000 samples a second, one channel) is refused, with
// what to do about it.
//
// RFC 3551 §4.5.14 (PCMA and PCMU).
package clip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

const (
	// Rate is how many samples a second have.
	Rate = 8000

	// Frame is how many samples a packet has: 20 ms. RFC 3551 §4.2.
	Frame = 160

	// Longest is how long a clip may be: whoever calls waits for its end.
	Longest = 2 * time.Minute

	// silence is a sample that says nothing, by either law.
	silenceU, silenceA = 0xff, 0xd5
)

// What can be wrong with a file.
var (
	ErrKind   = errors.New("neither a WAV file nor one of samples, .ulaw or .alaw")
	ErrWave   = errors.New("a broken WAV file")
	ErrLong   = fmt.Errorf("longer than %v", Longest)
	ErrEmpty  = errors.New("without a sample")
	ErrFormat = errors.New("want one channel of 8000 samples a second, of 16 bits or by G.711; to convert it: sox FILE -r 8000 -c 1 -b 16 OUT.wav")
)

// Clip is an announcement: the same by either law, in whole frames.
type Clip struct{ PCMU, PCMA []byte }

// Length is how long it takes.
func (c *Clip) Length() time.Duration { return time.Duration(len(c.PCMU)) * time.Second / Rate }

// Parse reads a file of a name, whose end says what it is where it is no WAV file.
func Parse(name string, data []byte) (*Clip, error) {
	law, samples := lawOf(name), data
	if len(data) >= 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WAVE" {
		var err error
		if law, samples, err = wave(data[12:]); err != nil {
			return nil, err
		}
	}
	size := 1
	switch law {
	case none:
		return nil, ErrKind
	case linear:
		size = 2
	}
	n := len(samples) / size
	switch {
	case n == 0:
		return nil, ErrEmpty
	case n > int(Longest/time.Second)*Rate:
		return nil, ErrLong
	}
	return law.clip(samples, n), nil
}

// law is how samples are written.
type law uint8

const (
	none law = iota
	linear
	mu
	a
)

// lawOf returns that of a file of samples alone, by the end of its name.
func lawOf(name string) law {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".ulaw", ".ul", ".pcmu", ".mulaw":
		return mu
	case ".alaw", ".al", ".pcma":
		return a
	}
	return none
}

// clip returns n samples, and silence to the end of the last frame.
func (l law) clip(samples []byte, n int) *Clip {
	frames := (n + Frame - 1) / Frame
	c := &Clip{bytes.Repeat([]byte{silenceU}, frames*Frame), bytes.Repeat([]byte{silenceA}, frames*Frame)}
	for i := range n {
		switch l {
		case mu:
			c.PCMU[i] = samples[i]
			c.PCMA[i] = toA(fromMu(samples[i]))
		case a:
			c.PCMA[i] = samples[i]
			c.PCMU[i] = toMu(fromA(samples[i]))
		default:
			s := int16(binary.LittleEndian.Uint16(samples[2*i:]))
			c.PCMU[i], c.PCMA[i] = toMu(s), toA(s)
		}
	}
	return c
}

// The formats of WAV files, by their numbers in the chunk "fmt ".
const (
	wavePCM        = 1
	waveA          = 6
	waveMu         = 7
	waveExtensible = 0xfffe
	formatSize     = 16 // and what follows, of an extensible one
	extendedSize   = 26
)

// wave reads the chunks of a WAV file. The one with samples may say that it is longer than it is, as one that was written into
// a pipe does.
func wave(rest []byte) (law, []byte, error) {
	found := none
	for len(rest) >= 8 {
		id, size := string(rest[:4]), uint64(binary.LittleEndian.Uint32(rest[4:]))
		rest = rest[8:]
		if id == "data" {
			if found == none {
				return none, nil, ErrWave
			}
			return found, rest[:min(size, uint64(len(rest)))], nil
		}
		if size > uint64(len(rest)) {
			return none, nil, ErrWave
		}
		if id == "fmt " {
			var err error
			if found, err = format(rest[:size]); err != nil {
				return none, nil, err
			}
		}
		rest = rest[min(size+size&1, uint64(len(rest))):] // chunks begin at even places
	}
	return none, nil, ErrWave
}

func format(p []byte) (law, error) {
	if len(p) < formatSize {
		return none, ErrWave
	}
	word := func(at int) int { return int(binary.LittleEndian.Uint16(p[at:])) }
	kind, channels, rate, bits := word(0), word(2), binary.LittleEndian.Uint32(p[4:]), word(14)
	if kind == waveExtensible && len(p) >= extendedSize {
		kind = word(24)
	}
	found := none
	switch {
	case kind == wavePCM && bits == 16:
		found = linear
	case kind == waveMu && bits == 8:
		found = mu
	case kind == waveA && bits == 8:
		found = a
	}
	if found == none || channels != 1 || rate != Rate {
		return none, fmt.Errorf("format %d, %d channels, %d samples a second, %d bits: %w", kind, channels, rate, bits, ErrFormat)
	}
	return found, nil
}
