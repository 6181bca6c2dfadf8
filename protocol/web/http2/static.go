// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

// static is the static table, from index 1. RFC 7541 appendix A.
var static = [...]struct {
	name, value string
	kind        kind
}{
	1:  {":authority", "", authority},
	2:  {":method", "GET", method},
	3:  {":method", "POST", method},
	4:  {":path", "/", path},
	5:  {":path", "/index.html", path},
	6:  {":scheme", "http", scheme},
	7:  {":scheme", "https", scheme},
	8:  {":status", "200", status},
	9:  {":status", "204", status},
	10: {":status", "206", status},
	11: {":status", "304", status},
	12: {":status", "400", status},
	13: {":status", "404", status},
	14: {":status", "500", status},
	15: {name: "accept-charset"},
	16: {name: "accept-encoding", value: "gzip, deflate"},
	17: {name: "accept-language"},
	18: {name: "accept-ranges"},
	19: {name: "accept"},
	20: {name: "access-control-allow-origin"},
	21: {name: "age"},
	22: {name: "allow"},
	23: {name: "authorization"},
	24: {name: "cache-control"},
	25: {name: "content-disposition"},
	26: {name: "content-encoding"},
	27: {name: "content-language"},
	28: {name: "content-length", kind: length},
	29: {name: "content-location"},
	30: {name: "content-range"},
	31: {name: "content-type"},
	32: {name: "cookie", kind: cookie},
	33: {name: "date"},
	34: {name: "etag"},
	35: {name: "expect"},
	36: {name: "expires"},
	37: {name: "from"},
	38: {name: "host", kind: host},
	39: {name: "if-match"},
	40: {name: "if-modified-since"},
	41: {name: "if-none-match"},
	42: {name: "if-range"},
	43: {name: "if-unmodified-since"},
	44: {name: "last-modified"},
	45: {name: "link"},
	46: {name: "location"},
	47: {name: "max-forwards"},
	48: {name: "proxy-authenticate"},
	49: {name: "proxy-authorization"},
	50: {name: "range"},
	51: {name: "referer"},
	52: {name: "refresh"},
	53: {name: "retry-after"},
	54: {name: "server"},
	55: {name: "set-cookie"},
	56: {name: "strict-transport-security"},
	57: {name: "transfer-encoding", kind: ofConnection},
	58: {name: "user-agent"},
	59: {name: "vary"},
	60: {name: "via"},
	61: {name: "www-authenticate"},
}

// Indices of the static table.
const (
	staticAuthority = 1
	staticGet       = 2
	staticPost      = 3
	staticRoot      = 4
	staticHTTP      = 6
	staticHTTPS     = 7
	staticStatus    = 8
	staticLength    = 28
	staticLast      = 61
)
