// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var wayFrom = netip.MustParseAddrPort("[2001:db8::9]:5060")

// crlf joins lines of text to the head of a message and ends it.
func crlf(lines ...string) []byte {
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n")
}

// invite is a request as a telephone adapter sends it.
func invite() []byte {
	return append(crlf("INVITE sip:0312345678@voip.example.jp SIP/2.0",
		"Via: SIP/2.0/UDP [2001:db8:1::2]:5060;branch=z9hG4bK776asdhds;rport",
		"Max-Forwards: 70",
		`From: "050" <sip:05010000001@voip.example.jp>;tag=1928301774`,
		"To: <sip:0312345678@voip.example.jp>",
		"Call-ID: a84b4c76e66710@[2001:db8:1::2]",
		"CSeq: 314159 INVITE",
		"Contact: <sip:05010000001@[2001:db8:1::2]:5060>",
		"Allow: INVITE, ACK, CANCEL, BYE, PRACK, UPDATE",
		"Supported: 100rel, timer",
		"Session-Expires: 1800;refresher=uac",
		"Content-Type: application/sdp",
		"Content-Length: 5"), "v=0\r\n"...)
}

func parsed(t testing.TB, data []byte) *Message {
	t.Helper()
	m := new(Message)
	if err := m.Parse(data, nil); err != nil {
		t.Fatalf("%v in %q", err, data)
	}
	return m
}

