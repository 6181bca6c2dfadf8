// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
)

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
