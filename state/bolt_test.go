// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package state_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/kyozon/kyozon/state"
	"github.com/kyozon/kyozon/state/statetest"
)

func open(t testing.TB, path string) *state.Bolt {
	t.Helper()
	s, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestBolt(t *testing.T) {
	t.Parallel()
	statetest.Conformance(t, func(t *testing.T) (state.Store, func() state.Store) {
		path := filepath.Join(t.TempDir(), "state")
		return open(t, path), func() state.Store { return open(t, path) }
	})
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	if _, err := state.Open(filepath.Join(directory, "none", "state")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open in no directory: %v", err)
	}
	path := filepath.Join(directory, "text")
	if err := os.WriteFile(path, []byte("this is no database, and it is longer than nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(path); err == nil {
		t.Error("Open of a text file: no error")
	}
	s := open(t, filepath.Join(directory, "state"))
	if err := s.Apply(t.Context(), state.Op{}); err == nil {
		t.Error("Apply of an empty key: no error")
	}
}

// TestLocked opens a store that another process has, and again when that process is gone.
func TestLocked(t *testing.T) {
	t.Parallel()
	const env = "KYOZON_TEST_HOLD"
	if path := os.Getenv(env); path != "" {
		if _, err := state.Open(path); err != nil {
			t.Fatal(err)
		}
		fmt.Println("open")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the parent is done
		return
	}
	path := filepath.Join(t.TempDir(), "state")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLocked$")
	child.Env = append(os.Environ(), env+"="+path)
	if _, err := child.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	if _, err := state.Open(path); !errors.Is(err, state.ErrLocked) {
		t.Errorf("Open: %v, want ErrLocked", err)
	}
	_ = child.Process.Kill()
	_ = child.Wait() // it was killed
	open(t, path)
}

// TestDiskFull fills a small file system, then makes room: what was told is there, and the store goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	if err := syscall.Mount("none", directory, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatalf("mount a small file system: %v", err)
		}
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(directory, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(directory, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(directory, "state")
	s := open(t, path)
	told := 0
	var err error
	for ; err == nil; told++ {
		err = s.Apply(t.Context(), state.Op{Key: fmt.Appendf(nil, "%08d", told), Value: make([]byte, 2000)})
	}
	told--
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(t.Context(), state.Op{Key: []byte("after"), Value: []byte("x")}); err != nil {
		t.Errorf("Apply after room was made: %v", err)
	}
	n := 0
	err = s.Each([]byte("0"), func(state.Entry) error { n++; return nil })
	if err != nil || n < told {
		t.Errorf("%d entries, %d were told; %v", n, told, err)
	}
}

// BenchmarkApply counts changes made durable by many callers at once.
func BenchmarkApply(b *testing.B) {
	for _, callers := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := open(b, filepath.Join(b.TempDir(), "state"))
			var next atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						op := state.Op{Key: fmt.Appendf(nil, "%08d", i), Value: make([]byte, 18)}
						if err := s.Apply(b.Context(), op); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "applies/s")
		})
	}
}
