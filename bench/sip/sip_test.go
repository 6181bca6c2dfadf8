// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}

// TestQuick is the comparison in its shortest form, so that it works when somebody wants to know. The proxy made with sipgo is
// left out: its module is not there where only the tests are.
func TestQuick(t *testing.T) {
	binary := servertest.Kyozon(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o, err := parse([]string{"-quick", "-kyozon", binary, "-sipgo", ""}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	err = run(ctx, o, &lines, t.Output())
	if (errors.Is(err, lab.ErrRoot) || errors.Is(err, lab.ErrMissing)) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sip-call cpu_us", "sip-register cpu_us", "sip-register-digest cpu_us", "sip-memory kb_per_registration",
		"sip-memory heap_kb_per_registration", "sip-memory kb_per_call", "sip-memory heap_kb_per_call", "sip-memory start_ms",
		"sip-memory restart_ms", "sip-memory restart_mb"} {
		if n := strings.Count(lines.String(), "bench "+want+" ours="); n != 1 {
			t.Errorf("%d lines of %s, want one\n%s", n, want, lines.String())
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		ok   bool
	}{
		{"", true}, {"-quick", true}, {"-only sip-memory -registrations 5", true}, {"-only sip-call -rate 100 -time 1s", true}, {"-rate 0", false},
		{"-rate 1e6", false}, {"-time 2m", false}, {"-rounds 51", false}, {"-phones 0", false}, {"-calls 20000000", false}, {"-only mail", false},
		{"more", false}, {"-x", false},
	} {
		if _, err := parse(strings.Fields(tt.args), io.Discard); (err == nil) != tt.ok {
			t.Errorf("%q: %v", tt.args, err)
		}
	}
}

// What the load reads of messages, and writes.
func TestMessage(t *testing.T) {
	t.Parallel()
	const request = "INVITE sip:x SIP/2.0\r\nVia: a\r\nRecord-Route: <sip:r;lr>\r\nvia: b\r\nVia: c\r\nTo: <sip:x>\r\nX: y\r\nCSeq: 1 INVITE\r\n\r\nTo: z"
	got := string(appendAnswer(nil, []byte(request), "200 OK", "Contact: <sip:c>;q=1\r\n", "v=0"))
	const want = "SIP/2.0 200 OK\r\nVia: a\r\nRecord-Route: <sip:r;lr>\r\nVia: c\r\nTo: <sip:x>;tag=server\r\nCSeq: 1 INVITE\r\nContact: <sip:c>;q=1\r\n" +
		"Content-Type: application/sdp\r\nContent-Length: 3\r\n\r\nv=0"
	if got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	m := []byte(got)
	if statusOf(m) != 200 || methodOf(m) != "INVITE" || string(uriOf(fieldOf(m, "contact"))) != "sip:c" || statusOf([]byte(request)) != 0 {
		t.Errorf("read %d, %q, %q", statusOf(m), methodOf(m), uriOf(fieldOf(m, "contact")))
	}
	for n := range m { // whatever is missing
		statusOf(m[:n])
		uriOf(fieldOf(m[:n], "To"))
		appendAnswer(nil, m[:n], "400 Bad", "", "")
	}
	if n, err := parsePSS([]byte("Rss: 9 kB\nPss:   12 kB\n")); n != 12<<10 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}
