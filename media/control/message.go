// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/binary"
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// maxMessage bounds a message. The longest is figures with all networks.
const maxMessage = 24 << 10

// kind is what a message says.
type kind uint8

const (
	hello   kind = iota + 1 // first, of both: the versions that are spoken
	open                    // the client's
	reshape                 // another spec for a call
	update                  // remotes
	ask                     // for the statistics
	shut                    // ends a call
	restore                 // a call that the client has, with its addresses and remotes
	listed                  // all calls were restored
	opened                  // the relay's, to open, reshape and restore
	told                    // to ask and shut
	failed                  // to all of these, and to renew
	ended                   // a call that nobody had asked to end
	survey                  // the client's: asks for figures
	figures                 // the relay's, to survey
	renew                   // the client's: the networks may be others now
	renewed                 // the relay's, to renew
	piece                   // the client's: a part of an announcement
	play                    // and what plays one
)

// maxPiece bounds a part of an announcement.
const maxPiece = 3 << 10

// message is one of any kind. What a kind does not have is zero.
type message struct {
	version uint16 // in which it is written, or is to be read
	kind    kind
	seq     uint32 // of the request, and of its answer
	id      ID
	spec    Spec
	local   [2][]Local
	remotes []Remote
	stats   Stats
	figures *Figures
	failure uint8 // one more than the index in failures
	clip    Clip
	at, of  uint32 // where the piece belongs, and how long the whole is
	piece   []byte // valid until the next message
	play    Play
	spoken  span
}

var errMessage = errors.New("control: not a message of this version")

// append writes m to the end of b.
func (m *message) append(b []byte) []byte {
	b = append(b, byte(m.kind))
	b = binary.BigEndian.AppendUint32(b, m.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(m.id))
	switch m.kind {
	case hello:
		b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, m.spoken.oldest), m.spoken.newest)
	case open, reshape:
		b = appendSpec(b, &m.spec)
	case update:
		b = appendRemotes(b, m.remotes)
	case restore:
		b = appendRemotes(appendLocals(appendSpec(b, &m.spec), m.local), m.remotes)
	case opened:
		b = appendLocals(appendSpec(b, &m.spec), m.local)
	case told, ended:
		b = appendStats(b, &m.stats, m.version)
	case failed:
		b = append(b, m.failure)
	case figures:
		b = appendFigures(b, m.figures, m.version)
	case piece:
		b = binary.BigEndian.AppendUint64(b, uint64(m.clip))
		b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, m.at), m.of)
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(m.piece))), m.piece...)
	case play:
		p := &m.play
		b = append(binary.BigEndian.AppendUint64(b, uint64(p.Clip)), byte(p.Side), p.Stream, p.Type, p.Times)
	}
	return b
}

func appendSpec(b []byte, s *Spec) []byte {
	for _, n := range s.Networks {
		b = append(append(b, byte(len(n))), n...)
	}
	return append(b, byte(s.Streams))
}

func appendLocals(b []byte, sides [2][]Local) []byte {
	for _, side := range sides {
		b = append(b, byte(len(side)))
		for _, l := range side {
			b = appendAddr(appendAddr(b, l.RTP), l.RTCP)
		}
	}
	return b
}

// The flags of a remote.
const (
	flagMux = 1 << iota
	flagHeld
	flagOpaque
	flagLearn
)

func appendRemotes(b []byte, all []Remote) []byte {
	b = append(b, byte(len(all)))
	for i := range all {
		r := &all[i]
		flags := flag(flagMux, r.Mux) | flag(flagHeld, r.Held) | flag(flagOpaque, r.Opaque) | flag(flagLearn, r.Learn)
		b = append(b, byte(r.Side), r.Stream, flags, r.DSCP)
		b = binary.BigEndian.AppendUint32(b, r.Clock)
		b = appendAddr(appendAddr(b, r.RTP), r.RTCP)
		b = appendAddr(b, netip.AddrPortFrom(r.Signal, 0))
	}
	return b
}

func flag(bit byte, set bool) byte {
	if set {
		return bit
	}
	return 0
}

func appendStats(b []byte, s *Stats, version uint16) []byte {
	for _, side := range s.Heard {
		b = append(b, byte(len(side)))
		for i := range side {
			q := &side[i]
			for _, n := range []uint64{q.Packets, q.Bytes, q.RTCP, q.Lost, uint64(q.Jitter), q.Strangers} {
				b = binary.BigEndian.AppendUint64(b, n)
			}
			b = binary.BigEndian.AppendUint32(b, math.Float32bits(q.MOS))
			b = appendAddr(b, q.From)
			if version >= 3 {
				b = append(b, flag(1, q.Kernel))
			}
		}
	}
	return b
}

