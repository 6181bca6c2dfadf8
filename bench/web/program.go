// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/lab"
)

// program is an edge that is measured.
type program struct {
	name    string
	number  int // gives it its addresses
	version string
	daemon  func(*place, int) (lab.Daemon, error) // writes what the program of that number needs to the edge
}

// programs returns ours, then its peers.
func programs(o options) []program {
	all := []program{
		{ours, 0, bench.VersionOf(o.Kyozon, "--version"), func(p *place, n int) (lab.Daemon, error) { return kyozonDaemon(p, n, o.Kyozon) }},
		{"haproxy", 1, bench.VersionOf("haproxy", "-v"), haproxyDaemon},
		{"nginx", 2, bench.VersionOf("nginx", "-v"), nginxDaemon},
	}
	if binary, err := filepath.Abs(o.caddy); err == nil && o.caddy != "" {
		all = append(all, program{caddy, 3, caddyVersion(binary),
			func(p *place, n int) (lab.Daemon, error) { return caddyDaemon(p, n, binary) }})
	}
	return all
}

const (
	ours  = "ours"
	caddy = "caddy"
)

// installed returns an error that names what is missing, which then is what lab.ErrMissing is for.
func installed(o options) error {
	needs := map[string]string{"wrk": "apt-get install wrk", "h2load": "apt-get install nghttp2-client",
		"haproxy": "apt-get install haproxy", "nginx": "apt-get install nginx-light",
		nginxStream: "apt-get install libnginx-mod-stream"}
	if o.caddy != "" {
		path, err := filepath.Abs(o.caddy)
		if err != nil {
			return err
		}
		needs[path] = "make bin/peers/caddy; or do without it: -caddy ''"
	}
	for name, how := range needs {
		if _, err := bench.Find(name); err != nil {
			return fmt.Errorf("%w: %s (%s)", lab.ErrMissing, name, how)
		}
	}
	return nil
}

// running is a program that runs.
type running struct {
	program
	process *lab.Process
}

// open finds the processes of the program, anew for each measurement: nginx answers before all its workers are there.
func (r *running) open() (bench.Program, error) { return bench.OpenProgram(r.process.PID()) }

// start starts a program on the edge and returns when it answers.
func (p *place) start(ctx context.Context, pr program) (*running, error) {
	d, err := pr.daemon(p, pr.number)
	if err != nil {
		return nil, fmt.Errorf("prepare %s: %w", pr.name, err)
	}
	r := &running{program: pr}
	if r.process, err = p.edge.Start(ctx, d); err != nil {
		return nil, err
	}
	return r, nil
}

const stopTime = time.Second

// stop ends the program. One that waits for its flows is killed.
func (r *running) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	r.process.Stop(ctx) // how it ends says nothing about what was measured
}

// at returns where clients of a family reach the program.
func (pr program) at(f ip.Family, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(addressOf(f, pr.number), port)
}

// listens returns a port at both addresses of the program.
func listens(number int, port uint16) [2]netip.AddrPort {
	return [2]netip.AddrPort{
		netip.AddrPortFrom(addressOf(ip.V6, number), port),
		netip.AddrPortFrom(addressOf(ip.V4, number), port),
	}
}

// keyPair is a certificate for the edge and its key, both in PEM.
type keyPair struct{ certificate, key []byte }

// newKeyPair makes what all programs use: ECDSA P-256, signed by itself, valid for a day.
func newKeyPair() (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("make key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return keyPair{}, fmt.Errorf("make certificate: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return keyPair{}, fmt.Errorf("make key: %w", err)
	}
	return keyPair{
		certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}),
		key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	}, nil
}

// host is the name that clients ask for.
const host = "shop.example.jp"

// allowFiles lets this process, and those it starts, open files for n connections, if it may say so.
func allowFiles(n int) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	need := uint64(2*n + otherFiles)
	limit.Cur, limit.Max = max(limit.Cur, need), max(limit.Max, need)
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) // if not, mostConnections says what remains
}

// otherFiles is how many files a program needs beside those of its connections.
const otherFiles = 200

// mostConnections returns how many connections a program can carry: each takes two of the files it may open, and it
// needs some itself.
func mostConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 400 // fits the smallest usual limit, 1024
	}
	return int(min(maxIdle, (limit.Max-otherFiles)/2))
}
