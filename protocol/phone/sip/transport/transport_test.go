// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

func request(via string) []byte {
	return []byte("OPTIONS sip:b@[2001:db8::2] SIP/2.0\r\nVia: " + via + "\r\nFrom: <sip:a@example.jp>;tag=a\r\nTo: <sip:b@example.jp>\r\n" +
		"Call-ID: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n")
}

// judge reads what came and judges it.
func judge(data []byte, m *sip.Message) (Verdict, *sip.Error) { return Judge(m, m.Parse(data, nil)) }

// TestJudge: who can be answered is, and nobody else.
func TestJudge(t *testing.T) {
	t.Parallel()
	good := string(request("SIP/2.0/UDP a;branch=z9hG4bK1"))
	for _, test := range []struct {
		name, data string
		want       Verdict
		err        *sip.Error
	}{
		{"message", good, Take, nil},
		{"broken request", strings.Replace(good, "To: <", "To: \"<", 1), Answer, sip.ErrAddress},
		{"version", strings.Replace(good, "SIP/2.0\r\n", "SIP/3.0\r\n", 1), Answer, sip.ErrVersion},
		{"cut off", good[:len(good)-4], Answer, sip.ErrShort},
		{"broken ACK", strings.ReplaceAll(strings.Replace(good, "To: <", "To: \"<", 1), "OPTIONS", "ACK"), Drop, sip.ErrAddress},
		{"broken response", strings.Replace(strings.Replace(good, "OPTIONS sip:b@[2001:db8::2] SIP/2.0", "SIP/2.0 200 OK", 1), "CSeq: 1 ", "CSeq: x ", 1), Drop, sip.ErrCSeq},
		{"noise", "hello", Drop, sip.ErrShort},
		{"a web browser", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", Drop, sip.ErrStartLine},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var m sip.Message
			if got, err := judge([]byte(test.data), &m); got != test.want || err != test.err {
				t.Errorf("got %v, %v; want %v, %v", got, err, test.want, test.err)
			}
		})
	}
}

func way(t sip.Transport, local, remote string) sip.Way {
	return sip.Way{Transport: t, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), Flow: 7}
}

// TestAnswers: an answer goes back where the request came from, from the socket it came to, in its family.
func TestAnswers(t *testing.T) {
	t.Parallel()
	udp4 := way(sip.UDP, "192.0.2.9:5060", "192.0.2.1:40000")
	udp6 := way(sip.UDP, "[2001:db8::9]:5060", "[2001:db8::1]:40000")
	tcp6 := way(sip.TCP, "[2001:db8::9]:5060", "[2001:db8::1]:40000")
	tls6 := way(sip.TLS, "[2001:db8::9]:5061", "[2001:db8::1]:40000")
	for _, test := range []struct {
		via   string
		w     sip.Way
		first string
	}{
		{"SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1", udp4, "192.0.2.1:5070"},
		{"SIP/2.0/UDP 192.0.2.1", udp4, "192.0.2.1:5060"},
		{"SIP/2.0/UDP 192.0.2.1:5070;rport", udp4, "192.0.2.1:40000"},
		{"SIP/2.0/UDP 10.0.0.1:5070", udp4, "192.0.2.1:5070"},
		{"SIP/2.0/UDP [2001:db8::5]:5070", udp4, "192.0.2.1:5070"},
		{"SIP/2.0/UDP a.example", udp6, "[2001:db8::1]:5060"},
		{"SIP/2.0/UDP [2001:db8::5];maddr=192.0.2.77", udp6, "[2001:db8::1]:5060"},
		{"SIP/2.0/UDP [2001:db8::1];rport;received=2001:db8::66", udp6, "[2001:db8::1]:40000"},
		{"SIP/2.0/TCP [2001:db8::5]:5070", tcp6, "[2001:db8::1]:40000"},
		{"SIP/2.0/TLS a.example", tls6, "[2001:db8::1]:40000"},
	} {
		h, _, err := sip.ParseVia([]byte(test.via))
		if err != nil {
			t.Fatal(err)
		}
		got := AnswerWay(&h, test.w)
		if got.Remote.String() != test.first || got.Local != test.w.Local || got.Flow != test.w.Flow {
			t.Errorf("%s: answered on %v, want %s", test.via, got, test.first)
		}
	}
}

