// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"testing"

	"github.com/kyozon/kyozon/config"
)

// described is the part of a JSON Schema that TestSchemaDescribes looks at.
type described struct {
	Description          string               `json:"description"`
	Properties           map[string]described `json:"properties"`
	Items                *described           `json:"items"`
	AdditionalProperties json.RawMessage      `json:"additionalProperties"`
}

// TestSchemaDescribes: an editor is told what each key is for, those of the protocols' own sections too.
func TestSchemaDescribes(t *testing.T) {
	t.Parallel()
	text, err := config.Schema(protocols())
	if err != nil {
		t.Fatal(err)
	}
	var root, service described
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(root.Properties["services"].AdditionalProperties, &service); err != nil {
		t.Fatal(err)
	}
	keys := 0
	var walk func(path string, d described)
	walk = func(path string, d described) {
		for key, below := range d.Properties {
			keys++
			if below.Description == "" {
				t.Errorf("%s.%s has no description", path, key)
			}
			walk(path+"."+key, below)
		}
		if d.Items != nil {
			walk(path+"[]", *d.Items)
		}
	}
	for _, p := range protocols() {
		walk(p.Name, service.Properties[p.Name])
	}
	if keys < 20 {
		t.Errorf("only %d keys", keys)
	}
}
