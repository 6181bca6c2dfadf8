// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// postgres is a real server, at a socket in a directory of its own.
type postgres struct {
	t        *testing.T
	bin, dir string
	url      string
	uid, gid uint32
	stop     func()
}

func newPostgres(t *testing.T) *postgres {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	u, err := osuser.Lookup("postgres")
	if len(found) == 0 || err != nil || os.Getuid() != 0 {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal("needs root and postgresql")
		}
		t.Skip("needs root and postgresql")
	}
	dir, err := os.MkdirTemp("", "pg") // a short name: that of a socket may not be long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	p := &postgres{t: t, bin: slices.Max(found), dir: dir, uid: uint32(uid), gid: uint32(gid),
		url: "host=" + dir + " user=postgres dbname=postgres sslmode=disable"}
	out, err := p.command("initdb", "--pgdata="+dir+"/data", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p.start()
	t.Cleanup(func() { p.stop() })
	return p
}

func (p *postgres) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(p.bin, name), args...)
	c.Dir = p.dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: p.uid, Gid: p.gid}}
	return c
}

// start starts the server and waits until it answers.
func (p *postgres) start() {
	p.t.Helper()
	c := p.command("postgres", "-D", p.dir+"/data", "-h", "", "-k", p.dir, "-c", "shared_buffers=16MB", "-c", "fsync=off")
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.stop = func() {
		c.Process.Signal(syscall.SIGQUIT) // at once
		c.Wait()
		p.stop = func() {}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, p.url)
		if err == nil {
			conn.Close(ctx)
			return
		}
		if ctx.Err() != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *postgres) exec(sql string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		p.t.Fatal(err)
	}
}

// Subscribers are who the database says, as soon as it says so, and go on being so while it is down.
func TestRoster(t *testing.T) {
	t.Parallel()
	p := newPostgres(t)
	p.exec("create table subscribers (name text, digest text)")
	add := func(name string) {
		t.Helper()
		text := []byte(name + ":" + domain + ":secret")
		p.exec(fmt.Sprintf("insert into subscribers values ('%s', '%x'), ('%s', '%x')", name, md5.Sum(text), name, sha256.Sum256(text)))
	}
	add("05010000001")
	p.exec("insert into subscribers values ('05010000003', 'nonsense'), ('a:b', '')") // nobody is kept out by those
	b := newBench(t, "")
	b.end()
	b.source = fmt.Sprintf("database: {url: %q, every: 1h}", p.url)
	b.start("")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t, p.t = t, t
		one := b.registered("udp", f, "05010000001")
		if status := b.newDevice("udp", f, "05010000002").register("Contact: <sip:x@192.0.2.1>"); status != 403 {
			t.Errorf("who is not there gets %d", status)
		}
		has := func(name string) bool { return b.core.settings.Load().subscriber(name) != nil }
		same := b.core.settings.Load().subscriber(one.name)
		add("05010000002")
		p.exec("notify kyozon_subscribers")
		b.until(func() bool { return has("05010000002") })
		if b.core.settings.Load().subscriber(one.name) != same {
			t.Error("who has not changed is another")
		}
		two := b.registered("udp", f, "05010000002")
		p.stop()
		one.unregister() // as if nothing had been
		two.unregister()
		b.reload(", registration: {max: " + map[ip.Family]string{ip.V4: "50m", ip.V6: "40m"}[f] + "}")
		one.unregister()
		p.start()
		p.exec("delete from subscribers where name = '05010000002'")
		b.until(func() bool { return !has("05010000002") }) // when it has been found again
	})
	b.t, p.t = t, t
	p.stop()
	b.end()
	if err := b.tryStart(""); err == nil || !strings.Contains(err.Error(), "read subscribers: ") {
		t.Errorf("without a database: got %v", err)
	}
}
