// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdh"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// wire is a connection on which its owner reads what it was given, then the end, and whose writes are kept.
type wire struct {
	net.Conn
	in, out []byte
}

func (w *wire) Read(p []byte) (int, error) {
	if len(w.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	w.out = append(w.out, p...)
	return len(p), nil
}

func (w *wire) Close() error                     { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// helloOf returns what a client with the configuration says first.
func helloOf(config *tls.Config) []byte {
	w := new(wire)
	_ = tls.Client(w, config).Handshake() // ends when it reads
	return w.out
}

// oracle returns what crypto/tls reads in p, or false if it finds no hello there.
func oracle(p []byte) (Hello, bool) {
	var h Hello
	found := false
	config := &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		found = true
		h.ServerName, h.ALPN, h.Versions = strings.ToLower(info.ServerName), info.SupportedProtos, info.SupportedVersions
		h.ECH = slices.Contains(info.Extensions, extensionECH)
		return nil, io.EOF
	}}
	_ = tls.Server(&wire{in: p}, config).Handshake()
	return h, found
}

// randomClient returns the configuration of a client that offers a bit of everything.
func randomClient(random *rand.Rand) *tls.Config {
	versions := []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13}
	low := random.IntN(len(versions))
	c := &tls.Config{
		ServerName:         "Host-" + strings.Repeat("x", 1+random.IntN(50)) + ".Example.JP",
		InsecureSkipVerify: true, // without a name, as some clients are
		MinVersion:         versions[low],
		MaxVersion:         versions[low+random.IntN(len(versions)-low)],
		CurvePreferences:   [][]tls.CurveID{nil, {tls.X25519}, {tls.X25519MLKEM768, tls.CurveP384}}[random.IntN(3)],
	}
	if random.IntN(4) == 0 {
		c.ServerName = ""
	}
	for range random.IntN(2) * random.IntN(300) {
		c.NextProtos = append(c.NextProtos, fmt.Sprintf("protocol/%d", random.Uint32()))
	}
	if random.IntN(4) == 0 {
		c.MinVersion, c.MaxVersion, c.EncryptedClientHelloConfigList = tls.VersionTLS13, tls.VersionTLS13, echConfigs()
		c.ServerName = "hidden.example.jp"
	}
	return c
}

// echConfigs returns a list with one ECH configuration, for public.example.jp. RFC 9849 §4.
func echConfigs() []byte {
	key, err := ecdh.X25519().NewPrivateKey(slices.Repeat([]byte{7}, 32))
	if err != nil {
		panic(err)
	}
	contents := []byte{1, 0, 0x20}                                                     // config ID, KEM X25519
	contents = append(contents, vector(2, key.PublicKey().Bytes())...)                 //
	contents = append(contents, vector(2, []byte{0, 1, 0, 1})...)                      // HKDF-SHA256, AES-128-GCM
	contents = append(append(contents, 64), vector(1, []byte("public.example.jp"))...) // longest name, public name
	contents = append(contents, 0, 0)                                                  // no extensions
	return vector(2, append([]byte{extensionECH >> 8, extensionECH & 0xff}, vector(2, contents)...))
}

// vector returns p after its length in size bytes.
func vector(size int, p []byte) []byte {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(p)))
	return append(length[4-size:], p...)
}

// fragment spreads the message in one record, or in several, over records of random lengths up to most.
func fragment(random *rand.Rand, p []byte, most int) (records []byte) {
	for _, message := range payloads(p) {
		for len(message) > 0 {
			n := min(len(message), 1+random.IntN(most))
			records = append(append(records, recordHandshake, 3, 1), vector(2, message[:n])...)
			message = message[n:]
		}
	}
	return records
}

// payloads returns what is in the records in p.
func payloads(p []byte) (all [][]byte) {
	for len(p) > 0 {
		end := recordHead + int(binary.BigEndian.Uint16(p[3:]))
		all, p = append(all, p[recordHead:end]), p[end:]
	}
	return all
}

