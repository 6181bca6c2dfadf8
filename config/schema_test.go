// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/invopop/jsonschema"
)

// TestSchema holds that the schema accepts what the decoder accepts, and knows the same keys.
func TestSchema(t *testing.T) {
	t.Parallel()
	data, err := Schema(protocols())
	if err != nil {
		t.Fatal(err)
	}
	root := new(jsonschema.Schema)
	if err := json.Unmarshal(data, root); err != nil {
		t.Fatal(err)
	}
	for _, path := range glob(t, "testdata/good/*.txtar") {
		n := nodes(t, section(t, path, "site.yaml"))
		if err := conforms(n, root); err != nil {
			t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	for _, name := range []string{"unknown-key", "missing", "words", "wrong-kind", "share-form", "protocol-other-section",
		"protocol-unknown", "empty-list", "no-services", "ranges", "route-key"} {
		if conforms(nodes(t, read(t, "testdata/bad/"+name+".yaml")), root) == nil {
			t.Errorf("%s: the schema accepts it", name)
		}
	}
}

func nodes(t *testing.T, data []byte) *node {
	t.Helper()
	r := &report{lines: []string{""}}
	n := r.readYAML(data)
	if n == nil {
		t.Fatal(r.err())
	}
	return n
}

// conforms checks n against the keywords of JSON Schema that Schema uses.
func conforms(n *node, s *jsonschema.Schema) error {
	if s == nil {
		return nil
	}
	if isFalse(s) {
		return fmt.Errorf("%d:%d: not allowed", n.line, n.column)
	}
	if len(s.AnyOf) > 0 && !slices.ContainsFunc(s.AnyOf, func(s *jsonschema.Schema) bool { return conforms(n, s) == nil }) {
		return fmt.Errorf("%d:%d: not %s", n.line, n.column, s.Title)
	}
	for _, rule := range s.AllOf {
		if conforms(n, rule.If) == nil {
			if err := conforms(n, rule.Then); err != nil {
				return err
			}
		}
	}
	switch {
	case s.Const != nil && s.Const != n.text, s.Type != "" && !hasType(n, s),
		n.kind == list && s.MinItems != nil && len(n.items) == 0,
		n.kind == mapping && s.MinProperties != nil && len(n.pairs) == 0:
		return fmt.Errorf("%d:%d: %q is not %s", n.line, n.column, n.text, s.Title)
	}
	for _, item := range n.items {
		if err := conforms(item, s.Items); err != nil {
			return err
		}
	}
	return conformsKeys(n, s)
}

func conformsKeys(n *node, s *jsonschema.Schema) error {
	for _, p := range n.pairs {
		value := s.AdditionalProperties
		if s.Properties != nil {
			if known, ok := s.Properties.Get(p.key.text); ok {
				value = known
			}
		}
		if err := conforms(p.value, value); err != nil {
			return err
		}
	}
	for _, key := range s.Required {
		if n.get(key) == nil {
			return fmt.Errorf("%d:%d: %s is missing", n.line, n.column, key)
		}
	}
	return nil
}

// hasType checks type, enum, pattern and limits.
func hasType(n *node, s *jsonschema.Schema) bool {
	number, err := strconv.ParseFloat(n.text, 64)
	low, _ := s.Minimum.Float64()
	high, none := s.Maximum.Float64()
	switch s.Type {
	case "object":
		return n.kind == mapping
	case "array":
		return n.kind == list
	case "boolean":
		return n.text == "true" || n.text == "false"
	case "integer", "number":
		return n.kind == scalar && err == nil && number >= low && (none != nil || number <= high)
	}
	return n.kind == scalar && regexp.MustCompile(s.Pattern).MatchString(n.text) &&
		(len(s.Enum) == 0 || slices.Contains(s.Enum, any(n.text)))
}

// isFalse says whether s is the schema that accepts nothing, as it comes out of JSON.
func isFalse(s *jsonschema.Schema) bool {
	data, err := json.Marshal(s)
	return err == nil && string(data) == "false"
}
