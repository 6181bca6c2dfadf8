// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"bytes"
	"net/netip"
	"testing"
)

// FuzzAppend rewrites whatever can be read. What comes out says the new addresses and no other, keeps the lines that say
// nothing of addresses, and rewriting it again changes nothing.
func FuzzAppend(f *testing.F) {
	f.Add([]byte(phone()), true)
	f.Add([]byte(head+"c=IN IP6 ::\nm=audio 1 RTP/AVP 0\na=recvonly\nm=image 3 udptl t38"), false)
	f.Add([]byte(head+"a=group:ANAT 1 2\nm=audio 1 RTP/AVP 0\nc=IN IP4 192.0.2.1\na=mid:1\nm=audio 3 RTP/AVP 0\nc=IN IP6 ::1\na=mid:2\na=rtcp:9"), true)
	f.Fuzz(func(t *testing.T, text []byte, six bool) {
		var s Session
		if s.Parse(text, &Limits{}) != nil {
			return
		}
		addr := netip.MustParseAddr("203.0.113.11")
		if six {
			addr = netip.MustParseAddr("2001:db8:100:50::7")
		}
		r := Rewrite{Addr: addr}
		for i := range s.Len() {
			r.Media = append(r.Media, Endpoint{Addr: netip.AddrPortFrom(addr, uint16(20000+2*i))})
		}
		out, err := s.Append(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		var again Session
		if err := again.Parse(out, &Limits{Text: 1 << 20, Lines: 2000}); err != nil {
			t.Fatalf("%v in %q", err, out)
		}
		if again.Len() != s.Len() || again.ICE() {
			t.Fatalf("%d m-lines of %d, ICE %v in %q", again.Len(), s.Len(), again.ICE(), out)
		}
		for i := range again.Len() {
			m, was := again.Media(i), s.Media(i)
			if m.Live() != was.Live() || m.Live() && m.Addr != addr || m.Live() && m.Port != uint16(20000+2*i) {
				t.Errorf("m-line %d: %v:%d in %q", i, m.Addr, m.Port, out)
			}
			if was.Live() && was.Held() != m.Held() {
				t.Errorf("m-line %d: held %v became %v in %q", i, was.Held(), m.Held(), out)
			}
		}
		if twice, err := again.Append(nil, &r); err != nil || !bytes.Equal(twice, out) {
			t.Errorf("%v: once %q, twice %q", err, out, twice)
		}
		const origin = "kyozon 5 6 IN IP6 2001:db8::5"
		var kept Session
		if err := kept.Parse(s.AppendOrigin(nil, &Rewrite{Origin: []byte(origin), Version: 7}), &Limits{Text: 1 << 20, Lines: 2000}); err != nil {
			t.Fatal(err)
		}
		if string(kept.Origin()) != "kyozon 5 7 IN IP6 2001:db8::5" || kept.Version() != 7 || len(kept.text)-len(kept.Origin()) != len(text)-len(s.Origin()) {
			t.Errorf("o=%s in %q, of %q", kept.Origin(), kept.text, text)
		}
		for l := range bytes.Lines(text) {
			if bytes.HasPrefix(l, []byte("a=fmtp:")) && !bytes.Contains(out, bytes.TrimRight(l, "\r\n")) {
				t.Errorf("lost %q", l)
			}
		}
	})
}
