// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Main runs the tests of a package and fails if a goroutine or a descriptor is left. It is for TestMain.
func Main(m *testing.M) {
	before := descriptors()
	code := m.Run()
	if left := leaks(before); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "left behind:\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// leaks returns the stacks of the goroutines beside this one, and the descriptors that were not there before, once
// those that are ending have had time to.
func leaks(before []string) (left []string) {
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		runtime.GC() // files that nobody closed are closed by it
		all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
		left = slices.DeleteFunc(all[1:], func(s string) bool { return strings.Contains(s, "os/signal.loop") })
		for _, d := range descriptors() {
			if !slices.Contains(before, d) {
				left = append(left, d)
			}
		}
		if len(left) == 0 {
			break
		}
	}
	return left
}

// descriptors returns the process's open descriptors and what they are: "7 socket:[4711]". Those of the runtime itself
// and those that keep ports free (FreeAddr) are left out.
func descriptors() (all []string) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/proc/") && !Reserves(e.Name()) {
			all = append(all, e.Name()+" "+to)
		}
	}
	return all
}
