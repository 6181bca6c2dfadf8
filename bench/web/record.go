// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// write writes the results into a file, to be committed. What limits each row is for a human to add.
func (c *comparison) write(path string) error {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	p("# %s, Linux %s\n", time.Now().UTC().Format("2006-01-02"), kernel())
	p("%d processors (%s), %d rounds of %v, %d of the crossings; %d idle connections. [How it is measured](../README.md).\n",
		runtime.NumCPU(), processor(), c.rounds, c.time, c.crossing, c.idle)
	for _, pr := range c.programs {
		p("- %s: %s", pr.name, versionOf(pr.version))
	}
	p("\n## Lines\n\n```text")
	for _, l := range c.lines {
		p("%s", l)
	}
	p("```\n\n## Noise\n\nSpread of our own CPU over the rounds (first to third quartile, as a part of the median):\n")
	for _, w := range works() {
		if v, ok := c.noise[w.name]; ok {
			p("- %s %.0f %%", w.name, 100*v)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// processor returns the name of the processors.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range bytes.Lines(info) {
		if name, ok := bytes.CutPrefix(line, []byte("model name")); ok {
			return string(bytes.TrimSpace(bytes.TrimLeft(name, "\t :")))
		}
	}
	return runtime.GOARCH
}

// versionOf returns the first line of what a program says about itself.
func versionOf(command []string) string {
	path, err := find(command[0])
	if err != nil {
		return "unknown"
	}
	out, err := exec.Command(path, command[1:]...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}