// TestHelloOracle reads what random Go clients say, whole, cut at every length and spread over records, and compares
// it with what crypto/tls finds in the same bytes.
func TestHelloOracle(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	longest, withECH := 0, 0
	for i := range 60 {
		whole := helloOf(randomClient(random))
		longest = max(longest, len(whole))
		for _, p := range [][]byte{whole, fragment(random, whole, 1000), fragment(random, whole, 40)} {
			want, ok := oracle(p)
			if !ok {
				t.Fatalf("client %d: crypto/tls does not read its own hello", i)
			}
			got, n, err := ParseHello(append(p, "more"...))
			if err != nil || n != len(p) {
				t.Fatalf("client %d: ParseHello = %d, %v, want %d", i, n, err, len(p))
			}
			if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("client %d: -crypto/tls +ours\n%s", i, d)
			}
			for cut := 0; cut < len(p); cut += 1 + random.IntN(1+len(p)/200) { // each length of a short one
				if _, n, err := ParseHello(p[:cut]); n != 0 || err != nil {
					t.Fatalf("client %d: %d of %d bytes: ParseHello = %d, %v, want more", i, cut, len(p), n, err)
				}
			}
			if got.ECH {
				withECH++
				if got.ServerName != "public.example.jp" {
					t.Errorf("client %d: ECH with name %q", i, got.ServerName)
				}
			}
		}
	}
	if longest < 4000 || withECH == 0 {
		t.Errorf("the clients were tame: longest hello %d bytes, %d with ECH", longest, withECH)
	}
}

// TestHelloSize keeps an eye on how long the hello of a present-day client is, beside MaxHello.
func TestHelloSize(t *testing.T) {
	t.Parallel()
	p := helloOf(&tls.Config{ServerName: "shop.example.jp", NextProtos: []string{"h2", "http/1.1"}})
	if len(p) < 1200 || len(p) > MaxHello/4 {
		t.Errorf("hello with the default key shares: %d bytes", len(p))
	}
}

// extension returns an extension.
func extension(typ int, body []byte) []byte {
	return append([]byte{byte(typ >> 8), byte(typ)}, vector(2, body)...)
}

// serverName returns the server_name extension.
func serverName(name string) []byte {
	return extension(extensionServerName, vector(2, append([]byte{nameTypeHost}, vector(2, []byte(name))...)))
}

// hello returns a ClientHello of TLS 1.2 in one record.
func hello(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0)                                // session ID
	body = append(body, vector(2, []byte{0xc0, 0x2f})...) // cipher suites
	body = append(body, vector(1, []byte{0})...)          // compression methods
	if extensions != nil {
		body = append(body, vector(2, slices.Concat(extensions...))...)
	}
	return record(append([]byte{typeClientHello}, vector(3, body)...))
}

func record(message []byte) []byte {
	return append([]byte{recordHandshake, 3, 1}, vector(2, message)...)
}

// changed returns p with the byte at i replaced.
func changed(p []byte, i int, b byte) []byte {
	p = slices.Clone(p)
	p[i] = b
	return p
}

