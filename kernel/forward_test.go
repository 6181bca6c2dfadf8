// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

const (
	syn = 2
	ack = 16

	extensionOptions = 60 // the destination options of IPv6
)

// expect compares a frame with the packet that it should be. What the translator chooses freely is taken from the frame: the flow
// label, and the identification of IPv4.
func expect(t *testing.T, what string, got []byte, want packet) {
	t.Helper()
	if len(got) < 42 {
		t.Fatalf("%s: %d bytes are left", what, len(got))
	}
	if want.from.Addr().Is4() {
		want.id = binary.BigEndian.Uint16(got[18:])
	} else if want.label == 0 {
		want.label = binary.BigEndian.Uint32(got[14:]) & 0xfffff
	}
	if diff := cmp.Diff(want.bytes()[12:], got[12:]); diff != "" {
		t.Errorf("%s: packet (-want +got):\n%s", what, diff)
	}
}

// df says whether an IPv4 packet of so many bytes, made of an IPv6 one, may not be cut. RFC 7915 §5.1
func df(c ip.Crossing, size int) bool { return c.Client == c.Backend || size > 1260 }

// TestForward: a packet to the front reaches the server as the client's stand-in, and the answer comes from the front.
func TestForward(t *testing.T) {
	for _, protocol := range []uint8{protocolTCP, protocolUDP} {
		t.Run(transportOf(protocol).String(), func(t *testing.T) {
			iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
				r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
				r.serve(c)
				question := packet{
					from: clientAt(c.Client), to: frontOf(c.Client), protocol: protocol, ttl: 64, class: 0x28, flags: syn,
					seq: 1000, payload: []byte("hello"), df: true, id: 7,
				}
				verdict, got := r.in(r.clients, question.bytes())
				if verdict != actRedirect {
					t.Fatalf("question: verdict %d, want redirect; %s", int32(verdict), r.reasons())
				}
				want := question
				want.from, want.to, want.ttl = sourceOf(c), serverOf(c.Backend), 63
				want.df = df(c, 100)
				expect(t, "question", got, want)
				if !slices.Equal(got[:6], serverMAC()) {
					t.Errorf("question goes to %x", got[:6])
				}
				reply := packet{
					from: serverOf(c.Backend), to: sourceOf(c), protocol: protocol, ttl: 64, flags: syn | ack, seq: 5000,
					ack: 1001, payload: []byte("hi"), df: true,
				}
				verdict, got = r.in(r.servers, reply.bytes())
				if verdict != actRedirect {
					t.Fatalf("reply: verdict %d, want redirect; %s", int32(verdict), r.reasons())
				}
				want = reply
				want.from, want.to, want.ttl = frontOf(c.Client), clientAt(c.Client), 63
				want.df = df(c, 100)
				expect(t, "reply", got, want)

				question.flags, question.ack = ack, 5001
				if verdict, _ = r.in(r.clients, question.bytes()); verdict != actRedirect {
					t.Fatalf("second question: verdict %d", int32(verdict))
				}
				n := 0
				r.must(r.Flows(func(f Flow) bool {
					n++
					if f.Client != clientAt(c.Client) || f.Source != sourceOf(c) || f.Backend != serverOf(c.Backend) || f.Crossing != c || f.Service != "shop" {
						t.Errorf("flow %+v", f)
					}
					return true
				}))
				if n != 1 {
					t.Errorf("%d flows are established, want 1", n)
				}
			})
		})
	}
}

// reasons returns what the counters say, for a message.
func (r *rig) reasons() (all string) {
	r.must(r.Counts(func(service string, c ip.Crossing, reason Reason, n Traffic) {
		all += service + " " + c.String() + " " + reason.String() + "; "
	}))
	return all
}

// TestLongExtensions: the transport header may lie far behind the base header.
func TestLongExtensions(t *testing.T) {
	for _, to := range []ip.Family{ip.V4, ip.V6} {
		c := ip.Crossing{Client: ip.V6, Backend: to}
		t.Run(c.String(), func(t *testing.T) {
			r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
			r.serve(c)
			for _, length := range []int{8, 192, 200, 248, 256, 264, 512, 1024} {
				p := question(c, []byte("hello"))
				options := make([]byte, length)
				options[0], options[1] = protocolUDP, byte(length/8-1)
				frame := slices.Insert(p.bytes(), 14+40, options...)
				frame[14+6] = extensionOptions
				binary.BigEndian.PutUint16(frame[14+4:], binary.BigEndian.Uint16(frame[14+4:])+uint16(length))
				got := r.redirected(true, frame)
				want := sent(c, p).bytes()
				datagram := want[len(want)-8-len(p.payload):]
				if diff := cmp.Diff(datagram, got[len(got)-len(datagram):]); diff != "" {
					t.Errorf("behind %d bytes of options: datagram (-want +got):\n%s", length, diff)
				}
			}
		})
	}
}
