// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// A request that can be recognised is answered, whatever is wrong with it; other bytes are not, and end a connection.
func TestBroken(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		d := b.newDevice(transport, f, "05010000001")
		good := d.request("OPTIONS", "sip:"+domain)
		for _, test := range []struct{ old, with, want string }{
			{"CSeq: 1 OPTIONS", "CSeq: 1 INVITE", "400"},
			{"From: <", "From: <<", "400"},
			{"SIP/2.0\r\nVia", "SIP/7.0\r\nVia", "505"},
			{"sip:" + domain + " SIP", "telnet:x SIP", "416"},
		} {
			d.send(strings.Replace(good, test.old, test.with, 1))
			if m := d.hear(); index(m.Status()) != test.want {
				t.Errorf("%s: got %d, want %s", test.with, m.Status(), test.want)
			}
			if transport == "tcp" { // a head that cannot be indexed ends it
				d = b.newDevice(transport, f, "05010000001")
			}
		}
		d.send("\r\n\r\n")
		if transport == "tcp" {
			if n, err := d.conn.Read(d.buffer); err != nil || string(d.buffer[:n]) != "\r\n" {
				t.Errorf("a ping: got %q, %v", d.buffer[:n], err)
			}
			d.send("what is this?\r\n\r\n")
			if _, err := d.conn.Read(d.buffer); err == nil {
				t.Error("nonsense does not end a connection")
			}
		}
	})
}

// A message may come in many pieces, and many in one.
func TestPieces(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		d := b.newDevice("tcp", f, "05010000001")
		all := d.request("OPTIONS", "sip:"+domain) + "\r\n" + d.request("OPTIONS", "sip:"+domain)
		for _, c := range []byte(all) {
			d.send(string(c))
		}
		d.send(all) // the same transactions
		for range 4 {
			if m := d.hear(); m.Status() != 200 {
				t.Errorf("got %d", m.Status())
			}
		}
	}
}

// Answers over UDP go where RFC 3261 §18.2.2 and RFC 3581 have them: to the port in Via, or, with rport, to that of the
// packet, and always with the address that it came from.
func TestRport(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		d, other := b.newDevice("udp", f, "05010000001"), b.newDevice("udp", f, "05010000002")
		r := d.request("OPTIONS", "sip:"+domain)
		d.send(strings.Replace(r, d.local(), "phone.example:9", 1))
		m := d.hear()
		h, err := m.Top()
		if err != nil || h.Received != addrOf(d).Addr() || h.Port != addrOf(d).Port() {
			t.Errorf("%v: got Via %q", f, m.Get(sip.Via))
		}
		r = strings.Replace(d.request("OPTIONS", "sip:"+domain), ";rport", "", 1)
		d.send(strings.Replace(r, d.local(), other.local(), 1))
		if m := other.hear(); m.Status() != 200 {
			t.Errorf("%v: got %d at the port of Via", f, m.Status())
		}
	}
}

// Who is denied hears nothing, and whoever asks too often is told to come later.
func TestAccess(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.more = "    limits: {requests: {rate: 2/h}}\n"
	b.reload("")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		d := b.newDevice(transport, f, "05010000001")
		got := 0
		for range 5 {
			if got = d.ask("OPTIONS", "sip:"+domain); got != 200 {
				break
			}
		}
		if got != 503 || string(d.message.Get(sip.RetryAfter)) == "" {
			t.Errorf("got %d, Retry-After %q", got, d.message.Get(sip.RetryAfter))
		}
	})
	b.t = t
	b.more = "    deny: [127.0.0.0/9, \"::1\"]\n    allow: [192.0.2.1, \"2001:db8::/32\"]\n"
	b.reload("")
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		d := b.newDevice("udp", f, "05010000001")
		d.send(d.request("OPTIONS", "sip:"+domain))
		d.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := d.conn.Read(d.buffer); err == nil {
			t.Errorf("%v: who is denied got %q", f, d.buffer[:n])
		}
	}
}

// A telephone that asks where its packets come from is told, at the port for SIP.
func TestSTUN(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		d := b.newDevice("udp", f, "05010000001")
		d.send("\x00\x01\x00\x00\x21\x12\xa4\x42telephone 12")
		n, err := d.conn.Read(d.buffer)
		if err != nil || n < 32 || string(d.buffer[:2]) != "\x01\x01" || string(d.buffer[8:20]) != "telephone 12" {
			t.Errorf("%v: got %x, %v", f, d.buffer[:n], err)
		}
		if port := addrOf(d).Port() ^ 0x2112; n >= 28 && (d.buffer[26] != byte(port>>8) || d.buffer[27] != byte(port)) {
			t.Errorf("%v: got port %x, want %x xored", f, d.buffer[26:28], port) // RFC 8489 §14.2
		}
	}
}
