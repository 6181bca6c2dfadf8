// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Program is a program under test: a process and those that it has started, as nginx has its workers.
type Program []int

// OpenProgram finds the processes of a program whose first one is pid. It must have started all of them.
func OpenProgram(pid int) (Program, error) {
	p := Program{pid}
	for i := 0; i < len(p); i++ {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p[i]))
		if err != nil {
			return nil, fmt.Errorf("find processes: %w", err)
		}
		for word := range bytes.FieldsSeq(data) {
			child, err := strconv.Atoi(string(word))
			if err != nil {
				return nil, fmt.Errorf("find processes: %w", err)
			}
			p = append(p, child)
		}
	}
	return p, nil
}

// CPU returns the processor time that the program has used, of user and system. It reads the processes' own clocks,
// which count nanoseconds; utime and stime of /proc/PID/stat are the same sum, cut to 10 ms.
//
// The kernel counts as a program's own also the interrupts that it serves while the program runs. On veth those are
// the packets which the program has just sent, on their way up to their receiver.
func (p Program) CPU() (sum time.Duration, err error) {
	for _, pid := range p {
		var ts unix.Timespec
		if err := unix.ClockGettime(clockOf(pid), &ts); err != nil {
			return 0, fmt.Errorf("read clock of process %d: %w", pid, err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// clockOf returns the clock of another process, as clock_getcpuclockid(3) does.
func clockOf(pid int) int32 {
	const scheduled = 2 // CPUCLOCK_SCHED: what the scheduler has given to it
	return int32(^pid)<<3 | scheduled
}

// Memory returns the program's resident memory in bytes.
func (p Program) Memory() (sum int64, err error) {
	for _, pid := range p {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, fmt.Errorf("read memory: %w", err)
		}
		n, err := parseResident(status)
		if err != nil {
			return 0, fmt.Errorf("read memory of process %d: %w", pid, err)
		}
		sum += n
	}
	return sum, nil
}

var errNoResident = errors.New("bench: no VmRSS in the status of a process")

// parseResident finds "VmRSS:  5678 kB" in a process's status and returns it in bytes.
func parseResident(status []byte) (int64, error) {
	for line := range bytes.Lines(status) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == "VmRSS:" && string(f[2]) == "kB" {
			kb, err := strconv.ParseUint(string(f[1]), 10, 40)
			return int64(kb) << 10, err
		}
	}
	return 0, errNoResident
}
