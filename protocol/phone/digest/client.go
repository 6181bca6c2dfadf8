// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"encoding/hex"
	"fmt"
)

// Client answers the challenges of a trunk. It is for one goroutine.
type Client struct {
	Username, Password string // the name without quotes in it

	realm, nonce, opaque string
	algorithm            Algorithm
	plain, auth          bool // the challenge names its algorithm; it wants qop
	count                uint32
	ha1                  []byte
}

// Take reads a challenge. Of several in one response the topmost that is taken without an error counts: RFC 8760
// §2.4. It returns one of the errors of a header, or ErrOffer, and keeps what it had before.
func (c *Client) Take(value []byte) error {
	var f Fields
	if err := f.Parse(value); err != nil {
		return err
	}
	if f.Algorithm == Unknown || f.qop && !f.Auth {
		return ErrOffer
	}
	if f.Nonce == nil || f.Realm == nil {
		return ErrMissing
	}
	c.realm, c.nonce, c.opaque = string(f.Realm), string(f.Nonce), string(f.Opaque)
	c.algorithm, c.plain, c.auth, c.count = f.Algorithm, f.plain, f.Auth, 0
	c.ha1 = c.algorithm.hash(nil, []byte(c.Username+":"+c.realm+":"+c.Password))
	return nil
}

// Ready says whether there was a challenge.
func (c *Client) Ready() bool { return c.nonce != "" }

// Append adds the value of an Authorization field for a request. cnonce is of the caller's choice, random and new for each
// nonce. RFC 7616 §3.4.
func (c *Client) Append(dst []byte, method, uri string, cnonce [8]byte) []byte {
	c.count++
	p := proof{algorithm: c.algorithm, method: []byte(method), uri: []byte(uri), nonce: []byte(c.nonce)}
	if c.auth {
		p.count, p.cnonce = fmt.Appendf(nil, "%08x", c.count), hex.AppendEncode(nil, cnonce[:])
	}
	dst = fmt.Appendf(dst, `Digest username="%s", realm="%s", nonce="%s", uri="%s", response="%s"`,
		c.Username, c.realm, c.nonce, uri, p.response(nil, c.ha1))
	if c.plain {
		dst = fmt.Appendf(dst, ", algorithm=%s", c.algorithm)
	}
	if c.auth {
		dst = fmt.Appendf(dst, `, qop=auth, nc=%s, cnonce="%s"`, p.count, p.cnonce)
	}
	if c.opaque != "" {
		dst = fmt.Appendf(dst, `, opaque="%s"`, c.opaque)
	}
	return dst
}
