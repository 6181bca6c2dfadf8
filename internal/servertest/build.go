// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Kyozon returns where the program is, built as `make build` does it, so that what is compiled is compiled once.
func Kyozon(t testing.TB) string {
	t.Helper()
	return Build(t, "kyozon", ".", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "./cmd/kyozon")
}

// Build has the go command build a program of the tree and returns where it is. All tests have it in common: it is linked
// again only if something has changed, by one of them while the others wait. args are those of go build in a folder of the tree.
func Build(t testing.TB, name, folder string, args ...string) string {
	t.Helper()
	root := treeRoot(t)
	dir := filepath.Join(root, "bin", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		t.Fatal(os.NewSyscallError("flock", err))
	}
	program := filepath.Join(dir, name)
	c := exec.CommandContext(t.Context(), "go", append([]string{"build", "-o", program}, args...)...)
	c.Dir, c.Env = filepath.Join(root, folder), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return program
}

// treeRoot returns the folder that go.mod is in.
func treeRoot(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil {
		if _, gone := os.Stat(filepath.Join(dir, "go.mod")); gone == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			err = os.ErrNotExist
		}
		dir = filepath.Dir(dir)
	}
	t.Fatalf("find go.mod: %v", err)
	return ""
}
