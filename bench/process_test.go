// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The clock must be that of all threads, as the kernel itself adds them up.
func TestProgramCPU(t *testing.T) {
	t.Parallel()
	p := Program{os.Getpid()}
	before := used(t)
	got, err := p.CPU()
	after := used(t)
	if err != nil || got < before-tolerance || got > after+tolerance {
		t.Errorf("CPU() = %v, %v; the kernel says %v to %v", got, err, before, after)
	}
	if _, err := (Program{1 << 23}).CPU(); err == nil {
		t.Error("a process that is not there has a clock")
	}
}

// tolerance is how far the sum of user and system time may be from the clock: the kernel cuts it out of ticks.
const tolerance = 100 * time.Millisecond

func used(t *testing.T) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestOpenProgram(t *testing.T) {
	t.Parallel()
	// A shell that has a child, and says so before it waits for its own end.
	c := exec.CommandContext(t.Context(), "sh", "-c", "sleep 60 & echo ready; read end; kill $!; wait $!")
	in, errIn := c.StdinPipe()
	out, errOut := c.StdoutPipe()
	if errIn != nil || errOut != nil {
		t.Fatal(errIn, errOut)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	out.Read(make([]byte, 1))
	p, err := OpenProgram(c.Process.Pid)
	if err != nil || len(p) != 2 || p[0] != c.Process.Pid {
		t.Errorf("OpenProgram(%d) = %v, %v; want it and its child", c.Process.Pid, p, err)
	}
	alone, err := Program{c.Process.Pid}.Memory()
	if err != nil {
		t.Error(err)
	}
	if both, err := p.Memory(); err != nil || alone <= 0 || both <= alone {
		t.Errorf("memory of both: %d, %v; of one: %d", both, err, alone)
	}
	in.Close()
	c.Wait()
	if p, err := OpenProgram(c.Process.Pid); err == nil {
		t.Errorf("a process that has ended is %v", p)
	}
}

func TestParseResident(t *testing.T) {
	t.Parallel()
	tests := []struct {
		status string
		want   int64 // -1: an error
	}{
		{"Name:\tnginx\nVmHWM:\t   99 kB\nVmRSS:\t    5678 kB\nThreads:\t1\n", 5678 << 10},
		{"VmRSS: 0 kB", 0},
		{"Name:\tkthreadd\n", -1}, // a thread of the kernel has no memory
		{"VmRSS: many kB\n", -1},
		{"VmRSS: 5 MB\n", -1},
		{"VmRSS: -5 kB\n", -1},
		{"VmRSS: 99999999999999999999 kB\n", -1},
		{"", -1},
	}
	for _, tt := range tests {
		got, err := parseResident([]byte(tt.status))
		if tt.want < 0 && err == nil || tt.want >= 0 && (err != nil || got != tt.want) {
			t.Errorf("parseResident(%q) = %d, %v; want %d", tt.status, got, err, tt.want)
		}
	}
}

func FuzzParseResident(f *testing.F) {
	f.Add([]byte("Name:\tnginx\nVmRSS:\t    5678 kB\n"))
	f.Add([]byte("VmRSS: -5 kB\n"))
	f.Fuzz(func(t *testing.T, status []byte) {
		given := slices.Clone(status)
		if n, err := parseResident(status); err == nil && (n < 0 || n%1024 != 0) {
			t.Errorf("%d bytes", n)
		}
		if !slices.Equal(given, status) {
			t.Error("it has changed what it read")
		}
	})
}
