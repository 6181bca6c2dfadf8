// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package parts

import (
	"bytes"
	"strings"
	"testing"
)

const (
	mixed = "multipart/mixed;boundary=\"b 1\""
	sdp   = "v=0\r\nc=IN IP4 192.0.2.1\r\n"
	isup  = "--b 1\r\nContent-Type: application/isup;version=itu-t92+\r\nContent-Disposition: signal;handling=optional\r\n\r\n\x01\x00\x49\r\n--not it\x00\r\n"
	one   = "--b 1\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n"
	end   = "--b 1--\r\n"
)

func TestFind(t *testing.T) {
	t.Parallel()
	nested := func(kind, held string) string {
		return "--b 1\r\nContent-Type: " + kind + "\r\n\r\n" + held + "\r\n"
	}
	for _, test := range []struct {
		name, kind, body string
		want             Verdict
	}{
		{"alone", "application/sdp", sdp, Found},
		{"alone, with parameters", "Application/SDP ; charset=utf-8", sdp, Found},
		{"something else", "text/plain", sdp, None},
		{"no type", "", "", None},
		{"first", mixed, one + isup + end, Found},
		{"last, with words around", mixed, "words\r\n" + isup + one + end + "words\r\n", Found},
		{"without a line end of its own", mixed, isup + strings.Replace(one, "\r\n\r\n", "\n\n", 1) + end, Found},
		{"line feeds", mixed, strings.ReplaceAll(isup+one+end, "\r\n", "\n"), Found},
		{"padded delimiters", mixed, strings.ReplaceAll(one, "b 1\r\n", "b 1 \t\r\n") + end, Found},
		{"folded, and compact", mixed, strings.Replace(one, "Content-Type: application/sdp", "c:\r\n application/sdp", 1) + end, Found},
		{"with its length", mixed, strings.Replace(one, "\r\n\r\n", "\r\nContent-Length:  25 \r\n\r\n", 1) + end, Found},
		{"none", mixed, isup + end, None},
		{"in another", mixed, isup + nested("multipart/related; boundary=in", "--in\r\nContent-Type: application/sdp\r\n\r\n"+sdp+"\r\n--in--\r\n") + end, Found},
		{"token with a type after it", "multipart/mixed; boundary=in; type=\"x;boundary=y\"", "--in\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--in--", Found},

		{"two", mixed, one + one + end, Hidden},
		{"cut off", mixed, one, Hidden},
		{"after the end", mixed, isup + end + one + end, Hidden},
		{"no boundary", "multipart/mixed", one + end, Hidden},
		{"two boundaries", "multipart/mixed;boundary=a;boundary=b", one + end, Hidden},
		{"boundary of nothing", "multipart/mixed;boundary=\"\"", one + end, Hidden},
		{"boundary too long", "multipart/mixed;boundary=" + strings.Repeat("b", 71), one + end, Hidden},
		{"quote that does not end", "multipart/mixed;boundary=\"b 1", one + end, Hidden},
		{"escaped boundary", `multipart/mixed;boundary="b\ 1"`, one + end, Hidden},
		{"a delimiter that goes on", mixed, isup + "--b 1x\r\nContent-Type: application/sdp\r\n\r\n" + sdp + end, Hidden},
		{"two types", mixed, "--b 1\r\nContent-Type: text/plain\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n" + end, Hidden},
		{"two types, the other way", mixed, "--b 1\r\nContent-Type: application/sdp\r\nContent-Type: text/plain\r\n\r\n" + sdp + "\r\n" + end, Hidden},
		{"base64", mixed, strings.Replace(one, "\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n", 1) + end, Hidden},
		{"packed", mixed, strings.Replace(one, "\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n", 1) + end, Hidden},
		{"in base64 around it", mixed, "--b 1\r\nContent-Transfer-Encoding: base64\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--in--\r\n" + end, Hidden},
		{"no end of the fields", mixed, "--b 1\r\nContent-Type: application/sdp\r\n" + end, Hidden},
		{"a field that is none", mixed, "--b 1\r\nContent-Type application/sdp\r\n\r\n" + sdp + end, Hidden},
		{"signed", "multipart/signed;boundary=\"b 1\"", one + end, Hidden},
		{"a message in it", mixed, nested("message/sip", "INVITE") + end, Hidden},
		{"encrypted", "application/pkcs7-mime; smime-type=enveloped-data", "x", Sealed},
		{"encrypted part", mixed, nested("application/pkcs7-mime", "x") + end, Sealed},
		{"too many", mixed, strings.Repeat(isup, maxParts+1) + end, Hidden},
		{"too deep", mixed, nested(mixed, nested(mixed, nested(mixed, nested(mixed, one+end)+end)+end)+end) + end, Hidden},
	} {
		place, got := Find([]byte(test.kind), []byte(test.body))
		if got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
		if got != Found {
			continue
		}
		text := string(place.Of([]byte(test.body)))
		if strings.TrimSpace(strings.ReplaceAll(text, "\r", "")) != strings.TrimSpace(strings.ReplaceAll(sdp, "\r", "")) || !strings.HasSuffix(text, "\n") || strings.HasSuffix(text, "\n\r\n") {
			t.Errorf("%s: got %q", test.name, text)
		}
		if same := place.Put([]byte(test.body), []byte(text)); strings.ReplaceAll(string(same), "Length:  27 ", "Length:  25 ") != test.body {
			t.Errorf("%s: put back, got %q", test.name, same)
		}
	}
}

// TestPut: another description takes the place of the one, and the length that the part says follows it.
func TestPut(t *testing.T) {
	t.Parallel()
	body := isup + strings.Replace(one, "\r\n\r\n", "\r\nContent-Length:  27 \r\n\r\n", 1) + end
	place, _ := Find([]byte(mixed), []byte(body))
	want := strings.Replace(strings.Replace(body, sdp, "v=0\r\n", 1), "Length:  27 ", "Length:  5 ", 1)
	if got := string(place.Put([]byte(body), []byte("v=0\r\n"))); got != want {
		t.Errorf("got %q", got)
	}
}

// FuzzFind: what is found is one part, and stays the one that is found when it is replaced.
func FuzzFind(f *testing.F) {
	f.Add([]byte(mixed), []byte(isup+one+end))
	f.Add([]byte("multipart/mixed;boundary=a"), []byte("--a\nc:multipart/x;boundary=b\n\n--b\nl:1\nc:application/sdp\n\nv=0\n--b--\n--a--"))
	f.Fuzz(func(t *testing.T, kind, body []byte) {
		place, v := Find(kind, body)
		if v != Found {
			return
		}
		const text = "v=0\r\nc=IN IP6 ::1\r\n"
		other := place.Put(bytes.Clone(body), []byte(text))
		again, v := Find(kind, other)
		if v != Found || string(again.Of(other)) != text {
			t.Errorf("%q, %q: then %d, %q", kind, body, v, again.Of(other))
		}
	})
}
