// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/state"
)

// TestKill kills a process that leases, with SIGKILL, at random moments. Every lease that it told is in the file
// afterwards, and no stand-in was told to two prefixes, over all the processes.
func TestKill(t *testing.T) {
	t.Parallel()
	const env = "KYOZON_TEST_LEASE"
	if path := os.Getenv(env); path != "" {
		leaseForever(t, path)
		return
	}
	kills := 10
	if os.Getenv("KYOZON_SOAK") != "" {
		kills = 100
	}
	path := filepath.Join(t.TempDir(), "state")
	told := make(map[netip.Addr]netip.Prefix) // by stand-in
	for kill := range kills {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
		child.Env = append(os.Environ(), env+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		left := 1 + rand.IntN(2000)
		lines := bufio.NewScanner(out)
		for lines.Scan() { // to the end: what it told before it died counts too
			var prefix, standIn string
			if n, err := fmt.Sscan(lines.Text(), &prefix, &standIn); n != 2 {
				if !strings.HasSuffix(lines.Text(), ".") && left > 0 {
					t.Errorf("the other process says %q, %v", lines.Text(), err)
				}
				continue
			}
			p, a := netip.MustParsePrefix(prefix), netip.MustParseAddr(standIn)
			if before, ok := told[a]; ok && before != p {
				t.Fatalf("%v was told to %v and to %v", a, before, p)
			}
			told[a] = p
			if left--; left == 0 {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = child.Wait() // it was killed
		checkTold(t, path, told)
		if t.Failed() {
			t.Fatalf("after %d kills", kill+1)
		}
	}
	t.Logf("%d leases told, %d kills", len(told), kills)
}

// checkTold opens the file and looks for every lease that was told.
func checkTold(t *testing.T, path string, told map[netip.Addr]netip.Prefix) {
	t.Helper()
	store, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	l, err := Open(store, wide(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	for a, p := range told {
		found, err := l.Who(a, time.Time{})
		if err != nil || len(found) != 1 || found[0].Prefix != p {
			t.Errorf("%v was told to %v, the book says %v, %v", a, p, found, err)
		}
		if got, ok := l.Find(p.Addr()); !ok || got != a {
			t.Errorf("%v was told %v, now it has %v, %v", p, a, got, ok)
		}
	}
}

// leaseForever leases for clients that never came before, many at once, and tells each on its standard output.
func leaseForever(t *testing.T, path string) {
	store, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(store, wide(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	slots := make(chan struct{}, 64) // as many ask at once
	go func() {
		for {
			slots <- struct{}{}
			var b [16]byte
			copy(b[:], []byte{0x20, 0x01, 0x0d, 0xb8, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32())})
			p := netip.PrefixFrom(netip.AddrFrom16(b), 64)
			l.Lease(p.Addr(), func(a netip.Addr, err error) {
				if err == nil {
					fmt.Printf("%v %v\n", p, a) // one write: it is whole or not there
				}
				<-slots
			})
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // if nobody kills us
	defer cancel()
	_ = l.Run(ctx)
}
