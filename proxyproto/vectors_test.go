// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// vector is one line of testdata/vectors.txt.
type vector struct {
	line  int
	way   string // "=", "<" or "!"
	want  Header
	err   error
	bytes []byte
}

// readVectors reads testdata/vectors.txt.
func readVectors(t testing.TB) []vector {
	t.Helper()
	text, err := os.ReadFile("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		v := vector{line: i + 1, way: line[:1]}
		said, bytes, ok := strings.Cut(strings.TrimLeft(line[1:], " |"), " | ")
		if !ok {
			t.Fatalf("line %d: no bytes", v.line)
		}
		if v.bytes, err = parseBytes(bytes); err != nil {
			t.Fatalf("line %d: %v", v.line, err)
		}
		if v.way == "!" {
			v.err = errorNamed(said)
		} else {
			v.want = parseHeader(t, strings.Fields(said))
		}
		vectors = append(vectors, v)
	}
	return vectors
}

func parseBytes(s string) ([]byte, error) {
	if strings.HasPrefix(s, `"`) {
		text, err := strconv.Unquote(s)
		return []byte(text), err
	}
	s = strings.Replace(s, "sig", hex.EncodeToString([]byte(signatureV2)), 1)
	return hex.DecodeString(strings.ReplaceAll(s, " ", ""))
}

func errorNamed(s string) error {
	return map[string]error{"none": ErrNone, "malformed": ErrMalformed, "long": ErrTooLong, "checksum": ErrChecksum}[s]
}

// parseHeader reads "version local", "version unnamed" or "version transport client dest type:value …".
func parseHeader(t testing.TB, f []string) Header {
	t.Helper()
	h := Header{Version: int(f[0][0] - '0')}
	switch f[1] {
	case "unnamed":
		h.Local, h.Unnamed = true, true
		return h
	case "local":
		h.Local = true
		return h
	case "datagram":
		h.Transport = Datagram
	}
	h.Client, h.Dest = netip.MustParseAddrPort(f[2]), netip.MustParseAddrPort(f[3])
	for _, record := range f[4:] {
		typ, value, _ := strings.Cut(record, ":")
		b, err := hex.DecodeString(typ + value)
		if err != nil {
			t.Fatal(err)
		}
		if h.TLVs, err = h.TLVs.Add(Type(b[0]), b[1:]); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// appendHeader appends h in its own version.
func appendHeader(b []byte, h Header) []byte {
	if h.Version == 1 {
		return AppendV1(b, h)
	}
	return AppendV2(b, h)
}

// diff compares two headers.
func diff(want, got Header) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}))
}

func TestVectors(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t) {
		t.Run(strconv.Itoa(v.line), func(t *testing.T) {
			t.Parallel()
			got, n, err := Parse(v.bytes)
			if v.way == "!" {
				if !errors.Is(err, v.err) || v.err == nil || n != 0 || diff(Header{}, got) != "" {
					t.Fatalf("Parse(%q) = %+v, %d, %v, want %v", v.bytes, got, n, err, v.err)
				}
				return
			}
			if err != nil || n != len(v.bytes) {
				t.Fatalf("Parse(%q) = %d, %v, want %d", v.bytes, n, err, len(v.bytes))
			}
			if d := diff(v.want, got); d != "" {
				t.Errorf("Parse(%q): -want +got\n%s", v.bytes, d)
			}
			wire := appendHeader(nil, v.want)
			if v.way == "=" && string(wire) != string(v.bytes) {
				t.Errorf("Append = %q, want %q", wire, v.bytes)
			}
		})
	}
}

// TestTruncated cuts each good header at every length: the beginning of a header is never refused and never taken
// for a whole one, and what follows a header does not matter.
func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t) {
		if v.way == "!" {
			continue
		}
		for i := range v.bytes {
			if h, n, err := Parse(v.bytes[:i:i]); n != 0 || err != nil || diff(Header{}, h) != "" {
				t.Errorf("line %d: Parse(%q) = %+v, %d, %v, want more", v.line, v.bytes[:i], h, n, err)
			}
		}
		for _, tail := range []string{"\r", "\n", "GET / HTTP/1.1\r\n", signatureV2} {
			h, n, err := Parse(append(slices.Clip(v.bytes), tail...))
			if n != len(v.bytes) || err != nil || diff(v.want, h) != "" {
				t.Errorf("line %d: with %q after it: %+v, %d, %v", v.line, tail, h, n, err)
			}
		}
	}
}

// TestRefusedEarly gives the bytes of each bad header one by one: it is refused no later than at its end, and from
// then on always in the same way.
func TestRefusedEarly(t *testing.T) {
	t.Parallel()
	for _, v := range readVectors(t) {
		if v.way != "!" {
			continue
		}
		var first error
		for i := range len(v.bytes) + 1 {
			_, n, err := Parse(v.bytes[:i])
			switch {
			case n != 0:
				t.Errorf("line %d: accepted after %d bytes", v.line, i)
			case first == nil:
				first = err
			case !errors.Is(err, first):
				t.Errorf("line %d: %v after %d bytes, but %v before", v.line, err, i, first)
			}
		}
	}
}

// TestAllocations checks that neither direction allocates, with TLVs or without.
func TestAllocations(t *testing.T) {
	buffer := make([]byte, 0, MaxV2)
	for _, v := range readVectors(t) {
		parse := testing.AllocsPerRun(100, func() { _, _, _ = Parse(v.bytes) })
		write := testing.AllocsPerRun(100, func() { _ = appendHeader(buffer, v.want) })
		if v.err == nil && parse+write != 0 {
			t.Errorf("line %d: %v allocations to parse, %v to append", v.line, parse, write)
		}
	}
}

// FuzzParse checks that whatever Parse accepts can be written again and means the same, in its own version, and that
// it does not depend on how the bytes arrive.
func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.bytes)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		h, n, err := Parse(p)
		if n < 0 || n > len(p) || n > MaxV2 || err != nil && n != 0 {
			t.Fatalf("Parse(%q): n = %d, err = %v", p, n, err)
		}
		if n == 0 && err == nil && len(p) >= MaxV2 {
			t.Fatalf("asks for more than %d bytes", len(p))
		}
		if n == 0 {
			return
		}
		if early, m, err := Parse(p[:n-1]); m != 0 || err != nil || diff(Header{}, early) != "" {
			t.Fatalf("Parse(%q) = %+v, %d, %v, want more", p[:n-1], early, m, err)
		}
		wire := appendHeader([]byte("before"), h)
		again, m, err := Parse(wire[len("before"):])
		if err != nil || m != len(wire)-len("before") {
			t.Fatalf("Parse(%q) = %d, %v, written for %q", wire, m, err, p[:n])
		}
		if d := diff(h, again); d != "" {
			t.Fatalf("%q written again as %q: -want +got\n%s", p[:n], wire, d)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for _, wire := range []string{
		"PROXY TCP4 192.0.2.1 203.0.113.10 56324 443\r\n",
		"PROXY TCP6 2001:db8::1 2001:db8:100::10 56324 443\r\n",
	} {
		h, _, err := Parse([]byte(wire))
		if err != nil {
			b.Fatal(err)
		}
		for _, p := range [][]byte{AppendV1(nil, h), AppendV2(nil, h)} {
			b.Run(strconv.Quote(string(p[:10])), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_, _, _ = Parse(p)
				}
			})
		}
	}
}
