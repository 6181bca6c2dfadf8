// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

func parse(t testing.TB, text []byte) *sip.Message {
	t.Helper()
	m := new(sip.Message)
	if err := m.Parse(text, nil); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if err := m.Check(); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return m
}

func lines(l ...string) []byte {
	return []byte(strings.Join(l, "\r\n") + "\r\nContent-Length: 0\r\n\r\n")
}

// TestDialog: both ends make of an INVITE and its 200 what RFC 3261 §12.1 says, and address each other in the order of the
// route set.
func TestDialog(t *testing.T) {
	t.Parallel()
	invite := parse(t, lines("INVITE sip:b@example.jp SIP/2.0", "Via: SIP/2.0/UDP a;branch=z9hG4bK1", "Record-Route: <sip:p2;lr>, <sip:p1;lr;x=1>;y",
		`From: "A" <sip:a@example.jp>;tag=at;z=1`, "To: sip:b@example.jp", "Call-ID: c", "CSeq: 5 INVITE", "Contact: <sip:a@[2001:db8::1]:5062>"))
	ok := parse(t, lines("SIP/2.0 200 OK", "Via: SIP/2.0/UDP a;branch=z9hG4bK1", "Record-Route: <sip:p2;lr>, <sip:p1;lr;x=1>;y",
		`From: "A" <sip:a@example.jp>;tag=at;z=1`, "To: <sip:b@example.jp>;tag=bt", "Call-ID: c", "CSeq: 5 INVITE", "Contact: <sip:b@192.0.2.2>"))
	server, err := Accepted(invite, "bt")
	if err != nil {
		t.Fatal(err)
	}
	client, err := Begun(ok)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Dialog{CallID: "c", Local: "<sip:b@example.jp>", Remote: `"A" <sip:a@example.jp>;z=1`, LocalTag: "bt", RemoteTag: "at", RemoteSeq: 5,
		Target: "sip:a@[2001:db8::1]:5062", Routes: []string{"<sip:p2;lr>", "<sip:p1;lr;x=1>;y"}}, server); diff != "" {
		t.Errorf("server (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Dialog{CallID: "c", Local: `"A" <sip:a@example.jp>;z=1`, Remote: "<sip:b@example.jp>", LocalTag: "at", RemoteTag: "bt", LocalSeq: 5,
		Target: "sip:b@192.0.2.2", Routes: []string{"<sip:p1;lr;x=1>;y", "<sip:p2;lr>"}, Caller: true, Confirmed: true}, client); diff != "" {
		t.Errorf("client (-want +got):\n%s", diff)
	}

	bye := parse(t, client.Append(nil, &Request{Method: "BYE", Via: []byte("SIP/2.0/UDP a;branch=z9hG4bK2"), Lines: []byte("Reason: Q.850;cause=16\r\n")}))
	if !server.Has(bye) || client.Has(bye) {
		t.Errorf("BYE of the client: server %v, client %v", server.Has(bye), client.Has(bye))
	}
	want := "BYE sip:b@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK2\r\nMax-Forwards: 70\r\nRoute: <sip:p1;lr;x=1>;y\r\nRoute: <sip:p2;lr>\r\n" +
		"From: \"A\" <sip:a@example.jp>;z=1;tag=at\r\nTo: <sip:b@example.jp>;tag=bt\r\nCall-ID: c\r\nCSeq: 6 BYE\r\nReason: Q.850;cause=16\r\nContent-Length: 0\r\n\r\n"
	if got := string(bye.Head()); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if bye = parse(t, server.Append(nil, &Request{Method: "BYE", Via: []byte("SIP/2.0/UDP b;branch=z9hG4bK3")})); !client.Has(bye) || string(bye.Get(sip.CSeq)) != "1 BYE" {
		t.Errorf("BYE of the server: %q", bye.Head())
	}
}

// TestStrictRoute: a strict router is the Request-URI, and the target the last Route. RFC 3261 §12.2.1.1.
func TestStrictRoute(t *testing.T) {
	t.Parallel()
	d := Dialog{CallID: "c", Local: "<sip:a>", Remote: "<sip:b>", Target: "sip:b@192.0.2.2", Routes: []string{"<sip:strict?x=y>", "<sip:p;lr>"}}
	m := parse(t, d.Append(nil, &Request{Method: "INFO", Via: []byte("SIP/2.0/UDP a;branch=z9hG4bK2"), Seq: 9, Type: "text/plain", Body: []byte("x")}))
	var got []string
	for value, i := m.Field(sip.Route, 0); value != nil; value, i = m.Field(sip.Route, i) {
		got = append(got, string(value))
	}
	if string(m.Target()) != "sip:strict" || strings.Join(got, " ") != "<sip:p;lr> <sip:b@192.0.2.2>" || string(m.Get(sip.CSeq)) != "9 INFO" {
		t.Errorf("target %s, routes %v, CSeq %s", m.Target(), got, m.Get(sip.CSeq))
	}
}

// TestNoDialog: what would leave us without a way to the peer begins no dialog.
func TestNoDialog(t *testing.T) {
	t.Parallel()
	for contact, want := range map[string]*sip.Error{
		"Contact: <sip:a@b>": nil, "Contact: <sip:a@b>, <sip:c@d>": ErrContact, "X: y": ErrContact, "Contact: *": ErrContact, "Contact: <tel:1>": ErrContact, "Contact: <sip:a@>": sip.ErrAddress,
	} {
		m := new(sip.Message)
		_ = m.Parse(lines("INVITE sip:b SIP/2.0", "Via: SIP/2.0/UDP a;branch=z9hG4bK1", "From: <sip:a>;tag=a", "To: <sip:b>", "Call-ID: c", "CSeq: 5 INVITE", contact), nil)
		if _, err := Accepted(m, "t"); err != want {
			t.Errorf("%s: %v, want %v", contact, err, want)
		}
		if s, v := Serve(m, "t", transaction.Timers{}); v.Err != want || (s == nil) != (want != nil) {
			t.Errorf("%s: session %v, %v, want %v", contact, s, v.Err, want)
		}
	}
}
