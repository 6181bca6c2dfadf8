// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/kyozon/kyozon/state"
)

// What is on disk, all numbers big-endian:
//
//	ledger/meta                          JSON of meta
//	ledger/lease/ + stand-in:4           version:1 use:1 bits:1 prefix:8 first:4 last:4
//	ledger/past/  + until:4 + stand-in:4 the same: the lease as it was when it ended
//
// The past is in order of its end, so that it is pruned from the front.
const (
	version     = 1
	leasePrefix = "ledger/lease/"
	pastPrefix  = "ledger/past/"
	metaKey     = "ledger/meta"
	valueSize   = 19
)

// use is what a stand-in on disk is for.
type use uint8

const (
	alone  use = iota // one client
	shared            // every client of the prefix that has no lease of its own
	kept              // nobody yet: an unproven client may have it
)

// lease is a stand-in that is not free.
type lease struct {
	hi    uint64 // the first bits of the prefix
	first uint32 // when it was leased; all times in seconds since 1970
	last  uint32 // when it was renewed on disk
	bits  uint8
	use   use
	stage stage
	fresh bool // not on disk for certain: it is created there, not replaced
}

// meta is what the ledger says of itself.
type meta struct {
	Version int          `json:"version"`
	Pool    netip.Prefix `json:"pool"`
	Alive   uint32       `json:"alive"` // no use before this is later than a renewal on disk plus Renew
	Clean   bool         `json:"clean"` // nor is any use after it, for the writer ended in order
}

func (m meta) op() state.Op {
	v, _ := json.Marshal(m) // cannot fail: numbers, a bool and a prefix
	return state.Op{Key: []byte(metaKey), Value: v, Revision: state.Any}
}

func leaseKey(standIn uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte(leasePrefix), standIn)
}

func pastKey(until, standIn uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte(pastPrefix), until), standIn)
}

func (l lease) encode() []byte {
	v := append(make([]byte, 0, valueSize), version, byte(l.use), l.bits)
	v = binary.BigEndian.AppendUint64(v, l.hi)
	v = binary.BigEndian.AppendUint32(v, l.first)
	return binary.BigEndian.AppendUint32(v, l.last)
}

var errRecord = errors.New("ledger: not a record of this version")

// decodeLease reads the entry of a lease.
func decodeLease(key, v []byte) (standIn uint32, l lease, err error) {
	if len(key) != len(leasePrefix)+4 {
		return 0, l, fmt.Errorf("key %q: %w", key, errRecord)
	}
	l, err = decodeValue(v)
	return binary.BigEndian.Uint32(key[len(leasePrefix):]), l, err
}

// decodePast reads the entry of a lease that has ended.
func decodePast(key, v []byte) (until, standIn uint32, l lease, err error) {
	if len(key) != len(pastPrefix)+8 {
		return 0, 0, l, fmt.Errorf("key %q: %w", key, errRecord)
	}
	l, err = decodeValue(v)
	rest := key[len(pastPrefix):]
	return binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:]), l, err
}

func decodeValue(v []byte) (lease, error) {
	if len(v) != valueSize || v[0] != version || use(v[1]) > kept {
		return lease{}, fmt.Errorf("value %x: %w", v, errRecord)
	}
	l := lease{
		use: use(v[1]), bits: v[2], hi: binary.BigEndian.Uint64(v[3:]),
		first: binary.BigEndian.Uint32(v[11:]), last: binary.BigEndian.Uint32(v[15:]),
	}
	whole := l.use == kept && l.bits == 0 && l.hi == 0
	if l.use != kept {
		whole = l.bits == bitsOf(levelOf(l.bits)) && l.hi == cut(l.hi, l.bits)
	}
	if !whole {
		return lease{}, fmt.Errorf("value %x: %w", v, errRecord)
	}
	return l, nil
}

func (l lease) prefix() netip.Prefix {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], l.hi)
	return netip.PrefixFrom(netip.AddrFrom16(b), int(l.bits))
}
