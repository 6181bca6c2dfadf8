// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"strings"
	"testing"
)

func TestSeconds(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint32{
		"0": 0, "1800": 1800, " 120 (I'm in a meeting)": 120, "18000;duration=3600": 18000, "120;refresher=uac": 120, "120 ; x": 120,
		"4294967295": 4294967295, "4294967296": 7, "-1": 7, "": 7, "x": 7, "1 2": 7,
	} {
		if got := Seconds([]byte(text), 7); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestLists(t *testing.T) {
	t.Parallel()
	m := parsed(t, crlf("OPTIONS sip:a SIP/2.0", "Supported: 100rel ,\r\n TIMER", "k: path", "Supported:", "Require: ,x"))
	for tag, want := range map[string]bool{"100rel": true, "timer": true, "path": true, "x": false, "rel": false} {
		if got := m.Lists(Supported, tag); got != want {
			t.Errorf("%s: %v, want %v", tag, got, want)
		}
	}
	if err := endpoint().Check(parsed(t, crlf("OPTIONS sip:a SIP/2.0", "Require: ,", "Require:"))); err != nil {
		t.Errorf("an empty Require: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	m := parsed(t, crlf("OPTIONS sip:a SIP/2.0", "Authorization: Basic eDp5", "Authorization: DIGEST\r\n\trealm=\"a, b\", nonce=\"n\"", "Proxy-Authorization: digest"))
	if got := string(m.Credentials(Authorization, "digest")); got != `realm="a, b", nonce="n"` {
		t.Errorf("got %q", got)
	}
	if got := m.Credentials(ProxyAuthorization, "digest"); got != nil {
		t.Errorf("got %q of what has none", got)
	}
}

// TestAbilities: what is asked for and not there is named by a status. RFC 3261 §8.2.
func TestAbilities(t *testing.T) {
	t.Parallel()
	can := endpoint()
	can.Extensions = []string{"100rel"}
	good := string(invite())
	for _, test := range []struct {
		name, old, new string
		want           *Error
	}{
		{"all is well", "", "", nil},
		{"method", "INVITE", "DANCE", ErrMethod},
		{"scheme", "INVITE sip:0312345678@voip.example.jp", "INVITE mailto:a@b", ErrScheme},
		{"tel", "INVITE sip:0312345678@voip.example.jp", "INVITE tel:+81312345678", nil},
		{"extension that is there", "Supported: 100rel, timer", "Require: 100REL", nil},
		{"extension that is not", "Supported: 100rel, timer", "Require: 100rel, gruu", ErrExtension},
		{"type", "application/sdp", "text/plain", ErrType},
		{"type with a parameter", "application/sdp", "Application/SDP ;x=y", nil},
		{"coded", "Supported: 100rel, timer", "Content-Encoding: gzip", ErrType},
		{"plainly coded", "Supported: 100rel, timer", "e: identity", nil},
		{"accepts text", "Supported: 100rel, timer", "Accept: text/plain", ErrNotAccepted},
		{"accepts all", "Supported: 100rel, timer", "Accept: text/plain, */*;q=0.1", nil},
		{"accepts a range", "Supported: 100rel, timer", "Accept: application/*", nil},
		{"accepts a range of another", "Supported: 100rel, timer", "Accept: app/*", ErrNotAccepted},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if err := can.Check(parsed(t, []byte(strings.ReplaceAll(good, test.old, test.new)))); err != test.want {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
	ack := strings.ReplaceAll(strings.ReplaceAll(good, "INVITE", "ACK"), "Supported: 100rel, timer", "Require: gruu")
	if err := can.Check(parsed(t, []byte(ack))); err != nil {
		t.Errorf("ACK: %v", err)
	}
	m := parsed(t, []byte(strings.Replace(good, "Supported: 100rel, timer", "Proxy-Require: privacy", 1)))
	if err := can.CheckForward(m); err != ErrExtension {
		t.Errorf("forwards: %v", err)
	}
	a := Answer{Status: 420}
	if got := string(a.Append(nil, m, wayFrom)); !strings.Contains(got, "Unsupported: privacy\r\n") {
		t.Errorf("answered with %q", got)
	}
}

// TestRegisters: RFC 3261 §10.2.2 and §10.3, step 6.
func TestRegisters(t *testing.T) {
	t.Parallel()
	for lines, want := range map[string]*Error{
		"Contact: *|Expires: 0": nil, "Contact: *": ErrStar, "Contact: *|Expires: 1": ErrStar, "Contact: *, <sip:a@b>|Expires: 0": ErrStar,
		"Contact: <sip:a@b>|Contact: *|Expires: 0": ErrStar, "Contact: <sip:a@b>": nil, "Expires: 0": nil, "Contact: what": ErrAddress,
		"Contact: *;x=y|Expires: 0": nil,
	} {
		m := parsed(t, crlf(append([]string{"REGISTER sip:a SIP/2.0", "To: <sip:a@b>"}, strings.Split(lines, "|")...)...))
		if err := m.CheckRegister(); err != want {
			t.Errorf("%s: %v, want %v", lines, err, want)
		}
	}
	for to, want := range map[string]*Error{"<sips:a@b>": nil, "<tel:1>": ErrAOR, "<urn:x:y>": ErrAOR, "": ErrAddress} {
		if err := parsed(t, crlf("REGISTER sip:a SIP/2.0", "To: "+to)).CheckRegister(); err != want {
			t.Errorf("%q: %v, want %v", to, err, want)
		}
	}
}
