// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
)

func TestAdd(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		typ   Type
		value []byte
		want  error
	}{
		{"text", TypeAuthority, []byte("shop.example.jp"), nil},
		{"empty", TypeNoop, nil, nil},
		{"longest", TypeNoop, make([]byte, MaxTLVs-headTLV), nil},
		{"too long", TypeNoop, make([]byte, MaxTLVs-headTLV+1), ErrTooLong},
		{"longer than 16 bits", TypeNoop, make([]byte, 1<<16), ErrTooLong},
		{"longest unique ID", TypeUniqueID, make([]byte, MaxUniqueID), nil},
		{"unique ID too long", TypeUniqueID, make([]byte, MaxUniqueID+1), ErrMalformed},
		{"checksum of 3 bytes", TypeCRC32C, make([]byte, 3), ErrMalformed},
		{"SSL too short", TypeSSL, make([]byte, 4), ErrMalformed},
		{"SSL with half a record", TypeSSL, []byte{1, 0, 0, 0, 0, 0x21, 0, 2, 'x'}, ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			tlvs, err := TLVs(nil).Add(test.typ, test.value)
			if !errors.Is(err, test.want) {
				t.Fatalf("Add = %v, want %v", err, test.want)
			}
			value, ok := tlvs.Get(test.typ)
			if ok != (test.want == nil) || ok && !bytes.Equal(value, test.value) {
				t.Errorf("Get = %q, %v after Add(%q)", value, ok, test.value)
			}
		})
	}
}

// TestLongest checks that the longest header that can be built, in the longest encoding, is one that Parse accepts.
func TestLongest(t *testing.T) {
	t.Parallel()
	tlvs, err := TLVs(nil).Add(TypeNoop, make([]byte, MaxTLVs-headTLV))
	if err != nil {
		t.Fatal(err)
	}
	h := Header{Client: netip.MustParseAddrPort("192.0.2.1:1"), Dest: netip.MustParseAddrPort("[2001:db8::1]:2"), TLVs: tlvs}
	wire := AppendV2(nil, h)
	if _, n, err := Parse(wire); n != MaxV2 || err != nil {
		t.Errorf("Parse = %d, %v, want %d", n, err, MaxV2)
	}
	h.TLVs = append(h.TLVs, tlvs...)
	if got, want := len(AppendV2(nil, h)), fixedV2+addressesV6; got != want {
		t.Errorf("with too many TLVs: %d bytes, want %d, without any", got, want)
	}
}

func TestChecksum(t *testing.T) {
	t.Parallel()
	var tlvs TLVs
	tlvs, err := tlvs.Add(TypeAuthority, []byte("shop.example.jp"))
	if err != nil {
		t.Fatal(err)
	}
	if tlvs, err = tlvs.AddChecksum(); err != nil {
		t.Fatal(err)
	}
	if _, err := tlvs.AddChecksum(); !errors.Is(err, ErrMalformed) {
		t.Errorf("second AddChecksum = %v, want %v", err, ErrMalformed)
	}
	h := Header{Client: netip.MustParseAddrPort("[2001:db8::1]:1"), Dest: netip.MustParseAddrPort("[2001:db8::2]:2"), TLVs: tlvs}
	wire := AppendV2(nil, h)
	if _, _, err := Parse(wire); err != nil {
		t.Fatal(err)
	}
	for i := fixedV2; i < len(wire)-headTLV-sizeCRC-headTLV; i++ { // the length of a record has errors of its own
		for bit := range 8 {
			wire[i] ^= 1 << bit
			if _, n, err := Parse(wire); n != 0 || err == nil {
				t.Errorf("bit %d of byte %d changed: accepted", bit, i)
			}
			wire[i] ^= 1 << bit
		}
	}
}

func TestSSL(t *testing.T) {
	t.Parallel()
	want := SSL{Flags: SSLUsed | SSLCertificateConn, Verify: 19}
	for typ, text := range map[Type]string{TypeSSLVersion: "TLSv1.3", TypeSSLName: "例え"} {
		var err error
		if want.TLVs, err = want.TLVs.Add(typ, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok := TLVs(nil).SSL(); ok {
		t.Error("SSL found in no TLVs")
	}
	tlvs, err := TLVs(nil).AddSSL(want)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := tlvs.SSL()
	if !ok || got.Flags != want.Flags || got.Verify != want.Verify || !bytes.Equal(got.TLVs, want.TLVs) {
		t.Errorf("SSL = %+v, %v, want %+v", got, ok, want)
	}
	if name, ok := got.TLVs.Get(TypeSSLName); string(name) != "例え" {
		t.Errorf("common name = %q, %v", name, ok)
	}
}

// TestUnsayable checks what is written for headers that a version has no words for.
func TestUnsayable(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("[fe80::1%eth0]:2")
	for _, test := range []struct {
		name   string
		h      Header
		v1, v2 string
	}{
		{"zero", Header{}, "PROXY UNKNOWN\r\n", signatureV2 + "\x21\x00\x00\x00"},
		{"no destination", Header{Client: v4}, "PROXY UNKNOWN\r\n", signatureV2 + "\x21\x00\x00\x00"},
		{"local with addresses", Header{Local: true, Client: v4, Dest: v4}, "PROXY UNKNOWN\r\n", signatureV2 + "\x20\x00\x00\x00"},
		{"datagram in version 1", Header{Transport: Datagram, Client: v4, Dest: v4}, "PROXY UNKNOWN\r\n",
			signatureV2 + "\x21\x12\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x01\x00\x01\x00\x01"},
		{"zone", Header{Client: v6, Dest: v6}, "PROXY TCP6 fe80::1 fe80::1 2 2\r\n",
			signatureV2 + "\x21\x21\x00\x24\xfe\x80" + zeros(13) + "\x01\xfe\x80" + zeros(13) + "\x01\x00\x02\x00\x02"},
		{"mapped", Header{Client: mapped(v4), Dest: mapped(v4)}, "PROXY TCP4 192.0.2.1 192.0.2.1 1 1\r\n",
			signatureV2 + "\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x01\x00\x01\x00\x01"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := string(AppendV1(nil, test.h)); got != test.v1 {
				t.Errorf("AppendV1 = %q, want %q", got, test.v1)
			}
			if got := string(AppendV2(nil, test.h)); got != test.v2 {
				t.Errorf("AppendV2 = %q, want %q", got, test.v2)
			}
		})
	}
}

func zeros(n int) string { return string(make([]byte, n)) }
