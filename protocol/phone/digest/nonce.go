// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// Key is what nonces are made with: 32 random bytes, the same on all machines that a client may come to.
type Key [32]byte

const (
	stampLen = 10 // milliseconds in 6 bytes, a serial number in 4
	codeLen  = 17
	nonceLen = (stampLen + codeLen) / 3 * 4 // in base64
)

// stamp is when a nonce was made, and which of that time it is.
type stamp [stampLen]byte

func newStamp(now time.Time, serial uint32) (s stamp) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(now.UnixMilli()))
	copy(s[:6], b[2:])
	binary.BigEndian.PutUint32(s[6:], serial)
	return s
}

// milli returns when it was made, in milliseconds.
func (s *stamp) milli() int64 {
	var b [8]byte
	copy(b[2:], s[:6])
	return int64(binary.BigEndian.Uint64(b[:]))
}

// code is what only who has the key can compute: an HMAC-SHA-256 (RFC 2104 §2), cut to little more
// than half, as its §5 allows. The client is known by its network, so that one whose privacy address changes keeps its
// nonce, and a nonce that was overheard is of no use elsewhere.
func (k *Key) code(s *stamp, realm string, client netip.Addr) (code [codeLen]byte) {
	const block = sha256.BlockSize
	var in, out [block + 256]byte
	for i := range block {
		in[i], out[i] = 0x36, 0x5c
	}
	for i, b := range k {
		in[i] ^= b
		out[i] ^= b
	}
	prefix := ip.ClientPrefix(client)
	addr := prefix.Addr().As16()
	m := append(in[:block], s[:]...)
	m = append(m, byte(prefix.Bits()))
	m = append(m, addr[:]...)
	m = append(m, realm...)
	inner := sha256.Sum256(m)
	outer := sha256.Sum256(append(out[:block], inner[:]...))
	copy(code[:], outer[:])
	return code
}

// appendNonce adds a nonce.
func (k *Key) appendNonce(dst []byte, s stamp, realm string, client netip.Addr) []byte {
	code := k.code(&s, realm, client)
	var raw [stampLen + codeLen]byte
	copy(raw[:], s[:])
	copy(raw[stampLen:], code[:])
	return base64.RawURLEncoding.AppendEncode(dst, raw[:])
}

// readNonce returns what a nonce says, and whether one of the keys made it for this client.
func readNonce(keys []Key, nonce []byte, realm string, client netip.Addr) (s stamp, tag uint64, ours bool) {
	var raw [stampLen + codeLen]byte
	if len(nonce) != nonceLen {
		return s, 0, false
	}
	if _, err := base64.RawURLEncoding.Decode(raw[:], nonce); err != nil {
		return s, 0, false
	}
	copy(s[:], raw[:])
	for i := range keys {
		code := keys[i].code(&s, realm, client)
		if hmac.Equal(code[:], raw[stampLen:]) {
			return s, binary.BigEndian.Uint64(code[:]), true
		}
	}
	return s, 0, false
}
