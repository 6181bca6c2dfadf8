// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"strings"
	"testing"
)

// torture4475 is RFC 4475 §3, in its order.
var torture4475 = []torture{
	{4475, "3.1.1.1", "wsinv", 0, 0, 0, "folding, compact forms, space everywhere", checkWsinv},
	{4475, "3.1.1.2", "intmeth", 0, 501, 0, "all characters that may be in a method, a URI, a token, a word", checkIntmeth},
	{4475, "3.1.1.3", "esc01", 0, 0, 0, "escapes are read once, and only in URIs", checkEsc01},
	{4475, "3.1.1.4", "escnull", 0, 0, 0, "a NUL that is escaped ends no user", checkEscnull},
	{4475, "3.1.1.5", "esc02", 0, 501, 0, "a % that escapes nothing: the method is not REGISTER, and a third Contact is none", checkEsc02},
	{4475, "3.1.1.6", "lwsdisp", 0, 0, 0, "no space between a name and its bracket", fromIs("caller", "sip:caller@example.com")},
	{4475, "3.1.1.7", "longreq", 0, 0, 0, "34 Via fields and very long values", checkLongreq},
	{4475, "3.1.1.8", "dblreq", 0, 0, 0, "what follows the body in a datagram is not looked at", checkDblreq},
	{4475, "3.1.1.9", "semiuri", 0, 0, 0, "a semicolon belongs to the user", targetIs("user;par=u%40example.net", "example.com")},
	{4475, "3.1.1.10", "transports", 0, 0, 0, "transports that nobody knows", checkTransports},
	{4475, "3.1.1.11", "mpart01", 0, 0, 0, "a body with NUL in it", checkMpart},
	{4475, "3.1.1.12", "unreason", 0, 0, 0, "a reason in UTF-8", phraseHas("2**3 * 5**2")},
	{4475, "3.1.1.13", "noreason", 0, 0, 0, "no reason", phraseHas("")},
	{4475, "3.1.2.1", "badinv01", 400, 400, 400, "separators with nothing between them", broken(ErrVia)},
	{4475, "3.1.2.2", "clerr", 400, 400, 400, "body shorter than Content-Length; a stream waits for the rest", checkClerr},
	{4475, "3.1.2.3", "ncl", 400, 400, 400, "negative Content-Length; a stream is closed", closesStream(ErrLength)},
	{4475, "3.1.2.4", "scalar02", 400, 400, 400, "numbers that are too great", broken(ErrCSeq)},
	{4475, "3.1.2.5", "scalarlg", dropped, dropped, dropped, "the same in a response", broken(ErrCSeq)},
	{4475, "3.1.2.6", "quotbal", 400, 400, 400, "a quote that does not end", broken(ErrAddress)},
	{4475, "3.1.2.7", "ltgtruri", 400, 400, 400, "Request-URI in brackets", broken(ErrURI)},
	{4475, "3.1.2.8", "lwsruri", 400, 400, 400, "space in the Request-URI", broken(ErrStartLine)},
	{4475, "3.1.2.9", "lwsstart", 400, 400, 400, "two spaces in the request line", broken(ErrStartLine)},
	{4475, "3.1.2.10", "trws", 400, 400, 400, "spaces after the version", broken(ErrStartLine)},
	{4475, "3.1.2.11", "escruri", 400, 400, 400, "headers in the Request-URI", broken(ErrTarget)},
	{4475, "3.1.2.12", "baddate", 0, 0, 0, "a Date that is not in GMT: we do not look at it", nil},
	{4475, "3.1.2.13", "regbadct", 400, 400, 400, "headers in a Contact without brackets", broken(ErrAddress)},
	{4475, "3.1.2.14", "badaspec", 400, 400, 400, "spaces within brackets", broken(ErrAddress)},
	{4475, "3.1.2.15", "baddn", 400, 400, 400, "a comma in a name without quotes", broken(ErrAddress)},
	{4475, "3.1.2.16", "badvers", 505, 505, 505, "SIP/7.0", broken(ErrVersion)},
	{4475, "3.1.2.17", "mismatch01", 400, 400, 400, "CSeq names another method", broken(ErrMethods)},
	{4475, "3.1.2.18", "mismatch02", 501, 501, 501, "the same, and the method is unknown", broken(ErrMethod)},
	{4475, "3.1.2.19", "bigcode", dropped, dropped, dropped, "status of ten digits", broken(ErrStartLine)},
	{4475, "3.2.1", "badbranch", 400, 400, 400, "a branch that is the magic cookie alone", broken(ErrBranch)},
	{4475, "3.3.1", "insuf", 400, 400, 400, "no Call-ID, From and To; answered with what there is", broken(ErrMissing)},
	{4475, "3.3.2", "unkscm", 0, 416, 416, "unknown scheme of the Request-URI", nil},
	{4475, "3.3.3", "novelsc", 0, 416, 416, "known scheme that is not for this", nil},
	{4475, "3.3.4", "unksm2", 0, 400, 0, "unknown schemes in fields: a registrar needs a sip or sips To", nil},
	{4475, "3.3.5", "bext01", 0, 420, 420, "Require and Proxy-Require; Unsupported names which", checkBext},
	{4475, "3.3.6", "invut", 0, 415, 0, "body of an unknown type", nil},
	{4475, "3.3.7", "regaut01", 0, 0, 0, "unknown scheme of Authorization: as if there were none, so that a registrar asks with 401", checkRegaut},
	{4475, "3.3.8", "multi01", 400, 400, 400, "fields that may come once come twice", broken(ErrTwice)},
	{4475, "3.3.9", "mcl01", 400, 400, 400, "two lengths; a stream is closed", closesStream(ErrLength)},
	{4475, "3.3.10", "bcast", 0, dropped, 0, "a response with the Via of others", nil},
	{4475, "3.3.11", "zeromf", 0, 0, 483, "no hops left: who would forward it does not", nil},
	{4475, "3.3.12", "cparam01", 0, 0, 0, "a parameter after a Contact without brackets is the field's", contactIs("sip:+19725552222@gw1.example.net", "unknownparam")},
	{4475, "3.3.13", "cparam02", 0, 0, 0, "one within brackets is the URI's", contactIs("sip:+19725552222@gw1.example.net;unknownparam", "")},
	{4475, "3.3.14", "regescrt", 0, 0, 0, "headers in a Contact are kept", contactIs("sip:user@example.com?Route=%3Csip:sip.example.com%3E", "")},
	{4475, "3.3.15", "sdp01", 0, 406, 0, "nothing that we would answer is accepted", nil},
	{4475, "3.4.1", "inv2543", 0, 0, 0, "an INVITE of RFC 2543: no branch, no tag, no Max-Forwards", checkInv2543},
}

