// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestKill kills a process that writes, with SIGKILL, at random moments. Every record that it told is there afterwards,
// unless it was to be settled; what was told to be settled does not live.
func TestKill(t *testing.T) {
	t.Parallel()
	const env = "KYOZON_TEST_JOURNAL"
	if directory := os.Getenv(env); directory != "" {
		writeForever(t, directory)
		return
	}
	kills := 10
	if os.Getenv("KYOZON_SOAK") != "" {
		kills = 200
	}
	for _, unsynced := range []bool{false, true} {
		t.Run(fmt.Sprint("unsynced ", unsynced), func(t *testing.T) {
			t.Parallel()
			directory := t.TempDir()
			told := make(map[ID]string)
			for kill := range kills {
				child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
				child.Env = append(os.Environ(), env+"="+directory+fmt.Sprintf(" %t", unsynced))
				child.Stderr = os.Stderr
				out, err := child.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := child.Start(); err != nil {
					t.Fatal(err)
				}
				left := 1 + rand.IntN(3000)
				lines := bufio.NewScanner(out)
				for lines.Scan() { // to the end: what it told before it died counts too
					note(t, told, lines.Text())
					if left--; left == 0 {
						if err := child.Process.Kill(); err != nil {
							t.Fatal(err)
						}
					}
				}
				_ = child.Wait() // it was killed
				if left > 0 {
					t.Fatalf("the other process ended by itself, %d lines before its time", left)
				}
				checkTold(t, directory, told)
				if t.Failed() {
					t.Fatalf("after %d kills", kill+1)
				}
			}
			t.Logf("%d records, %d kills", len(told), kills)
		})
	}
}

// note reads a line of the other process. A record is "written", then "settling", which may or may not come about, then
// "settled".
func note(t *testing.T, told map[ID]string, line string) {
	t.Helper()
	var what string
	var id ID
	if n, _ := fmt.Sscan(line, &what, &id); n != 2 || !strings.HasSuffix(line, ".") {
		t.Errorf("the other process says %q", line)
		return
	}
	if was, ok := told[id]; ok && what == "written" {
		t.Errorf("the id %d is given again, it was %s", id, was)
	}
	told[id] = what
}

// checkTold opens the journal and looks for every record.
func checkTold(t *testing.T, directory string, told map[ID]string) {
	t.Helper()
	j, stop := run(t, directory, Options{})
	defer stop()
	found := all(t, j)
	for id, what := range told {
		text, ok := found[id]
		switch {
		case what == "written" && !ok:
			t.Errorf("%d was told to be written and is not there", id)
		case what == "settled" && ok:
			t.Errorf("%d was settled and is there", id)
		case ok && text != "1 "+payload(id):
			t.Errorf("%d is not what was written", id)
		}
	}
}

// payload is some data that depends on when the record was asked for, and is of any length.
func payload(id ID) string {
	b := binary.LittleEndian.AppendUint64(nil, uint64(id))
	return strings.Repeat(string(b), int(id%100))
}

// writeForever writes, settles, and tells of each on its standard output.
func writeForever(t *testing.T, where string) {
	var directory string
	var unsynced bool
	if _, err := fmt.Sscan(where, &directory, &unsynced); err != nil {
		t.Fatal(err)
	}
	j, err := Open(directory, Options{Unsynced: unsynced, File: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // if nobody kills us
	defer cancel()
	for range 16 {
		go func() {
			for ctx.Err() == nil {
				writeOne(j)
			}
		}()
	}
	_ = j.Run(ctx)
}

// writeOne writes a record and, but for one in a hundred, settles it. Each line is one write: it is whole or not there.
func writeOne(j *Journal) {
	written := make(chan error, 1)
	// Its data follows from its id, which is not known yet: the next one is guessed, and another is written if it is not.
	guess := ID(j.last.Load() + 1)
	id := j.Append(1, func(err error) { written <- err }, []byte(payload(guess)))
	err := <-written
	if id != guess || err != nil {
		j.Settle(id)
		return
	}
	fmt.Printf("written %d.\n", id)
	if rand.IntN(100) == 0 {
		return
	}
	fmt.Printf("settling %d.\n", id)
	j.Settle(id)
	if rand.IntN(10) > 0 {
		return
	}
	settled := j.Append(1, func(err error) { written <- err })
	if <-written == nil { // what was asked before is written before
		fmt.Printf("settled %d.\n", id)
	}
	j.Settle(settled)
}
