// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Unpack is where build/setup.sh unpacks servers whose packages exclude each other, each in a folder of its own.
const Unpack = "/opt/kyozon-test"

// unpacked is a server of Unpack. It runs in a mount namespace in which its package looks installed and its files lie where
// it looks for them: /usr is the machine's with the package on top, /etc likewise with what is written here, and /var and
// /run are its own.
type unpacked struct {
	t    testing.TB
	root string // of the package
	dir  string // its folder; etc, var and run are in it
}

// newUnpacked makes the folders of a server. Without root, or without the package, the test is skipped, unless KYOZON_LAB
// forbids that.
func newUnpacked(t testing.TB, name string, users ...string) *unpacked {
	t.Helper()
	u := &unpacked{t: t, root: filepath.Join(Unpack, name), dir: Readable(t)}
	_, err := os.Stat(u.root)
	if err == nil && os.Getuid() != 0 {
		err = os.ErrPermission
	}
	if err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatalf("%s needs root and its package (build/setup.sh): %v", name, err)
		}
		t.Skipf("%s needs root and its package (build/setup.sh): %v", name, err)
	}
	passwd, group := "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n", "root:x:0:\nnogroup:x:65534:\nmail:x:8:\n"
	for i, user := range users {
		passwd += fmt.Sprintf("%s:x:%d:%d::/nonexistent:/bin/false\n", user, userID+i, userID+i)
		group += fmt.Sprintf("%s:x:%d:\n", user, userID+i)
	}
	u.write("etc/passwd", passwd)
	u.write("etc/group", group)
	for _, d := range []string{"var/log", "var/tmp", "run"} {
		u.folder(d, 0)
	}
	if err := os.Symlink("/run", u.path("var/run")); err != nil {
		t.Fatal(err)
	}
	return u
}

// userID is that of the first user of a server.
const userID = 61_000

func (u *unpacked) path(name string) string { return filepath.Join(u.dir, name) }

// write writes a file of the server.
func (u *unpacked) write(name, text string) {
	u.t.Helper()
	u.folder(filepath.Dir(name), 0)
	if err := os.WriteFile(u.path(name), []byte(text), 0o644); err != nil {
		u.t.Fatal(err)
	}
}

// folder makes a folder of the server, which belongs to owner.
func (u *unpacked) folder(name string, owner int) {
	u.t.Helper()
	if err := os.MkdirAll(u.path(name), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := os.Chown(u.path(name), owner, owner); err != nil {
		u.t.Fatal(err)
	}
}

// enter is the way into the namespace: $1 is the server's folder, $2 its package, the rest the command.
const enter = `set -e
mount -t overlay overlay -o "lowerdir=$1/etc:/etc" /etc
mount -t overlay overlay -o "lowerdir=$2/usr:/usr" /usr
mount --bind "$1/var" /var
mount --bind "$1/run" /run
shift 2
exec "$@"`

// run runs it until the test ends, and returns when it takes connections at an address: one that waits for a PROXY header
// says nothing. name is a file of its log, which is shown if the test fails.
func (u *unpacked) run(at netip.AddrPort, name string, argv ...string) {
	u.t.Helper()
	c := exec.Command("/bin/sh", append([]string{"-c", enter, "sh", u.dir, u.root}, argv...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Setpgid: true}
	var output strings.Builder
	c.Stdout, c.Stderr = &output, &output
	c.WaitDelay = time.Second // a child may hold its output
	if err := c.Start(); err != nil {
		u.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		c.Wait() // an error is what the log says
		close(ended)
	}()
	u.t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // what it has started
		<-ended
		if log, _ := os.ReadFile(u.path(name)); u.t.Failed() { // there may be none
			u.t.Logf("%s: %s%s", u.root, output.String(), log)
		}
	})
	for deadline := time.Now().Add(patience); !takes(at); {
		select {
		case <-ended:
			u.t.Fatalf("%s has ended: %s", u.root, output.String())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			u.t.Fatalf("%s does not answer", u.root)
		}
	}
}

// takes says whether a server takes connections at an address.
func takes(at netip.AddrPort) bool {
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// messages returns what has been delivered into a folder in the form of maildir, in no order.
func (u *unpacked) messages(folder string) []string { return maildir(u.t, u.path(folder)) }

// maildir returns the messages in a folder.
func maildir(t testing.TB, folder string) (all []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(text))
	}
	return all
}
