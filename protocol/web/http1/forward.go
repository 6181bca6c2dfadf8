// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

import (
	"encoding/base64"
	"net/netip"
	"strconv"
)

// Origin is where a client's connection comes from, as a backend is told.
type Origin struct {
	Client netip.Addr // canonical: the client's own address, or its stand-in
	Port   uint16     // that the client dialled
	TLS    bool
}

// AppendOrigin renders what a backend is told of a connection's client. It is the same for all requests of the
// connection: keep it for Forward.Origin.
func AppendOrigin(dst []byte, o Origin) []byte {
	proto := "http"
	if o.TLS {
		proto = "https"
	}
	dst = append(dst, "X-Forwarded-For: "...)
	dst = o.Client.AppendTo(dst)
	dst = append(dst, "\r\nX-Forwarded-Proto: "...)
	dst = append(dst, proto...)
	dst = append(dst, "\r\nX-Forwarded-Port: "...)
	dst = strconv.AppendUint(dst, uint64(o.Port), 10)
	// RFC 7239 §6: an IPv6 address has brackets here, and so quotes; in X-Forwarded-For it has neither.
	dst = append(dst, "\r\nForwarded: for="...)
	if o.Client.Is4() {
		dst = o.Client.AppendTo(dst)
	} else {
		dst = append(dst, `"[`...)
		dst = o.Client.AppendTo(dst)
		dst = append(dst, `]"`...)
	}
	dst = append(dst, ";proto="...)
	return append(dst, proto...) // the host of the request comes after it
}

// AppendCertificates renders what a backend is told of a client's certificate, which comes first, and of those that lead
// from it to an authority, all in DER. Keep it for Forward.Certificates. RFC 9440 §2.
func AppendCertificates(dst []byte, certificate []byte, chain ...[]byte) []byte {
	dst = append(dst, "Client-Cert: "...)
	dst = appendBytes(dst, certificate)
	for i, c := range chain {
		if i == 0 {
			dst = append(dst, "\r\nClient-Cert-Chain: "...)
		} else {
			dst = append(dst, ", "...)
		}
		dst = appendBytes(dst, c)
	}
	return append(dst, "\r\n"...)
}

// appendBytes writes a byte sequence. RFC 8941 §3.3.5.
func appendBytes(dst, p []byte) []byte {
	dst = append(dst, ':')
	dst = base64.StdEncoding.AppendEncode(dst, p)
	return append(dst, ':')
}

// Forward is how a request goes on to a backend.
type Forward struct {
	Origin       []byte // from AppendOrigin; empty if the backend is not told
	Certificates []byte // from AppendCertificates; told together with Origin only
	Host         []byte // Host for an HTTP/1.0 request that has none
	Close        bool   // ask the backend to close the connection after the response
}

// What does not go on in each direction; what of it is still needed is written anew.
const (
	hopByHop kindSet = 1<<kindConnection | 1<<kindHop | 1<<kindUpgrade | 1<<kindTE | 1<<kindTrailer | 1<<kindLength |
		1<<kindCoding
	ofRequests = hopByHop | 1<<kindHost | 1<<kindExpect | 1<<kindClient
)

// AppendRequest writes the head of r as it goes on to a backend: always HTTP/1.1 and origin-form. What strangers say
// about the client is left out, and what f says put in its place.
//
// RFC 9110 §7.6.3 would have us add Via; it makes servers stop compressing (nginx: gzip_proxied), and servers must
// go on as before, so we do not.
func AppendRequest(dst []byte, r *Request, f Forward) []byte {
	dst = append(dst, r.Method...)
	dst = append(dst, ' ')
	if r.Target[0] == '?' {
		dst = append(dst, '/')
	}
	dst = append(dst, r.Target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	host := r.Authority()
	if len(host) == 0 {
		host = f.Host
	}
	dst = append(dst, host...)
	dst = append(dst, "\r\n"...)
	keep := r.settled(r.Framing)
	dst = r.appendFields(dst, r.first, ofRequests&^keep)
	dst = r.appendFraming(dst, r.Framing, keep)
	if r.Expect100 {
		dst = append(dst, "Expect: 100-continue\r\n"...)
	}
	dst = r.appendConnection(dst, f.Close)
	if len(f.Origin) > 0 {
		dst = append(dst, f.Certificates...)
		dst = append(dst, f.Origin...)
		if len(host) > 0 {
			dst = append(dst, `;host="`...)
			dst = append(dst, host...)
			dst = append(dst, "\"\r\nX-Forwarded-Host: "...)
			dst = append(dst, host...)
		}
		dst = append(dst, "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// appendConnection writes what r asks of the next hop only.
func (r *Request) appendConnection(dst []byte, end bool) []byte {
	if r.Upgrade {
		return append(dst, "Connection: upgrade\r\nUpgrade: websocket\r\n"...)
	}
	trailers := r.takesTrailers()
	switch {
	case trailers && end:
		return append(dst, "Connection: close, TE\r\nTE: trailers\r\n"...)
	case trailers:
		return append(dst, "Connection: TE\r\nTE: trailers\r\n"...)
	case end:
		return append(dst, "Connection: close\r\n"...)
	}
	return dst
}

// takesTrailers says whether the client takes trailers, the one member of TE that a proxy can pass on.
// RFC 9110 §10.1.4.
func (r *Request) takesTrailers() bool {
	if !r.seen.has(kindTE) || r.minor == 0 {
		return false
	}
	for list := r.text(r.last(kindTE)); list != nil; {
		var first []byte
		if first, list = element(list); foldText(first, "trailers") {
			return true
		}
	}
	return false
}

// AppendResponse writes the head of r as it goes on to the client that asked x. With end it says that we close the
// connection after the body; it is said also if the response leaves no other way (see Persists). Interim responses go
// on to clients of HTTP/1.1 only: for others nothing is written. RFC 9110 §15.2.
func AppendResponse(dst []byte, r *Response, x Exchange, end bool) []byte {
	if r.Interim() {
		if x.Minor == 0 {
			return dst
		}
		dst = r.appendStatus(dst, hopByHop)
		return append(dst, "\r\n"...)
	}
	declared := r.declared(x)
	keep := r.settled(declared)
	dst = r.appendStatus(dst, hopByHop&^keep)
	if r.Status == 101 {
		return append(dst, "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	}
	dst = r.appendFraming(dst, declared, keep)
	switch {
	case end || !r.Persists(x):
		dst = append(dst, "Connection: close\r\n"...)
	case x.Minor == 0:
		dst = append(dst, "Connection: keep-alive\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// declared returns the framing that the response to x declares. With HEAD and 304 that is what a body would have had;
// its Transfer-Encoding is of no use to anyone and left out, as RFC 9112 §6.1 allows.
func (r *Response) declared(x Exchange) Framing {
	if r.Status < 200 || r.Status == 204 || r.framing == Chunked && (r.Framing == NoBody || r.unframed(x)) {
		return NoBody
	}
	return r.framing
}

// appendStatus writes the status line and the fields but those of the kinds in drop.
func (r *Response) appendStatus(dst []byte, drop kindSet) []byte {
	if r.usual {
		return r.appendFields(dst, 0, drop)
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(r.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, r.Reason...)
	dst = append(dst, "\r\n"...)
	return r.appendFields(dst, r.first, drop)
}
