// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/kyozon/kyozon/ip"
)

// model is the parser of kernel/bpf/parse.h in Go: what a frame to the front of a service is.
type model struct {
	from, to netip.AddrPort
	protocol uint8
	ttl      uint8
	l4       []byte // the datagram, or the segment
	fragment bool
	later    bool // it has no ports of its own
}

// parseModel returns false for what the program must not forward.
func parseModel(frame []byte) (m model, ok bool) {
	if len(frame) < 14 {
		return m, false
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		ok = m.parse4(frame[14:])
	case 0x86dd:
		ok = m.parse6(frame[14:])
	}
	if !ok || m.later || len(m.l4) < 8 {
		return m, false
	}
	length, least := int(binary.BigEndian.Uint16(m.l4[4:])), 8
	if m.protocol == protocolTCP {
		if len(m.l4) < 20 {
			return m, false
		}
		length, least = int(m.l4[12]>>4)*4, 20
	}
	if length < least || length > len(m.l4) && (m.protocol == protocolTCP || !m.fragment) {
		return m, false
	}
	m.from = netip.AddrPortFrom(m.from.Addr(), binary.BigEndian.Uint16(m.l4))
	m.to = netip.AddrPortFrom(m.to.Addr(), binary.BigEndian.Uint16(m.l4[2:]))
	return m, true
}

// carries says whether there are services of a protocol, and notes it.
func (m *model) carries(protocol uint8) bool {
	m.protocol = protocol
	return protocol == protocolUDP || protocol == protocolTCP
}

func (m *model) parse4(b []byte) bool {
	if len(b) < 20 || b[0]>>4 != 4 || b[0]&15 < 5 || !m.carries(b[9]) {
		return false
	}
	header, size, at := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:])), binary.BigEndian.Uint16(b[6:])
	if header > len(b) || checksum(b[:header], 0) != 0 || size > len(b) || size < header {
		return false
	}
	m.ttl, m.l4, m.fragment, m.later = b[8], b[header:size], at&0x2000 != 0, at&0x1fff != 0
	m.from, m.to = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:])), 0), netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:])), 0)
	return true
}

func (m *model) parse6(b []byte) bool {
	if len(b) < 40 || b[0]>>4 != 6 {
		return false
	}
	size := 40 + int(binary.BigEndian.Uint16(b[4:]))
	next, at := b[6], 40
	for range 6 {
		if next != 0 && next != 43 && next != 44 && next != 60 {
			break
		}
		if m.fragment || at+8 > len(b) {
			return false
		}
		if next == 44 {
			m.fragment = true
			if m.later = binary.BigEndian.Uint16(b[at+2:])&^7 != 0; m.later {
				return false
			}
			next, at = b[at], at+8
			continue
		}
		next, at = b[at], at+(int(b[at+1])+1)*8
	}
	if !m.carries(next) || size > len(b) || at > size {
		return false
	}
	m.ttl, m.l4 = b[7], b[at:size]
	m.from, m.to = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:])), 0), netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[24:])), 0)
	return true
}

// compareModel runs a frame and says whether the program and the model agree.
func compareModel(t *testing.T, r *rig, c ip.Crossing, frame []byte) {
	t.Helper()
	verdict, out := r.in(r.clients, frame)
	m, ok := parseModel(frame)
	if m.later {
		return // whether its first has come is not the parser's to know
	}
	mine := ok && m.to == frontOf(c.Client) && m.from == clientAt(c.Client)
	if !mine {
		if verdict == actRedirect && !(ok && m.to == frontOf(c.Client)) {
			t.Errorf("%x is forwarded; the model says that it is not ours", frame)
		}
		return
	}
	if verdict == actUnspec && m.protocol == protocolUDP { // of TCP, what opens no flow and belongs to none passes
		t.Errorf("%x passes; the model says that it is ours", frame)
	}
	if verdict != actRedirect || m.ttl <= 1 || m.fragment {
		return
	}
	got, ok := parseModel(out)
	if !ok {
		if len(out) > 34 && (out[23] == 1 || out[20] == 58) {
			return // an answer: a routing header, a source route
		}
		t.Errorf("%x becomes %x, which is no packet", frame, out)
		return
	}
	if got.from != sourceOf(c) || got.to != serverOf(c.Backend) || got.ttl != m.ttl-1 || !bytes.Equal(got.kept(), m.kept()) {
		t.Errorf("%x becomes %x", frame, out)
	}
	if m.summed() && !got.summed() {
		t.Errorf("%x has a good checksum; %x has not", frame, out)
	}
}