// broken holds that a message is refused for the reason that it is there for.
func broken(want *Error) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		data := m.data
		err := m.Parse(data, nil)
		if err == nil {
			err = m.Check()
		}
		if err != want {
			t.Errorf("refused for %v, want %v", err, want)
		}
	}
}

func closesStream(want *Error) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		var s Stream
		if n, what, err := s.Next(m.data, new(Message), nil); n != 0 || what != Part || err != want {
			t.Errorf("stream: took %d, %v, %v; want %v", n, what, err, want)
		}
	}
}

func checkClerr(t *testing.T, m *Message) {
	broken(ErrBody)(t, m)
	var s Stream
	if n, what, err := s.Next(m.data, new(Message), nil); n != 0 || what != Part || err != nil {
		t.Errorf("stream: took %d, %v, %v; want to wait", n, what, err)
	}
}

func checkWsinv(t *testing.T, m *Message) {
	to, _, _ := ParseAddress(m.Get(To))
	from, _, _ := ParseAddress(m.Get(From))
	contact, _, _ := ParseAddress(m.Get(Contact))
	q, _ := Param(contact.Params, "q")
	seq, _ := m.Sequence()
	hops, _ := m.Hops()
	same(t, "tags", string(to.Tag())+" "+string(from.Tag()), "1918181833n 98asjd8")
	same(t, "display", string(from.Display), `"J Rosenberg \\\""`)
	same(t, "q", string(q), "0.33")
	same(t, "CSeq", string(seq.Method), "INVITE")
	if seq.Number != 9 || hops != 68 {
		t.Errorf("CSeq %d, hops %d", seq.Number, hops)
	}
	same(t, "hops", strings.Join(hopsOf(t, m), ", "), "UDP 192.0.2.2 390skdjuw, TCP spindle.example.com z9hG4bK9ikj8, UDP 192.168.255.111 z9hG4bK30239")
	for i := range m.Fields() {
		if _, name, value := m.At(i); string(name) == "UnknownHeaderWithUnusualValue" {
			same(t, string(name), string(value), ";;,,;;,;")
		}
	}
	_ = m.Values(Route, func(a *Address) bool {
		u, err := a.Parse()
		if _, lr := u.Param("lr"); err != nil || !lr {
			t.Errorf("Route %s is not loose", a.URI)
		}
		return true
	})
}

