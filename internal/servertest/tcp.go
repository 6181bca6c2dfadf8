// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package servertest has small real servers for tests.
package servertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// TCP serves each connection with serve, then closes it, until the test ends.
func TCP(t testing.TB, f ip.Family, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	return TCPAt(t, netip.AddrPortFrom(iptest.Loopback(f), 0), serve)
}

// TCPAt is TCP at an address that may be known before.
func TCPAt(t testing.TB, at netip.AddrPort, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[ip.FamilyOf(at.Addr())]
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort())
}

// Echo sends back what it gets and ends its half when the client ends his.
func Echo(t testing.TB, f ip.Family) netip.AddrPort {
	t.Helper()
	return TCP(t, f, func(c *net.TCPConn) { io.Copy(c, c) })
}

// TLS returns the configurations of a server with a new certificate for the names, some of which may be addresses, and
// of a client that trusts it.
func TLS(t testing.TB, names ...string) (server, client *tls.Config) {
	t.Helper()
	return valid(t, time.Now().Add(24*time.Hour), names)
}

// Files writes a server's certificate and its key into a folder, as PEM, and returns where they are.
func Files(t testing.TB, folder string, server *tls.Config) (certificate, key string) {
	t.Helper()
	pair := server.Certificates[0]
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(folder, "tls.pem"), filepath.Join(folder, "tls.key")
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// Expired is TLS with a certificate whose time is over.
func Expired(t testing.TB, names ...string) (server, client *tls.Config) {
	t.Helper()
	return valid(t, time.Now().Add(-time.Minute), names)
}

// valid makes a certificate that is valid until a time.
func valid(t testing.TB, until time.Time, names []string) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	for _, name := range names {
		if a, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, a.AsSlice())
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}}
	return server, &tls.Config{RootCAs: roots, ServerName: names[0]}
}

// UDPEcho sends back each packet it gets, until the test ends.
func UDPEcho(t testing.TB, f ip.Family) netip.AddrPort {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "udp4", ip.V6: "udp6"}[f]
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		p := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			c.WriteToUDPAddrPort(p[:n], from)
		}
	})
	t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return ip.CanonicalPort(c.LocalAddr().(*net.UDPAddr).AddrPort())
}
