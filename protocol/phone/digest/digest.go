// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package digest proves who sends a SIP request, by a password that is not sent. It does no I/O and knows no clock; the
// little that must be remembered has a fixed size.
//
//	request without credentials ─▶ Server.AppendChallenge ─▶ 401: a nonce, for each algorithm
//	request with them ─▶ Fields.Parse ─▶ Server.Check ─▶ Granted, Stale: challenge again, or Denied
//	401 of a trunk ─▶ Client.Take ─▶ Client.Append ─▶ the request once more
//
// A nonce carries its time and a code that only its maker can compute, over that time, the realm and the network that
// the client came from. So nothing is remembered of those who were only challenged. Of those who answered a Window
// remembers which counts they used; when it is full it forgets the oldest, and says to them that their nonce is stale.
//
// RFC 7616, RFC 2617 (Digest), RFC 3261 §22.4 and RFC 8760 (in SIP).
package digest

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// Algorithm is a hash. RFC 7616 §6.1.
type Algorithm uint8

// The algorithms. SHA-512-256 and the -sess forms are not among them: no telephone has them.
const (
	Unknown Algorithm = iota
	MD5
	SHA256
)

// String returns the name in headers.
func (a Algorithm) String() string { return [...]string{"", "MD5", "SHA-256"}[a] }

// What is wrong with a header.
var (
	ErrScheme  = errors.New("digest: scheme is not Digest")
	ErrLong    = errors.New("digest: header too long")
	ErrMany    = errors.New("digest: too many parameters")
	ErrSyntax  = errors.New("digest: not parameters with values")
	ErrTwice   = errors.New("digest: parameter twice")
	ErrCount   = errors.New("digest: nc is not 8 hexadecimal digits")
	ErrMissing = errors.New("digest: a parameter is missing")
	ErrOffer   = errors.New("digest: challenge with nothing that we have")
)

// sum is a digest in lower-case hexadecimal, in the first bytes.
type sum [2 * sha256.Size]byte

// hash adds the digest of p, in hexadecimal, to dst.
func (a Algorithm) hash(dst, p []byte) []byte {
	if a == SHA256 {
		h := sha256.Sum256(p)
		return hex.AppendEncode(dst, h[:])
	}
	h := md5.Sum(p)
	return hex.AppendEncode(dst, h[:])
}

// len returns how long a digest is in hexadecimal.
func (a Algorithm) len() int {
	if a == SHA256 {
		return 2 * sha256.Size
	}
	return 2 * md5.Size
}

// Secret is what a server keeps of a password: H(A1), which opens one realm only. RFC 7616 §3.4.2.
type Secret struct {
	ofMD5, ofSHA256 sum
	has             [3]bool
}

// Add adds a digest that was computed elsewhere, in hexadecimal. It says false if it is none.
func (s *Secret) Add(a Algorithm, digest string) bool {
	raw, err := hex.DecodeString(digest)
	if err != nil || a == Unknown || len(digest) != a.len() {
		return false
	}
	s.set(a, hex.AppendEncode(nil, raw))
	return true
}

func (s *Secret) set(a Algorithm, digest []byte) {
	s.has[a] = true
	copy(s.of(a), digest)
}

// of returns the digest for a.
func (s *Secret) of(a Algorithm) []byte {
	if a == SHA256 {
		return s.ofSHA256[:]
	}
	return s.ofMD5[:a.len()]
}

// proof is what a response is computed from. RFC 7616 §3.4.1.
type proof struct {
	algorithm   Algorithm
	method, uri []byte
	nonce       []byte
	count       []byte // nc, as it was written; nil without qop, as in RFC 2617 §3.2.2.1
	cnonce      []byte
}

// response adds the response of who knows ha1.
func (p *proof) response(dst, ha1 []byte) []byte {
	var room [512]byte // enough for what telephones send
	b := append(room[:0], p.method...)
	b = append(append(b, ':'), p.uri...)
	var ha2 sum
	two := p.algorithm.hash(ha2[:0], b)
	b = append(append(b[:0], ha1...), ':')
	b = append(append(b, p.nonce...), ':')
	if p.count != nil {
		b = append(append(b, p.count...), ':')
		b = append(append(b, p.cnonce...), ":auth:"...)
	}
	return p.algorithm.hash(dst, append(b, two...))
}
