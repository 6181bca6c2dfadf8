// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

import "slices"

// This file is what another version of HTTP needs of a head to send it on in its own form.

// NextField returns the first field from the i-th on that goes on to a backend, and the i to go on with; name is nil
// after the last. Left out is what belongs to the connection or is ours to say, Host, Expect and the length, which
// Request says.
func (r *Request) NextField(i int) (name, value []byte, next int) { return r.nextField(i, ofRequests) }

// TakesTrailers says whether the client takes trailers. RFC 9110 §10.1.4.
func (r *Request) TakesTrailers() bool { return r.takesTrailers() }

// NextField returns the first field from the i-th on that goes on to the client, and the i to go on with; name is nil
// after the last. Left out is what belongs to the connection, and the length: see Declared.
func (r *Response) NextField(i int) (name, value []byte, next int) { return r.nextField(i, hopByHop) }

// Declared returns the Content-Length that the response to x declares, or -1 if it declares none. With HEAD and 304 it is
// that of a body that is not sent.
func (r *Response) Declared(x Exchange) int64 {
	if r.declared(x) != Length {
		return -1
	}
	return r.length
}

func (h *head) nextField(i int, drop kindSet) (name, value []byte, next int) {
	for ; i < h.count; i++ {
		f := &h.fields[i]
		if !drop.has(f.kind) || f.kind == kindTrailer && h.announcesTrailers() {
			return h.name(f), h.text(f), i + 1
		}
	}
	return nil, nil, i
}

// TrailerPasses says whether the trailer called name, a token, goes on. An error is ErrTrailer: it would change the
// framing or the host for somebody. RFC 9110 §6.5.1.
func TrailerPasses(name []byte) (ok bool, err error) {
	switch kindOf(name) {
	case kindLength, kindCoding, kindHost, kindConnection:
		return false, ErrTrailer
	case endToEnd:
		return !slices.Contains(name, '_') && !isHeaderOnly(name), nil
	}
	return false, nil
}
