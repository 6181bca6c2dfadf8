// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smuggletest

import "strings"

// lengths are the ways to write a Content-Length that two readers understand differently.
func lengths() (all []Case) {
	const (
		post = "POST / HTTP/1.1\r\nHost: a\r\n"
		te   = "Transfer-Encoding: chunked\r\n"
	)
	for _, c := range []struct{ source, name, fields string }{
		{"HTTP Garden", "plus and underscore", "Content-Length: +1_0\r\n"},
		{"HTTP Garden", "plus", "Content-Length: +5\r\n"},
		{"HTTP Garden", "minus", "Content-Length: -48\r\n"},
		{"HTTP Garden", "0x", "Content-Length: 0x10\r\n"},
		{"HTTP Garden", "junk after it", "Content-Length: 1Z\r\n"},
		{"HTTP Garden", "empty", "Content-Length: \r\n"},
		{"HTTP Garden", "empty before another", "Content-Length: \r\nContent-Length: 43\r\n"},
		{"HTTP Garden", "space in the name", "Content-Length : 34\r\n"},
		{"HTTP Garden", "next line in the name", "Content-Length\x85: 10\r\n"},
		{"HTTP Garden", "no colon", "Content-Length 10\r\n"},
		{"HTTP Garden", "the first of two is 0", "Content-Length: 0\r\nContent-Length: 31\r\n"},
		{"HTTP Garden", "the second of two is 0", "Content-Length: 1\r\nContent-Length: 0\r\n"},
		{"HTTP Garden", "beside a coding nobody knows", "Transfer-Encoding: ,chunked\r\nContent-Length: 5\r\n"},
		{"smugglex", "three", "Content-Length: 0\r\nContent-Length: 6\r\nContent-Length: 0\r\n"},
		{"smugglex", "two equal beside a coding", "Content-Length: 6\r\nContent-Length: 6\r\n" + te},
		{"smugglex", "leading zero beside a coding", "Content-Length: 06\r\n" + te},
		{"smugglex", "decimal point", "Content-Length: 6.0\r\n"},
		{"smugglex", "exponent", "Content-Length: 6e0\r\n"},
		{"smugglex", "NUL after it", "Content-Length: 6\x00\r\n"},
		{"smugglex", "space after it", "Content-Length: 6 \r\n"},
		{"smugglex", "underscore in the name", "Content_Length: 6\r\n"},
		{"smugglex", "tab before it", "Content-Length:\t6\r\n"},
		{"smugglex", "0 beside a coding", te + "Content-Length: 0\r\n"},
		{"smugglex", "999 beside a coding", te + "Content-Length: 999\r\n"},
		{"Http11Probe", "two that differ", "Content-Length: 5\r\nContent-Length: 10\r\n"},
		{"Http11Probe", "two spaces before it", "Content-Length:  5\r\n"},
		{"Http11Probe", "list of two", "Content-Length: 5, 10\r\n"},
		{"Http11Probe", "list of two equal ones", "Content-Length: 5, 5\r\n"},
		{"Http11Probe", "list of three", "Content-Length: 5, 5, 5\r\n"},
		{"Http11Probe", "octal", "Content-Length: 0o5\r\n"},
		{"Http11Probe", "space in it", "Content-Length: 1 0\r\n"},
		{"Http11Probe", "minus zero", "Content-Length: -0\r\n"},
		{"Http11Probe", "not a number", "Content-Length: abc\r\n"},
		{"Http11Probe", "too great", "Content-Length: 99999999999999999999\r\n"},
		{"http-request-smuggler", "named by Connection", "Connection: Content-Length\r\nContent-Length: 5\r\n"},
		{"http-request-smuggler", "folded", "Foo: bar\r\n Content-Length: 5\r\n"},
		{"http-request-smuggler", "folded away from its name", "Content-Length:\r\n 5\r\n"},
	} {
		all = append(all, Case{Source: c.source, Name: "length: " + c.name, In: post + c.fields + "\r\n" + Smuggled, Status: 400})
	}
	return append(all,
		Case{Source: "HTTP Garden", Name: "leading zero is not octal", In: post + "Content-Length: 010\r\n\r\n0123456789", Seen: []string{"POST / 0123456789"}},
		Case{Source: "HTTP Garden", Name: "body of GET", In: "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n1234567890", Seen: []string{"GET / 1234567890"}},
		Case{Source: "HTTP Garden", Name: "what comes at once is no body", In: post + "Content-Length: 0\r\n\r\n" + Smuggled, Seen: []string{"POST / ", "GET /smuggled "}},
		Case{Source: "smugglex", Name: "length ends in the middle of chunks", In: post + "Content-Length: 5\r\n\r\n1\r\nA\r\n0\r\n\r\n", Seen: []string{"POST / 1\r\nA\r"}, Status: 400},
		Case{Source: "Http11Probe", Name: "two zeros", In: post + "Content-Length: 00\r\n\r\n" + Smuggled, Seen: []string{"POST / ", "GET /smuggled "}},
		Case{Source: "Http11Probe", Name: "body of OPTIONS", In: "OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", Seen: []string{"OPTIONS / hello"}},
		Case{Source: "http-request-smuggler", Name: "no length at all", In: post + "\r\n" + Smuggled, Seen: []string{"POST / ", "GET /smuggled "}},
	)
}

