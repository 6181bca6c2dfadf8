// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/md5"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// lite is a SQLite database that the program of its makers writes.
type lite struct {
	t    *testing.T
	file string
}

func newLite(t *testing.T, file string) *lite {
	t.Helper()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal("needs sqlite3")
		}
		t.Skip("needs sqlite3")
	}
	l := &lite{t, file}
	l.exec("create table subscribers (name text, digest text)")
	return l
}

func (l *lite) exec(sql string) {
	l.t.Helper()
	if out, err := exec.Command("sqlite3", "-cmd", ".timeout 10000", l.file, sql).CombinedOutput(); err != nil {
		l.t.Fatalf("%v\n%s", err, out)
	}
}

func (l *lite) add(name string) {
	l.t.Helper()
	text := []byte(name + ":" + domain + ":secret")
	l.exec(fmt.Sprintf("insert into subscribers values ('%s', '%x'), ('%s', '%x')", name, md5.Sum(text), name, sha256.Sum256(text)))
}

// TestSQLite: subscribers are who a file of SQLite says, as soon as it says so, also when another takes its place; while it is
// gone, they are those who are known.
func TestSQLite(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"delete", "wal"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, "")
			b.end()
			file := filepath.Join(b.dir, "who are they?.db")
			l := newLite(t, file)
			l.exec("pragma journal_mode=" + mode)
			l.add("05010000001")
			l.exec("insert into subscribers values ('05010000003', 'nonsense'), ('a:b', '')") // nobody is kept out by those
			b.source = "database: {file: \"who are they?.db\", every: 1h}"
			b.start("")
			has := func(name string) bool { return b.core.settings.Load().subscriber(name) != nil }
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				b.t, l.t = t, t
				b.registered("udp", f, "05010000001").unregister()
				if status := b.newDevice("udp", f, "05010000002").register("Contact: <sip:x@192.0.2.1>"); status != 403 {
					t.Errorf("who is not there gets %d", status)
				}
				l.add("05010000002")
				b.until(func() bool { return has("05010000002") })
				b.registered("udp", f, "05010000002").unregister()
				l.exec("delete from subscribers where name = '05010000002'")
				b.until(func() bool { return !has("05010000002") })
			})
			b.t, l.t = t, t
			other := newLite(t, filepath.Join(b.dir, "other.db"))
			other.add("05010000004")
			if err := os.Rename(other.file, file); err != nil {
				t.Fatal(err)
			}
			os.Remove(file + "-wal")
			b.until(func() bool { return has("05010000004") && !has("05010000001") })
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			b.reload(", registration: {max: 50m}")
			b.registered("udp", ip.V6, "05010000004").unregister()
			b.end()
			if err := b.tryStart(""); err == nil || !strings.Contains(err.Error(), "read subscribers: ") {
				t.Errorf("without a database: got %v", err)
			}
		})
	}
}
