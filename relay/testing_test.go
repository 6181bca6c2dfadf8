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

// patience is how long anything may take on a busy machine before a test gives up.
const patience = time.Minute

// waitFor tries until ok says yes.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		if ok() {
			return
		}
	}
	t.Fatal("did not happen in time")
}

// TestMain fails if a goroutine or a descriptor is left behind.
func TestMain(m *testing.M) { servertest.Main(m) }