func hopsOf(t *testing.T, m *Message) (all []string) {
	t.Helper()
	for value, i := m.Field(Via, 0); value != nil; value, i = m.Field(Via, i) {
		for rest := value; rest != nil; {
			var h Hop
			var err *Error
			if h, rest, err = ParseVia(rest); err != nil {
				t.Fatal(err)
			}
			all = append(all, string(h.Transport)+" "+string(h.SentBy.Name)+" "+string(h.Branch))
		}
	}
	return all
}

func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func checkIntmeth(t *testing.T, m *Message) {
	same(t, "method", string(m.Method()), "!interesting-Method0123456789_*+`.%indeed'~")
	u, _ := ParseURI(m.Target())
	same(t, "user", string(u.User), "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*")
	same(t, "password", string(u.Password), "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
	to, _, _ := ParseAddress(m.Get(To))
	same(t, "display of To", string(to.Display), "\"BEL:\\\a NUL:\\\x00 DEL:\\\x7f\"")
	from, _, _ := ParseAddress(m.Get(From))
	same(t, "display of From", string(from.Display), "token1~` token2'+_ token3*%!.-")
	same(t, "tag", string(from.Tag()), "_token~1'+`*%!-.")
	same(t, "Call-ID", string(m.Get(CallID)), "intmeth.word%ZK-!.*_+'@word`~)(><:\\/\"][?}{")
}

func checkEsc01(t *testing.T, m *Message) {
	contact, _, _ := ParseAddress(m.Get(Contact))
	u, err := contact.Parse()
	_, lr := u.Param("lr")
	value, _ := u.Param("name")
	if err != nil || !lr {
		t.Errorf("Contact %s: %v", contact.URI, err)
	}
	same(t, "value", string(Unescape(nil, value)), "value%41")
	to, _, _ := ParseAddress(m.Get(To))
	plain, _ := ParseURI([]byte("sip:user@EXAMPLE.com"))
	if u, err := to.Parse(); err != nil || !u.Same(&plain) {
		t.Errorf("To %s is not the same as sip:user@example.com", to.URI)
	}
}

func checkEscnull(t *testing.T, m *Message) {
	var users []string
	_ = m.Values(Contact, func(a *Address) bool {
		u, _ := a.Parse()
		users = append(users, string(Unescape(nil, u.User)))
		return true
	})
	same(t, "users", strings.Join(users, ","), "\x00,\x00\x00")
}

func checkEsc02(t *testing.T, m *Message) {
	contacts := 0
	_ = m.Values(Contact, func(*Address) bool { contacts++; return true })
	if m.Is("REGISTER") || contacts != 2 {
		t.Errorf("method %s, %d contacts", m.Method(), contacts)
	}
	fromIs(`"%Z%45"`, "sip:resource@example.com")(t, m)
}

func fromIs(display, uri string) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		a, _, err := ParseAddress(m.Get(From))
		if err != nil || string(a.Display) != display || string(a.URI) != uri {
			t.Errorf("From: %q %q %v", a.Display, a.URI, err)
		}
	}
}

