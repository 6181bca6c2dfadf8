// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const (
	module = "github.com/kyozon/kyozon"
	root   = "../.."
)

var update = flag.Bool("update", false, "rewrite the generated documents instead of comparing them")

// source is one Go file of the tree, parsed.
type source struct {
	path string // from the root, with slashes: "relay/loop.go"
	text string
	set  *token.FileSet
	*ast.File
}

// parse reads one file. Tests of the rules give it text that is not in the tree.
func parse(name, text string) (*source, error) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	return &source{name, text, set, f}, err
}

func (s *source) folder() string { return path.Dir(s.path) }
func (s *source) isTest() bool   { return strings.HasSuffix(s.path, "_test.go") }
func (s *source) isHelper() bool { return isHelper(s.folder()) }
func (s *source) line(n ast.Node) int {
	return s.set.Position(n.Pos()).Line
}

// at begins a finding: the place in s where n is.
func (s *source) at(n ast.Node) string { return fmt.Sprintf("%s:%d", s.path, s.line(n)) }

// excused says whether the line of n ends in //house:ok and a reason.
func (s *source) excused(n ast.Node) bool {
	lines := strings.Split(s.text, "\n")
	_, reason, ok := strings.Cut(lines[s.line(n)-1], "//house:ok ")
	return ok && strings.TrimSpace(reason) != ""
}

// isHelper says whether a folder is there for tests only: iptest, statetest, internal/….
func isHelper(folder string) bool {
	return strings.HasSuffix(folder, "test") || strings.HasPrefix(folder, "internal/")
}

// files returns the paths of all files of the tree with one of the endings, in order. What is built, hidden,
// or another module's is not part of it; .ci is.
func files(t *testing.T, endings ...string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // another test's temporary file
			}
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if rel = filepath.ToSlash(rel); d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && rel != "." && rel != ".ci"
			if hidden || slices.Contains([]string{"bin", "tmp", "tools"}, rel) || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(rel, e) }) {
			found = append(found, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// read returns the text of a file of the tree.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tree is all Go files, parsed once for all tests, which only read them.
var tree struct { //house:ok a test cannot pass anything to another
	once sync.Once
	all  []*source
}

// sources returns all Go files of the tree.
func sources(t *testing.T) []*source {
	t.Helper()
	tree.once.Do(func() {
		for _, name := range files(t, ".go") {
			s, err := parse(name, read(t, name))
			if err != nil {
				t.Fatalf("parse: %v", err)
			}
			tree.all = append(tree.all, s)
		}
	})
	if tree.all == nil {
		t.Fatal("the tree could not be parsed: another test says why")
	}
	return tree.all
}

// each reports what rule finds in each source that keep keeps.
func each(t *testing.T, keep func(*source) bool, rule func(*source) []string) {
	t.Helper()
	for _, s := range sources(t) {
		if keep(s) {
			report(t, rule(s))
		}
	}
}

func report(t *testing.T, findings []string) {
	t.Helper()
	for _, f := range findings {
		t.Error(f)
	}
}

// listed is what we need of one package in the output of `go list -json`.
type listed struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Module     *struct{ Path string }
}

// goList runs `go list -json` in the root.
func goList(t *testing.T, args ...string) []listed {
	t.Helper()
	c := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e", "-json=ImportPath,Standard,Imports,Module"}, args...)...)
	c.Dir = root
	var stderr strings.Builder
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var l listed
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		all = append(all, l)
	}
}

// compare fails if the generated file name does not hold want, or writes it with -update.
func compare(t *testing.T, name, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join(root, name), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatalf("%v: run `make generate`", err)
	}
	if string(got) != want {
		t.Errorf("%s is stale: run `make generate` and commit it; first difference:\n%s", name, difference(string(got), want))
	}
}

// difference shows the first line in which two texts differ.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := append(g, "", "")[min(i, len(g))], append(w, "", "")[min(i, len(w))]
		if a != b {
			return fmt.Sprintf("line %d is  %q\nbut must be %q", i+1, a, b)
		}
	}
	return "none"
}
