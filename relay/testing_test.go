// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
)

func nonblock(t testing.TB, fd int) {
	t.Helper()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
}

// waitFor tries until ok says yes, for 10 s at most.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if ok() {
			return
		}
	}
	t.Fatal("did not happen within 10 s")
}

// TestMain fails if a goroutine or a descriptor is left behind.
func TestMain(m *testing.M) { servertest.Main(m) }
