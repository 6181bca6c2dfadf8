// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
)

// TestDocs: what the documents show is true. Each ```yaml block is tagged: `site` is a site file that the program
// itself accepts, `lab` a lab file, `part` shows a part. Links within the tree lead somewhere.
func TestDocs(t *testing.T) {
	t.Parallel()
	var sites []block
	for _, name := range files(t, ".md") {
		text := read(t, name)
		report(t, deadLinks(name, text))
		if name == "docs/config.md" {
			continue // made by cmd/kyozon, which tests it
		}
		for _, b := range yamlBlocks(name, text) {
			switch b.tag {
			case "site":
				sites = append(sites, b)
			case "lab", "part":
			default:
				t.Errorf("%s:%d: tag the block: ```yaml site (a whole one, loaded by this test), lab or part", b.file, b.line)
			}
		}
	}
	if len(sites) > 0 {
		check(t, sites)
	}
	if n := strings.Count(read(t, "docs/ARCHITECTURE.md"), "\n"); n > 300 {
		t.Errorf("docs/ARCHITECTURE.md: %d lines, want at most 300: who reads more?", n)
	}
}

// check runs `kyozon check` on each block.
func check(t *testing.T, blocks []block) {
	t.Helper()
	dir, program := t.TempDir(), servertest.Kyozon(t)
	for i, b := range blocks {
		site := filepath.Join(dir, strconv.Itoa(i)+".yaml")
		if err := os.WriteFile(site, []byte(b.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), program, "check", "--no-files", site).CombinedOutput(); err != nil {
			t.Errorf("%s:%d: kyozon check: %v\n%s", b.file, b.line, err, out)
		}
	}
}

// block is a fenced piece of a document.
type block struct {
	file string
	line int // of the fence
	tag  string
	text string
}

func yamlBlocks(name, text string) (all []block) {
	var b *block
	for i, line := range strings.Split(text, "\n") {
		switch tag, ok := strings.CutPrefix(line, "```yaml"); {
		case b == nil && ok:
			b = &block{file: name, line: i + 1, tag: strings.TrimSpace(tag)}
		case b != nil && line == "```":
			all, b = append(all, *b), nil
		case b != nil:
			b.text += line + "\n"
		}
	}
	return all
}

var (
	link = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	cite = regexp.MustCompile(`RFC (\d{1,5})((?:(?:,| and)? §[0-9A-Z]+(?:\.[0-9]+)*)*)`)
)

// deadLinks returns the relative links in a document that lead nowhere.
func deadLinks(name, text string) (found []string) {
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(root, filepath.Dir(name), m[1])); errors.Is(err, fs.ErrNotExist) {
			found = append(found, fmt.Sprintf("%s: link to %s, which is not there", name, m[1]))
		}
	}
	return found
}

// TestRFC: docs/rfc.md says which line obeys which section of which RFC, collected from the comments.
func TestRFC(t *testing.T) {
	t.Parallel()
	index := map[reference][]string{}
	for _, s := range sources(t) {
		if s.isTest() || s.folder() == "internal/house" {
			continue
		}
		for _, group := range s.Comments {
			for _, c := range group.List {
				for i, line := range strings.Split(c.Text, "\n") {
					for _, r := range references(line) {
						at := fmt.Sprintf("[%s:%d](../%[1]s#L%[2]d)", s.path, s.line(c)+i)
						if !slices.Contains(index[r], at) {
							index[r] = append(index[r], at)
						}
					}
				}
			}
		}
	}
	compare(t, "docs/rfc.md", rfcPage(index))
}

// reference is one section of one RFC; "" means the whole of it.
type reference struct {
	rfc     int
	section string
}

// references returns what a comment line cites: "RFC 6052 §2.2, §2.3; RFC 7239".
func references(line string) (all []reference) {
	for _, m := range cite.FindAllStringSubmatch(line, -1) {
		n, _ := strconv.Atoi(m[1]) // digits: see the pattern
		if m[2] == "" {
			all = append(all, reference{n, ""})
		}
		for _, s := range strings.Split(m[2], "§")[1:] {
			all = append(all, reference{n, strings.TrimRight(strings.TrimSuffix(s, " and "), ", ")})
		}
	}
	return all
}

func rfcPage(index map[reference][]string) string {
	var b strings.Builder
	b.WriteString("# Which line obeys which RFC\n\nWritten by `make generate` from the comments in the code; do not edit.\n")
	last := 0
	for _, r := range slices.SortedFunc(maps.Keys(index), func(a, b reference) int {
		return cmp.Or(a.rfc-b.rfc, compareSections(a.section, b.section))
	}) {
		if r.rfc != last {
			fmt.Fprintf(&b, "\n## [RFC %d](https://www.rfc-editor.org/rfc/rfc%[1]d)\n\n", r.rfc)
			last = r.rfc
		}
		section := "as a whole"
		if r.section != "" {
			section = "§" + r.section
		}
		fmt.Fprintf(&b, "- %s: %s\n", section, strings.Join(index[r], ", "))
	}
	return b.String()
}

// compareSections orders "4.2" before "4.10".
func compareSections(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(x, y string) int {
		return cmp.Or(len(x)-len(y), strings.Compare(x, y))
	})
}