// chunks are the ways to write a chunked body that two readers end at different places.
func chunks() (all []Case) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, c := range []struct{ source, name, body string }{
		{"HTTP Garden", "underscore in a size", "0_2e\r\n\r\n"},
		{"HTTP Garden", "0x in a size", "0x5\r\nhello\r\n0\r\n\r\n"},
		{"HTTP Garden", "minus 0x0", "-0x0\r\n\r\n"},
		{"HTTP Garden", "empty size", "\r\n\r\n"},
		{"HTTP Garden", "junk after a size", "1these-bytes-never-get-validated\r\nZ\r\n0\r\n\r\n"},
		{"HTTP Garden", "no size", "Z\r\nZZ\r\nZZZ\r\n\r\n"},
		{"HTTP Garden", "CR before an extension", "5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n"},
		{"HTTP Garden", "CR CR ends an extension", "41;a=b\r\rXXXXX\r\n0\r\n\r\n"},
		{"HTTP Garden", "any two bytes end the body", "0\r\nX:POST / HTTP/1.1\r\nXX"},
		{"HTTP Garden", "LF after the data", "a\r\n0123456789\n0\r\n\r\n"},
		{"HTTP Garden", "spaces before a size", "           0\r\n\r\n"},
		{"HTTP Garden", "an empty line more", "17\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n\r\n0\r\n\r\n"},
		{"HTTP Garden", "CR for CRLF", "1\r0\n"},
		{"Http11Probe", "space after a size", "5 \r\nhello\r\n0\r\n\r\n"},
		{"Http11Probe", "plus", "+5\r\nhello\r\n0\r\n\r\n"},
		{"Http11Probe", "too great", "FFFFFFFFFFFFFFFF0\r\nhello\r\n0\r\n\r\n"},
		{"Http11Probe", "nothing after the data", "5\r\nhello0\r\n\r\n"},
		{"Http11Probe", "NUL in an extension", "5;\x00ext\r\nhello\r\n0\r\n\r\n"},
		{"Http11Probe", "CR in an extension", "5;a\rX\r\nhello\r\n0\r\n\r\n"},
		{"Http11Probe", "LF ends the trailers", "5\r\nhello\r\n0\r\n\n"},
		{"Http11Probe", "Content-Length in the trailers", "5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"},
		{"Http11Probe", "Transfer-Encoding in the trailers", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"Http11Probe", "Host in the trailers", "5\r\nhello\r\n0\r\nHost: evil.example.com\r\n\r\n"},
		{"Http11Probe", "64 KiB of extension", "5;ext=" + strings.Repeat("x", 64<<10) + "\r\nhello\r\n0\r\n\r\n"},
	} {
		all = append(all, Case{Source: c.source, Name: "chunks: " + c.name, In: post + c.body + Smuggled, Status: 400, Body: true})
	}
	for _, end := range []string{"\n", "\r", "\rX", "\r\r", "", "XX"} {
		for _, c := range []struct{ name, body string }{
			{"TERM.EXT", "2;" + end + "xx\r\n22\r\nc\r\n0\r\n\r\n"},
			{"EXT.TERM", "22;" + end + "xx\r\n2\r\ncc\r\n0\r\n\r\n"},
			{"TERM.SPILL", "5\r\nAAAAA" + end + "2\r\nXX\r\n0\r\n\r\n"},
			{"SPILL.TERM", "5\r\nAAAAA" + end + "22\r\nXX\r\n2\r\nYY\r\n0\r\n\r\n"},
		} {
			if (end == "" || end == "XX") && strings.Contains(c.name, "EXT") {
				continue // an extension as it should be
			}
			all = append(all, Case{Source: "Funky Chunks", Name: c.name + " " + end, In: post + c.body + Smuggled, Status: 400, Body: true})
		}
	}
	return append(all,
		Case{Source: "Http11Probe", Name: "extension without a name", In: post + "5;\r\nhello\r\n0\r\n\r\n", Seen: []string{"POST / hello"}},
		Case{Source: "Http11Probe", Name: "extension that is no token", In: post + "5;bad[=x\r\nhello\r\n0\r\n\r\n", Seen: []string{"POST / hello"}},
		Case{Source: "smugglex", Name: "extensions", In: post + "1;a=b;c=d\r\nA\r\n0\r\n\r\n", Seen: []string{"POST / A"}},
		Case{Source: "smugglex", Name: "leading zeros of a size", In: post + "001\r\nA\r\n0\r\n\r\n", Seen: []string{"POST / A"}},
		Case{Source: "smugglex", Name: "size in upper case", In: post + "A\r\n0123456789\r\n0\r\n\r\n", Seen: []string{"POST / 0123456789"}},
		Case{Source: "smugglex", Name: "a request after the last chunk", In: post + "0\r\n\r\n" + Smuggled, Seen: []string{"POST / ", "GET /smuggled "}},
		Case{Source: "Http11Probe", Name: "Authorization in the trailers", In: post + "5\r\nhello\r\n0\r\nAuthorization: Bearer evil\r\n\r\n", Seen: []string{"POST / hello"}},
		Case{Source: "HTTP Garden", Name: "a byte after the body", In: post + "0\r\n\r\n\x00\r\n", Seen: []string{"POST / "}, Status: 400},
	)
}

