// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

// place is a lab with a client that has IPv6, a server that has IPv4, and the edge between them.
type place struct {
	lab      *lab.Lab
	client   *lab.Host
	edge     *lab.Host
	binary   string
	progress io.Writer
}

const (
	portIMAP  = 143
	portIMAPS = 993
)

func edge6() netip.Addr   { return netip.MustParseAddr("2001:db8:100::10") }
func server4() netip.Addr { return netip.MustParseAddr("10.0.1.2") }

// openPlace brings up the lab. The caller must close it. Returns what lab.Up returns.
func openPlace(ctx context.Context, binary string, out io.Writer) (*place, error) {
	link := func(a netip.Addr, bits int) lab.List[netip.Prefix] {
		return lab.List[netip.Prefix]{netip.PrefixFrom(a, bits)}
	}
	l, err := lab.Up(ctx, &lab.File{Lab: "mail", Links: map[string]lab.Link{"front": {}, "back": {}}, Hosts: map[string]lab.HostSpec{
		"client": {Sysctls: bench.Untuned(), Links: map[string]lab.List[netip.Prefix]{"front": link(netip.MustParseAddr("2001:db8:100::1"), 64)}},
		"edge": {Sysctls: bench.Untuned(), Links: map[string]lab.List[netip.Prefix]{"front": link(edge6(), 64),
			"back": link(netip.MustParseAddr("10.0.1.1"), 24)}},
		"server": {Sysctls: bench.Untuned(), Links: map[string]lab.List[netip.Prefix]{"back": link(server4(), 24)}},
	}}, lab.Options{Out: out})
	if err != nil {
		return nil, err
	}
	p := &place{lab: l, client: l.Host("client"), edge: l.Host("edge"), progress: out}
	if p.binary, err = filepath.Abs(binary); err == nil {
		err = errors.Join(p.prepare(ctx, l.Host("server")), serveMessages(ctx, l.Host("server")))
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return p, nil
}

// prepare starts the server and writes the certificate that all programs show.
func (p *place) prepare(ctx context.Context, server *lab.Host) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	at := netip.AddrPortFrom(server4(), portIMAP)
	if _, err = server.Start(ctx, lab.Daemon{Name: "mailboxes", Argv: []string{self, argument, at.String()}, Ready: lab.AnswersTCP(at)}); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	return errors.Join(err,
		p.edge.WriteFile("/run/mail/c.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		p.edge.WriteFile("/run/mail/k.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}
