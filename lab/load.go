// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
)

// problem is a mistake at a place of the file: keys and indices on the way to it.
type problem struct {
	path []string
	err  error
}

// Load reads the lab at path. It returns every mistake it finds, joined, each a *config.Error.
func Load(path string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read lab: %w", err)
	}
	return Parse(path, data)
}

// Parse is Load for a file that is in memory. Relative paths in it begin where path lies.
func Parse(path string, data []byte) (*File, error) {
	f := &File{dir: filepath.Dir(path)}
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, located(path, data, nil, err)
	}
	err = yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(f)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, located(path, data, tree, err)
	}
	var all []*config.Error
	for _, p := range f.check() {
		all = append(all, errorAt(path, data, place(tree, p.path), p.err))
	}
	slices.SortStableFunc(all, func(a, b *config.Error) int { return a.Line - b.Line })
	var joined []error
	for _, e := range all {
		joined = append(joined, e)
	}
	if err := errors.Join(joined...); err != nil {
		return nil, err
	}
	return f, nil
}

// located makes a *config.Error of what the YAML library says.
func located(path string, data []byte, tree *ast.File, err error) error {
	var y yaml.Error
	if errors.As(err, &y) && y.GetToken() != nil {
		return errorAt(path, data, y.GetToken(), errors.New(y.GetMessage()))
	}
	if tree == nil {
		return &config.Error{File: path, Err: err}
	}
	f := finder{message: err.Error()}
	for _, doc := range tree.Docs {
		ast.Walk(&f, doc)
	}
	return errorAt(path, data, f.found, err)
}

// finder finds the value that a message quotes: of a value that is not what its type wants, the library says only
// what the type says.
type finder struct {
	message string
	found   *token.Token
}

// Visit looks at one node.
func (f *finder) Visit(n ast.Node) ast.Visitor {
	if s, ok := n.(ast.ScalarNode); ok && f.found == nil {
		if t := s.GetToken(); t.Value != "" && strings.Contains(f.message, strconv.Quote(t.Value)) {
			f.found = t
		}
	}
	return f
}

func errorAt(path string, data []byte, t *token.Token, err error) *config.Error {
	e := &config.Error{File: path, Err: err}
	if t == nil || t.Position == nil {
		return e
	}
	e.Line, e.Column = t.Position.Line, t.Position.Column
	if lines := strings.Split(string(data), "\n"); e.Line > 0 && e.Line <= len(lines) {
		e.Text = strings.TrimRight(lines[e.Line-1], " \r")
	}
	return e
}

// place returns the token at path, or the deepest on the way to it that the file has.
func place(tree *ast.File, path []string) *token.Token {
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return nil
	}
	node := tree.Docs[0].Body
	at := first(node)
	for _, step := range path {
		key, value := child(node, step)
		if value == nil {
			break
		}
		node, at = value, key
		if s, ok := value.(ast.ScalarNode); ok {
			at = s.GetToken()
		}
	}
	return at
}

// child returns the token that names a child of a node, and the child.
func child(node ast.Node, step string) (*token.Token, ast.Node) {
	switch n := node.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			if v.Key.GetToken().Value == step {
				return v.Key.GetToken(), v.Value
			}
		}
	case *ast.MappingValueNode:
		if n.Key.GetToken().Value == step {
			return n.Key.GetToken(), n.Value
		}
	case *ast.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i < len(n.Values) {
			return first(n.Values[i]), n.Values[i]
		}
	}
	return nil, nil
}

// first returns the token a node begins with. That of a mapping is its first key, not its colon or brace.
func first(node ast.Node) *token.Token {
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return node.GetToken()
}

// UnmarshalYAML reads a list, or one value as a list of it.
func (l *List[T]) UnmarshalYAML(node ast.Node) error {
	if _, ok := node.(*ast.SequenceNode); ok {
		return yaml.NodeToValue(node, (*[]T)(l), yaml.Strict())
	}
	*l = make([]T, 1)
	return yaml.NodeToValue(node, &(*l)[0], yaml.Strict())
}

// UnmarshalText reads a crossing.
func (c *Crossing) UnmarshalText(text []byte) error {
	for _, known := range ip.Crossings() {
		if s := known.String(); string(text) == s || string(text) == strings.Replace(s, "→", "->", 1) {
			c.Crossing = known
			return nil
		}
	}
	return fmt.Errorf("crossing %q: must be 4→4, 4→6, 6→4 or 6→6", text)
}

// adminOf returns where the edge of a site answers questions about itself. Whether the site is right is for the
// edge to say.
func adminOf(site []byte) (netip.AddrPort, error) {
	var s struct {
		Admin struct {
			Listen string `yaml:"listen"`
		} `yaml:"admin"`
	}
	s.Admin.Listen = "127.0.0.1:8464"
	if err := yaml.Unmarshal(site, &s); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read site: %w", err)
	}
	a, err := netip.ParseAddrPort(s.Admin.Listen)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read admin.listen of site: %w", err)
	}
	return a, nil
}
