// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/kyozon/kyozon/service"
)

// Document returns the reference of the site file, docs/config.md, made of its schema. example is shown at the top.
func Document(protocols []service.Protocol, example []byte) ([]byte, error) {
	root, err := schemaOf(protocols)
	if err != nil {
		return nil, err
	}
	d := &documenter{seen: make(map[string]bool)}
	d.WriteString("# The site file\n\n<!-- Made by go generate ./cmd/kyozon out of the comments in config/file.go and protocol/*/options.go. Do not edit. -->\n\n")
	fmt.Fprintf(d, "%s `kyozon check FILE` says all that is wrong with one; `kyozon schema` prints its JSON Schema for editors.\n\n", root.Description)
	fmt.Fprintf(d, "```yaml site\n%s```\n\n", example)
	d.object("", root)
	return append(bytes.TrimRight(d.Bytes(), "\n"), '\n'), nil
}

// documenter writes one section for each mapping of the file.
type documenter struct {
	bytes.Buffer
	seen map[string]bool // the mappings written, by title and description: types of several protocols have one name
}

// object writes the section of the mapping at path, then those below it.
func (d *documenter) object(path string, o *jsonschema.Schema) {
	if path != "" {
		fmt.Fprintf(d, "## `%s`\n\n%s\n\n", path, o.Description)
	}
	for p := o.Properties.Oldest(); p != nil; p = p.Next() {
		if p.Value.Properties == nil && p.Value.Title == p.Key {
			continue // a protocol without keys of its own
		}
		d.key(p.Key, p.Value, slices.Contains(o.Required, p.Key))
	}
	d.WriteString("\n")
	if path == "services.NAME" {
		d.WriteString("A section with the name of the protocol holds what only that protocol understands. What it is for, with " +
			"examples, is in the README of its folder in [protocol](../protocol).\n\n")
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
	case p.Properties != nil && !d.seen[p.Title+p.Description]:
		d.seen[p.Title+p.Description] = true
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
