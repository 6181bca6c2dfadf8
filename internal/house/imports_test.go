// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"errors"
	"fmt"
	"go/ast"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// row is one line of the import table in docs/ARCHITECTURE.md.
type row struct {
	layer    string
	packages []string // patterns: "relay", "protocol/*"
	allowed  []string // patterns, with layers replaced by their packages
}

// covers says whether a folder, or the folder that it lies in, matches one of the patterns.
func covers(patterns []string, folder string) bool {
	for ; folder != "."; folder = path.Dir(folder) {
		for _, p := range patterns {
			if ok, _ := path.Match(p, folder); ok {
				return true
			}
		}
	}
	return false
}

// importTable reads the rows "| layer | `packages` | `packages`, layer 1 |" out of the document.
func importTable(document string) (rows []row) {
	names, layer := regexp.MustCompile("`([a-z0-9/*]+)`"), regexp.MustCompile(`layer ([0-9])`)
	in := false
	for line := range strings.Lines(document) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(line, "|") {
			in = false
			continue
		}
		if strings.Contains(cells[1], "layer") {
			in = true // the heading
		}
		if !in || !strings.ContainsAny(cells[1], "0123456789") {
			continue
		}
		r := row{layer: strings.Fields(cells[1])[0]}
		for _, m := range names.FindAllStringSubmatch(cells[2], -1) {
			r.packages = append(r.packages, m[1])
		}
		for _, m := range names.FindAllStringSubmatch(cells[3], -1) {
			r.allowed = append(r.allowed, m[1])
		}
		for _, m := range layer.FindAllStringSubmatch(cells[3], -1) {
			r.allowed = append(r.allowed, "layer "+m[1])
		}
		rows = append(rows, r)
	}
	for i := range rows {
		for _, r := range rows {
			if slices.Contains(rows[i].allowed, "layer "+r.layer) {
				rows[i].allowed = append(rows[i].allowed, r.packages...)
			}
		}
	}
	return rows
}

// forbidden returns why a package in folder from may not import the one in folder to, or "".
func forbidden(rows []row, from, to string) string {
	if isHelper(to) && !isHelper(from) {
		return "is there for tests only"
	}
	i := slices.IndexFunc(rows, func(r row) bool { return covers(r.packages, from) })
	if i < 0 {
		return fmt.Sprintf("may be imported by nobody knows: %s is not in the table", from)
	}
	top, _, _ := strings.Cut(from, "/")
	own := from == to || strings.HasPrefix(to, from+"/") || strings.HasPrefix(from, to+"/")
	if top == "protocol" { // parts of one protocol know each other
		own = own || path.Join(strings.SplitN(from, "/", 3)[:2]...) == path.Join(strings.SplitN(to+"/", "/", 3)[:2]...)
	}
	if own || covers(rows[i].allowed, to) {
		return ""
	}
	return fmt.Sprintf("is not in its row: %s may import %v", from, rows[i].allowed)
}

// TestImports: what imports what is as the table in docs/ARCHITECTURE.md has it. Tests may import anything.
func TestImports(t *testing.T) {
	t.Parallel()
	rows := importTable(read(t, "docs/ARCHITECTURE.md"))
	if len(rows) < 5 {
		t.Fatalf("docs/ARCHITECTURE.md: found %d rows of the import table", len(rows))
	}
	for _, p := range goList(t, "./...") {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		if isHelper(from) {
			continue // who may import a helper is checked above, and helpers know what they help
		}
		for _, i := range p.Imports {
			if to, ok := strings.CutPrefix(i, module+"/"); ok {
				if why := forbidden(rows, from, to); why != "" {
					t.Errorf("%s imports %s, which %s (docs/ARCHITECTURE.md, Who may import whom)", from, to, why)
				}
			}
		}
	}
}

// TestProtocolTable: each protocol is in the table in cmd/kyozon/protocols.go, and its folder looks like the others. Parsers
// in folders below it may be there before the protocol is.
func TestProtocolTable(t *testing.T) {
	t.Parallel()
	table, err := parse("cmd/kyozon/protocols.go", read(t, "cmd/kyozon/protocols.go"))
	if err != nil {
		t.Fatal(err)
	}
	folders := map[string]bool{}
	for _, f := range files(t, ".go") {
		if parts := strings.Split(f, "/"); parts[0] == "protocol" && len(parts) == 3 {
			folders[parts[1]] = true
		}
	}
	lines := tableLines(table)
	for name := range folders {
		if lines[name] == 0 {
			t.Errorf("%s: no line for protocol/%s", table.path, name)
		}
		for _, file := range []string{"options.go", "server.go", name + ".go", "README.md"} {
			if _, err := os.Stat(filepath.Join(root, "protocol", name, file)); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("protocol/%s: no %s: the folders have the same files, so that one teaches all", name, file)
			}
		}
		readme, err := os.ReadFile(filepath.Join(root, "protocol", name, "README.md"))
		if err != nil {
			continue // reported above
		}
		for _, h := range []string{"What it does", "The file", "Metrics", "RFCs"} {
			if !strings.Contains(string(readme), "\n## "+h+"\n") {
				t.Errorf("protocol/%s/README.md: no heading %q", name, "## "+h)
			}
		}
	}
	for name := range lines {
		if !folders[name] {
			t.Errorf("%s: a line for %s, but no folder protocol/%s", table.path, name, name)
		}
	}
}

// tableLines counts the elements of the composite literals in s that use each package of protocol/.
func tableLines(s *source) map[string]int {
	imported := map[string]bool{}
	for _, i := range s.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		if name, ok := strings.CutPrefix(p, module+"/protocol/"); ok {
			imported[name] = true
		}
	}
	lines := map[string]int{}
	ast.Inspect(s.File, func(n ast.Node) bool {
		list, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		for _, e := range list.Elts {
			ast.Inspect(e, func(n ast.Node) bool {
				if x, ok := n.(*ast.Ident); ok && imported[x.Name] {
					lines[x.Name]++
				}
				return true
			})
		}
		return false
	})
	return lines
}

// TestDependencies: docs/dependencies.txt lists what is linked into the program from outside the standard library,
// a line for each module, so that growth shows in a review. What our own code imports has its reason written down.
func TestDependencies(t *testing.T) {
	t.Parallel()
	reasons := read(t, "docs/decisions/006-dependencies.md")
	of := map[string]string{}       // package to module
	linked := map[string][]string{} // module to packages
	packages := goList(t, "-deps", "./cmd/kyozon")
	for _, p := range packages {
		if !p.Standard && p.Module != nil && p.Module.Path != module {
			of[p.ImportPath] = p.Module.Path
			sub := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, p.Module.Path), "/")
			linked[p.Module.Path] = append(linked[p.Module.Path], path.Join(".", sub))
		}
	}
	for _, p := range packages {
		for _, i := range p.Imports {
			if m := of[i]; m != "" && of[p.ImportPath] == "" && !p.Standard && !strings.Contains(reasons, "| `"+m+"` |") {
				t.Errorf("%s imports %s: docs/decisions/006-dependencies.md has no reason for %s", p.ImportPath, i, m)
			}
		}
	}
	var b strings.Builder
	for _, m := range slices.Sorted(maps.Keys(linked)) {
		slices.Sort(linked[m])
		fmt.Fprintf(&b, "%s: %s\n", m, strings.Join(linked[m], " "))
	}
	compare(t, "docs/dependencies.txt", b.String())
}
