// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// This file alone knows the YAML library. It turns the library's tree into nodes and refuses what a site file
// does not need: anchors, aliases, merge keys, tags, directives and a second document. What a scalar means is
// decided by the field it is for, from its text: `yes` is never true, 010 is never 8.

// maxDepth is how deep a site file may be nested. The deepest that means something is about ten.
const maxDepth = 64

// kind is what a node is.
type kind uint8

const (
	null    kind = iota // nothing was written, or `null`
	scalar              // text
	list                // items
	mapping             // pairs
	refused             // YAML that a site file does not use; it has been reported
)

// String returns the word that messages use.
func (k kind) String() string {
	return [...]string{"nothing", "a value", "a list", "a mapping", "refused"}[k]
}

// node is one value of the file and where it stands.
type node struct {
	kind         kind
	line, column int
	text         string // of a scalar, without quotes
	items        []*node
	pairs        []pair // in the order of the file; keys may be equal
	parent       *node
	key          *node // the key it is the value of, if it is one
	bad          bool  // a mistake was reported here or below
}

// pair is a key of a mapping and its value.
type pair struct{ key, value *node }

// name returns where to point when n is incomplete: at its key, if it has one.
func (n *node) name() *node {
	if n.key != nil {
		return n.key
	}
	return n
}

// get returns the value of a key, or nil.
func (n *node) get(key string) *node {
	for _, p := range n.pairs {
		if p.key.text == key {
			return p.value
		}
	}
	return nil
}

// find returns what is written at a path below n, or the nearest name above it.
func (n *node) find(path []string) *node {
	for _, step := range path {
		next := n.get(step)
		if i, err := strconv.Atoi(step); err == nil && n.kind == list && i >= 0 && i < len(n.items) {
			next = n.items[i]
		}
		if next == nil {
			return n.name()
		}
		n = next
	}
	return n
}

// place returns where to point at what n says: of a mapping at its name.
func (n *node) place() *node {
	if n.kind == mapping {
		return n.name()
	}
	return n
}

// unquoted finds an IPv6 address with a port that YAML takes for a list, the commonest mistake in a site file.
var unquoted = regexp.MustCompile(`(?:^|[\s,:\[{])(\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]:[0-9]+)`)

// unquotedNetwork is the same mistake with a network.
var unquotedNetwork = regexp.MustCompile(`(?:^|[\s,:\[{])\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\](/[0-9]+)`)

// readYAML returns the root of the file, or nil after reporting why there is none.
func (r *report) readYAML(data []byte) *node {
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey()) // with our own error, naming both places
	if err != nil {
		r.syntaxError(err)
		return nil
	}
	y := yamlReader{r}
	var root *node
	for _, doc := range file.Docs {
		switch {
		case doc.Body == nil:
		case doc.Body.Type() == ast.DirectiveType:
			r.fail(place(doc.Body.GetToken()), "YAML directives are not used in a site file")
		case root != nil:
			r.fail(place(doc.Body.GetToken()), "a second document: a site file is one")
			return root
		default:
			root = y.node(doc.Body, nil, 0)
		}
	}
	if root == nil && len(r.mistakes) == 0 {
		r.fail(nil, "the file is empty")
	}
	return root
}

// syntaxError reports what the library could not read.
func (r *report) syntaxError(err error) {
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) {
		r.fail(nil, "syntax: %v", err)
		return
	}
	at := place(syntax.Token)
	if m := unquoted.FindStringSubmatch(r.at(at, nil).Text); m != nil {
		r.fail(at, `syntax: quote an IPv6 address with a port, as in "%s"`, m[1])
		return
	}
	if m := unquotedNetwork.FindStringSubmatch(r.at(at, nil).Text); m != nil {
		r.fail(at, `syntax: write an IPv6 network without brackets and in quotes: "%s%s"`, m[1], m[2])
		return
	}
	r.fail(at, "syntax: %s", syntax.Message)
}

// place returns an empty node where t is.
func place(t *token.Token) *node {
	if t == nil || t.Position == nil {
		return &node{line: 1, column: 1}
	}
	return &node{line: t.Position.Line, column: t.Position.Column}
}

// yamlReader turns the library's nodes into ours.
type yamlReader struct{ *report }

func (y yamlReader) node(from ast.Node, parent *node, depth int) *node {
	n := place(from.GetToken())
	n.parent = parent
	if depth > maxDepth {
		y.refuse(n, "nested more than %d deep", maxDepth)
		return n
	}
	switch from := from.(type) {
	case *ast.MappingNode:
		n.kind = mapping
		for _, v := range from.Values {
			y.pair(n, v, depth)
		}
		if len(n.pairs) > 0 && !from.IsFlowStyle {
			n.line, n.column = n.pairs[0].key.line, n.pairs[0].key.column // the library says where the colon is
		}
	case *ast.MappingValueNode:
		n.kind = mapping
		y.pair(n, from, depth)
	case *ast.SequenceNode:
		n.kind = list
		for _, v := range from.Values {
			n.items = append(n.items, y.node(v, n, depth+1))
		}
	default:
		y.scalar(n, from)
	}
	return n
}

// pair adds a key and its value to n.
func (y yamlReader) pair(n *node, from *ast.MappingValueNode, depth int) {
	key := place(from.Key.GetToken())
	key.parent = n
	if y.scalar(key, from.Key); key.kind == refused {
		return
	}
	value := y.node(from.Value, n, depth+1)
	value.key = key
	n.pairs = append(n.pairs, pair{key, value})
}

// scalar takes the text of a key or value as it was written.
func (y yamlReader) scalar(n *node, from ast.Node) {
	n.kind, n.text = scalar, from.GetToken().Value
	switch from := from.(type) {
	case *ast.NullNode:
		n.kind = null
	case *ast.StringNode:
		n.text = from.Value
	case *ast.LiteralNode:
		n.text = from.Value.Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
	case *ast.AnchorNode, *ast.AliasNode:
		y.refuse(n, "anchors and aliases are not used in a site file; write the value out")
	case *ast.MergeKeyNode:
		y.refuse(n, "merge keys are not used in a site file; write the keys out")
	case *ast.TagNode:
		y.refuse(n, "tags are not used in a site file; the key decides what a value is")
	default:
		y.refuse(n, "this form of YAML is not used in a site file; a key must be one word")
	}
}

// refuse reports YAML that cannot be decoded.
func (y yamlReader) refuse(n *node, format string, args ...any) {
	n.kind = refused
	y.fail(n, format, args...)
}
