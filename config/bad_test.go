// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite what is wanted in testdata")

// TestBad reads each file of testdata/bad. It begins with one line for each mistake, all of them, in their order:
//
//	# want: 7:3: unknown key "lisen"; did you mean "listen"?
func TestBad(t *testing.T) {
	t.Parallel()
	for _, path := range glob(t, "testdata/bad/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			data := read(t, path)
			got := mistakes(t, data)
			if *update {
				data = withWants(t, data)
				write(t, path, data)
				got = mistakes(t, data)
			}
			if len(got) == 0 {
				t.Fatal("no mistake was found")
			}
			want, _ := splitWants(data)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("mistakes (-want +got):\n%s", diff)
			}
		})
	}
}

// mistakes returns what is wrong with data, without the name of the file.
func mistakes(t *testing.T, data []byte) []string {
	t.Helper()
	_, err := Parse("site.yaml", data, protocols(), Options{})
	var all []string
	for _, e := range Errors(err) {
		all = append(all, strings.TrimPrefix(e.Error(), "site.yaml:"))
	}
	return all
}

const wantMark = "# want: "

// splitWants returns what is wanted of a file, and the rest of it.
func splitWants(data []byte) (wants []string, rest []byte) {
	for {
		line, after, ok := bytes.Cut(data, []byte("\n"))
		if !ok || !bytes.HasPrefix(line, []byte(wantMark)) {
			return wants, data
		}
		wants = append(wants, string(line[len(wantMark):]))
		data = after
	}
}

// withWants puts what is found in place of what was wanted. The lines put before the file move its places, so the
// file is read twice.
func withWants(t *testing.T, data []byte) []byte {
	t.Helper()
	_, rest := splitWants(data)
	n := len(mistakes(t, rest))
	moved := append(bytes.Repeat([]byte("#\n"), n), rest...)
	var out bytes.Buffer
	for _, m := range mistakes(t, moved) {
		fmt.Fprintf(&out, "%s%s\n", wantMark, m)
	}
	out.Write(rest)
	return out.Bytes()
}

// TestEveryMessage holds that each message of the package is wanted by a file of testdata.
func TestEveryMessage(t *testing.T) {
	t.Parallel()
	var wanted []string
	for _, path := range glob(t, "testdata/bad/*.yaml") {
		wants, _ := splitWants(read(t, path))
		wanted = append(wanted, wants...)
	}
	for _, path := range glob(t, "testdata/good/*.txtar") {
		wanted = append(wanted, strings.Split(string(section(t, path, "warnings")), "\n")...)
	}
	for _, m := range messages(t) {
		if !matchesAny(m.pattern, wanted) && !elsewhere(m.format) {
			t.Errorf("%s: no file of testdata wants %q", m.place, m.format)
		}
	}
}

// elsewhere are the messages that a small file cannot bring about.
func elsewhere(format string) bool {
	return strings.HasPrefix(format, "the file is larger than") || // TestTooLarge
		format == "%w" || format == "syntax: %v" // a protocol's own; the library always gives a place
}

// message is a format of an error in the source of the package.
type message struct {
	format, place string
	pattern       *regexp.Regexp
}

// messages finds the formats that fail, refuse and warn are called with.
func messages(t *testing.T) []message {
	t.Helper()
	var all []message
	fset := token.NewFileSet()
	for _, path := range glob(t, "*.go") {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if format, ok := reported(n); ok {
				all = append(all, message{format, fset.Position(n.Pos()).String(), asPattern(format)})
			}
			return true
		})
	}
	if len(all) < 50 {
		t.Fatalf("only %d messages were found in the source", len(all))
	}
	return all
}

// reported returns the format of a call of fail, refuse or warn that does not pass on its own arguments.
func reported(n ast.Node) (format string, ok bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) < 2 || call.Ellipsis.IsValid() {
		return "", false
	}
	fun, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || fun.Sel.Name != "fail" && fun.Sel.Name != "refuse" && fun.Sel.Name != "warn" {
		return "", false
	}
	return literal(call.Args[1]), true
}

// literal returns a string that is written in one or several parts.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return literal(e.X) + literal(e.Y)
	case *ast.BasicLit:
		s, _ := strconv.Unquote(e.Value)
		return s
	}
	return "not a literal"
}

var verb = regexp.MustCompile(`%[a-zA-Z]`)

// asPattern returns what matches a message made with format.
func asPattern(format string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`^\d+:\d+: `)
	for i, part := range strings.Split(format, "%%") {
		if i > 0 {
			b.WriteString("%")
		}
		last := 0
		for _, v := range verb.FindAllStringIndex(part, -1) {
			b.WriteString(regexp.QuoteMeta(part[last:v[0]]) + ".+")
			last = v[1]
		}
		b.WriteString(regexp.QuoteMeta(part[last:]))
	}
	return regexp.MustCompile(b.String() + "$")
}

func matchesAny(pattern *regexp.Regexp, texts []string) bool {
	return slices.ContainsFunc(texts, pattern.MatchString)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("find %s: %d files, %v", pattern, len(paths), err)
	}
	return paths
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
