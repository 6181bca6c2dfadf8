// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

// Kind is a field that the core knows, or Other.
type Kind uint8

// The kinds.
const (
	Other Kind = iota
	Via
	From
	To
	CallID
	CSeq
	MaxForwards
	Contact
	Route
	RecordRoute
	ContentLength
	ContentType
	ContentEncoding
	Require
	ProxyRequire
	Supported
	Unsupported
	Allow
	Accept
	Expires
	MinExpires
	Path
	Authorization
	ProxyAuthorization
	WWWAuthenticate
	ProxyAuthenticate
	RSeq
	RAck
	SessionExpires
	MinSE
	RetryAfter
	Timestamp
	Reason
	Warning
	Privacy
	PAssertedIdentity
	PPreferredIdentity
	ReferTo
	Replaces
	Event
	Identity
	Date
	UserAgent
	kinds
)

type name struct {
	lower string
	kind  Kind
}

// names are those of the kinds, by length: a name is compared with the few that are as long as it.
var names = [...][]name{
	2:  {{"to", To}},
	3:  {{"via", Via}},
	4:  {{"from", From}, {"cseq", CSeq}, {"path", Path}, {"rseq", RSeq}, {"rack", RAck}, {"date", Date}},
	5:  {{"route", Route}, {"allow", Allow}, {"event", Event}},
	6:  {{"accept", Accept}, {"min-se", MinSE}, {"reason", Reason}},
	7:  {{"call-id", CallID}, {"contact", Contact}, {"expires", Expires}, {"require", Require}, {"warning", Warning}, {"privacy", Privacy}},
	8:  {{"refer-to", ReferTo}, {"replaces", Replaces}, {"identity", Identity}},
	9:  {{"supported", Supported}, {"timestamp", Timestamp}},
	10: {{"user-agent", UserAgent}},
	11: {{"unsupported", Unsupported}, {"min-expires", MinExpires}, {"retry-after", RetryAfter}},
	12: {{"max-forwards", MaxForwards}, {"record-route", RecordRoute}, {"content-type", ContentType}},
	13: {{"authorization", Authorization}, {"proxy-require", ProxyRequire}},
	14: {{"content-length", ContentLength}},
	15: {{"session-expires", SessionExpires}},
	16: {{"content-encoding", ContentEncoding}, {"www-authenticate", WWWAuthenticate}},
	18: {{"proxy-authenticate", ProxyAuthenticate}},
	19: {{"proxy-authorization", ProxyAuthorization}, {"p-asserted-identity", PAssertedIdentity}},
	20: {{"p-preferred-identity", PPreferredIdentity}},
}

// compact are the short forms. RFC 3261 §7.3.3, §20; o is from RFC 6665, r from RFC 3515, x from RFC 4028, y from
// RFC 8224.
var compact = [26]Kind{
	'c' - 'a': ContentType,
	'e' - 'a': ContentEncoding,
	'f' - 'a': From,
	'i' - 'a': CallID,
	'k' - 'a': Supported,
	'l' - 'a': ContentLength,
	'm' - 'a': Contact,
	'o' - 'a': Event,
	'r' - 'a': ReferTo,
	't' - 'a': To,
	'v' - 'a': Via,
	'x' - 'a': SessionExpires,
	'y' - 'a': Identity,
}

func kindOf(b []byte) Kind {
	if len(b) == 1 {
		if c := b[0] | 0x20; 'a' <= c && c <= 'z' {
			return compact[c-'a']
		}
		return Other
	}
	if len(b) >= len(names) {
		return Other
	}
	for _, n := range names[len(b)] {
		if equalFold(b, n.lower) {
			return n.kind
		}
	}
	return Other
}

// String returns the name of the field as it is written, or "" for Other.
func (k Kind) String() string { return written[k] }

// written are the names as they are written.
var written = [kinds]string{
	To:                 "To",
	Via:                "Via",
	From:               "From",
	CSeq:               "CSeq",
	Path:               "Path",
	RSeq:               "RSeq",
	RAck:               "RAck",
	Date:               "Date",
	Route:              "Route",
	Allow:              "Allow",
	Event:              "Event",
	Accept:             "Accept",
	MinSE:              "Min-SE",
	Reason:             "Reason",
	CallID:             "Call-ID",
	Contact:            "Contact",
	Expires:            "Expires",
	Require:            "Require",
	Warning:            "Warning",
	Privacy:            "Privacy",
	ReferTo:            "Refer-To",
	Replaces:           "Replaces",
	Identity:           "Identity",
	Supported:          "Supported",
	Timestamp:          "Timestamp",
	UserAgent:          "User-Agent",
	Unsupported:        "Unsupported",
	MinExpires:         "Min-Expires",
	RetryAfter:         "Retry-After",
	MaxForwards:        "Max-Forwards",
	RecordRoute:        "Record-Route",
	ContentType:        "Content-Type",
	Authorization:      "Authorization",
	ProxyRequire:       "Proxy-Require",
	ContentLength:      "Content-Length",
	SessionExpires:     "Session-Expires",
	ContentEncoding:    "Content-Encoding",
	WWWAuthenticate:    "WWW-Authenticate",
	ProxyAuthenticate:  "Proxy-Authenticate",
	ProxyAuthorization: "Proxy-Authorization",
	PAssertedIdentity:  "P-Asserted-Identity",
	PPreferredIdentity: "P-Preferred-Identity",
}

// once are the fields that a message may have but one of: they are no lists, and by them it is understood.
// RFC 3261 §7.3.1.
var once = [...]Kind{From, To, CallID, CSeq, MaxForwards, ContentLength, ContentType}

// addresses are the fields whose values are addresses that we act on.
var addresses = [...]Kind{From, To, Contact, Route, RecordRoute, Path}
