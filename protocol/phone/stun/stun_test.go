// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package stun

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

// unhex reads hexadecimal with spaces.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const transaction = "2112a442 b7e7a701bc34d686fa87dfae"

// TestAppend: the addresses are those of RFC 5769 §2.2 and §2.3, with their transaction.
func TestAppend(t *testing.T) {
	t.Parallel()
	const from4, from6 = "192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"
	for _, test := range []struct{ name, request, from, want string }{
		{"IPv4", "0001 0000" + transaction, from4, "0101 000c" + transaction + "0020 0008 0001 a147 e112a643"},
		{"IPv6", "0001 0000" + transaction, from6, "0101 0018" + transaction + "0020 0014 0002 a147 0113a9faa5d3f179bc25f4b5bed2b9d9"},
		{"what need not be understood", "0001 0008" + transaction + "8022 0003 61626300", from4, "0101 000c" + transaction + "0020 0008 0001 a147 e112a643"},
		{"what must be", "0001 000c" + transaction + "0006 0001 61000000 0024 0000", from4,
			"0111 0010" + transaction + "0009 0004 0000 0414 000a 0004 0006 0024"},
		{"one, padded", "0001 0004" + transaction + "0024 0000", from4, "0111 0010" + transaction + "0009 0004 0000 0414 000a 0002 0024 0000"},
		{"a response", "0101 0000" + transaction, from4, ""},
		{"an indication", "0011 0000" + transaction, from4, ""},
		{"no cookie", "0001 0000 00000000 b7e7a701bc34d686fa87dfae", from4, ""},
		{"longer than it says", "0001 0000" + transaction + "00000000", from4, ""},
		{"shorter than it says", "0001 0008" + transaction + "00000000", from4, ""},
		{"an attribute that does not end", "0001 0004" + transaction + "8022 0001", from4, ""},
		{"short", "0001 0000 2112a442", from4, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, ok := Append([]byte("before"), unhex(t, test.request), netip.MustParseAddrPort(test.from))
			if want := append([]byte("before"), unhex(t, test.want)...); !bytes.Equal(got, want) || ok != (test.want != "") {
				t.Errorf("%v\ngot  %x\nwant %x", ok, got, want)
			}
		})
	}
}

func TestAllocs(t *testing.T) {
	p, from := unhex(t, "0001 0000"+transaction), netip.MustParseAddrPort("[2001:db8::1]:5060")
	out := make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() { out, _ = Append(out[:0], p, from) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAppend: an answer says how long it is, to whom it is, and is hardly longer than what was asked.
func FuzzAppend(f *testing.F) {
	f.Add(unhex(f, "0001 0008"+transaction+"0006 0001 61000000"))
	f.Add(unhex(f, "0001 0000"+transaction))
	f.Fuzz(func(t *testing.T, p []byte) {
		got, ok := Append(nil, p, netip.MustParseAddrPort("[2001:db8::1]:5060"))
		if !ok {
			if len(got) > 0 {
				t.Fatalf("%x without an answer", got)
			}
			return
		}
		if int(binary.BigEndian.Uint16(got[2:])) != len(got)-20 || len(got)%4 != 0 || !bytes.Equal(got[4:20], p[4:20]) || len(got) > len(p)+24 {
			t.Fatalf("%x answers %x", got, p)
		}
	})
}
