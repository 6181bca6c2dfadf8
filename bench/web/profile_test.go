// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// traces is what `go tool pprof -traces` writes.
const traces = `File: kyozon
Type: cpu
Time: 2026-11-25 04:50:12 UTC
Duration: 5s, Total samples = 2s (40%)
-----------+-------------------------------------------------------
      1.2s   internal/runtime/syscall/linux.Syscall6
             syscall.RawSyscall6
             syscall.Syscall
             golang.org/x/sys/unix.write
             golang.org/x/sys/unix.Write
             github.com/kyozon/kyozon/relay.(*Conn).flush
-----------+-------------------------------------------------------
     200ms   internal/runtime/syscall/linux.Syscall6
             internal/runtime/syscall/linux.EpollWait
             runtime.netpoll
-----------+-------------------------------------------------------
     100ms   runtime.futex
             runtime.futexsleep
-----------+-------------------------------------------------------
     100ms   internal/runtime/syscall/linux.Syscall6
             golang.org/x/sys/unix.Syscall6
             github.com/kyozon/kyozon/relay.(*ring).submit
-----------+-------------------------------------------------------
        bytes:  1kB
     300ms   github.com/kyozon/kyozon/protocol/web/http1.(*head).line
             github.com/kyozon/kyozon/protocol/web.(*conn).Data (inline)
-----------+-------------------------------------------------------
     100ms   slices.pdqsortCmpFunc[go.shape.struct { github.com/kyozon/kyozon/relay.x int }]
`

func TestWhereTimeGoes(t *testing.T) {
	t.Parallel()
	got, err := whereTimeGoes([]byte(traces))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"kernel     80 %   write 60 · epollwait 10 · futex 5 · relay.(*ring).submit 5",
		"program    20 %   protocol/web/http1 15 · slices 5",
		"functions         protocol/web/http1.(*head).line 15 · slices.pdqsortCmpFunc[go.shape.struct { github.com/kyozon/kyozon/relay.x int }] 5",
		"",
	}, "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := whereTimeGoes(nil); !errors.Is(err, errNoProfile) {
		t.Errorf("of nothing: %v", err)
	}
}

func FuzzWhereTimeGoes(f *testing.F) {
	f.Add([]byte(traces))
	f.Add([]byte("-----------+--\n 1h a.b[c/d\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		given := slices.Clone(data)
		if text, err := whereTimeGoes(data); (err == nil) != strings.HasPrefix(text, "kernel") {
			t.Errorf("%q, %v", text, err)
		}
		if !slices.Equal(given, data) {
			t.Error("it has changed what it read")
		}
	})
}
