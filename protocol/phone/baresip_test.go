// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
)

// The tones that telephones say, in Hz.
const (
	low  = 400
	high = 1000
)

// telephone is a baresip that has registered over one family.
func (b *bench) telephone(transport string, f ip.Family, name string, tone int) *servertest.Baresip {
	b.t.Helper()
	codec := map[string]string{"udp": "g711", "tcp": "opus"}[transport]
	return servertest.NewBaresip(b.t, servertest.Telephone{Name: name, Domain: domain, Password: "secret", Server: b.at[f],
		Transport: transport, Codec: codec, Tone: tone})
}

// hears fails unless a telephone hears a tone, and little else.
func hears(t *testing.T, d *servertest.Baresip, hz int) {
	t.Helper()
	if got := d.Hears(hz); got < 0.9 {
		t.Errorf("of what is heard %.2f is a tone of %d Hz", got, hz)
	}
}

// Real telephones call each other, hear each other, hold, and hang up.
func TestBaresip(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b := newBench(t, ", cdr: calls.jsonl")
		one, two := b.telephone(transport, f, "05010000001", low), b.telephone(transport, f, "05010000002", high)
		one.Do("dial", "05010000002")
		if got := two.Event("CALL_INCOMING").Peer; got != "sip:05010000001@"+domain {
			t.Errorf("%s calls", got)
		}
		one.Event("CALL_RINGING")
		two.Do("accept", "")
		one.Event("CALL_ESTABLISHED")
		two.Event("CALL_ESTABLISHED")
		hears(t, one, high)
		hears(t, two, low)
		two.Do("hold", "")
		one.Event("CALL_REMOTE_SDP") // the offer of the one who holds
		two.Event("CALL_REMOTE_SDP")
		two.Do("resume", "")
		one.Event("CALL_REMOTE_SDP")
		two.Event("CALL_REMOTE_SDP")
		two.Do("hangup", "")
		one.Event("CALL_CLOSED")

		two.Do("dial", "05010000001") // gives up
		one.Event("CALL_INCOMING")
		two.Event("CALL_RINGING")
		two.Do("hangup", "")
		one.Event("CALL_CLOSED")

		two.Do("dial", "05010000001") // is turned away
		one.Event("CALL_INCOMING")
		one.Do("hangup", "")
		two.Event("CALL_CLOSED")

		var got []string
		for _, r := range b.records() {
			got = append(got, fmt.Sprintf("%s %s %s %d %d", r.From, r.Called.Family, r.EndedBy, r.Status, r.Cause))
		}
		want := []string{"05010000001 " + f.String() + " called 0 16", "05010000002 " + f.String() + " caller 487 16",
			"05010000002 " + f.String() + " called 486 17"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the records (-want +got):\n%s", diff)
		}
	})
}

// records ends the edge, which writes what is not written yet, and returns the records of its calls.
func (b *bench) records() (all []*cdr.Record) {
	b.t.Helper()
	b.end()
	b.end = func() {}
	text, err := os.ReadFile(filepath.Join(b.dir, "calls.jsonl"))
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		r, err := cdr.Parse(line)
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}
