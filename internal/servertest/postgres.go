// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// Postgres is a real one that trusts this machine, whose databases may be written to.
type Postgres struct {
	Addr netip.AddrPort

	t      testing.TB
	server string
	folder string
	who    *syscall.Credential
	stop   func()
}

// NewPostgres starts one with a new cluster, and stops it when the test ends. Without root, or without PostgreSQL, the test is
// skipped, or fails where nothing may be missing.
func NewPostgres(t testing.TB, f ip.Family) *Postgres {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian keeps it out of the path
	owner, err := user.Lookup("postgres")
	if len(found) == 0 || err != nil || os.Getuid() != 0 {
		const needs = "PostgreSQL needs root and its package (build/setup.sh)"
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal(needs)
		}
		t.Skip(needs)
	}
	uid, err := strconv.ParseUint(owner.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(owner.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	p := &Postgres{t: t, server: filepath.Join(filepath.Dir(found[len(found)-1]), "postgres"), folder: Readable(t),
		who: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	if p.Addr, err = FreeAddr(f); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(p.folder, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(found[len(found)-1], "--pgdata="+p.data(), "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: p.who}
	c.Dir = p.folder
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, text)
	}
	p.Start()
	return p
}

func (p *Postgres) data() string { return filepath.Join(p.folder, "data") }

// Start starts it again after Stop.
func (p *Postgres) Start() {
	p.t.Helper()
	c := exec.Command(p.server, "-D", p.data(), "-h", p.Addr.Addr().String(), "-p", strconv.Itoa(int(p.Addr.Port())), "-k", "",
		"-c", "shared_buffers=16MB", "-c", "fsync=off")
	c.SysProcAttr = &syscall.SysProcAttr{Credential: p.who}
	c.Dir = p.folder
	Run(p.t, c, "ready to accept connections")
	p.stop = func() { c.Process.Signal(syscall.SIGINT) } // without waiting for its clients
}

// Stop stops it, and returns when nobody listens any more.
func (p *Postgres) Stop() {
	p.t.Helper()
	p.stop()
	for {
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(p.Addr))
		if err != nil {
			return
		}
		c.Close()
	}
}

// URL returns what a client calls its database.
func (p *Postgres) URL() string {
	return "postgres://postgres@" + p.Addr.String() + "/postgres?sslmode=disable"
}

// Do runs SQL.
func (p *Postgres) Do(sql string) {
	p.t.Helper()
	c := exec.Command(Find(p.t, "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", p.URL())
	c.Stdin = strings.NewReader(sql)
	if text, err := c.CombinedOutput(); err != nil {
		p.t.Fatalf("psql: %v: %s", err, text)
	}
}
