// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// TestPin: a network namespace has the pins of no other, also not of one that is gone and had the number of its file.
func TestPin(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread() // never given back: the thread ends with the test's goroutine
	pins := make(map[uint64]map[string]bool)
	for range 1000 {
		space, err := netns.New()
		if errors.Is(err, unix.EPERM) && os.Getenv("KYOZON_LAB") != "require" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := errors.Join(unix.Fstat(int(space), &st), space.Close()); err != nil {
			t.Fatal(err)
		}
		pin, err := Pin()
		if again, failed := Pin(); err != nil || failed != nil || again != pin {
			t.Fatalf("pins %q and %q, %v, %v", pin, again, err, failed)
		}
		if pins[st.Ino] == nil {
			pins[st.Ino] = make(map[string]bool)
		}
		if pins[st.Ino][pin] {
			t.Fatalf("two namespaces have the pins %q", pin)
		}
		if pins[st.Ino][pin] = true; len(pins[st.Ino]) > 1 {
			return
		}
	}
	t.Error("no number has come again in 1,000 namespaces")
}
