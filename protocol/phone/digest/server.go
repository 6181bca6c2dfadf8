// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"bytes"
	"crypto/subtle"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Verdict is what a server thinks of credentials.
type Verdict uint8

// The verdicts.
const (
	Denied Verdict = iota // the password is wrong, or nobody is called so
	Stale                 // the password is right, the nonce is old or was used: challenge again, with stale=true
	Granted
)

// String returns the verdict in a word.
func (v Verdict) String() string { return [...]string{"denied", "stale", "granted"}[v] }

// Server challenges, and checks what comes back. Its fields are set before it is used; it is safe for many goroutines.
type Server struct {
	Realm    string        // at most 128 bytes, without quotes
	Keys     []Key         // the first makes nonces, all may have made one
	Lifetime time.Duration // of a nonce; 0 is five minutes

	serial atomic.Uint32

	mu     sync.Mutex
	window *Window
}

// NewServer returns one that remembers about that many clients at once.
func NewServer(realm string, keys []Key, clients int) *Server {
	return &Server{Realm: realm, Keys: keys, window: NewWindow(clients)}
}

// Request is what credentials are for.
type Request struct {
	Method []byte
	URI    []byte     // of the request; nil if that of the credentials may differ, as RFC 8760 §2.6 allows
	Client netip.Addr // where it comes from
	Now    time.Time
}

// AppendChallenge adds the value of a WWW-Authenticate field. A server that has several algorithms sends one for each,
// the one that it would rather see first. RFC 8760 §2.3.
func (s *Server) AppendChallenge(dst []byte, a Algorithm, r *Request, stale bool) []byte {
	dst = append(append(dst, `Digest realm="`...), s.Realm...)
	dst = append(dst, `", nonce="`...)
	dst = s.Keys[0].appendNonce(dst, newStamp(r.Now, s.serial.Add(1)), s.Realm, r.Client)
	dst = append(append(dst, `", algorithm=`...), a.String()...)
	dst = append(dst, `, qop="auth"`...)
	if stale {
		dst = append(dst, ", stale=true"...)
	}
	return dst
}

// Check says what credentials are worth. secret is that of the user they name, or nil if there is none, which takes as
// long. The caller sees to it that the user may act for whom the request comes from.
//
// RFC 7616 §3.3 wants stale only where the password was right, so that is looked at first, and always. RFC 8760 §2.6
// lets old clients leave qop out, and with it the count; then a nonce is good once.
func (s *Server) Check(f *Fields, r *Request, secret *Secret) Verdict {
	if f.Algorithm == Unknown || f.qop != f.Auth || f.Auth != (len(f.Count) > 0) || f.Auth && f.seen&hasCNonce == 0 {
		return Denied
	}
	if f.seen&needed != needed || !bytes.Equal(f.Realm, []byte(s.Realm)) || r.URI != nil && !bytes.Equal(f.URI, r.URI) {
		return Denied
	}
	known := secret != nil && secret.has[f.Algorithm]
	if !known {
		secret = new(Secret)
	}
	p := proof{algorithm: f.Algorithm, method: r.Method, uri: f.URI, nonce: f.Nonce, cnonce: f.CNonce}
	if f.Auth {
		p.count = f.Count
	}
	var room sum
	want := p.response(room[:0], secret.of(f.Algorithm))
	right := equal(want, f.Response)
	stamp, tag, ours := readNonce(s.Keys, f.Nonce, s.Realm, r.Client)
	if !known || !right {
		return Denied
	}
	if age := r.Now.UnixMilli() - stamp.milli(); !ours || age < 0 || age > s.lifetime().Milliseconds() {
		return Stale
	}
	count := uint32(1)
	if f.Auth {
		count, _ = f.count()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.window.take(tag, stamp.milli(), count) {
		return Stale
	}
	return Granted
}

// What must be in credentials, by its place in names. RFC 7616 §3.4.
const (
	needed    = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 // username, realm, nonce, uri, response
	hasCNonce = 1 << 5
)

// equal compares two digests in hexadecimal in a time that does not tell where they differ. Some write it in capitals.
func equal(want, got []byte) bool {
	if len(want) != len(got) {
		return false
	}
	var room sum
	lower := room[:len(got)]
	for i, c := range got {
		if c >= 'A' && c <= 'F' {
			c |= 0x20
		}
		lower[i] = c
	}
	return subtle.ConstantTimeCompare(want, lower) == 1
}

func (s *Server) lifetime() time.Duration {
	if s.Lifetime == 0 {
		return 5 * time.Minute
	}
	return s.Lifetime
}