// TestChoose: what might have to be cut goes over TCP, and comes back to UDP only where it need not be cut.
func TestChoose(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		t        sip.Transport
		size     int
		f        ip.Family
		want     sip.Transport
		fallback bool
	}{
		{sip.UDP, 1300, ip.V4, sip.UDP, true}, {sip.UDP, 1301, ip.V4, sip.TCP, true}, {sip.UDP, 65508, ip.V4, sip.TCP, false},
		{sip.UDP, 1080, ip.V6, sip.UDP, true}, {sip.UDP, 1081, ip.V6, sip.TCP, true}, {sip.UDP, 1232, ip.V6, sip.TCP, true},
		{sip.UDP, 1233, ip.V6, sip.TCP, false}, {sip.TLS, 9999, ip.V6, sip.TLS, false}, {sip.TCP, 10, ip.V6, sip.TCP, true},
	} {
		if got := Choose(test.t, test.size, test.f); got != test.want {
			t.Errorf("%v, %d bytes, %v: %v, want %v", test.t, test.size, test.f, got, test.want)
		}
		if got := Fallback(test.size, test.f); got != test.fallback {
			t.Errorf("%d bytes, %v: back to UDP: %v, want %v", test.size, test.f, got, test.fallback)
		}
	}
}

// TestWritten: what we write of ourselves is in the family of the socket, whatever else is known.
func TestWritten(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		w            sip.Way
		known        string
		via, contact string
	}{
		{way(sip.UDP, "192.0.2.9:5060", "192.0.2.1:5060"), "", "SIP/2.0/UDP 192.0.2.9:5060", "<sip:u@192.0.2.9:5060>"},
		{way(sip.UDP, "10.0.0.9:5060", "10.0.0.1:5060"), "192.0.2.9:5070", "SIP/2.0/UDP 192.0.2.9:5070", "<sip:u@192.0.2.9:5070>"},
		{way(sip.UDP, "10.0.0.9:5060", "10.0.0.1:5060"), "[2001:db8::9]:5070", "SIP/2.0/UDP 10.0.0.9:5060", "<sip:u@10.0.0.9:5060>"},
		{way(sip.TCP, "[2001:db8::9]:5060", "[2001:db8::1]:9"), "192.0.2.9:5060", "SIP/2.0/TCP [2001:db8::9]:5060", "<sip:u@[2001:db8::9]:5060;transport=tcp>"},
		{way(sip.TLS, "[2001:db8::9]:5061", "[2001:db8::1]:9"), "", "SIP/2.0/TLS [2001:db8::9]:5061", "<sip:u@[2001:db8::9]:5061;transport=tls>"},
	} {
		var k Known
		if test.known != "" {
			k.AddrPort = netip.MustParseAddrPort(test.known)
		}
		via := k.AppendVia(nil, test.w, []byte("z9hG4bKx"))
		if got, want := string(via), test.via+";rport;branch=z9hG4bKx"; got != want {
			t.Errorf("Via %s, want %s", got, want)
		}
		if h, _, err := sip.ParseVia(via); err != nil || !h.AsksPort || !h.Modern() {
			t.Errorf("Via %s is read as %+v, %v", via, h, err)
		}
		contact := k.AppendContact(nil, test.w, sip.SIP, []byte("u"))
		if got := string(contact); got != test.contact {
			t.Errorf("Contact %s, want %s", got, test.contact)
		}
		if _, _, err := sip.ParseAddress(contact); err != nil {
			t.Errorf("Contact %s: %v", contact, err)
		}
		if got, want := string(Retransport(nil, via, sip.TCP)), strings.Replace(string(via), test.w.Transport.String(), "TCP", 1); got != want {
			t.Errorf("over TCP: %s, want %s", got, want)
		}
	}
	if got := string(Known{}.AppendContact(nil, way(sip.TLS, "[2001:db8::9]:5061", "[2001:db8::1]:9"), sip.SIPS, nil)); got != "<sips:[2001:db8::9]:5061>" {
		t.Errorf("Contact of sips: %s", got)
	}
}

func TestAllocs(t *testing.T) {
	data := request("SIP/2.0/UDP [2001:db8::1]:5070;branch=z9hG4bK1")
	w := way(sip.UDP, "[2001:db8::9]:5060", "[2001:db8::1]:40000")
	var m sip.Message
	out := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() {
		if v, _ := judge(data, &m); v != Take {
			t.Fatal(v)
		}
		h, _ := m.Top()
		w := AnswerWay(&h, w)
		out = Known{}.AppendVia(out[:0], w, h.Branch)
		out = Known{}.AppendContact(out, w, sip.SIP, h.Branch)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzJudge: whatever comes, nobody is answered who did not ask, and an answer says what was asked.
func FuzzJudge(f *testing.F) {
	f.Add(request("SIP/2.0/UDP a;branch=z9hG4bK1"))
	f.Add([]byte("\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m sip.Message
		v, err := judge(data, &m)
		if (v == Answer || v == Drop && err != nil) != (err != nil) {
			t.Fatalf("verdict %v, %v", v, err)
		}
		if v != Answer {
			return
		}
		a := sip.Answer{Status: err.Status}
		text := a.Append(nil, &m, netip.MustParseAddrPort("[2001:db8::1]:5060"))
		if !strings.HasPrefix(string(text), fmt.Sprintf("SIP/2.0 %d ", err.Status)) || m.Is("ACK") || !m.Request() {
			t.Fatalf("answered with %q", text)
		}
	})
}
