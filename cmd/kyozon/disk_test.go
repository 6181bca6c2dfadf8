// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// TestFullDisk: when the disk of the ledger is full, prefixes that it does not know are refused where a stand-in is needed,
// and the reason is shown. Those that it knows go on, and so do the crossings without stand-ins. When there is room again,
// all is well, and nobody has got another's stand-in.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	disk := filepath.Join(w.dir, "state")
	mountDisk(t, disk)
	p := w.start()
	kept := browser(somebody(ip.V6, 1), true)
	defer kept.CloseIdleConnections()
	told := make(map[int]string) // by client
	for n := range 10 {
		w.mustBe(told, n)
	}
	six := w.at[ip.Crossing{Client: ip.V6, Backend: ip.V4}.Index()]
	if saw, err := fetch(kept, six); err != nil || saw != told[1] {
		t.Errorf("before: a connection that is kept is %s, was %s: %v", saw, told[1], err)
	}

	fill(t, filepath.Join(disk, "filler"))
	refused := w.untilRefused(told)
	s := w.status()
	if s.Ledger == nil || !strings.Contains(s.Ledger.Err, "no space left on device") {
		t.Errorf("the status does not say why: %+v", s.Ledger)
	}
	for _, noun := range []string{"status", "ledger"} {
		if out := w.kyozon(noun); !strings.Contains(out, "no space left on device") {
			t.Errorf("kyozon %s does not say why:\n%s", noun, out)
		}
	}
	for n := range told {
		w.mustBe(told, n)
	}
	if saw, err := fetch(kept, six); err != nil || saw != told[1] {
		t.Errorf("a connection that is kept is %s, was %s: %v", saw, told[1], err)
	}
	for i, x := range ip.Crossings() {
		if x.Client == ip.V6 && x.Backend == ip.V4 {
			continue
		}
		if _, err := fetch(browser(somebody(x.Client, 250), false), w.at[i]); err != nil {
			t.Errorf("%v: a new client needs no stand-in, and gets %v", x, err)
		}
	}

	if err := os.Remove(filepath.Join(disk, "filler")); err != nil {
		t.Fatal(err)
	}
	w.await("there is room again", func() bool {
		_, err := w.standIn(refused)
		return err == nil
	})
	for n := refused; n < refused+10; n++ {
		w.mustBe(told, n)
	}
	if s := w.status(); s.Ledger.Err != "" {
		t.Errorf("there is room, and the status says %q", s.Ledger.Err)
	}
	p.Process.Kill()
	p.Wait()
	w.start()
	for n := range told { // what was said is on the disk
		w.mustBe(told, n)
	}
	whose := make(map[string]int)
	for n, a := range told {
		if other, taken := whose[a]; taken {
			t.Errorf("clients %d and %d are both %s", n, other, a)
		}
		whose[a] = n
	}
}

// mountDisk mounts a small disk, in the mounts of this process. Only root can.
func mountDisk(t *testing.T, at string) {
	t.Helper()
	if err := os.Mkdir(at, 0o750); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("disk", at, "tmpfs", 0, "size=1m")
	if errors.Is(err, syscall.EPERM) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip("needs root to mount a small disk: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// fill writes a file until no more of it goes onto the disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// mustBe asks as a client, who must be told what he was told before.
func (w *world) mustBe(told map[int]string, n int) {
	w.t.Helper()
	now, err := w.standIn(n)
	if before, known := told[n]; err != nil || known && now != before {
		w.t.Errorf("client %d was %s, is %s: %v", n, before, now, err)
	}
	told[n] = now
}

// untilRefused asks as one new client after the other, for whom there may be room in the blocks that the ledger has, and
// returns the first that gets no stand-in.
func (w *world) untilRefused(told map[int]string) int {
	w.t.Helper()
	for n := len(told); n < 5000; n++ {
		standIn, err := w.standIn(n)
		if err != nil {
			if want := fmt.Sprintf("status %d", http.StatusServiceUnavailable); !strings.Contains(err.Error(), want) {
				w.t.Errorf("got %v, want %s", err, want)
			}
			w.t.Logf("client %d is refused: %v", n, err)
			return n
		}
		told[n] = standIn
	}
	w.t.Fatal("nobody is refused")
	return 0
}

// kyozon returns what a noun says.
func (w *world) kyozon(noun string) string {
	w.t.Helper()
	c := exec.Command(w.binary, noun, "--control", w.control)
	c.Env = w.env
	out, err := c.CombinedOutput()
	if err != nil {
		w.t.Errorf("kyozon %s: %v", noun, err)
	}
	return string(out)
}