// heads are requests of which two readers understand the line, the host or the fields differently.
func heads() (all []Case) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, c := range []struct {
		source, name, in string
		status           int
	}{
		{"HTTP Garden", "NUL CR in a value", get + "Header: v\x00\ralue\r\n\r\n", 400},
		{"HTTP Garden", "CR in a value", get + "Invalid-Header: this\rvalue\ris\rinvalid\r\n\r\n", 400},
		{"HTTP Garden", "tab before the first name", "GET / HTTP/1.1\r\n\tContent-Length: 1\r\n\r\nX", 400},
		{"HTTP Garden", "long version", "GET /test HTTP/1.32\r\nHost: a\r\n\r\n", 400},
		{"HTTP Garden", "great version", "GET / HTTP/4294967295.255\r\nHost: a\r\n\r\n", 400},
		{"HTTP Garden", "CR in the version", "GET / HTTP/\r\r1.1\r\nHost: a\r\n\r\n", 400},
		{"HTTP Garden", "method that is no token", "G=\":<>(e),[T];?\" /get HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"HTTP Garden", "target that is none", "GET ! HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"HTTP Garden", "high byte in a name", get + "\xeffoo: bar\r\n\r\n", 400},
		{"HTTP Garden", "LF for a space", "GET /\nHTTP/1.1\r\n\r\n", 400},
		{"HTTP Garden", "controls in a name", get + "\x01\x02 \"(),/;<=>?@[/]{}: whatever\r\n\r\n", 400},
		{"HTTP Garden", "@ in a name", get + "a@b: c\r\n\r\n", 400},
		{"HTTP Garden", "empty name", get + ": ignored\r\n\r\n", 400},
		{"HTTP Garden", "CR and a byte end the head", get + "\rZGET /evil: HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"HTTP Garden", "NUL in Host", "GET / HTTP/1.1\r\nHost: google.com\x00.kallus.org\r\n\r\n", 400},
		{"HTTP Garden", "high bytes in Host", "POST / HTTP/1.1\r\nHost: \xffa\xff\r\n\r\n", 400},
		{"HTTP Garden", "LF for CRLF", "GET / HTTP/1.1\nHost: a\nConnection: close\n\n", 400},
		{"HTTP Garden", "NUL ends a value", get + "Evil: evil\x00\r\n\r\n", 400},
		{"Http11Probe", "CR for CRLF", "GET / HTTP/1.1\rHost: a\r\n\r\n", 400},
		{"Http11Probe", "no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"Http11Probe", "white space before the fields", "GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", 400},
		{"Http11Probe", "another host in the target", "GET http://other.example.com/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"Http11Probe", "two hosts in a list", "GET / HTTP/1.1\r\nHost: a, other.example.com\r\n\r\n", 400},
		{"Http11Probe", "two hosts", get + "Host: other.example.com\r\n\r\n", 400},
		{"Http11Probe", "user in Host", "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400},
		{"Http11Probe", "path in Host", "GET / HTTP/1.1\r\nHost: a/path\r\n\r\n", 400},
		{"Http11Probe", "no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"Http11Probe", "HTTP/0.9", "GET /\r\n", 400},
		{"Http11Probe", "zeros in the version", "GET / HTTP/01.01\r\nHost: a\r\n\r\n", 400},
		{"Http11Probe", "version 9.9", "GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505},
		{"Http11Probe", "version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
		{"Http11Probe", "preface of HTTP/2 after a request", get + "\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"Http11Probe", "two empty lines before", "\r\n\r\n" + get + "\r\n", 400},
		{"Http11Probe", "coding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"Http11Probe", "expectation nobody knows", get + "Expect: 200-ok\r\n\r\n", 417},
		{"Http11Probe", "CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + Smuggled, 501},
		{"http-request-smuggler", "CONNECT with a body", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 36\r\n\r\n" + Smuggled, 501},
		{"Http11Probe", "TRACE with a body", "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 501},
		{"http-request-smuggler", "badwrap", "GET / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: a\r\nX-Blah-Ignore: chunked\r\n\r\n", 400},
		{"http-request-smuggler", "host in a second, folded field", get + "Foo: bar\r\n Host: other\r\n\r\n", 400},
		{"http-request-smuggler", "space before the colon of Host", "GET / HTTP/1.1\r\nHost : other\r\nHost: a\r\n\r\n", 400},
		{"http-request-smuggler", "Expect twice", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nExpect: 100-continue\r\n\r\nhello", 417},
		{"http-request-smuggler", "Expect with junk", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: y 100-continue\r\n\r\nhello", 417},
	} {
		all = append(all, Case{Source: c.source, Name: "head: " + c.name, In: c.in, Status: c.status})
		if strings.HasSuffix(c.name, "after a request") {
			all[len(all)-1].Seen = []string{"GET / "}
		}
	}
	return append(all,
		Case{Source: "HTTP Garden", Name: "invalid after valid", In: get + "\r\nInvalid\r\n\r\n", Seen: []string{"GET / "}, Status: 400},
		Case{Source: "Http11Probe", Name: "absolute-form", In: "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n", Seen: []string{"GET /x "}},
		Case{Source: "Http11Probe", Name: "escaped CRLF stays escaped", In: "GET /path%0d%0aX-Injected:%20true HTTP/1.1\r\nHost: a\r\n\r\n", Seen: []string{"GET /path%0d%0aX-Injected:%20true "}},
		Case{Source: "Http11Probe", Name: "backslash", In: "GET /path\\file HTTP/1.1\r\nHost: a\r\n\r\n", Seen: []string{"GET /path\\file "}},
		Case{Source: "Http11Probe", Name: "method in lower case", In: "get / HTTP/1.1\r\nHost: a\r\n\r\n", Seen: []string{"get / "}},
		Case{Source: "Http11Probe", Name: "upgrade that is not asked for in Connection", In: get + "Upgrade: websocket\r\n\r\n" + Smuggled, Seen: []string{"GET / ", "GET /smuggled "}},
		Case{Source: "smugglex", Name: "h2c", In: get + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Seen: []string{"GET / "}, Status: 505},
	)
}
