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
	kinds
)

type name struct {
	lower, text string
	kind        Kind
}

// names are those of the kinds, by length: a name is compared with the few that are as long as it.
var names = [...][]name{
	2:  {{"to", "To", To}},
	3:  {{"via", "Via", Via}},
	4:  {{"from", "From", From}, {"cseq", "CSeq", CSeq}, {"path", "Path", Path}, {"rseq", "RSeq", RSeq}, {"rack", "RAck", RAck}, {"date", "Date", Date}},
	5:  {{"route", "Route", Route}, {"allow", "Allow", Allow}, {"event", "Event", Event}},
	6:  {{"accept", "Accept", Accept}, {"min-se", "Min-SE", MinSE}, {"reason", "Reason", Reason}},
	7:  {{"call-id", "Call-ID", CallID}, {"contact", "Contact", Contact}, {"expires", "Expires", Expires}, {"require", "Require", Require}, {"warning", "Warning", Warning}, {"privacy", "Privacy", Privacy}},
	8:  {{"refer-to", "Refer-To", ReferTo}, {"replaces", "Replaces", Replaces}, {"identity", "Identity", Identity}},
	9:  {{"supported", "Supported", Supported}, {"timestamp", "Timestamp", Timestamp}},
	11: {{"unsupported", "Unsupported", Unsupported}, {"min-expires", "Min-Expires", MinExpires}, {"retry-after", "Retry-After", RetryAfter}},
	12: {{"max-forwards", "Max-Forwards", MaxForwards}, {"record-route", "Record-Route", RecordRoute}, {"content-type", "Content-Type", ContentType}},
	13: {{"authorization", "Authorization", Authorization}, {"proxy-require", "Proxy-Require", ProxyRequire}},
	14: {{"content-length", "Content-Length", ContentLength}},
	15: {{"session-expires", "Session-Expires", SessionExpires}},
	16: {{"content-encoding", "Content-Encoding", ContentEncoding}, {"www-authenticate", "WWW-Authenticate", WWWAuthenticate}},
	18: {{"proxy-authenticate", "Proxy-Authenticate", ProxyAuthenticate}},
	19: {{"proxy-authorization", "Proxy-Authorization", ProxyAuthorization}, {"p-asserted-identity", "P-Asserted-Identity", PAssertedIdentity}},
	20: {{"p-preferred-identity", "P-Preferred-Identity", PPreferredIdentity}},
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
func (k Kind) String() string {
	for _, same := range names {
		for i := range same {
			if same[i].kind == k {
				return same[i].text
			}
		}
	}
	return ""
}

// once are the fields that a message may have but one of: they are no lists, and by them it is understood.
// RFC 3261 §7.3.1.
var once = [...]Kind{From, To, CallID, CSeq, MaxForwards, ContentLength, ContentType}

// addresses are the fields whose values are addresses that we act on.
var addresses = [...]Kind{From, To, Contact, Route, RecordRoute, Path}
