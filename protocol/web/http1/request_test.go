// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRequestRefused has one row for each way in which a request can be refused.
func TestRequestRefused(t *testing.T) {
	t.Parallel()
	const (
		get  = "GET / HTTP/1.1\r\nHost: a\r\n"
		post = "POST / HTTP/1.1\r\nHost: a\r\n"
	)
	tests := []struct {
		name string // the rule, with the section that has it
		in   string
		want *Error
	}{
		{"bare LF after request line, RFC 9112 §2.2", "GET / HTTP/1.1\nHost: a\r\n\r\n", ErrBareLF},
		{"bare LF after field, RFC 9112 §2.2", get + "A: b\nC: d\r\n\r\n", ErrBareLF},
		{"bare LF ends head, RFC 9112 §2.2", get + "\n", ErrBareLF},
		{"bare LF first, RFC 9112 §2.2", "\n" + get + "\r\n", ErrBareLF},
		{"bare CR in field, RFC 9112 §2.2", get + "A: b\rC: d\r\n\r\n", ErrBareCR},
		{"bare CR in request line, RFC 9112 §2.2", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", ErrBareCR},
		{"bare CR first, RFC 9112 §2.2", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", ErrBareCR},
		{"CR CR LF, RFC 9112 §2.2", get + "A: b\r\r\n\r\n", ErrBareCR},
		{"two empty lines first, RFC 9112 §2.2", "\r\n\r\n" + get + "\r\n", ErrStartLine},
		{"NUL in value, RFC 9110 §5.5", get + "A: b\x00c\r\n\r\n", ErrControl},
		{"BEL in value, RFC 9110 §5.5", get + "A: b\x07c\r\n\r\n", ErrControl},
		{"DEL in value, RFC 9110 §5.5", get + "A: 12345678\x7f12345678\r\n\r\n", ErrControl},
		{"vertical tab in value, RFC 9110 §5.5", get + "A: b\vc\r\n\r\n", ErrControl},
		{"NUL in name, RFC 9110 §5.1", get + "A\x00: b\r\n\r\n", ErrControl},
		{"folded field, RFC 9112 §5.2", get + "A: b\r\n c\r\n\r\n", ErrFold},
		{"folded with a tab, RFC 9112 §5.2", get + "A: b\r\n\tc: d\r\n\r\n", ErrFold},
		{"space before first field, RFC 9112 §2.2", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", ErrFold},
		{"space before colon, RFC 9112 §5.1", post + "Content-Length : 5\r\n\r\n", ErrColonSpace},
		{"tab before colon, RFC 9112 §5.1", post + "Transfer-Encoding\t: chunked\r\n\r\n", ErrColonSpace},
		{"empty name, RFC 9110 §5.1", get + ": b\r\n\r\n", ErrNoName},
		{"no colon, RFC 9112 §5", get + "A\r\n\r\n", ErrNoColon},
		{"slash in name, RFC 9110 §5.6.2", get + "A/B: c\r\n\r\n", ErrName},
		{"non-ASCII name, RFC 9110 §5.6.2", get + "\xc3\xa9: c\r\n\r\n", ErrName},
		{"brace in name, RFC 9110 §5.6.2", get + "Content-Length{: 5\r\n\r\n", ErrName},
		{"underscore in name", get + "X_Forwarded_For: ::1\r\n\r\n", ErrUnderscore},
		{"too many fields, RFC 6585 §5", get + strings.Repeat("A: b\r\n", 100) + "\r\n", ErrManyFields},
		{"head too long, RFC 6585 §5", get + "A: " + strings.Repeat("b", 16<<10) + "\r\n\r\n", ErrLongHead},
		{"target too long, RFC 9112 §3", "GET /" + strings.Repeat("a", 8<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", ErrLongTarget},

		{"no version (HTTP/0.9), RFC 9112 §3", "GET /\r\n", ErrStartLine},
		{"two spaces, RFC 9112 §3", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", ErrStartLine},
		{"space in target, RFC 9112 §3.2", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", ErrStartLine},
		{"space far in target, RFC 9112 §3.2", "GET /1234567890 abcdefghijklmnop HTTP/1.1\r\nHost: a\r\n\r\n", ErrStartLine},
		{"tab far in target, RFC 3986 §2", "GET /1234567890\tabcdefghijklmnop HTTP/1.1\r\nHost: a\r\n\r\n", ErrTargetByte},
		{"tab for space, RFC 9112 §3", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrStartLine},
		{"space after version, RFC 9112 §3", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", ErrStartLine},
		{"space before method, RFC 9112 §3", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", ErrStartLine},
		{"version in lower case, RFC 9112 §2.3", "GET / http/1.1\r\nHost: a\r\n\r\n", ErrStartLine},
		{"no digit in version, RFC 9112 §2.3", "GET / HTTP/1.x\r\nHost: a\r\n\r\n", ErrStartLine},
		{"two digits in version, RFC 9112 §2.3", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", ErrStartLine},
		{"version 0.9, RFC 9110 §15.6.6", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", ErrVersion},
		{"version 1.2, RFC 9110 §15.6.6", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", ErrVersion},
		{"preface of HTTP/2, RFC 9113 §3.4", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrVersion},
		{"method not a token, RFC 9110 §9.1", "G@T / HTTP/1.1\r\nHost: a\r\n\r\n", ErrMethod},
		{"method too long, RFC 9112 §3", strings.Repeat("A", 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", ErrLongMethod},
		{"CONNECT, RFC 9110 §9.3.6", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", ErrRefused},
		{"TRACE, RFC 9110 §9.3.8", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", ErrRefused},
		{"TLS on a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01", ErrControl},

		{"fragment, RFC 9112 §3.2", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", ErrFragment},
		{"fragment far in, RFC 9112 §3.2", "GET /12345678901234567890#b HTTP/1.1\r\nHost: a\r\n\r\n", ErrFragment},
		{"non-ASCII in target, RFC 3986 §2", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", ErrTargetByte},
		{"non-ASCII far in target, RFC 3986 §2", "GET /1234567890\xc3\xa9abcdef HTTP/1.1\r\nHost: a\r\n\r\n", ErrTargetByte},
		{"tab in target, RFC 3986 §2", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", ErrTargetByte},
		{"NUL in target, RFC 3986 §2", "GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n", ErrControl},
		{"bad escape, RFC 3986 §2.1", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", ErrEscape},
		{"cut escape, RFC 3986 §2.1", "GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n", ErrEscape},
		{"escape over the query, RFC 3986 §2.1", "GET /%41/%4?1 HTTP/1.1\r\nHost: a\r\n\r\n", ErrEscape},
		{"escaped NUL", "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", ErrEscape},
		{"asterisk without OPTIONS, RFC 9112 §3.2.4", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		{"authority-form without CONNECT, RFC 9112 §3.2.3", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		{"relative target, RFC 9112 §3.2", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		{"other scheme, RFC 9110 §4.2", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrTarget},
		{"user information, RFC 9110 §4.2.4", "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrUserinfo},
		{"no authority, RFC 9110 §4.2.1", "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", ErrHost},
		{"other host than target's, RFC 9112 §3.2.2", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrOtherHost},
		{"other port than target's, RFC 9112 §3.2.2", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", ErrOtherHost},

		{"no Host, RFC 9112 §3.2", "GET / HTTP/1.1\r\nA: b\r\n\r\n", ErrNoHost},
		{"two Hosts, RFC 9112 §3.2", get + "Host: b\r\n\r\n", ErrTwoHosts},
		{"two equal Hosts, RFC 9112 §3.2", get + "hOST: a\r\n\r\n", ErrTwoHosts},
		{"empty Host, RFC 9110 §4.2.1", "GET / HTTP/1.1\r\nHost:\r\n\r\n", ErrHost},
		{"space in Host, RFC 9112 §3.2", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ErrHost},
		{"slash in Host, RFC 9112 §3.2", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ErrHost},
		{"list in Host, RFC 9112 §3.2", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", ErrHost},
		{"user in Host, RFC 9112 §3.2", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", ErrHost},

		{"Content-Length and Transfer-Encoding, RFC 9112 §6.1", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTwoFramings},
		{"Transfer-Encoding and Content-Length, RFC 9112 §6.1", post + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", ErrTwoFramings},
		{"two Content-Lengths, RFC 9112 §6.3", post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", ErrTwoLengths},
		{"two equal Content-Lengths, RFC 9112 §6.3", post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", ErrTwoLengths},
		{"list of Content-Lengths, RFC 9112 §6.3", post + "Content-Length: 5, 5\r\n\r\n", ErrLength},
		{"signed Content-Length, RFC 9110 §8.6", post + "Content-Length: +5\r\n\r\n", ErrLength},
		{"negative Content-Length, RFC 9110 §8.6", post + "Content-Length: -5\r\n\r\n", ErrLength},
		{"empty Content-Length, RFC 9110 §8.6", post + "Content-Length:\r\n\r\n", ErrLength},
		{"blank Content-Length, RFC 9110 §8.6", post + "Content-Length: \r\n\r\n", ErrLength},
		{"space in Content-Length, RFC 9110 §8.6", post + "Content-Length: 5 0\r\n\r\n", ErrLength},
		{"space after Content-Length", post + "Content-Length: 5 \r\n\r\n", ErrLength},
		{"tab before Content-Length", post + "Content-Length:\t5\r\n\r\n", ErrLength},
		{"hexadecimal Content-Length, RFC 9110 §8.6", post + "Content-Length: 0x5\r\n\r\n", ErrLength},
		{"underscored Content-Length, RFC 9110 §8.6", post + "Content-Length: 1_0\r\n\r\n", ErrLength},
		{"Content-Length of 2^63, RFC 9110 §8.6", post + "Content-Length: 9223372036854775808\r\n\r\n", ErrLength},
		{"Content-Length of 2^64, RFC 9110 §8.6", post + "Content-Length: 18446744073709551616\r\n\r\n", ErrLength},
		{"xchunked, RFC 9112 §6.1", post + "Transfer-Encoding: xchunked\r\n\r\n", ErrCoding},
		{"chunked after two spaces", post + "Transfer-Encoding:  chunked\r\n\r\n", ErrCoding},
		{"chunked after a tab", post + "Transfer-Encoding:\tchunked\r\n\r\n", ErrCoding},
		{"tab after chunked", post + "Transfer-Encoding: chunked\t\r\n\r\n", ErrCoding},
		{"chunked in quotes, RFC 9112 §6.1", post + "Transfer-Encoding: \"chunked\"\r\n\r\n", ErrCoding},
		{"chunked with parameter, RFC 9112 §6.1", post + "Transfer-Encoding: chunked;q=1\r\n\r\n", ErrCoding},
		{"chunked, identity, RFC 9112 §6.3", post + "Transfer-Encoding: chunked, identity\r\n\r\n", ErrCoding},
		{"identity, chunked, RFC 9112 §6.1", post + "Transfer-Encoding: identity, chunked\r\n\r\n", ErrCoding},
		{"gzip, chunked, RFC 9112 §6.1", post + "Transfer-Encoding: gzip, chunked\r\n\r\n", ErrCoding},
		{"chunked twice in a list, RFC 9112 §6.1", post + "Transfer-Encoding: chunked, chunked\r\n\r\n", ErrCoding},
		{"chunked in two fields, RFC 9112 §6.1", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ErrTwoCodings},
		{"empty Transfer-Encoding, RFC 9112 §6.1", post + "Transfer-Encoding:\r\n\r\n", ErrCoding},
		{"identity, RFC 9112 §6.1", post + "Transfer-Encoding: identity\r\n\r\n", ErrCoding},
		{"Transfer-Encoding in HTTP/1.0, RFC 9112 §6.1", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ErrOldCoding},

		{"Connection names Content-Length, RFC 9110 §7.6.1", post + "Connection: Content-Length\r\nContent-Length: 5\r\n\r\n", ErrOption},
		{"Connection names Transfer-Encoding, RFC 9110 §7.6.1", post + "Connection: close, transfer-encoding\r\n\r\n", ErrOption},
		{"Connection names Host, RFC 9110 §7.6.1", get + "Connection: close\r\nConnection: host\r\n\r\n", ErrOption},
		{"Connection names Early-Data, RFC 8470 §5.1", get + "Connection: early-data\r\nEarly-Data: 1\r\n\r\n", ErrOption},
		{"Connection is no list of tokens, RFC 9110 §7.6.1", get + "Connection: a b\r\n\r\n", ErrOption},
		{"Connection names too many", get + "Connection: " + strings.Repeat("a,", 17) + "\r\n\r\n", ErrManyOptions},
		{"unknown expectation, RFC 9110 §10.1.1", post + "Content-Length: 5\r\nExpect: 200-ok\r\n\r\n", ErrExpectation},
		{"two expectations, RFC 9110 §10.1.1", post + "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n", ErrExpectation},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var r Request
			n, err := r.Parse([]byte(tt.in), &Limits{})
			if !errors.Is(err, tt.want) {
				t.Fatalf("Parse = %d, %v; want %v", n, err, tt.want)
			}
			eachSplitRequest(t, tt.in, 0, tt.want)
		})
	}
}

// eachSplitRequest parses in cut in two at every place: the result must be that of the whole.
func eachSplitRequest(t *testing.T, in string, n int, want error) {
	t.Helper()
	step := 1 + len(in)/1000
	for i := 0; i < len(in); i += step {
		var r Request
		m, err := r.Parse([]byte(in[:i]), &Limits{})
		if m == 0 && err == nil {
			m, err = r.Parse([]byte(in), &Limits{}) // a copy: the buffer has moved
		}
		if m != n || !errors.Is(err, want) {
			t.Fatalf("cut at %d: Parse = %d, %v; want %d, %v", i, m, err, n, want)
		}
	}
}

// told is what backends are told in these tests.
func told() Forward {
	return Forward{Origin: AppendOrigin(nil, Origin{Client: netip.MustParseAddr("2001:db8::1"), Port: 443, TLS: true})}
}

// shown is told, with certificates.
func shown(certificate string, chain ...string) Forward {
	f := told()
	var der [][]byte
	for _, c := range chain {
		der = append(der, []byte(c))
	}
	f.Certificates = AppendCertificates(nil, []byte(certificate), der...)
	return f
}

const toldFields = "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n" +
	"Forwarded: for=\"[2001:db8::1]\";proto=https;host=\"a\"\r\nX-Forwarded-Host: a\r\n"

// TestRequest shows what is understood and what goes on.
func TestRequest(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("/0123456", 1000)
	tests := []struct {
		name, in string
		forward  Forward
		want     string
		exchange Exchange
	}{
		{"simple", "GET /x?y=100% HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", Forward{},
			"GET /x?y=100% HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", Exchange{Get, 1, true, false}},
		{"handover, RFC 7239 §4", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", told(),
			"GET / HTTP/1.1\r\nHost: a\r\n" + toldFields + "\r\n", Exchange{Get, 1, true, false}},
		{"strangers' word, RFC 7239 §8.1", "GET / HTTP/1.1\r\nForwarded: for=x\r\nHost: a\r\nx-forwarded-for: 1\r\nA: 1\r\n" +
			"X-Forwarded-Prefix: /\r\nX-Forwarded-Server: s\r\nX-Forwarded: s\r\nX-Real-IP: 1\r\nTrue-Client-IP: 1\r\nB: 2\r\n" +
			"X-Client-IP: 1\r\nX-Cluster-Client-IP: 1\r\nClient-IP: 1\r\n\r\n", told(),
			"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n" + toldFields + "\r\n", Exchange{Get, 1, true, false}},
		{"hop by hop, RFC 9110 §7.6.1", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, x-a,, X-B\r\nX-A: 1\r\nKeep-Alive: 5\r\n" +
			"C: 3\r\nx-b: 2\r\nProxy-Connection: x\r\nProxy-Authorization: x\r\nProxy: x\r\nHTTP2-Settings: x\r\nX-AB: 4\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\nC: 3\r\nX-AB: 4\r\n\r\n", Exchange{Get, 1, true, false}},
		{"certificate, RFC 9440 §2.2", "GET / HTTP/1.1\r\nHost: a\r\nclient-cert: :aGU=:\r\nClient-Cert-Chain: :aGU=:\r\nA: 1\r\n\r\n", shown("he"),
			"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nClient-Cert: :aGU=:\r\n" + toldFields + "\r\n", Exchange{Get, 1, true, false}},
		{"chain, RFC 9440 §2.3", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", shown("he", "who", "signed"),
			"GET / HTTP/1.1\r\nHost: a\r\nClient-Cert: :aGU=:\r\nClient-Cert-Chain: :d2hv:, :c2lnbmVk:\r\n" + toldFields + "\r\n", Exchange{Get, 1, true, false}},
		{"certificate that nobody is told of", "GET / HTTP/1.1\r\nHost: a\r\nClient-Cert: :aGU=:\r\n\r\n", Forward{Certificates: shown("he").Certificates},
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 1, true, false}},
		{"Early-Data stays, RFC 8470 §5.1", "GET / HTTP/1.1\r\nHost: a\r\nEarly-Data: 1\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\nEarly-Data: 1\r\n\r\n", Exchange{Get, 1, true, false}},
		{"Connection names our fields", "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, close\r\n\r\n", told(),
			"GET / HTTP/1.1\r\nHost: a\r\n" + toldFields + "\r\n", Exchange{Get, 1, false, false}},
		{"whitespace, RFC 9110 §5.5", "GET / HTTP/1.1\r\nhost:\t A \r\nA:b\r\nC: \t d\te \r\nE:\r\nF: g\xff\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\nC: d\te\r\nE: \r\nF: g\xff\r\n\r\n", Exchange{Get, 1, true, false}},
		{"empty line first, RFC 9112 §2.2", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 1, true, false}},
		{"length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nA: 1\r\n\r\n", Forward{},
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nA: 1\r\n\r\n", Exchange{Post, 1, true, false}},
		{"length with zeros", "PUT / HTTP/1.1\r\nHost: a\r\ncontent-length: 005\r\nA: 1\r\n\r\n", Forward{Close: true},
			"PUT / HTTP/1.1\r\nHost: a\r\nA: 1\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", Exchange{Put, 1, true, false}},
		{"length zero", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:0\r\n\r\n", Forward{},
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Exchange{Post, 1, true, false}},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n", Forward{},
			"POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n", Exchange{Post, 1, true, false}},
		{"Trailer names framing, RFC 9110 §6.5.1", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n", Forward{},
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Exchange{Post, 1, true, false}},
		{"Expect, RFC 9110 §10.1.1", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n", Forward{},
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", Exchange{Post, 1, true, false}},
		{"Expect without a body, RFC 9110 §10.1.1", "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 1, true, false}},
		{"TE, RFC 9110 §10.1.4", "GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: gzip;q=1, trailers\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n", Exchange{Get, 1, true, false}},
		{"TE and close", "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n", Forward{Close: true},
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, TE\r\nTE: trailers\r\n\r\n", Exchange{Get, 1, true, false}},
		{"WebSocket, RFC 6455 §4.1", "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x\r\n\r\n", Forward{},
			"GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", Exchange{Get, 1, true, true}},
		{"WebSocket with POST", "POST /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Forward{},
			"POST /ws HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Post, 1, true, false}},
		{"WebSocket with a body", "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n", Forward{},
			"GET /ws HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", Exchange{Get, 1, true, false}},
		{"WebSocket unnamed in Connection, RFC 9110 §7.8", "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", Forward{},
			"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 1, true, false}},
		{"h2c, CVE-2026-88008", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 1, true, false}},
		{"h2c beside websocket", "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 1, true, false}},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", Forward{}, "GET / HTTP/1.1\r\nHost: \r\n\r\n", Exchange{Get, 0, false, false}},
		{"HTTP/1.0 without Host, told", "GET / HTTP/1.0\r\n\r\n", Forward{Host: []byte("a"), Origin: told().Origin},
			"GET / HTTP/1.1\r\nHost: a\r\n" + toldFields + "\r\n", Exchange{Get, 0, false, false}},
		{"HTTP/1.0 that stays, RFC 9112 §9.3", "HEAD / HTTP/1.0\r\nConnection: Keep-Alive\r\nExpect: x\r\n\r\n", Forward{Host: []byte("b")},
			"HEAD / HTTP/1.1\r\nHost: b\r\n\r\n", Exchange{Head, 0, true, false}},
		{"close wins, RFC 9112 §9.3", "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 1, false, false}},
		{"absolute-form, RFC 9112 §3.2.2", "GET HTTP://A.example:080/x HTTP/1.1\r\nHost: a.EXAMPLE.\r\n\r\n", Forward{},
			"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", Exchange{Get, 1, true, false}},
		{"absolute-form without path", "GET https://a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Forward{},
			"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 1, true, false}},
		{"absolute-form with query alone", "GET http://a?b HTTP/1.0\r\n\r\n", Forward{},
			"GET /?b HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Get, 0, false, false}},
		{"absolute-form of OPTIONS, RFC 9112 §3.2.4", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", Forward{},
			"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Options, 1, true, false}},
		{"asterisk-form", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Forward{},
			"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Options, 1, true, false}},
		{"IPv6 literal, RFC 5952 §4", "DELETE / HTTP/1.1\r\nHost: [2001:DB8:0:0::0080]:08080\r\n\r\n", Forward{},
			"DELETE / HTTP/1.1\r\nHost: [2001:db8::80]:8080\r\n\r\n", Exchange{Delete, 1, true, false}},
		{"unknown method", "PROPFIND " + long + " HTTP/1.1\r\nHost: a\r\n\r\n", Forward{},
			"PROPFIND " + long + " HTTP/1.1\r\nHost: a\r\n\r\n", Exchange{Other, 1, true, false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var r Request
			in := tt.in + "next"
			n, err := r.Parse([]byte(in), &Limits{})
			if err != nil || n != len(tt.in) {
				t.Fatalf("Parse = %d, %v; want %d", n, err, len(tt.in))
			}
			if got := r.Exchange(); got != tt.exchange {
				t.Errorf("Exchange = %+v, want %+v", got, tt.exchange)
			}
			if diff := cmp.Diff(tt.want, string(AppendRequest(nil, &r, tt.forward))); diff != "" {
				t.Errorf("AppendRequest (-want +got):\n%s", diff)
			}
			eachSplitRequest(t, tt.in, len(tt.in), nil)
		})
	}
}

// TestRequestByteByByte feeds one Request several heads, a byte at a time, in a buffer that moves.
func TestRequestByteByByte(t *testing.T) {
	t.Parallel()
	var r Request
	for i := range 3 {
		in := fmt.Sprintf("\r\nPOST /%d HTTP/1.1\r\nHost: a%d\r\nContent-Length: %d\r\nA: b\tc\r\n\r\n", i, i, i)
		for k := range len(in) {
			n, err := r.Parse([]byte(in[:k+1]), &Limits{})
			if err != nil || (n > 0) != (k+1 == len(in)) {
				t.Fatalf("after %q: Parse = %d, %v", in[:k+1], n, err)
			}
		}
		if string(r.Target) != fmt.Sprint("/", i) || string(r.Host()) != fmt.Sprint("a", i) || r.Length != int64(i) ||
			string(r.Get("a")) != "b\tc" || r.Get("b") != nil {
			t.Errorf("got %s on %s, %d bytes", r.Target, r.Host(), r.Length)
		}
	}
}

// TestRequestAnew uses a Request again after an error and after a head that never came whole.
func TestRequestAnew(t *testing.T) {
	t.Parallel()
	var r Request
	if _, err := r.Parse([]byte("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"), &Limits{}); err == nil {
		t.Fatal("no error")
	}
	if n, err := r.Parse([]byte("GET / HTTP/1.1\r\nHo"), &Limits{}); n != 0 || err != nil {
		t.Fatalf("part: Parse = %d, %v", n, err)
	}
	r.Reset()
	in := "GET http://b/ HTTP/1.0\r\n\r\n"
	if n, err := r.Parse([]byte(in), &Limits{}); n != len(in) || err != nil || string(r.Authority()) != "b" {
		t.Errorf("Parse = %d, %v; authority %q", n, err, r.Authority())
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	const in = "GET /12345 HTTP/1.1\r\nHost: a\r\nA_B: c\r\n\r\n"
	tests := []struct {
		name   string
		limits Limits
		want   error
	}{
		{"all that is needed", Limits{Head: len(in), Line: len("GET /12345 HTTP/1.1\r\n"), Fields: 2, Underscores: true}, nil},
		{"head", Limits{Head: len(in) - 1, Underscores: true}, ErrLongHead},
		{"line", Limits{Line: len("GET /12345 HTTP/1.1\r\n") - 1}, ErrLongTarget},
		{"fields", Limits{Fields: 1}, ErrManyFields},
		{"underscores", Limits{}, ErrUnderscore},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for i := range len(in) {
				var r Request
				n, err := r.Parse([]byte(in[:i]), &tt.limits)
				if n == 0 && err == nil {
					n, err = r.Parse([]byte(in), &tt.limits)
				}
				if !errors.Is(err, tt.want) || (n > 0) != (tt.want == nil) {
					t.Errorf("cut at %d: Parse = %d, %v; want %v", i, n, err, tt.want)
				}
			}
		})
	}
}

// TestUnderscores lets underscores stand in names, but for those that a server could take for one of ours.
func TestUnderscores(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{
		"X_A": nil, "_": nil, "X_Forward": nil, strings.Repeat("a_", 100): nil,
		"X_Forwarded_For": ErrUnderscore, "x-forwarded_proto": ErrUnderscore, "X_FORWARDED_" + strings.Repeat("A", 100): ErrUnderscore,
		"X_Real_IP": ErrUnderscore, "Client_IP": ErrUnderscore, "Content_Length": ErrUnderscore, "Transfer_Encoding": ErrUnderscore,
		"Keep_Alive": ErrUnderscore, "Proxy_Authorization": ErrUnderscore, "HTTP2_Settings": ErrUnderscore,
	} {
		var r Request
		_, err := r.Parse([]byte("GET / HTTP/1.1\r\nHost: a\r\n"+name+": b\r\n\r\n"), &Limits{Underscores: true})
		if !errors.Is(err, want) {
			t.Errorf("%s: Parse = %v, want %v", name, err, want)
		}
	}
}

func TestHost(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 255)
	tests := []struct {
		in, host, all string // host is empty if it is refused
	}{
		{"a", "a", "a"},
		{"Shop.EXAMPLE.jp", "shop.example.jp", "shop.example.jp"},
		{"a.", "a", "a"},
		{"a.:80", "a", "a:80"},
		{"a:", "a", "a"},
		{"a_b-c.example:65535", "a_b-c.example", "a_b-c.example:65535"},
		{"192.0.2.1:8080", "192.0.2.1", "192.0.2.1:8080"},
		{"[2001:DB8::0:1]", "[2001:db8::1]", "[2001:db8::1]"},
		{"[::ffff:192.0.2.1]:80", "[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]:80"},
		{"[::]:", "[::]", "[::]"},
		{long + ":65535", long, long + ":65535"},
		{long + "a", "", ""},
		{"", "", ""}, {".", "", ""}, {"..", "", ""}, {"a..b", "", ""}, {".a", "", ""}, {"a..", "", ""}, {":80", "", ""},
		{"a:0", "", ""}, {"a:65536", "", ""}, {"a:+80", "", ""}, {"a:80:80", "", ""}, {"a:000080", "", ""}, {"a:b", "", ""},
		{"a%41", "", ""}, {"a@b", "", ""}, {"\xc3\xa9", "", ""}, {"a\tb", "", ""}, {"2001:db8::1", "", ""},
		{"[2001:db8::1", "", ""}, {"[]", "", ""}, {"[1.2.3.4]", "", ""}, {"[fe80::1%eth0]", "", ""}, {"[fe80::1%25eth0]", "", ""},
		{"[::1]a", "", ""}, {"[::1]80", "", ""}, {"[v1.a]", "", ""}, {"a[::1]", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			t.Parallel()
			var a authority
			err := a.set([]byte(tt.in))
			if (err != nil) != (tt.host == "") {
				t.Fatalf("set = %v, want host %q", err, tt.host)
			}
			if err == nil && (string(a.name()) != tt.host || string(a.all()) != tt.all) {
				t.Errorf("got %q and %q, want %q and %q", a.name(), a.all(), tt.host, tt.all)
			}
		})
	}
}

func TestOrigin(t *testing.T) {
	t.Parallel()
	got := string(AppendOrigin(nil, Origin{Client: netip.MustParseAddr("192.0.2.1"), Port: 80}))
	want := "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\nForwarded: for=192.0.2.1;proto=http"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
