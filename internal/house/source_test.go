// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package house

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const hotMark = "// Hot path: no allocation per packet."

// TestPackageComment: each folder with code has exactly one package comment, and it is in a file that is no test.
func TestPackageComment(t *testing.T) {
	t.Parallel()
	with := map[string][]string{}
	for _, s := range sources(t) {
		if s.isTest() {
			continue
		}
		with[s.folder()] = append(with[s.folder()], nil...)
		if s.Doc == nil {
			continue
		}
		with[s.folder()] = append(with[s.folder()], s.path)
		want := "Package " + s.Name.Name + " "
		if s.Name.Name == "main" {
			want = "Command "
		}
		if !strings.HasPrefix(s.Doc.Text(), want) {
			t.Errorf("%s: the package comment does not begin with %q", s.at(s.Name), want)
		}
	}
	for folder, at := range with {
		if len(at) != 1 {
			t.Errorf("%s: %d package comments %v, want one: what the package is and how data flows through it", folder, len(at), at)
		}
	}
}

// TestNoGlobals: package variables are errors, compiled patterns, embedded files, interface guards and tables
// that are never written. There is no init.
func TestNoGlobals(t *testing.T) {
	t.Parallel()
	written := map[string]map[string]bool{} // by folder: a table may be written in another file
	all := sources(t)
	for _, s := range all {
		if written[s.folder()] == nil {
			written[s.folder()] = map[string]bool{}
		}
		if !s.isTest() {
			writes(s, written[s.folder()])
		}
	}
	for _, s := range all {
		report(t, globals(s, written[s.folder()]))
	}
}

func globals(s *source, written map[string]bool) (found []string) {
	for _, d := range s.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			found = append(found, s.at(f)+": func init: let main call it")
		}
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			if s.excused(v) || embedded(g, v) {
				continue
			}
			for i, name := range v.Names {
				var value ast.Expr
				if i < len(v.Values) {
					value = v.Values[i]
				}
				if !constant(s, name.Name, value, written) {
					found = append(found, fmt.Sprintf("%s: global variable %s: pass it to who uses it", s.at(name), name))
				}
			}
		}
	}
	return found
}

// constant says whether a package variable never changes: Go cannot say it of errors, patterns and tables.
func constant(s *source, name string, value ast.Expr, written map[string]bool) bool {
	switch {
	case name == "_": // a guard: this type implements that interface
		return true
	case name == "version" && s.Name.Name == "main": // the linker writes it
		return true
	case written[name]:
		return false
	case strings.HasPrefix(strings.ToLower(name), "err") && value != nil:
		return true
	}
	switch v := value.(type) {
	case *ast.CallExpr:
		return slices.Contains([]string{"regexp.MustCompile", "template.Must", "strings.NewReplacer"}, callee(v)) ||
			strings.HasPrefix(callee(v), "netip.") ||
			strings.HasPrefix(callee(v), "flag.") && s.isTest() // go test reads flags before any test runs
	case *ast.CompositeLit:
		switch v.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
			return !ast.IsExported(name)
		}
	}
	return false
}

func callee(c *ast.CallExpr) string {
	if s, ok := c.Fun.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name + "." + s.Sel.Name
		}
	}
	return ""
}

func embedded(g *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, c := range []*ast.CommentGroup{g.Doc, v.Doc} {
		if c != nil && strings.HasPrefix(c.List[len(c.List)-1].Text, "//go:embed ") {
			return true
		}
	}
	return false
}

// writes adds the names that s assigns to, takes the address of, deletes from or clears. A local variable of the
// same name counts too: then give the table a better one.
func writes(s *source, into map[string]bool) {
	add := func(e ast.Expr) {
		for {
			switch x := e.(type) {
			case *ast.IndexExpr:
				e = x.X
			case *ast.SliceExpr:
				e = x.X
			case *ast.SelectorExpr:
				e = x.X
			case *ast.ParenExpr:
				e = x.X
			case *ast.Ident:
				into[x.Name] = true
				return
			default:
				return
			}
		}
	}
	ast.Inspect(s.File, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, e := range n.Lhs {
					add(e)
				}
			}
		case *ast.IncDecStmt:
			add(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				add(n.X)
			}
		case *ast.CallExpr:
			if f, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && slices.Contains([]string{"delete", "clear", "copy"}, f.Name) {
				add(n.Args[0])
			}
		}
		return true
	})
}

