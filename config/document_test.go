// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"
)

// TestDocument holds that docs/config.md says what the comments of file.go say. go generate writes it.
func TestDocument(t *testing.T) {
	t.Parallel()
	const path = "../docs/config.md"
	root, err := schemaOf(nil)
	if err != nil {
		t.Fatal(err)
	}
	got := document(root, section(t, "testdata/good/document.txtar", "site.yaml"))
	if *update {
		write(t, path, got)
	}
	if diff := cmp.Diff(string(read(t, path)), string(got)); diff != "" {
		t.Errorf("docs/config.md is stale; run go generate ./config (-file +comments):\n%s", diff)
	}
}

// document writes the reference of the site file out of its schema.
func document(root *jsonschema.Schema, example []byte) []byte {
	d := &documenter{seen: make(map[string]string)}
	fmt.Fprintf(d, "# The site file\n\n<!-- Made by go generate ./config out of the comments in config/file.go. Do not edit. -->\n\n")
	fmt.Fprintf(d, "%s `kyozon check FILE` says all that is wrong with one; `kyozon schema` prints its JSON Schema for editors.\n\n", root.Description)
	fmt.Fprintf(d, "```yaml site\n%s```\n\n", example)
	d.object("", root)
	return append(bytes.TrimRight(d.Bytes(), "\n"), '\n')
}

// documenter writes one section for each mapping of the file.
type documenter struct {
	bytes.Buffer
	seen map[string]string // titles of the mappings written, and where
}

// object writes the section of the mapping at path, then those below it.
func (d *documenter) object(path string, o *jsonschema.Schema) {
	if path != "" {
		fmt.Fprintf(d, "## `%s`\n\n%s\n\n", path, o.Description)
	}
	for p := o.Properties.Oldest(); p != nil; p = p.Next() {
		d.key(p.Key, p.Value, slices.Contains(o.Required, p.Key))
	}
	d.WriteString("\n")
	if path == "services.NAME" {
		d.WriteString("A section with the name of the protocol holds what only that protocol understands: see the README " +
			"of its folder in [protocol](../protocol), and what `kyozon schema` says of each key.\n\n")
	}
	for p := o.Properties.Oldest(); p != nil; p = p.Next() {
		d.below(strings.TrimPrefix(path+"."+p.Key, "."), p.Value)
	}
}

// key writes one key: what it is, its default, what it means.
func (d *documenter) key(key string, p *jsonschema.Schema, required bool) {
	fmt.Fprintf(d, "- **`%s`**: %s", key, kindOf(p))
	switch {
	case required:
		d.WriteString(", required")
	case p.Default != nil:
		fmt.Fprintf(d, ", default `%v`", p.Default)
	}
	what := p.Description
	if p.Properties != nil { // it has a section of its own
		what, _, _ = strings.Cut(what, ". ")
		what = strings.TrimSuffix(what, ".") + "."
	}
	fmt.Fprintf(d, ". %s\n", what)
}

// kindOf says in prose what may be written for p.
func kindOf(p *jsonschema.Schema) string {
	if p.Properties != nil {
		return "a mapping"
	}
	if len(p.AnyOf) == 0 {
		return p.Title
	}
	var forms []string
	for _, f := range p.AnyOf {
		forms = append(forms, kindOf(f))
	}
	return enumerate(forms, "or")
}

// below writes the sections of the mappings in p. A mapping that was described elsewhere is not described again.
func (d *documenter) below(path string, p *jsonschema.Schema) {
	switch {
	case p.Properties != nil && d.seen[p.Title] == "":
		d.seen[p.Title] = path
		d.object(path, p)
	case p.Properties == nil && p.AdditionalProperties != nil:
		d.below(path+".NAME", p.AdditionalProperties)
	case p.Items != nil:
		d.below(path+"[]", p.Items)
	}
	for _, f := range p.AnyOf { // the whole form first, then what the short ones hold
		if f.Properties != nil {
			d.below(path, f)
		}
	}
	for _, f := range p.AnyOf {
		if f.Properties == nil {
			d.below(path, f)
		}
	}
}

// TestDescriptions holds that each struct and key of the file has its comment.
func TestDescriptions(t *testing.T) {
	t.Parallel()
	root, err := schemaOf(nil)
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	var walk func(path string, p *jsonschema.Schema)
	walk = func(path string, p *jsonschema.Schema) {
		if p == nil {
			return
		}
		if p.Properties != nil {
			if p.Description == "" {
				t.Errorf("%s has no comment", path)
			}
			for e := p.Properties.Oldest(); e != nil; e = e.Next() {
				keys++
				if e.Value.Description == "" || !strings.HasSuffix(e.Value.Description, ".") {
					t.Errorf("%s.%s: comment %q", path, e.Key, e.Value.Description)
				}
				walk(path+"."+e.Key, e.Value)
			}
		}
		walk(path+".NAME", p.AdditionalProperties)
		walk(path+"[]", p.Items)
		for _, f := range p.AnyOf {
			walk(path, f)
		}
	}
	walk("", root)
	if keys < 40 {
		t.Errorf("only %d keys were found", keys)
	}
}
