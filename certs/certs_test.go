// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// patience is how long anything may take on a busy machine before a test gives up.
const patience = time.Minute

// issued is a certificate to make, signed by its own key.
type issued struct {
	algorithm string // "ECDSA" (also ""), "RSA" or "Ed25519"
	issuer    string // tells certificates for the same names apart
	names     []string
	end       time.Time // zero means tomorrow
}

// issue makes the certificate and returns both files' content.
func issue(t *testing.T, i issued) (certificate, key []byte) {
	t.Helper()
	var signer crypto.Signer
	var err error
	switch i.algorithm {
	case "RSA":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "Ed25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	if i.end.IsZero() {
		i.end = time.Now().Add(24 * time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: i.issuer},
		DNSNames:     i.names,
		NotBefore:    i.end.Add(-48 * time.Hour),
		NotAfter:     i.end,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

// save puts content into a file, in the way tools do it: a new file that takes the place of the old one.
func save(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// saved issues a certificate and saves it as name.pem and name.key in dir.
func saved(t *testing.T, dir, name string, i issued) Pair {
	t.Helper()
	p := Pair{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	certificate, key := issue(t, i)
	save(t, p.Certificate, certificate)
	save(t, p.Key, key)
	return p
}

// open opens a store of certificates, named in the order given.
func open(t *testing.T, all ...issued) *Store {
	t.Helper()
	dir := t.TempDir()
	var pairs []Pair
	for i, each := range all {
		pairs = append(pairs, saved(t, dir, fmt.Sprint(i), each))
	}
	s, err := Open(pairs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := saved(t, dir, "a", issued{names: []string{"a.example"}})
	b := saved(t, dir, "b", issued{names: []string{"b.example"}})
	save(t, filepath.Join(dir, "text"), []byte("no PEM"))
	missing, text := filepath.Join(dir, "missing"), filepath.Join(dir, "text")
	for _, test := range []struct {
		name  string
		pairs []Pair
		want  []string // parts of the message, in which DIR is the folder
	}{
		{"none", nil, []string{"no certificates"}},
		{"no certificate", []Pair{a, {missing, a.Key}}, []string{"load certificate DIR/missing with key DIR/a.key: ", "no such file"}},
		{"no key", []Pair{{a.Certificate, missing}}, []string{"load certificate DIR/a.pem with key DIR/missing: ", "no such file"}},
		{"certificate of text", []Pair{{text, a.Key}}, []string{"load certificate DIR/text with key DIR/a.key: ", "any PEM data in certificate input"}},
		{"key of text", []Pair{{a.Certificate, text}}, []string{"load certificate DIR/a.pem with key DIR/text: ", "any PEM data in key input"}},
		{"key of another", []Pair{{a.Certificate, b.Key}}, []string{"load certificate DIR/a.pem with key DIR/b.key: private key does not match public key"}},
		{"files swapped", []Pair{{a.Key, a.Certificate}}, []string{"load certificate DIR/a.key with key DIR/a.pem: "}},
		{"all at once", []Pair{{missing, a.Key}, b, {a.Certificate, b.Key}}, []string{"DIR/missing with", "\nload certificate DIR/a.pem"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(test.pairs)
			if s != nil || err == nil {
				t.Fatalf("Open = %v, %v, want an error", s, err)
			}
			for _, part := range test.want {
				if got := strings.ReplaceAll(err.Error(), dir, "DIR"); !strings.Contains(got, part) {
					t.Errorf("Open: %q\nwant %q in it", got, part)
				}
			}
		})
	}
	if _, err := Open(nil); !errors.Is(err, ErrNoPairs) {
		t.Errorf("Open(nil) = %v, want %v", err, ErrNoPairs)
	}
	if _, err := Open([]Pair{{missing, a.Key}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open = %v, want %v in it", err, os.ErrNotExist)
	}
}

// shaken lets client and server shake hands over a pipe, and returns what the client sees.
func shaken(t *testing.T, client, server *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	done := make(chan error, 1)
	go func() {
		defer far.Close()
		c := tls.Server(far, server)
		err := c.Handshake()
		if err == nil {
			_ = c.CloseWrite()
		}
		done <- err
	}()
	c := tls.Client(near, client)
	err := c.Handshake()
	state := c.ConnectionState()
	near.Close()
	<-done
	return state, err
}

// TestChoose asks for names with clients of different abilities, and looks which certificate each gets.
func TestChoose(t *testing.T) {
	t.Parallel()
	s := open(t,
		issued{"RSA", "default RSA", []string{"default.example"}, time.Time{}},
		issued{"ECDSA", "default ECDSA", []string{"Default.Example"}, time.Time{}},
		issued{"ECDSA", "wildcard", []string{"*.example.jp"}, time.Time{}},
		issued{"RSA", "exact", []string{"shop.example.jp", "other.example"}, time.Time{}},
		issued{"Ed25519", "Ed25519", []string{"ed.example"}, time.Time{}},
		issued{"ECDSA", "no names", nil, time.Time{}},
	)
	modern := &tls.Config{}
	onlyRSA := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	onlyECDSA := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
	for _, test := range []struct {
		client     *tls.Config
		name, want string // no certificate wanted: the handshake fails
	}{
		{modern, "", "default ECDSA"},
		{onlyRSA, "", "default RSA"},
		{modern, "unknown.example", "default ECDSA"},
		{onlyRSA, "unknown.example", "default RSA"},
		{onlyECDSA, "unknown.example", "default ECDSA"},
		{modern, "default.example", "default ECDSA"},
		{onlyRSA, "default.example", "default RSA"},
		{modern, "DEFAULT.example", "default ECDSA"},
		{modern, "shop.example.jp", "exact"},
		{modern, "www.example.jp", "wildcard"},
		{modern, "WWW.Example.JP", "wildcard"},
		{modern, "deep.www.example.jp", "default ECDSA"},
		{modern, "example.jp", "default ECDSA"},
		{modern, "localhost", "default ECDSA"},
		{modern, "ed.example", "Ed25519"},
		{onlyRSA, "www.example.jp", ""},
		{onlyECDSA, "other.example", ""},
	} {
		t.Run(test.name+" "+test.want, func(t *testing.T) {
			t.Parallel()
			client := test.client.Clone()
			client.ServerName, client.InsecureSkipVerify = test.name, true
			state, err := shaken(t, client, s.Config())
			if test.want == "" {
				if err == nil {
					t.Fatal("handshake succeeded")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := state.PeerCertificates[0].Subject.CommonName; got != test.want {
				t.Errorf("got certificate %q, want %q", got, test.want)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	s := open(t, issued{names: []string{"shop.example.jp"}})
	for _, test := range []struct {
		name    string
		offered []string // by the client
		alpn    []string // by us
		version uint16   // the client's highest
		want    string
		fails   bool
	}{
		{name: "no ALPN", version: tls.VersionTLS13},
		{name: "our order", offered: []string{"http/1.1", "h2"}, alpn: []string{"h2", "http/1.1"}, version: tls.VersionTLS13, want: "h2"},
		{name: "nothing in common", offered: []string{"imap"}, alpn: []string{"h2"}, version: tls.VersionTLS13, fails: true},
		{name: "TLS 1.2", version: tls.VersionTLS12},
		{name: "TLS 1.1", version: tls.VersionTLS11, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			client := &tls.Config{InsecureSkipVerify: true, NextProtos: test.offered, MinVersion: tls.VersionTLS10, MaxVersion: test.version}
			state, err := shaken(t, client, s.Config(test.alpn...))
			if (err != nil) != test.fails || state.NegotiatedProtocol != test.want {
				t.Errorf("handshake: %v, protocol %q, want %q", err, state.NegotiatedProtocol, test.want)
			}
		})
	}
}

// TestNetwork shakes hands over both families, with a verifying client, while a hello is peeked at in between.
func TestNetwork(t *testing.T) {
	t.Parallel()
	s := open(t, issued{names: []string{"shop.example.jp"}})
	roots := x509.NewCertPool()
	roots.AddCert(s.table.Load().fallback[0].Leaf)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		network := fmt.Sprintf("tcp%d", f)
		l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		type result struct {
			hello Hello
			err   error
		}
		done := make(chan result, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				done <- result{err: err}
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			h, read, err := peek(c)
			if err == nil {
				err = tls.Server(&peeked{c, read}, s.Config()).Handshake()
			}
			done <- result{h, err}
		}()
		client, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, network, l.Addr().String(),
			&tls.Config{ServerName: "shop.example.jp", RootCAs: roots})
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if r := <-done; r.err != nil || r.hello.ServerName != "shop.example.jp" {
			t.Errorf("server: %+v, %v", r.hello, r.err)
		}
	})
}

// peek reads a hello, in small pieces, and returns all bytes it has read.
func peek(c net.Conn) (Hello, []byte, error) {
	var read []byte
	for piece := make([]byte, 100); ; {
		n, err := c.Read(piece)
		if err != nil {
			return Hello{}, nil, err
		}
		read = append(read, piece[:n]...)
		if h, n, err := ParseHello(read); n > 0 || err != nil {
			return h, read, err
		}
	}
}

// peeked gives the bytes read before to the first reads.
type peeked struct {
	net.Conn
	read []byte
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.read) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.read)
	p.read = p.read[n:]
	return n, nil
}

func TestInfos(t *testing.T) {
	t.Parallel()
	end := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	s := open(t,
		issued{"ECDSA", "Test CA", []string{"Shop.example.jp", "*.example.jp"}, end},
		issued{"RSA", "Test CA", []string{"shop.example.jp", "a.example"}, end},
		issued{"Ed25519", "Test CA", nil, end},
	)
	if d := cmp.Diff([]string{"*.example.jp", "a.example", "shop.example.jp"}, s.Names()); d != "" {
		t.Errorf("Names: -want +got\n%s", d)
	}
	want := Info{
		Source:    s.pairs[0].files.Certificate,
		Names:     []string{"shop.example.jp", "*.example.jp"},
		Algorithm: "ECDSA",
		Issuer:    "CN=Test CA",
		Begin:     end.Add(-48 * time.Hour),
		End:       end,
	}
	infos := s.Infos()
	if d := cmp.Diff(want, infos[0]); d != "" {
		t.Errorf("Infos: -want +got\n%s", d)
	}
	if infos[1].Algorithm != "RSA" || infos[2].Algorithm != "Ed25519" || len(infos) != 3 {
		t.Errorf("Infos = %+v", infos)
	}
}

func TestWarning(t *testing.T) {
	t.Parallel()
	begin := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	i := Info{Begin: begin, End: begin.Add(90 * 24 * time.Hour)}
	for _, test := range []struct {
		now  time.Time
		want string
	}{
		{begin.Add(-time.Second), "not valid before 2031-01-01T00:00:00Z"},
		{begin, ""},
		{i.End.Add(-Soon), ""},
		{i.End.Add(-Soon + time.Second), "expires on 2031-04-01T00:00:00Z"},
		{i.End, "expires on 2031-04-01T00:00:00Z"},
		{i.End.Add(time.Second), "expired on 2031-04-01T00:00:00Z"},
	} {
		if got := i.Warning(test.now); got != test.want {
			t.Errorf("Warning(%s) = %q, want %q", test.now, got, test.want)
		}
	}
}

// TestExpired checks that an expired certificate is served, and told.
func TestExpired(t *testing.T) {
	t.Parallel()
	s := open(t, issued{names: []string{"old.example"}, end: time.Now().Add(-time.Hour)})
	if _, err := shaken(t, &tls.Config{InsecureSkipVerify: true}, s.Config()); err != nil {
		t.Error(err)
	}
	if got := s.Infos()[0].Warning(time.Now()); !strings.HasPrefix(got, "expired on ") {
		t.Errorf("Warning = %q", got)
	}
}
