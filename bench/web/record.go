// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
)

// limits says what limits each work: "## NAME", then a text. It is written by hand.
//
//go:embed limits.md
var limits string

// write writes the results into a file, to be committed.
func (c *comparison) write(path string) error {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	p("# Results of %s, Linux %s\n", time.Now().UTC().Format("2006-01-02"), bench.Kernel())
	p("```sh\nmake bench-web BENCH=\"%s\"\n```\n", c.command)
	p("%d processors (%s), %d rounds of %v, %d of the crossings; %d idle connections. [How it is measured](README.md);\n"+
		"[earlier results](results).\n", runtime.NumCPU(), bench.Processor(), c.Rounds, c.Time, c.crossing, c.idle)
	for _, pr := range c.programs {
		p("- %s: %s", pr.name, pr.version)
	}
	p("\n%s\n## Lines\n\n```text", table(c.lines))
	for _, l := range c.lines {
		p("%s", l)
	}
	p("```\n\n## What limits each row, and where our time goes\n")
	p("Percent of the processor time of our process, from profiles (`-profile`).\n")
	for _, name := range names() {
		text, where := limitOf(limits, name), c.where[name]
		if !c.Chosen(name) || text+where == "" {
			continue
		}
		p("### %s\n", name)
		if where != "" {
			p("```text\n%s```\n", where)
		}
		if text != "" {
			p("%s\n", text)
		}
	}
	p("%s", kernelPlane(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.TrimRight(b.String(), "\n")+"\n"), 0o644)
}

// kernelPlane returns what the file says of the kernel plane, if there is one. It is written by hand, at its end, out of
// what bench/l4 has measured.
func kernelPlane(path string) string {
	was, _ := os.ReadFile(path)
	const title = "\n## The kernel plane\n"
	_, after, found := strings.Cut(string(was), title)
	if !found {
		return ""
	}
	return strings.TrimPrefix(title, "\n") + after
}

// limitOf returns what a text says about a work, or "".
func limitOf(text, name string) string {
	_, after, _ := strings.Cut("\n"+text, "\n## "+name+"\n")
	about, _, _ := strings.Cut(after, "\n## ")
	return strings.TrimSpace(about)
}