func TestHelloRefused(t *testing.T) {
	t.Parallel()
	plain := hello(serverName("shop.example.jp"))
	versions := extension(extensionVersions, vector(1, []byte{3, 4}))
	alpn := extension(extensionALPN, vector(2, []byte("\x02h2")))
	for _, test := range []struct {
		name string
		p    []byte
		want error
	}{
		{"HTTP", []byte("G"), ErrNotTLS},
		{"PROXY", []byte("PROXY TCP6"), ErrNotTLS},
		{"SSH", []byte("SSH-2.0-x"), ErrNotTLS},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1}, ErrNotTLS},
		{"alert", []byte{21}, ErrNotTLS},
		{"version 2", []byte{22, 2}, ErrNotTLS},
		{"empty record", []byte{22, 3, 1, 0, 0}, ErrMalformed},
		{"record too long", []byte{22, 3, 1, 0x40, 1}, ErrMalformed},
		{"ServerHello", []byte{22, 3, 1, 0, 50, 2}, ErrMalformed},
		{"alert after a record", append(record([]byte{1, 0, 1}), 21), ErrMalformed},
		{"empty record after a record", append(record([]byte{1, 0, 1}), 22, 3, 1, 0, 0), ErrMalformed},
		{"message too long", []byte{22, 3, 1, 0x10, 0, 1, 0, 0x40, 0}, ErrHelloTooLong},
		{"message too long, in pieces", append(record([]byte{1, 0}), 22, 3, 1, 0, 9, 0x3f, 0xff), ErrHelloTooLong},
		{"endless tiny records", append(record([]byte{1, 0, 0x30, 0}), slices.Repeat(record([]byte{0}), MaxHello/6)...), ErrHelloTooLong},
		{"more than the message", record(append(payloads(plain)[0], 0)), ErrMalformed},
		{"message ends in the session ID", record([]byte{1, 0, 0, 3, 3, 3, 0}), ErrMalformed},
		{"empty message", record([]byte{1, 0, 0, 0}), ErrMalformed},
		{"no cipher suites", changed(plain, 45, 0), ErrMalformed},
		{"odd cipher suites", changed(plain, 45, 1), ErrMalformed},
		{"no compression methods", changed(plain, 48, 0), ErrMalformed},
		{"extensions too short", changed(plain, 51, plain[51]-1), ErrMalformed},
		{"extensions too long", changed(plain, 51, plain[51]+1), ErrMalformed},
		{"half an extension", hello([]byte{0, 0, 0}), ErrMalformed},

		{"server name empty", hello(serverName("")), ErrMalformed},
		{"server name of another type", hello(extension(0, vector(2, append([]byte{1}, vector(2, []byte("a"))...)))), ErrMalformed},
		{"server name list empty", hello(extension(0, vector(2, nil))), ErrMalformed},
		{"server name extension empty", hello(extension(0, nil)), ErrMalformed},
		{"server name twice", hello(serverName("a.example"), serverName("b.example")), ErrMalformed},
		{"two server names", hello(extension(0, vector(2, []byte("\x00\x00\x01a\x00\x00\x01b")))), ErrMalformed},
		{"IPv4 address", hello(serverName("192.0.2.1")), ErrName},
		{"IPv4 address, short", hello(serverName("127.1")), ErrName},
		{"number", hello(serverName("3221225985")), ErrName},
		{"IPv6 address", hello(serverName("2001:db8::1")), ErrName},
		{"IPv6 address in brackets", hello(serverName("[2001:db8::1]")), ErrName},
		{"dot at the end", hello(serverName("shop.example.jp.")), ErrName},
		{"dot at the start", hello(serverName(".example.jp")), ErrName},
		{"two dots", hello(serverName("shop..jp")), ErrName},
		{"only a dot", hello(serverName(".")), ErrName},
		{"label too long", hello(serverName(strings.Repeat("a", 64) + ".jp")), ErrName},
		{"name too long", hello(serverName(strings.Repeat("a.", 126) + "ab")), ErrName},
		{"NUL", hello(serverName("shop.example.jp\x00.evil.example")), ErrName},
		{"line feed", hello(serverName("shop\n.example.jp")), ErrName},
		{"slash", hello(serverName("../../etc")), ErrName},
		{"not ASCII", hello(serverName("店.example.jp")), ErrName},

		{"ALPN empty", hello(extension(extensionALPN, vector(2, nil))), ErrMalformed},
		{"ALPN of nothing", hello(extension(extensionALPN, vector(2, []byte{0}))), ErrMalformed},
		{"ALPN cut", hello(extension(extensionALPN, vector(2, []byte("\x03h2")))), ErrMalformed},
		{"ALPN with more", hello(extension(extensionALPN, append(vector(2, []byte("\x02h2")), 0))), ErrMalformed},
		{"ALPN twice", hello(alpn, alpn), ErrMalformed},
		{"versions empty", hello(extension(extensionVersions, []byte{0})), ErrMalformed},
		{"versions odd", hello(extension(extensionVersions, vector(1, []byte{3, 4, 3}))), ErrMalformed},
		{"versions twice", hello(versions, versions), ErrMalformed},
		{"ECH twice", hello(extension(extensionECH, nil), extension(extensionECH, nil)), ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h, n, err := ParseHello(test.p)
			if !errors.Is(err, test.want) || n != 0 || cmp.Diff(Hello{}, h) != "" {
				t.Errorf("ParseHello = %+v, %d, %v, want %v", h, n, err, test.want)
			}
		})
	}
}