func contactIs(uri, params string) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		a, _, err := ParseAddress(m.Get(Contact))
		if err != nil || string(a.Params) != params || string(a.URI) != uri {
			t.Errorf("Contact: %q %q %v", a.URI, a.Params, err)
		}
	}
}

func targetIs(user, host string) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		u, err := ParseURI(m.Target())
		if err != nil || string(u.User) != user || string(u.Host.Name) != host {
			t.Errorf("target: user %q, host %q, %v", u.User, u.Host.Name, err)
		}
	}
}

func phraseHas(want string) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		if got := string(m.Phrase()); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("reason %q, want %q", got, want)
		}
	}
}

func checkLongreq(t *testing.T, m *Message) {
	if got := len(hopsOf(t, m)); got != 34 {
		t.Errorf("%d hops, want 34", got)
	}
	from, _, _ := ParseAddress(m.Get(From))
	if got := len(from.Tag()); got < 100 {
		t.Errorf("tag of %d bytes", got)
	}
}

func checkDblreq(t *testing.T, m *Message) {
	body, err := m.Body()
	if len(body) != 0 || err != nil || !m.Is("REGISTER") {
		t.Errorf("%s with a body of %d bytes, %v", m.Method(), len(body), err)
	}
	var e Editor
	e.Edit(m)
	if out, ok := e.Append(nil); !ok || strings.Contains(string(out), "INVITE") {
		t.Errorf("sends on %q", out)
	}
}

func checkTransports(t *testing.T, m *Message) {
	same(t, "hops", strings.Join(hopsOf(t, m), ", "), "UDP t1.example.com z9hG4bKkdjuw, SCTP t2.example.com z9hG4bKklasjdhf, "+
		"TLS t3.example.com z9hG4bK2980unddj, UNKNOWN t4.example.com z9hG4bKasd0f3en, TCP t5.example.com z9hG4bK0a9idfnee")
}

func checkMpart(t *testing.T, m *Message) {
	if body, err := m.Body(); err != nil || len(body) != 553 || !strings.HasSuffix(string(body), "--7a9cbec02ceef655--\r\n") {
		t.Errorf("body of %d bytes, %v", len(body), err)
	}
}

func checkBext(t *testing.T, m *Message) {
	same(t, "of an endpoint", string(endpoint().AppendUnsupported(nil, m, Require)),
		"Unsupported: nothingSupportsThis\r\nUnsupported: nothingSupportsThisEither\r\n")
	same(t, "of one that forwards", string(endpoint().AppendUnsupported(nil, m, ProxyRequire)),
		"Unsupported: noProxiesSupportThis\r\nUnsupported: norDoAnyProxiesSupportThis\r\n")
}

func checkRegaut(t *testing.T, m *Message) {
	if !m.Has(Authorization) || m.Credentials(Authorization, "digest") != nil {
		t.Errorf("digest credentials in %q", m.Get(Authorization))
	}
}

func checkInv2543(t *testing.T, m *Message) {
	h, err := m.Top()
	if err != nil || h.Modern() || h.Branch != nil {
		t.Errorf("Via %+v, %v", h, err)
	}
	if hops, err := m.Hops(); hops != 70 || err != nil {
		t.Errorf("%d hops, %v", hops, err)
	}
	_ = m.Values(RecordRoute, func(a *Address) bool {
		u, _ := a.Parse()
		maddr, _ := u.Param("maddr")
		same(t, "maddr", string(maddr), "ss1.example.com")
		return true
	})
}
