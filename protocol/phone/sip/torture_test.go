// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"bytes"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/sip-torture.md")

const tortureTable = "../../../docs/sip-torture.md"

// torture is a message of RFC 4475 or RFC 5118 and what it must come to: for all who read it, then for an endpoint and
// for one that forwards. 0 is taken; a response that is not taken is dropped.
type torture struct {
	rfc     int
	section string
	file    string
	all     int
	ends    int
	passes  int
	what    string
	check   func(*testing.T, *Message)
}

// endpoint is able to do what most of the messages ask for.
func endpoint() *Abilities {
	return &Abilities{
		Methods: []string{"INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "REGISTER", "MESSAGE"},
		Types:   []string{"application/sdp", "multipart/mixed"},
		Sends:   "application/sdp",
	}
}

const dropped = -1

func outcome(m *Message, err *Error) int {
	switch {
	case err == nil:
		return 0
	case m.Status() > 0 || m.Method() == nil:
		return dropped
	}
	return err.Status
}

func (tt *torture) load(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("rfc%d", tt.rfc), tt.file+".dat"))
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case tt.file == "baddn":
		data = append(data, "\r\n"...) // the archive has no empty line at its end
	case tt.file == "ipv6-in-sdp" && tt.all == 0:
		data = bytes.Replace(data, []byte("Length: 268"), []byte("Length: 251"), 1)
	}
	return data
}

// TestTorture: each message comes to what docs/sip-torture.md says, and one that is refused is answered.
func TestTorture(t *testing.T) {
	t.Parallel()
	for _, tt := range append(torture4475, torture5118...) {
		t.Run(fmt.Sprintf("%d/%s/%s", tt.rfc, tt.section, tt.file), func(t *testing.T) {
			t.Parallel()
			data := tt.load(t)
			var m Message
			err := m.Parse(data, nil)
			if err == nil {
				err = m.Check()
			}
			if got := outcome(&m, err); got != tt.all {
				t.Fatalf("all: got %d (%v), want %d", got, err, tt.all)
			}
			ends, passes := err, err
			if err == nil {
				ends, passes = asEndpoint(&m), nil
				if m.Request() {
					passes = endpoint().CheckForward(&m)
				}
			}
			if got := outcome(&m, ends); got != tt.ends {
				t.Errorf("endpoint: got %d (%v), want %d", got, ends, tt.ends)
			}
			if got := outcome(&m, passes); got != tt.passes {
				t.Errorf("forwards: got %d (%v), want %d", got, passes, tt.passes)
			}
			for _, status := range []int{tt.ends, tt.passes} {
				answered(t, &m, status)
			}
			if tt.check != nil {
				tt.check(t, &m)
			}
		})
	}
}

func asEndpoint(m *Message) *Error {
	if !m.Request() {
		return m.Ours()
	}
	if err := endpoint().Check(m); err != nil || !m.Is("REGISTER") {
		return err
	}
	return m.CheckRegister()
}

// answered holds that a refused request is answered so that its sender knows what is meant.
func answered(t *testing.T, m *Message, status int) {
	t.Helper()
	if status <= 0 {
		return
	}
	if !m.Answerable() {
		t.Fatalf("cannot be answered with %d", status)
	}
	from := netip.MustParseAddrPort("[2001:db8::99]:5090")
	a := Answer{Status: status, Tag: []byte("ours")}
	text := a.Append(nil, m, from)
	var r Message
	_ = r.Parse(text, nil) // what is copied may be broken
	if r.Status() != status || string(r.Phrase()) != Phrase(status) {
		t.Errorf("answered with %d %s, want %d", r.Status(), r.Phrase(), status)
	}
	asked, _ := m.Top()
	told, _ := r.Top()
	if string(told.Branch) != string(asked.Branch) || told.Received != from.Addr() {
		t.Errorf("answered with Via %s, received %v", r.Get(Via), told.Received)
	}
	for _, k := range []Kind{From, CallID, CSeq} {
		if string(r.Get(k)) != string(m.Get(k)) {
			t.Errorf("answered with %v %s", k, r.Get(k))
		}
		if _, next := r.Field(k, 0); r.Has(k) {
			if again, _ := r.Field(k, next); again != nil {
				t.Errorf("answered with %v twice", k)
			}
		}
	}
}

// TestTortureTable: docs/sip-torture.md says what the tests hold.
func TestTortureTable(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("# Torture tests of the SIP core\n\n" +
		"Written by `go test ./protocol/phone/sip -run TestTortureTable -update`; do not edit.\n\n" +
		"All messages of RFC 4475 and RFC 5118, each a test: `go test ./protocol/phone/sip -run TestTorture`. A number is what a\n" +
		"request is answered with. *All* is what everybody checks who reads a message, *endpoint* one that answers calls and\n" +
		"registers, *forwards* one that sends a request on. The bytes are those of the RFCs, with two exceptions: the archive of\n" +
		"RFC 4475 lacks the end of the head of `baddn`, which is added, and RFC 5118 §4.6 prints a Content-Length that is longer\n" +
		"than its body, so that it is tried as printed and with the length that is right.\n")
	for _, set := range [][]torture{torture4475, torture5118} {
		fmt.Fprintf(&b, "\n## RFC %d\n\n| section | message | all | endpoint | forwards | what is shown |\n|---|---|---|---|---|---|\n", set[0].rfc)
		for _, tt := range set {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", tt.section, tt.file, word(tt.all), word(tt.ends), word(tt.passes), tt.what)
		}
	}
	if *update {
		if err := os.WriteFile(tortureTable, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(tortureTable); err != nil || string(got) != b.String() {
		t.Errorf("%s is stale (%v): go test ./protocol/phone/sip -run TestTortureTable -update", tortureTable, err)
	}
}

func word(status int) string {
	switch status {
	case 0:
		return "taken"
	case dropped:
		return "dropped"
	}
	return fmt.Sprint(status)
}

// TestTortureWhole: no message was forgotten.
func TestTortureWhole(t *testing.T) {
	t.Parallel()
	for rfc, set := range map[int][]torture{4475: torture4475, 5118: torture5118} {
		have := map[string]bool{}
		for _, tt := range set {
			have[tt.file+".dat"] = true
		}
		files, err := os.ReadDir(fmt.Sprintf("testdata/rfc%d", rfc))
		if err != nil {
			t.Fatal(err)
		}
		want := map[int]int{4475: 49, 5118: 12}[rfc]
		if len(files) != want || len(have) != want {
			t.Errorf("RFC %d: %d files, %d of them tried, want %d", rfc, len(files), len(have), want)
		}
		for _, f := range files {
			if !have[f.Name()] {
				t.Errorf("RFC %d: %s is not tried", rfc, f.Name())
			}
		}
	}
}