// TestBrokenMessages: what is no message is refused, and what came whole can be read all the same.
func TestBrokenMessages(t *testing.T) {
	t.Parallel()
	const start = "OPTIONS sip:a SIP/2.0\r\n"
	for _, test := range []struct {
		name, data string
		want       *Error
	}{
		{"ends in the head", start + "To: a\r\n", ErrShort},
		{"nothing", "", ErrShort},
		{"bare LF", start + "To: a\n\r\n", ErrControl},
		{"bare CR", start + "To: a\rb\r\n\r\n", ErrControl},
		{"NUL first", start + "\x00: a\r\n\r\n", ErrControl},
		{"NUL", start + "To: a\x00b\r\n\r\n", ErrControl},
		{"no colon", start + "To\r\n\r\n", ErrField},
		{"no name", start + ": a\r\n\r\n", ErrField},
		{"name is no token", start + "T o: a\r\n\r\n", ErrField},
		{"folds into nothing", start + " To: a\r\n\r\n", ErrField},
		{"version", "OPTIONS sip:a SIP/7.0\r\n\r\n", ErrVersion},
		{"version of a response", "SIP/3.0 200 OK\r\n\r\n", ErrVersion},
		{"another protocol", "GET / HTTP/1.1\r\n\r\n", ErrStartLine},
		{"space in the target", "OPTIONS sip:a b SIP/2.0\r\n\r\n", ErrStartLine},
		{"status", "SIP/2.0 4294967301 better not\r\n\r\n", ErrStartLine},
		{"status below", "SIP/2.0 099 no\r\n\r\n", ErrStartLine},
		{"status above", "SIP/2.0 700 no\r\n\r\n", ErrStartLine},
		{"negative length", start + "l: -1\r\n\r\n", ErrLength},
		{"two lengths", start + "l: 0\r\nContent-Length: 0\r\n\r\n", ErrLength},
		{"huge length", start + "l: 99999999999999999999\r\n\r\n", ErrLength},
		{"many fields", start + strings.Repeat("a: b\r\n", defaultMany+1) + "\r\n", ErrFields},
		{"long head", start + "a: " + strings.Repeat("b", maxHead) + "\r\n\r\n", ErrLongHead},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var m Message
			if err := m.Parse([]byte(test.data), nil); err != test.want {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// TestAnswersBroken: a request in which a line is broken is answered with what stands before and after it.
func TestAnswersBroken(t *testing.T) {
	t.Parallel()
	var m Message
	data := crlf("INVITE sip:a@b SIP/2.0", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1", "this is no field", "From: <sip:a@b>;tag=1",
		"To: <sip:c@d>", "Call-ID: 1", "CSeq: 1 INVITE", "Record-Route: <sip:p;lr>")
	err := m.Parse(data, nil)
	if err != ErrField || !m.Answerable() {
		t.Fatalf("%v, answerable: %v", err, m.Answerable())
	}
	a := Answer{Status: err.Status, Tag: []byte("x"), Dialog: true}
	want := string(crlf("SIP/2.0 400 Bad Request", "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;received=192.0.2.7", "From: <sip:a@b>;tag=1",
		"To: <sip:c@d>;tag=x", "Call-ID: 1", "CSeq: 1 INVITE", "Record-Route: <sip:p;lr>", "Content-Length: 0"))
	if got := string(a.Append(nil, &m, netip.MustParseAddrPort("192.0.2.7:5060"))); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	for _, data := range []string{"ACK sip:a SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nCSeq: 1 ACK\r\nx\r\n\r\n", "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\nCSeq: 1 BYE\r\nx\r\n\r\n",
		"BYE sip:a SIP/2.0\r\nCSeq: 1 BYE\r\nx\r\n\r\n", "BYE sip:a SIP/2.0\r\nVia: what\r\nCSeq: 1 BYE\r\n\r\n"} {
		if _ = m.Parse([]byte(data), nil); m.Answerable() {
			t.Errorf("would answer %q", data)
		}
	}
}

// TestChecks: each rule of whole messages finds what it is there to find, and a good message passes.
func TestChecks(t *testing.T) {
	t.Parallel()
	good := string(invite())
	for _, test := range []struct {
		name, old, new string
		want           *Error
	}{
		{"good", "", "", nil},
		{"no From", "From: ", "Forms: ", ErrMissing},
		{"two Call-ID", "Max-Forwards: 70", "i: 1", ErrTwice},
		{"two Content-Type", "Supported: 100rel, timer", "c: text/plain", ErrTwice},
		{"Call-ID with a space", "a84b4c76e66710@", "a b@", ErrCallID},
		{"empty Via", ";rport\r\n", ";rport,\r\n", ErrVia},
		{"Via with a zone", "[2001:db8:1::2]:5060;branch", "[fe80::1%eth0]:5060;branch", ErrVia},
		{"hops", "Max-Forwards: 70", "Max-Forwards: -1", ErrHops},
		{"hops, empty", "Max-Forwards: 70", "Max-Forwards:", ErrHops},
		{"two From", ";tag=1928301774", ";tag=1928301774, <sip:x@y>", ErrAddress},
		{"star for From", `"050" <sip:05010000001@voip.example.jp>`, "*", ErrAddress},
		{"Contact without a URI", "<sip:05010000001@[2001:db8:1::2]:5060>", "<>", ErrAddress},
		{"display after the URI", "<sip:05010000001@[2001:db8:1::2]:5060>", "<sip:a@b> x", ErrAddress},
		{"empty parameter", "<sip:05010000001@[2001:db8:1::2]:5060>", "<sip:a@b>;;x", ErrAddress},
		{"parameter without a name", "<sip:05010000001@[2001:db8:1::2]:5060>", "<sip:a@b>;=x", ErrAddress},
		{"parameter without its value", "<sip:05010000001@[2001:db8:1::2]:5060>", "<sip:a@b>;x=", ErrAddress},
		{"name that needs quotes", "<sip:05010000001@[2001:db8:1::2]:5060>", "A:B <sip:a@b>", ErrAddress},
		{"name after quotes", "<sip:05010000001@[2001:db8:1::2]:5060>", `"A" B <sip:a@b>`, ErrAddress},
		{"names without quotes", "<sip:05010000001@[2001:db8:1::2]:5060>", "A.  B! <sip:a@b>", nil},
		{"CSeq", "314159 INVITE", "314159", ErrCSeq},
		{"CSeq of another", "314159 INVITE", "314159 BYE", ErrMethods},
		{"target", "INVITE sip:0312345678@voip.example.jp ", "INVITE sip:@voip.example.jp ", ErrURI},
		{"target with headers", "INVITE sip:0312345678@voip.example.jp ", "INVITE sip:a@b?Subject=x ", ErrTarget},
		{"short body", "Content-Length: 5", "Content-Length: 6", ErrBody},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := parsed(t, []byte(strings.Replace(good, test.old, test.new, 1)))
			if err := m.Check(); err != test.want {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fields, body, want string
		err                *Error
	}{
		{"", "abc", "abc", nil},
		{"", " abc", " abc", nil}, // it does not fold into the empty line
		{"l: 2\r\n", "abc", "ab", nil},
		{"Content-Length :\r\n 3\r\n", "abc", "abc", nil},
		{"l: 4\r\n", "abc", "", ErrBody},
	} {
		m := parsed(t, []byte("SIP/2.0 200 \r\n"+test.fields+"\r\n"+test.body))
		got, err := m.Body()
		if string(got) != test.want || err != test.err {
			t.Errorf("%q: got %q, %v; want %q, %v", test.fields, got, err, test.want, test.err)
		}
	}
}

// TestNames: each kind is found by its name, in any case, and by its compact form.
func TestNames(t *testing.T) {
	t.Parallel()
	for k := Via; k < kinds; k++ {
		text := k.String()
		if text == "" || kindOf([]byte(text)) != k || kindOf([]byte(strings.ToUpper(text))) != k || kindOf([]byte(strings.ToLower(text))) != k {
			t.Errorf("kind %d is called %q, which is read as %d", k, text, kindOf([]byte(text)))
		}
	}
	for short, want := range map[string]Kind{"v": Via, "F": From, "t": To, "i": CallID, "m": Contact, "l": ContentLength, "c": ContentType,
		"e": ContentEncoding, "k": Supported, "x": SessionExpires, "r": ReferTo, "o": Event, "y": Identity, "q": Other, "-": Other, "vi": Other} {
		if got := kindOf([]byte(short)); got != want {
			t.Errorf("%s is %v, want %v", short, got, want)
		}
	}
}

func TestViasRefused(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		"", "SIP/2.0/UDP", "SIP/2.0/ a", "SIP/2.0 a", "SIP/1.0/UDP a", "HTTP/2.0/UDP a", "SIP/2.0/U:P a", "SIP/2.0/UDP a b", "SIP/2.0/UDP a;", "SIP/2.0/UDP a;x=<y", "SIP/2.0/UDP a;x=b c",
		"SIP/2.0/UDP a;branch=", "SIP/2.0/UDP a;rport=0", "SIP/2.0/UDP a;rport=65536", "SIP/2.0/UDP a;received=b", "SIP/2.0/UDP a;received", "SIP/2.0/UDP a;ttl=256",
		"SIP/2.0/UDP a;maddr", "SIP/2.0/UDP a;x=\"", "SIP/2.0/UDP a:0", "SIP/2.0/UDP [::1", "SIP/2.0/UDP 2001:db8::1",
	} {
		if h, _, err := ParseVia([]byte(value)); err == nil {
			t.Errorf("%q: read as %+v", value, h)
		}
	}
}

func TestModern(t *testing.T) {
	t.Parallel()
	for branch, want := range map[string]bool{"z9hG4bKa": true, "Z9HG4BKa": true, "z9hG4bK": false, "z9hG4b": false, "1": false} {
		if h := (Hop{Branch: []byte(branch)}); h.Modern() != want {
			t.Errorf("%s: %v", branch, h.Modern())
		}
	}
}

// TestStamped: what the sender says of its own address is replaced by what we saw. RFC 3261 §18.2.1, RFC 3581 §4.
func TestStamped(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ value, from, want string }{
		{"SIP/2.0/UDP 192.0.2.1;branch=a", "192.0.2.1:5060", "SIP/2.0/UDP 192.0.2.1;branch=a"},
		{"SIP/2.0/UDP 192.0.2.1;branch=a", "192.0.2.2:5060", "SIP/2.0/UDP 192.0.2.1;branch=a;received=192.0.2.2"},
		{"SIP/2.0/UDP host.example;branch=a", "192.0.2.2:5060", "SIP/2.0/UDP host.example;branch=a;received=192.0.2.2"},
		{"SIP/2.0/UDP 192.0.2.1;rport;branch=a", "192.0.2.1:9", "SIP/2.0/UDP 192.0.2.1;branch=a;received=192.0.2.1;rport=9"},
		{"SIP/2.0/UDP [2001:db8::1]:5070;rport", "[2001:db8::2]:9", "SIP/2.0/UDP [2001:db8::1]:5070;received=2001:db8::2;rport=9"},
		{"SIP/2.0/UDP [2001:DB8:0::1]", "[2001:db8::1]:5060", "SIP/2.0/UDP [2001:DB8:0::1]"},
		{"SIP/2.0/UDP a;received=192.0.2.9;rport=1, SIP/2.0/TCP b;received=192.0.2.8", "192.0.2.2:9",
			"SIP/2.0/UDP a;received=192.0.2.2;rport=9, SIP/2.0/TCP b;received=192.0.2.8"},
		{"SIP/2.0/UDP a;x=\",;\";received=192.0.2.9", "192.0.2.2:9", "SIP/2.0/UDP a;x=\",;\";received=192.0.2.2"},
	} {
		h, _, err := ParseVia([]byte(test.value))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(AppendStamped(nil, []byte(test.value), &h, netip.MustParseAddrPort(test.from))); got != test.want {
			t.Errorf("%s from %s:\ngot  %s\nwant %s", test.value, test.from, got, test.want)
		}
	}
}

// TestAnswer: an answer has what RFC 3261 §8.2.6 says, and Record-Route only where it may begin a dialog.
func TestAnswer(t *testing.T) {
	t.Parallel()
	data := []byte(strings.Replace(string(invite()), "Max-Forwards: 70", "v: SIP/2.0/TCP b;branch=z9hG4bK2\r\nTimestamp: 54\r\nRecord-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>", 1))
	m := parsed(t, data)
	from := netip.MustParseAddrPort("[2001:db8:1::2]:5061")
	via := "Via: SIP/2.0/UDP [2001:db8:1::2]:5060;branch=z9hG4bK776asdhds;received=2001:db8:1::2;rport=5061\r\nVia: SIP/2.0/TCP b;branch=z9hG4bK2\r\n"
	ids := "From: \"050\" <sip:05010000001@voip.example.jp>;tag=1928301774\r\nTo: <sip:0312345678@voip.example.jp>%s\r\nCall-ID: a84b4c76e66710@[2001:db8:1::2]\r\nCSeq: 314159 INVITE\r\n"
	for _, test := range []struct {
		answer Answer
		want   string
	}{
		{Answer{Status: 100}, "SIP/2.0 100 Trying\r\n" + via + "Timestamp: 54\r\n" + fmt.Sprintf(ids, "") + "Content-Length: 0\r\n\r\n"},
		{Answer{Status: 200, Tag: []byte("t"), Dialog: true, Type: "application/sdp", Body: []byte("v=0\r\n"), Lines: []byte("Contact: <sip:b>\r\n")},
			"SIP/2.0 200 OK\r\n" + via + "Record-Route: <sip:p1;lr>\r\nRecord-Route: <sip:p2;lr>\r\n" + fmt.Sprintf(ids, ";tag=t") +
				"Contact: <sip:b>\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"},
		{Answer{Status: 486, Phrase: "No", Tag: []byte("t")}, "SIP/2.0 486 No\r\n" + via + fmt.Sprintf(ids, ";tag=t") + "Content-Length: 0\r\n\r\n"},
	} {
		if got := string(test.answer.Append(nil, m, from)); got != test.want {
			t.Errorf("%d:\ngot  %q\nwant %q", test.answer.Status, got, test.want)
		}
	}
}

// TestOutline: of a request of ours it is what Parse reads.
func TestOutline(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\r\n":                                     "INVITE z9hG4bK1",
		"BYE sip:x SIP/2.0\r\nTo: <sip:v;via:x>\r\nv : SIP/2.0/UDP [::1]:5060;x=y;Branch = b\r\nVia: z\r\n\r\n":  "BYE b",
		"BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a;x=\";branch=1\";branch=2, SIP/2.0/UDP b;branch=3\r\n\r\n":       "BYE 2",
		"BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a\r\n\r\n":                                                        "BYE ",
		"BYE sip:x SIP/2.0\r\nTo: a\r\n\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1":                                   "BYE ",
		"BYE sip:x SIP/2.0\r\nSubject: x\r\n Via: SIP/2.0/UDP a;branch=1\r\nVia: SIP/2.0/UDP a;branch=2\r\n\r\n": "BYE 2",
		"": " ",
	} {
		method, branch, _ := Outline([]byte(text))
		if got := string(method) + " " + string(branch); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	const begins = "BYE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=1\r\n"
	for text, want := range map[string]*Error{
		begins + strings.Repeat("X: y\r\n", 127) + "\r\n":           nil,
		begins + strings.Repeat("X: y\r\n", 128) + "\r\n":           ErrFields,
		begins + "X: " + strings.Repeat("y\r\n ", 200) + "\r\n\r\n": nil,
		begins + "X: " + strings.Repeat("y", 16<<10) + "\r\n\r\n":   ErrLongHead,
		begins + "X: y\r\n\r\n" + strings.Repeat("y", 16<<10):       nil,
		begins: ErrShort,
	} {
		if _, _, err := Outline([]byte(text)); err != want || (new(Message).Parse([]byte(text), nil) == nil) != (want == nil) {
			t.Errorf("%.60q, %d bytes: got %v, want %v", text, len(text), err, want)
		}
	}
}