// TestHotPath: a file with the mark imports nothing that allocates by nature, and its package measures that a call
// allocates nothing.
func TestHotPath(t *testing.T) {
	t.Parallel()
	marked, measured := map[string]string{}, map[string]bool{}
	for _, s := range sources(t) {
		if s.isTest() && strings.Contains(s.text, "testing.AllocsPerRun(") {
			measured[s.folder()] = true
		}
		if hot(s) {
			marked[s.folder()] = s.path
			report(t, hotImports(s))
		}
	}
	for folder, example := range marked {
		if !measured[folder] {
			t.Errorf("%s: %s is marked as hot path, but no test of the package calls testing.AllocsPerRun", folder, example)
		}
	}
}

func hot(s *source) bool { return strings.Contains(s.text, "\n"+hotMark+"\n") }

func hotImports(s *source) (found []string) {
	for _, i := range s.Imports {
		if p, _ := strconv.Unquote(i.Path.Value); slices.Contains([]string{"fmt", "reflect", "log/slog", "log"}, p) {
			found = append(found, fmt.Sprintf("%s: a hot path imports %s: count here, and write outside", s.at(i), p))
		}
	}
	return found
}

// TestOneFamily: an address has exactly one family. The networks "tcp", "udp" and "ip" mean two, and net.IP hides
// which of them an address is of.
func TestOneFamily(t *testing.T) {
	t.Parallel()
	each(t, func(s *source) bool { return !s.isTest() && !s.isHelper() && s.folder() != "ip" }, twoFamilies)
}

func twoFamilies(s *source) (found []string) {
	vague := []string{"ParseIP", "ParseCIDR", "IP", "IPNet", "IPMask", "IPAddr", "IPv4", "LookupIP", "LookupHost"}
	opens := []string{"Dial", "Listen", "Resolve", "LookupNetIP"}
	add := func(n ast.Node, text string) {
		if !s.excused(n) {
			found = append(found, s.at(n)+": "+text)
		}
	}
	ast.Inspect(s.File, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "net" && slices.Contains(vague, n.Sel.Name) {
				add(n, "net."+n.Sel.Name+" hides the family: use netip and package ip")
			}
		case *ast.CallExpr:
			f, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || !slices.ContainsFunc(opens, func(p string) bool { return strings.HasPrefix(f.Sel.Name, p) }) {
				return true
			}
			for _, a := range n.Args {
				if l, ok := a.(*ast.BasicLit); ok && slices.Contains([]string{`"tcp"`, `"udp"`, `"ip"`}, l.Value) {
					v := strings.Trim(l.Value, `"`)
					add(l, fmt.Sprintf("network %q means two families: say %q or %q", v, v+"4", v+"6"))
				}
			}
		}
		return true
	})
	return found
}

// TestFormat: gofmt has nothing to say.
func TestFormat(t *testing.T) {
	t.Parallel()
	each(t, func(*source) bool { return true }, func(s *source) []string {
		var want strings.Builder
		if err := format.Node(&want, s.set, s.File); err != nil {
			return []string{s.path + ": " + err.Error()}
		}
		if want.String() != s.text {
			return []string{s.path + ": not formatted: run `gofmt -w`; first difference:\n" + difference(s.text, want.String())}
		}
		return nil
	})
}

// TestHeaders: whose it is and under which licence, in two lines.
func TestHeaders(t *testing.T) {
	t.Parallel()
	for _, name := range append(files(t, ".go", ".sh", "Makefile"), ".ci/run") {
		text, mark := read(t, name), "# "
		if strings.HasSuffix(name, ".go") {
			mark = "// "
		}
		if strings.HasPrefix(text, "#!") {
			_, text, _ = strings.Cut(text, "\n")
		}
		want := mark + "Copyright the kyozon authors.\n" + mark + "SPDX-License-Identifier: Apache-2.0\n\n"
		if !strings.HasPrefix(text, want) && !strings.Contains(text[:min(len(text), 200)], "// Code generated ") {
			t.Errorf("%s: does not begin with\n%s", name, want)
		}
	}
}
