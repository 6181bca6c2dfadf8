// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package clip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// waveOf writes a WAV file.
func waveOf(kind, channels uint16, rate uint32, bits uint16, samples []byte, more ...byte) []byte {
	b := append([]byte("RIFF????WAVELIST\x03\x00\x00\x00abc\x00fmt "), more...)
	b = binary.LittleEndian.AppendUint32(b, 16)
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = binary.LittleEndian.AppendUint16(b, channels)
	b = binary.LittleEndian.AppendUint32(b, rate)
	b = binary.LittleEndian.AppendUint32(b, rate*uint32(bits)/8)
	b = binary.LittleEndian.AppendUint16(b, bits/8)
	b = binary.LittleEndian.AppendUint16(b, bits)
	b = binary.LittleEndian.AppendUint32(append(b, "data"...), uint32(len(samples)))
	return append(b, samples...)
}

func TestParse(t *testing.T) {
	t.Parallel()
	pcm := waveOf(1, 1, 8000, 16, make([]byte, 2*161))
	piped := bytes.Clone(pcm)
	binary.LittleEndian.PutUint32(piped[len(piped)-2*161-4:], 0xffffffff)
	for _, test := range []struct {
		name, file string
		data       []byte
		frames     int
		err        error
	}{
		{"PCM", "a.wav", pcm, 2, nil},
		{"through a pipe", "a.wav", piped, 2, nil},
		{"µ-law", "a.wav", waveOf(7, 1, 8000, 8, make([]byte, 160)), 1, nil},
		{"A-law", "a.wav", waveOf(6, 1, 8000, 8, make([]byte, 160)), 1, nil},
		{"samples by µ-law", "a.ulaw", make([]byte, 1), 1, nil},
		{"samples by A-law", "A.AL", make([]byte, 320), 2, nil},
		{"two channels", "a.wav", waveOf(1, 2, 8000, 16, make([]byte, 320)), 0, ErrFormat},
		{"music", "a.wav", waveOf(1, 1, 44100, 16, make([]byte, 320)), 0, ErrFormat},
		{"8 bits", "a.wav", waveOf(1, 1, 8000, 8, make([]byte, 320)), 0, ErrFormat},
		{"floats", "a.wav", waveOf(3, 1, 8000, 32, make([]byte, 320)), 0, ErrFormat},
		{"no samples", "a.wav", waveOf(1, 1, 8000, 16, nil), 0, ErrEmpty},
		{"half a sample", "a.wav", waveOf(1, 1, 8000, 16, []byte{1}), 0, ErrEmpty},
		{"cut off", "a.wav", pcm[:40], 0, ErrWave},
		{"data first", "a.wav", []byte("RIFF????WAVEdata\x01\x00\x00\x00a"), 0, ErrWave},
		{"short format", "a.wav", []byte("RIFF????WAVEfmt \x01\x00\x00\x00a"), 0, ErrWave},
		{"something else", "a.mp3", make([]byte, 320), 0, ErrKind},
		{"too long", "a.ulaw", make([]byte, 8000*120+1), 0, ErrLong},
	} {
		c, err := Parse(test.file, test.data)
		if !errors.Is(err, test.err) {
			t.Errorf("%s: got %v", test.name, err)
		}
		if err == nil && (len(c.PCMU) != test.frames*Frame || len(c.PCMA) != test.frames*Frame || c.Length() != time.Duration(test.frames)*20*time.Millisecond) {
			t.Errorf("%s: got %d, %d samples, %v", test.name, len(c.PCMU), len(c.PCMA), c.Length())
		}
	}
	c, _ := Parse("a.wav", pcm)
	if c.PCMU[159] != silenceU || c.PCMU[161] != silenceU || c.PCMA[159] != silenceA || c.PCMA[319] != silenceA {
		t.Error("silence is something else")
	}
}

// TestLaws: each law reads what it writes, and no sample is written farther from itself than half of its step.
func TestLaws(t *testing.T) {
	t.Parallel()
	for i := range 256 {
		b := byte(i)
		if got := toA(fromA(b)); got != b {
			t.Errorf("A-law %#x comes back as %#x", b, got)
		}
		if got := toMu(fromMu(b)); got != b && b != 0x7f { // of the two noughts one is written
			t.Errorf("µ-law %#x comes back as %#x", b, got)
		}
	}
	for s := -32768; s <= 32767; s++ {
		size := max(s, -s)
		if off := int(fromMu(toMu(int16(s)))) - s; max(off, -off) > size/32+8 && size < loudest {
			t.Fatalf("%d is %d by µ-law", s, s+off)
		}
		if off := int(fromA(toA(int16(s)))) - s; max(off, -off) > size/32+8 {
			t.Fatalf("%d is %d by A-law", s, s+off)
		}
	}
	// The ends of the segments and their signs, as ITU-T G.711 has them in tables 1 and 2.
	for s, want := range map[int16][2]byte{0: {0xff, 0xd5}, 32767: {0x80, 0xaa}, -32768: {0x00, 0x2a}, -1: {0x7f, 0x55}} {
		if toMu(s) != want[0] || toA(s) != want[1] {
			t.Errorf("%d: got %#x, %#x, want %#x", s, toMu(s), toA(s), want)
		}
	}
}

// FuzzParse: whatever a file has, it is refused or is whole frames.
func FuzzParse(f *testing.F) {
	f.Add("a.wav", waveOf(1, 1, 8000, 16, make([]byte, 320)))
	f.Add("a.wav", waveOf(0xfffe, 1, 8000, 16, make([]byte, 320)))
	f.Add("a.alaw", []byte{1})
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		c, err := Parse(name, data)
		if err == nil && (len(c.PCMU) == 0 || len(c.PCMU)%Frame != 0 || len(c.PCMU) != len(c.PCMA) || c.Length() > Longest) {
			t.Errorf("%d, %d samples", len(c.PCMU), len(c.PCMA))
		}
	})
}
