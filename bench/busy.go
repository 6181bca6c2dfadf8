// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"
)

// userHertz is the unit of /proc/stat: the kernel promises 100 a second to programs, whatever its own tick is.
const userHertz = 100

var errNoStat = errors.New("bench: no idle time in /proc/stat")

// Busy begins to measure the time that the processors of the machine are not idle, whoever uses them; what the kernel does
// for packets belongs to no program. The function that it returns says how much it was since.
func Busy() (used func() (time.Duration, error), err error) {
	began := time.Now()
	before, err := idle()
	return func() (time.Duration, error) {
		after, err := idle()
		return time.Since(began)*time.Duration(runtime.NumCPU()) - (after - before), err
	}, err
}

// idle returns how long all processors together have had nothing to do.
func idle() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read idle time: %w", err)
	}
	return parseIdle(stat)
}

// parseIdle finds "cpu  user nice system idle iowait …" and returns the two times in which nothing ran. proc_stat(5).
func parseIdle(stat []byte) (time.Duration, error) {
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 6 || string(f[0]) != "cpu" {
		return 0, errNoStat
	}
	var sum time.Duration
	for _, ticks := range f[4:6] {
		n, err := strconv.ParseUint(string(ticks), 10, 40)
		if err != nil {
			return 0, errNoStat
		}
		sum += time.Duration(n) * time.Second / userHertz
	}
	return sum, nil
}