// summed says whether the checksum is right.
func (m *model) summed() bool {
	return checksum(m.l4, pseudo(m.from.Addr(), m.to.Addr(), m.protocol, len(m.l4))) == 0
}

// kept is what the translator does not touch: all but ports, checksum and, on SYN, options.
func (m *model) kept() []byte {
	switch {
	case m.protocol == protocolUDP:
		return m.l4[8:]
	case m.l4[13]&syn != 0:
		return slices.Concat(m.l4[4:16], m.l4[18:20], m.l4[int(m.l4[12]>>4)*4:])
	}
	return slices.Concat(m.l4[4:16], m.l4[18:])
}

// TestTruncated: a packet that ends anywhere, in either family, is never forwarded but whole, and one whose bytes say
// anything is what the model says that it is.
func TestTruncated(t *testing.T) {
	for _, c := range ip.Crossings() {
		r := opened(t, c)
		frame := question(c, []byte("twenty bytes of data")).bytes()
		for n := 15; n < len(frame); n++ {
			if verdict, _ := r.in(r.clients, frame[:n:n]); verdict != actUnspec {
				t.Errorf("%s: %d of %d bytes: verdict %d, want pass", c, n, len(frame), int32(verdict))
			}
		}
		for at := range frame {
			for _, x := range []byte{0, 1, 0x7f, 0x80, 0xff} {
				changed := bytes.Clone(frame)
				changed[at] ^= x
				compareModel(t, r, c, changed)
			}
		}
		quoted := sent(c, question(c, []byte("twenty bytes of data"))).bytes()
		kind := byte(3)
		if c.Backend == ip.V6 {
			kind = 1
		}
		frame = icmp(serverOf(c.Backend).Addr(), sourceOf(c).Addr(), kind, 1, 0, quoted)
		for n := 15; n < len(frame); n++ {
			if verdict, _ := r.in(r.servers, frame[:n:n]); verdict == actRedirect {
				t.Errorf("%s: ICMP: %d of %d bytes: forwarded", c, n, len(frame))
			}
		}
	}
}

// FuzzForward: the program agrees with the model about any frame.
func FuzzForward(f *testing.F) {
	for i, c := range ip.Crossings() {
		f.Add(byte(i), question(c, []byte("hello")).bytes())
		for _, flags := range []uint8{syn, ack, syn | ack} {
			segment := question(c, []byte("\xffhello"))
			segment.protocol, segment.flags, segment.options = protocolTCP, flags, []byte{1, 2, 4, 1460 >> 8, 1460 & 255, 1, 1, 0}
			f.Add(byte(i), segment.bytes())
			segment.options = []byte{1, 2, 4, 1460 >> 8} // goes on in the payload
			f.Add(byte(i), segment.bytes())
		}
		f.Add(byte(i), fragment6(question(ip.Crossing{Client: ip.V6, Backend: c.Backend}, make([]byte, 24)).bytes(), 0, 16, 1))
	}
	var rigs [4]*rig
	for i, c := range ip.Crossings() {
		rigs[i] = opened(f, c)
	}
	f.Fuzz(func(t *testing.T, i byte, frame []byte) {
		if len(frame) < 15 || len(frame) > 3000 {
			return
		}
		runtime.LockOSThread()
		r := *rigs[i&3]
		if r.t = t; netns.Set(r.space) != nil {
			t.Fatal("enter namespace")
		}
		compareModel(t, &r, ip.Crossings()[i&3], frame)
	})
}