// appendAddr writes an address: its family, or 0 if there is none, its bytes and its port.
func appendAddr(b []byte, a netip.AddrPort) []byte {
	if !a.Addr().IsValid() {
		return append(b, 0)
	}
	b = append(append(b, byte(ip.FamilyOf(a.Addr()))), a.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// parse reads a message of m.version. Lengths are bounded before anything is allocated for them.
func (m *message) parse(b []byte) error {
	r := reader{rest: b, version: m.version}
	*m = message{version: m.version, kind: kind(r.byte()), seq: r.uint32(), id: ID(r.uint64())}
	switch m.kind {
	case hello:
		m.spoken = span{oldest: r.uint16()}
		if m.spoken.newest = m.spoken.oldest; len(r.rest) > 1 {
			m.spoken.newest = r.uint16()
		}
		r.rest = nil // what a later version adds
	case open, reshape:
		m.spec = r.spec()
	case update:
		m.remotes = r.remotes()
	case restore:
		m.spec, m.local = r.spec(), r.locals()
		m.remotes = r.remotes()
	case opened:
		m.spec, m.local = r.spec(), r.locals()
	case told, ended:
		m.stats = r.stats()
	case failed:
		m.failure = r.byte()
		r.bad = r.bad || m.failure == 0 || int(m.failure) > len(failures)
	case figures:
		m.figures = r.figures()
	case piece:
		m.clip, m.at, m.of = Clip(r.uint64()), r.uint32(), r.uint32()
		m.piece = r.take(int(min(r.uint16(), maxPiece+1)))
		r.bad = r.bad || len(m.piece) == 0 || len(m.piece) > maxPiece || m.of > MaxClip || uint64(m.at)+uint64(len(m.piece)) > uint64(m.of)
	case play:
		p := &m.play
		p.Clip, p.Side, p.Stream, p.Type, p.Times = Clip(r.uint64()), Side(r.byte()), r.byte(), r.byte(), r.byte()
		r.bad = r.bad || p.Side > Callee || p.Stream >= MaxStreams || p.Type > 127
	case ask, shut, listed, survey, renew, renewed:
	default:
		r.bad = true
	}
	if r.bad || len(r.rest) > 0 {
		return errMessage
	}
	return nil
}

// err is the error that a failed message carries.
func (m *message) err() error { return failures[m.failure-1] }

// reader takes a message apart. After the first mistake all it reads is zero.
type reader struct {
	rest    []byte
	version uint16
	bad     bool
}

func (r *reader) take(n int) []byte {
	if r.bad || len(r.rest) < n {
		r.bad = true
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte     { return r.take(1)[0] }
func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *reader) uint32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *reader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

// count reads how many of something follow.
func (r *reader) count(limit int) int {
	n := int(r.byte())
	if n > limit {
		r.bad = true
		return 0
	}
	return n
}

func (r *reader) spec() (s Spec) {
	for i := range s.Networks {
		s.Networks[i] = string(r.take(r.count(maxName)))
	}
	s.Streams = int(r.byte())
	if s.Check() != nil {
		r.bad = true
	}
	return s
}

func (r *reader) locals() (sides [2][]Local) {
	for i := range sides {
		for range r.count(MaxStreams) {
			sides[i] = append(sides[i], Local{RTP: r.addr(), RTCP: r.addr()})
		}
	}
	return sides
}

func (r *reader) remotes() (all []Remote) {
	for range r.count(2 * MaxStreams) {
		m := Remote{Side: Side(r.byte()), Stream: r.byte()}
		flags := r.byte()
		m.DSCP, m.Clock = r.byte(), r.uint32()
		m.RTP, m.RTCP = r.addr(), r.addr()
		signal := r.addr()
		m.Signal = signal.Addr()
		m.Mux, m.Held, m.Opaque, m.Learn = flags&flagMux > 0, flags&flagHeld > 0, flags&flagOpaque > 0, flags&flagLearn > 0
		if m.Side > Callee || m.Stream >= MaxStreams || m.DSCP > 63 || flags > 15 || signal.Port() != 0 {
			r.bad = true
		}
		all = append(all, m)
	}
	return all
}

func (r *reader) stats() (s Stats) {
	for i := range s.Heard {
		for range r.count(MaxStreams) {
			q := Quality{Packets: r.uint64(), Bytes: r.uint64(), RTCP: r.uint64(), Lost: r.uint64()}
			q.Jitter, q.Strangers = time.Duration(r.uint64()), r.uint64()
			q.MOS, q.From = math.Float32frombits(r.uint32()), r.addr()
			if r.version >= 3 {
				kernel := r.byte()
				q.Kernel, r.bad = kernel == 1, r.bad || kernel > 1
			}
			s.Heard[i] = append(s.Heard[i], q)
		}
	}
	return s
}

func (r *reader) addr() netip.AddrPort {
	var a netip.Addr
	switch ip.Family(r.byte()) {
	case 0:
		return netip.AddrPort{}
	case ip.V4:
		a = netip.AddrFrom4([4]byte(r.take(4)))
	case ip.V6:
		a = netip.AddrFrom16([16]byte(r.take(16)))
		r.bad = r.bad || a.Is4In6() // every address has one family
	default:
		r.bad = true
	}
	return netip.AddrPortFrom(a, r.uint16())
}
