// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Find returns where a program is. Without it the test is skipped, or fails where nothing may be missing.
func Find(t testing.TB, name string) string {
	t.Helper()
	for _, place := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(place); err == nil {
			return path
		}
	}
	if os.Getenv("KYOZON_LAB") == "require" {
		t.Fatalf("%s is not installed: run `make setup`, or build/setup.sh", name)
	}
	t.Skipf("needs %s", name)
	return ""
}

// Run runs a server, and what it starts, until the test ends. It returns when a line of what the server writes has the words
// in it. What it has written is shown if the test fails. The command has no context: that of a test ends before its
// servers are asked to.
func Run(t testing.TB, c *exec.Cmd, ready string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = w, w
	if c.SysProcAttr == nil {
		c.SysProcAttr = new(syscall.SysProcAttr)
	}
	c.SysProcAttr.Setpgid = true
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var output strings.Builder
	var wg sync.WaitGroup
	said := make(chan bool, 1)
	wg.Go(func() {
		defer close(said)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			if strings.Contains(lines.Text(), ready) {
				select {
				case said <- true:
				default:
				}
			}
			output.WriteString(lines.Text() + "\n")
		}
		io.Copy(io.Discard, r)
	})
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // what it has left
		wg.Wait()
		r.Close()
		if t.Failed() {
			t.Logf("%s: %s", c.Path, output.String())
		}
	})
	select {
	case ok := <-said:
		if !ok {
			t.Fatalf("%s has ended without a word of %q", c.Path, ready)
		}
	case <-time.After(patience):
		t.Fatalf("%s says nothing of %q", c.Path, ready)
	}
}

// patience is how long a server may take to start, on a machine with much to do.
const patience = time.Minute

// Readable returns a temporary folder that a server can read that gives up being root.
func Readable(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
