// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
)

// TestUpgradeResumes: the TLS sessions that one process has begun, the next one goes on with.
func TestUpgradeResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server, client := servertest.TLS(t, "shop.example.jp")
	key, err := x509.MarshalPKCS8PrivateKey(server.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"shop.pem": {Type: "CERTIFICATE", Bytes: server.Certificates[0].Certificate[0]}, "shop.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(w.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var more strings.Builder
	var at [4]netip.AddrPort
	for i, x := range ip.Crossings() {
		if at[i], err = servertest.FreeAddr(x.Client); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&more, "  tls%d: {protocol: web, listen: [%q], pools: {existing: [%q]}, clients: {%v: existing}, "+
			"web: {hosts: [shop.example.jp], tls: {certificate: shop.pem, key: shop.key}}}\n", i, at[i], w.servers[i%2], x.Client)
	}
	w.write(more.String())
	w.start()
	var sessions [4][2]*tls.Config
	for i, x := range ip.Crossings() {
		for k, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := client.Clone()
			c.MaxVersion, c.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
			sessions[i][k] = c
			if resumed, err := resumes(at[i], c); err != nil || resumed {
				t.Errorf("%v, TLS %x: at first resumed %v, %v", x, version, resumed, err)
			}
		}
	}
	if _, err := w.do("upgrade"); err != nil {
		t.Fatal(err)
	}
	for i, x := range ip.Crossings() {
		for _, c := range sessions[i] {
			if resumed, err := resumes(at[i], c); err != nil || !resumed {
				t.Errorf("%v, TLS %x: after the upgrade resumed %v, %v", x, c.MaxVersion, resumed, err)
			}
		}
	}
}

// resumes asks for a page and says whether the session was resumed.
func resumes(at netip.AddrPort, config *tls.Config) (bool, error) {
	c, err := tls.Dial("tcp", at.String(), config)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: shop.example.jp\r\nConnection: close\r\n\r\n"); err != nil {
		return false, err
	}
	answer, err := io.ReadAll(c)
	if err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		err = fmt.Errorf("got %.40q", answer)
	}
	return c.ConnectionState().DidResume, err
}
