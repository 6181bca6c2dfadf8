// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import "encoding/binary"

// Preface is what a client sends first. RFC 9113 §3.4.
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	headerSize = 9
	maxFrame   = 16 << 10 // bytes of a payload, as everybody begins with; we ask for no more. RFC 9113 §4.2
	maxStream  = 1<<31 - 1
	maxWindow  = 1<<31 - 1
)

// Types of frames. RFC 9113 §6.
const (
	frameData = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
)

// Flags. RFC 9113 §6.
const (
	flagAck        = 0x1
	flagEnd        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings. RFC 9113 §6.5.2.
const (
	settingTable   = 1
	settingPush    = 2
	settingStreams = 3
	settingWindow  = 4
	settingFrame   = 5
	settingHead    = 6
)

// frame is a frame's header, and its payload without padding if it is there.
type frame struct {
	length  int
	kind    uint8
	flags   uint8
	stream  uint32
	payload []byte
}

// parseHeader reads the header of a frame, of which p has at least the 9 bytes.
func parseHeader(p []byte) frame {
	return frame{
		length: int(p[0])<<16 | int(p[1])<<8 | int(p[2]),
		kind:   p[3],
		flags:  p[4],
		stream: binary.BigEndian.Uint32(p[5:]) & maxStream,
	}
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

func appendHeader(dst []byte, length int, kind, flags uint8, stream uint32) []byte {
	return append(dst, byte(length>>16), byte(length>>8), byte(length), kind, flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// setLength writes into the header of f, which is one whole frame, how long it is.
func setLength(f []byte) {
	n := len(f) - headerSize
	f[0], f[1], f[2] = byte(n>>16), byte(n>>8), byte(n)
}

func appendSetting(dst []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(dst, id), value)
}

func appendReset(dst []byte, stream uint32, code Code) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(dst, 4, frameReset, 0, stream), uint32(code))
}

func appendWindow(dst []byte, stream, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(dst, 4, frameWindow, 0, stream), n)
}

func appendGoAway(dst []byte, last uint32, code Code) []byte {
	dst = binary.BigEndian.AppendUint32(appendHeader(dst, 8, frameGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(dst, uint32(code))
}
