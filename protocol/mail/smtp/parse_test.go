// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import "testing"

func TestParseCommand(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, line string
		verb       Verb
		path       string
		want       Refusal
	}{
		{"helo", "helo a.example", Helo, "a.example", 0},
		{"ehlo with a literal", "EHLO [IPv6:2001:db8::1]", Ehlo, "[IPv6:2001:db8::1]", 0},
		{"ehlo without a name", "EHLO", Ehlo, "", Syntax},
		{"null sender", "MAIL FROM:<>", Mail, "", 0},
		{"parameters", "MAIL FROM:<a@b.example> SIZE=5 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x AUTH=<>", Mail, "a@b.example", 0},
		{"a parameter twice", "MAIL FROM:<a@b.example> SIZE=5 SIZE=6", Mail, "a@b.example", Parameter},
		{"unknown parameter", "MAIL FROM:<a@b.example> X=1", Mail, "a@b.example", Parameter},
		{"size too large", "MAIL FROM:<a@b.example> SIZE=99999999999999999999", Mail, "a@b.example", Parameter},
		{"of the other command", "RCPT TO:<a@b.example> SIZE=5", Rcpt, "a@b.example", Parameter},
		{"no brackets", "MAIL FROM:a@b.example", Mail, "a@b.example", 0},
		{"half a bracket", "MAIL FROM:a@b.example>", Mail, "", Syntax},
		{"helo above ASCII", "EHLO \xc3\xa9", Ehlo, "", Syntax},
		{"glued", "MAIL FROM:<a@b.example>SIZE=5", Mail, "", Syntax},
		{"two paths", "RCPT TO:<a@b.example><c@d.example>", Rcpt, "", Syntax},
		{"quoted bracket", `RCPT TO:<"a> b"@c.example>`, Rcpt, `"a> b"@c.example`, 0},
		{"quote escaped", `RCPT TO:<"a\">"@c.example>`, Rcpt, `"a\">"@c.example`, 0},
		{"quote open", `RCPT TO:<"a@c.example>`, Rcpt, "", Syntax},
		{"source route", "RCPT TO:<@x.example,@y.example:a@b.example>", Rcpt, "a@b.example", 0},
		{"no recipient", "RCPT TO:<>", Rcpt, "", Syntax},
		{"dsn", "RCPT TO:<a@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b.example", Rcpt, "a@b.example", 0},
		{"never and more", "RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", Rcpt, "a@b.example", Parameter},
		{"data with words", "DATA now", Data, "", Syntax},
		{"starttls with words", "STARTTLS now", StartTLS, "", Syntax},
		{"bdat", "BDAT 10 LAST", Bdat, "", 0},
		{"bdat negative", "BDAT -1", Bdat, "", Syntax},
		{"bdat with more", "BDAT 1 FIRST", Bdat, "", Syntax},
		{"xclient", "XCLIENT ADDR=192.0.2.1", Xclient, "", Untrusted},
		{"xforward", "xforward ADDR=192.0.2.1", Xclient, "", Untrusted},
		{"xoip", "XOIP 192.0.2.1", Xclient, "", Untrusted},
		{"web", "GET / HTTP/1.1", Other, "", Unrecognized},
		{"control", "NOOP \x00", Other, "", Syntax},
	} {
		c, got := ParseCommand([]byte(test.line))
		if c.Verb != test.verb || got != test.want || got == 0 && string(c.Path) != test.path {
			t.Errorf("%s: got verb %d, path %q, refusal %v; want %d, %q, %v", test.name, c.Verb, c.Path, got, test.verb, test.path, test.want)
		}
	}
}

func TestParseReply(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, in string
		code, n  int
		enhanced string
		want     Refusal
	}{
		{"one line", "250 2.1.0 Ok\r\n", 250, 14, "2.1.0", 0},
		{"code alone", "250\r\n", 250, 5, "", 0},
		{"two lines", "550-5.7.1 no\r\n550 5.7.1 way\r\n220", 550, 29, "5.7.1", 0},
		{"class of another code", "250 5.1.0 Ok\r\n", 250, 14, "", 0},
		{"none with 3xx", "354 3.0.0 go\r\n", 354, 14, "", 0},
		{"not there yet", "250-a\r\n250 b\r", 0, 0, "", 0},
		{"codes differ", "250-a\r\n550 b\r\n", 0, 0, "", BadReply},
		{"no code", "hello\r\n", 0, 0, "", BadReply},
		{"code of six", "650 a\r\n", 0, 0, "", BadReply},
		{"glued", "250a\r\n", 0, 0, "", BadReply},
		{"bare LF", "250 a\n250 b\r\n", 0, 0, "", BareLineEnd},
		{"bare CR", "250 a\rb\r\n", 0, 0, "", BareLineEnd},
	} {
		r, n, got := ParseReply([]byte(test.in), &Limits{})
		if r.Code != test.code || n != test.n || got != test.want || string(r.Enhanced()) != test.enhanced {
			t.Errorf("%s: got %d, %d bytes, %q, %v", test.name, r.Code, n, r.Enhanced(), got)
		}
	}
	long := make([]byte, 100)
	for i := range long {
		long[i] = 'a'
	}
	if _, _, got := ParseReply(append([]byte("250 "), long...), &Limits{Reply: 64}); got != LineTooLong {
		t.Errorf("reply without end: got %v, want %v", got, LineTooLong)
	}
}

func TestKeywords(t *testing.T) {
	t.Parallel()
	const backend = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n" +
		"250-AUTH PLAIN LOGIN\r\n250-XCLIENT NAME ADDR\r\n250-8BITMIME\r\n250-BINARYMIME\r\n250 DSN\r\n"
	r, _, refusal := ParseReply([]byte(backend), &Limits{})
	if refusal != 0 {
		t.Fatal(refusal)
	}
	k := ParseKeywords(r)
	if got := string(k.Xclient); got != "NAME ADDR" {
		t.Errorf("XCLIENT: got %q", got)
	}
	const want = "250-edge.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n" +
		"250-8BITMIME\r\n250 DSN\r\n"
	if got := string(AppendKeywords(nil, "edge.example", k)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := string(AppendKeywords(nil, "edge.example", Keywords{})); got != "250 edge.example\r\n" {
		t.Errorf("nothing offered: got %q", got)
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, in string
		sent     []Verb
		want     Refusal
	}{
		{"asked", "220 a\r\n", []Verb{Other}, 0},
		{"unasked", "250 a\r\n", nil, Unasked},
		{"421 at any time", "421 bye\r\n", nil, 0},
		{"injected behind STARTTLS", "220 go\r\n250 ok\r\n", []Verb{StartTLS}, Unasked},
		{"STARTTLS", "220 go\r\n", []Verb{StartTLS}, 0},
		{"pipelined", "250 a\r\n250 b\r\n", []Verb{Mail, Rcpt}, 0},
	} {
		var c Client
		for _, v := range test.sent {
			c.Sent(v)
		}
		_, v, _, got := c.Next([]byte(test.in))
		if got != test.want {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
		if got == 0 && len(test.sent) > 0 && (v != test.sent[0] || c.Owed() != len(test.sent)-1) {
			t.Errorf("%s: got verb %d and %d owed", test.name, v, c.Owed())
		}
	}
}