func TestHelloAccepted(t *testing.T) {
	t.Parallel()
	upTo12 := []uint16{tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}
	longest := strings.Repeat("a.", 125) + "abc"
	for _, test := range []struct {
		name string
		p    []byte
		want Hello
	}{
		{"no extensions", hello(), Hello{Versions: upTo12}},
		{"empty extensions", hello(nil), Hello{Versions: upTo12}},
		{"legacy version of TLS 1.3", changed(hello(), 10, 4), Hello{Versions: upTo12}},
		{"TLS 1.0", changed(hello(), 10, 1), Hello{Versions: upTo12[2:]}},
		{"SSL 3", changed(hello(), 10, 0), Hello{}},
		{"lower case", hello(serverName("SHOP.Example.jp")), Hello{ServerName: "shop.example.jp", Versions: upTo12}},
		{"one label", hello(serverName("localhost")), Hello{ServerName: "localhost", Versions: upTo12}},
		{"underscore and digits", hello(serverName("_1.4--5.x2")), Hello{ServerName: "_1.4--5.x2", Versions: upTo12}},
		{"longest label", hello(serverName(strings.Repeat("a", 63))), Hello{ServerName: strings.Repeat("a", 63), Versions: upTo12}},
		{"longest name", hello(serverName(longest)), Hello{ServerName: longest, Versions: upTo12}},
		{"unknown extensions", hello(extension(0x0a0a, []byte{1}), extension(0x0a0a, nil)), Hello{Versions: upTo12}},
		{"versions that mean nothing", hello(extension(extensionVersions, vector(1, []byte{0x0a, 0x0a, 3, 4}))),
			Hello{Versions: []uint16{0x0a0a, tls.VersionTLS13}}},
		{"ALPN", hello(extension(extensionALPN, vector(2, []byte("\x02h2\x08http/1.1")))),
			Hello{ALPN: []string{"h2", "http/1.1"}, Versions: upTo12}},
		{"ECH", hello(serverName("public.example"), extension(extensionECH, []byte{0})),
			Hello{ServerName: "public.example", ECH: true, Versions: upTo12}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h, n, err := ParseHello(test.p)
			if err != nil || n != len(test.p) {
				t.Fatalf("ParseHello = %d, %v, want %d", n, err, len(test.p))
			}
			if d := cmp.Diff(test.want, h); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// TestHelloAllocations checks that only the result is allocated: a name, the protocols' text and list, the versions.
func TestHelloAllocations(t *testing.T) {
	whole := helloOf(&tls.Config{ServerName: "shop.example.jp", NextProtos: []string{"h2", "http/1.1"}})
	pieces := fragment(rand.New(rand.NewPCG(1, 2)), whole, 100)
	for _, test := range []struct {
		name string
		p    []byte
		want float64
	}{
		{"whole", whole, 4},
		{"in pieces", pieces, 4},
		{"incomplete", whole[:len(whole)-1], 0},
		{"refused", hello(serverName("192.0.2.1")), 0},
	} {
		if got := testing.AllocsPerRun(100, func() { _, _, _ = ParseHello(test.p) }); got != test.want {
			t.Errorf("%s: %v allocations, want %v", test.name, got, test.want)
		}
	}
}

// FuzzParseHello checks that what is accepted is what crypto/tls finds there too, if it finds a hello, and that it
// does not depend on how the bytes arrive.
func FuzzParseHello(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		client := randomClient(random)
		client.NextProtos = client.NextProtos[:min(2, len(client.NextProtos))]
		p := helloOf(client)
		f.Add(p)
		f.Add(fragment(random, p, 500))
	}
	f.Add(hello(serverName("shop.example.jp"), extension(extensionALPN, vector(2, []byte("\x02h2")))))
	f.Fuzz(func(t *testing.T, p []byte) {
		got, n, err := ParseHello(p)
		if n < 0 || n > min(len(p), MaxHello) || err != nil && n != 0 {
			t.Fatalf("n = %d, err = %v for %d bytes", n, err, len(p))
		}
		if n == 0 && err == nil && len(p) >= MaxHello {
			t.Fatalf("asks for more than %d bytes", len(p))
		}
		if n == 0 {
			return
		}
		if _, m, err := ParseHello(p[:n-1]); m != 0 || err != nil {
			t.Fatalf("without the last byte: %d, %v, want more", m, err)
		}
		want, ok := oracle(p[:n])
		if !ok {
			return
		}
		if len(want.Versions) > 0 && want.Versions[0] == tls.VersionTLS13 && !slices.Contains(got.Versions, tls.VersionTLS13) {
			want.Versions = want.Versions[1:] // crypto/tls takes the legacy version at its word
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("-crypto/tls +ours\n%s", d)
		}
	})
}

func BenchmarkParseHello(b *testing.B) {
	p := helloOf(&tls.Config{ServerName: "shop.example.jp", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		_, _, _ = ParseHello(p)
	}
}
