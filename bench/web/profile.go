// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// profileTime is how long a profile is taken: there are a hundred samples a second for each processor.
func (o options) profileTime() time.Duration {
	if o.Rounds == 1 {
		return max(o.Time, time.Second)
	}
	return max(o.Time, 5*time.Second)
}

// profile has ours do the work once more, and writes what its processors did: NAME.pprof, and NAME.txt for a reader.
func (c *comparison) profile(ctx context.Context, w work, r *running) error {
	d := c.profileTime()
	ctx, cancel := context.WithTimeout(ctx, d+30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	var page []byte
	go func() {
		var err error
		page, err = c.place.ask(ctx, "/debug/pprof/profile?seconds="+strconv.Itoa(int(d.Seconds())))
		done <- err
	}()
	_, err := w.do(ctx, c.place, r, ip.V6, d)
	if err := errors.Join(err, <-done); err != nil {
		return fmt.Errorf("take profile: %w", err)
	}
	if err := os.MkdirAll(c.options.profile, 0o755); err != nil {
		return err
	}
	path := filepath.Join(c.options.profile, w.name)
	if err := os.WriteFile(path+".pprof", page, 0o644); err != nil {
		return err
	}
	traces, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", path+".pprof").Output()
	if err != nil {
		return fmt.Errorf("read profile: %w", err)
	}
	text, err := whereTimeGoes(traces)
	if err != nil {
		return err
	}
	c.where[w.name] = text
	c.say("%s:\n%s", w.name, text)
	return os.WriteFile(path+".txt", []byte(text), 0o644)
}

// shares is parts of the time, by name.
type shares map[string]time.Duration

// whereTimeGoes reads the stacks that pprof prints, and returns a short text of what the kernel did, for which call, and
// what the program did, in which packages and functions.
//
//	-----------+----------------
//	    120ms   internal/runtime/syscall/linux.Syscall6     ← where it was
//	            syscall.write                               ← called by
//	            …
func whereTimeGoes(traces []byte) (string, error) {
	total, calls, packages, functions := time.Duration(0), shares{}, shares{}, shares{}
	blocks := bytes.Split(traces, []byte("-----------+"))
	for _, block := range blocks[min(1, len(blocks)):] {
		took, stack := stackOf(block)
		if len(stack) == 0 {
			continue
		}
		total += took
		if inKernel(stack[0]) {
			calls[callOf(stack)] += took
			continue
		}
		pkg, _ := split(stack[0])
		packages[pkg] += took
		functions[strings.TrimPrefix(stack[0], module)] += took
	}
	if total == 0 {
		return "", errNoProfile
	}
	var b strings.Builder
	fmt.Fprintf(&b, "kernel    %3.0f %%   %s\n", calls.sum().of(total), calls.most(6, total))
	fmt.Fprintf(&b, "program   %3.0f %%   %s\n", packages.sum().of(total), packages.most(6, total))
	fmt.Fprintf(&b, "functions         %s\n", functions.most(6, total))
	return b.String(), nil
}

const module = "github.com/kyozon/kyozon/"

var errNoProfile = errors.New("profile: no sample in it")

// stackOf reads one stack, the innermost function first.
func stackOf(block []byte) (took time.Duration, stack []string) {
	for line := range bytes.Lines(block) {
		f := strings.Fields(string(line))
		if len(stack) == 0 {
			if len(f) < 2 {
				continue
			}
			d, err := time.ParseDuration(f[0])
			if err != nil {
				continue // the line that ends the one before, or a label
			}
			took, f = d, f[1:]
		}
		if len(f) > 0 {
			stack = append(stack, strings.Join(f, " "))
		}
	}
	return took, stack
}

// inKernel says whether a function is an entry to the kernel: it has no code of its own that takes time.
func inKernel(function string) bool {
	pkg, name := split(function)
	switch pkg {
	case "syscall", "internal/runtime/syscall", "internal/runtime/syscall/linux":
		return strings.HasPrefix(name, "Syscall") || strings.HasPrefix(name, "RawSyscall") || strings.HasPrefix(name, "raw")
	case "runtime":
		return slices.Contains([]string{"futex", "usleep", "madvise", "tgkill", "write1", "read", "sched_yield", "mmap",
			"munmap", "nanotime1"}, name)
	}
	return false
}

// callOf returns which call a stack that ends in the kernel makes, or which function where that has made it itself.
func callOf(stack []string) string {
	for _, function := range stack {
		switch pkg, name := split(function); pkg {
		case "internal/runtime/syscall", "internal/runtime/syscall/linux":
			if !inKernel(function) {
				return strings.ToLower(name) // the runtime's own: epollwait
			}
		case "syscall", "golang.org/x/sys/unix":
			if !strings.Contains(strings.ToLower(name), "syscall") {
				return strings.ToLower(name)
			}
		case "runtime":
			if !strings.HasPrefix(name, "entersyscall") {
				return name
			}
		default:
			return pkg + "." + name
		}
	}
	return "other"
}

// split cuts the name of a function into its package, without our module's path, and the rest.
func split(function string) (pkg, name string) {
	path, _, _ := strings.Cut(function, "[") // a type's parameters have slashes and dots, too: they come after the package
	slash := strings.LastIndexByte(path, '/') + 1
	last, name, _ := strings.Cut(function[slash:], ".")
	return strings.TrimPrefix(function[:slash]+last, module), name
}

type span time.Duration

func (s shares) sum() (d span) {
	for _, v := range s {
		d += span(v)
	}
	return d
}

// of returns the percentage.
func (d span) of(total time.Duration) float64 { return 100 * float64(d) / float64(total) }

// most returns the n greatest parts, down to a hundredth.
func (s shares) most(n int, total time.Duration) string {
	names := slices.SortedFunc(maps.Keys(s), func(a, b string) int {
		return cmp.Or(cmp.Compare(s[b], s[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, name := range names[:min(n, len(names))] {
		if p := span(s[name]).of(total); p >= 1 {
			parts = append(parts, fmt.Sprintf("%s %.0f", name, p))
		}
	}
	return strings.Join(parts, " · ")
}
