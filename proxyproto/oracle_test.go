// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"bufio"
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	oracle "github.com/pires/go-proxyproto"

	"github.com/kyozon/kyozon/ip"
)

// randomHeader returns a header of the version between any two families.
func randomHeader(random *rand.Rand, version int) Header {
	endpoint := func() netip.AddrPort {
		var b [16]byte
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		a := netip.AddrFrom16(b)
		if random.IntN(2) == 0 {
			a = netip.AddrFrom4([4]byte(b[:]))
		}
		return netip.AddrPortFrom(a, uint16(random.Uint32()))
	}
	h := Header{Version: version, Client: endpoint(), Dest: endpoint()}
	if version == 2 {
		h.Transport = Transport(random.IntN(2))
	}
	return h
}

// fromOracle returns what the oracle understood, with canonical addresses.
func fromOracle(t *testing.T, o *oracle.Header) Header {
	t.Helper()
	h := Header{Version: int(o.Version)}
	endpoint := func(a net.Addr) netip.AddrPort {
		switch a := a.(type) {
		case *net.TCPAddr:
			return ip.CanonicalPort(a.AddrPort())
		case *net.UDPAddr:
			h.Transport = Datagram
			return ip.CanonicalPort(a.AddrPort())
		}
		t.Fatalf("oracle: address %T", a)
		return netip.AddrPort{}
	}
	h.Client, h.Dest = endpoint(o.SourceAddr), endpoint(o.DestinationAddr)
	return h
}

// toOracle returns h as the oracle has it.
func toOracle(h Header) *oracle.Header {
	if h.Transport == Datagram {
		return oracle.HeaderProxyFromAddrs(byte(h.Version), net.UDPAddrFromAddrPort(h.Client), net.UDPAddrFromAddrPort(h.Dest))
	}
	return oracle.HeaderProxyFromAddrs(byte(h.Version), net.TCPAddrFromAddrPort(h.Client), net.TCPAddrFromAddrPort(h.Dest))
}

// TestOracle exchanges random headers with go-proxyproto, both ways.
func TestOracle(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		h := randomHeader(random, 1+i%2)

		wire := appendHeader(nil, h)
		theirs, err := oracle.Read(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			t.Fatalf("oracle: read %q: %v", wire, err)
		}
		if d := diff(h, fromOracle(t, theirs)); d != "" {
			t.Fatalf("oracle: read %q: -want +got\n%s", wire, d)
		}

		wire, err = toOracle(h).Format()
		if err != nil {
			t.Fatalf("oracle: write %+v: %v", h, err)
		}
		ours, n, err := Parse(wire)
		if err != nil || n != len(wire) || diff(h, ours) != "" {
			t.Fatalf("Parse(%q) = %+v, %d, %v, want %+v", wire, ours, n, err, h)
		}
	}
}

// TestOracleTLVs lets go-proxyproto write the TLVs and read ours.
func TestOracleTLVs(t *testing.T) {
	t.Parallel()
	h := randomHeader(rand.New(rand.NewPCG(3, 4)), 2)
	records := []oracle.TLV{
		{Type: oracle.PP2_TYPE_ALPN, Value: []byte("h2")},
		{Type: oracle.PP2_TYPE_AUTHORITY, Value: []byte("shop.example.jp")},
		{Type: oracle.PP2_TYPE_UNIQUE_ID, Value: bytes.Repeat([]byte{7}, MaxUniqueID)},
		{Type: oracle.PP2_TYPE_NOOP, Value: []byte{}},
	}
	for _, r := range records {
		var err error
		if h.TLVs, err = h.TLVs.Add(Type(r.Type), r.Value); err != nil {
			t.Fatal(err)
		}
	}
	theirs, err := oracle.Read(bufio.NewReader(bytes.NewReader(AppendV2(nil, h))))
	if err != nil {
		t.Fatal(err)
	}
	read, err := theirs.TLVs()
	if err != nil || len(read) != len(records) {
		t.Fatalf("oracle: TLVs = %v, %v", read, err)
	}
	for i, r := range read {
		if r.Type != records[i].Type || !bytes.Equal(r.Value, records[i].Value) {
			t.Errorf("oracle: TLV %d = %v, want %v", i, r, records[i])
		}
	}
	o := toOracle(h)
	if err := o.SetTLVs(records); err != nil {
		t.Fatal(err)
	}
	wire, err := o.Format()
	if err != nil {
		t.Fatal(err)
	}
	if ours, _, err := Parse(wire); err != nil || diff(h, ours) != "" {
		t.Errorf("Parse(%q) = %+v, %v, want %+v", wire, ours, err, h)
	}
}

// FuzzOracle checks that what both programs accept means the same to both.
func FuzzOracle(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.bytes)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		ours, n, err := Parse(p)
		if err != nil || n == 0 || ours.Local {
			return
		}
		theirs, err := oracle.Read(bufio.NewReader(bytes.NewReader(p[:n])))
		if err != nil || theirs.Command.IsLocal() {
			return
		}
		ours.TLVs = nil
		if d := diff(ours, fromOracle(t, theirs)); d != "" {
			t.Errorf("%q: -ours +theirs\n%s", p[:n], d)
		}
	})
}
