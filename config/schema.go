// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	_ "embed"
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/invopop/jsonschema"

	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/service"
)

// fileSource is file.go itself, whose comments describe the keys.
//
//go:embed file.go
var fileSource string

// Schema returns the JSON Schema (draft 2020-12) of a site file, for editors. It is made of the types that the decoder
// fills, so that both know the same keys; what only check.go knows is not in it.
func Schema(protocols []service.Protocol) ([]byte, error) {
	s, err := schemaOf(protocols)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(s, "", "  ")
}

func schemaOf(protocols []service.Protocol) (*jsonschema.Schema, error) {
	comments, err := readComments(fileSource)
	if err != nil {
		return nil, fmt.Errorf("read comments: %w", err)
	}
	s := &schemer{comments: comments, protocols: protocols, options: make(map[string]map[string]string)}
	for _, p := range protocols {
		if s.options[p.Name], err = readComments(p.Sources...); err != nil {
			return nil, fmt.Errorf("read comments of %s: %w", p.Name, err)
		}
	}
	file := reflect.New(reflect.TypeFor[siteFile]()).Elem()
	setDefaults(file)
	root := s.of(file)
	root.Version = jsonschema.Version
	return root, nil
}

// readComments returns the comments of all structs ("siteFile") and fields ("siteFile.Site") of sources.
func readComments(sources ...string) (map[string]string, error) {
	all := make(map[string]string)
	for _, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), "file.go", source, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		addComments(all, file)
	}
	return all, nil
}

func addComments(all map[string]string, file *ast.File) {
	for _, d := range file.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		spec := gen.Specs[0].(*ast.TypeSpec)
		all[spec.Name.Name] = withoutName(spec.Name.Name, oneLine(gen.Doc.Text()))
		structure, ok := spec.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, f := range structure.Fields.List {
			all[spec.Name.Name+"."+f.Names[0].Name] = oneLine(f.Doc.Text())
		}
	}
}

// withoutName returns the comment of a type as a sentence for who does not read Go: "Pair is a chain." becomes "A chain."
func withoutName(name, comment string) string {
	for _, verb := range []string{" is ", " are "} {
		if rest, ok := strings.CutPrefix(comment, name+verb); ok && rest != "" {
			return strings.ToUpper(rest[:1]) + rest[1:]
		}
	}
	return comment
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// schemer makes the schema of a type from a value that holds its defaults.
type schemer struct {
	comments  map[string]string
	options   map[string]map[string]string // the comments of each protocol's options
	protocols []service.Protocol
}

// schemed is a shaped type, whose schema cannot be seen from its fields.
type schemed interface {
	schema(s *schemer) *jsonschema.Schema
}

// of returns the schema of v. The title says in prose what may be written.
func (s *schemer) of(v reflect.Value) *jsonschema.Schema {
	if special, ok := reflect.TypeAssert[schemed](v.Addr()); ok {
		return special.schema(s)
	}
	switch v.Kind() {
	case reflect.Pointer:
		elem := reflect.New(v.Type().Elem()).Elem()
		setDefaults(elem)
		return s.of(elem)
	case reflect.Struct:
		if isCompound(v.Type()) {
			if isScalar(v.Type()) {
				return anyOf(text("one word", ""), s.object(v))
			}
			return s.object(v)
		}
	case reflect.Slice:
		elem := reflect.New(v.Type().Elem()).Elem()
		setDefaults(elem)
		items := s.of(elem)
		return &jsonschema.Schema{Type: "array", Items: items, Title: "a list, each " + prose(items)}
	case reflect.Map:
		elem := reflect.New(v.Type().Elem()).Elem()
		setDefaults(elem)
		values := s.of(elem)
		return &jsonschema.Schema{Type: "object", AdditionalProperties: values, Title: "a mapping from words to " + prose(values)}
	}
	return scalarSchema(v)
}

// object returns the schema of a mapping into the fields of v.
func (s *schemer) object(v reflect.Value) *jsonschema.Schema {
	name := v.Type().Name()
	o := &jsonschema.Schema{
		Type:                 "object",
		Title:                strings.TrimSuffix(inLower(name), "File"),
		Description:          s.comments[name],
		Properties:           jsonschema.NewProperties(),
		AdditionalProperties: jsonschema.FalseSchema,
	}
	for _, f := range fieldsOf(v.Type()) {
		value := v.FieldByIndex(f.index)
		p := s.of(value)
		limitSchema(p, f.limits)
		p.Description = s.describe(name, f)
		if f.required {
			o.Required = append(o.Required, f.key)
		} else {
			p.Default = defaultOf(value)
		}
		o.Properties.Set(f.key, p)
	}
	return o
}

// inLower returns the name of a type with a small letter first, unless it is an abbreviation.
func inLower(name string) string {
	if len(name) > 1 && strings.ToUpper(name[:2]) == name[:2] {
		return name
	}
	return strings.ToLower(name[:1]) + name[1:]
}

// describe returns the comment of a field or, if it has none, of its type.
func (s *schemer) describe(name string, f field) string {
	if d := s.comments[name+"."+f.name]; d != "" {
		return d
	}
	t := f.typ
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return s.comments[t.Name()]
}

// prose returns what to call p in the title of what it is part of.
func prose(p *jsonschema.Schema) string {
	if p.Properties != nil {
		return "a " + p.Title
	}
	return p.Title
}

// scalarSchema returns the schema of what is written as one word.
func scalarSchema(v reflect.Value) *jsonschema.Schema {
	switch into := v.Addr().Interface().(type) {
	case words:
		return enum(into.words())
	case *time.Duration:
		return text("a duration", `^([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*$`)
	case *netip.Addr:
		return text("an address", "")
	case *netip.AddrPort:
		return text("an address with a port", `:[0-9]+$`)
	case *netip.Prefix:
		return text("a network", `/[0-9]+$`)
	case *service.Path:
		return text("a file", "")
	case *limit.Rate:
		return text("a rate", `^[0-9]+/[smh]$`)
	case *service.Bytes:
		return text("a size", `^[0-9]+ ?([KMG]i)?B$`)
	case *service.Percent:
		return text("a percentage", `^[0-9.]+%$`)
	case encoding.TextUnmarshaler:
		return text("a word", "")
	}
	switch v.Kind() {
	case reflect.Bool:
		return &jsonschema.Schema{Type: "boolean", Title: "`true` or `false`"}
	case reflect.String:
		return text("text", "")
	case reflect.Float32, reflect.Float64:
		return &jsonschema.Schema{Type: "number", Title: "a number"}
	}
	return &jsonschema.Schema{Type: "integer", Title: "a number"}
}

// enum returns the schema of one of a few words.
func enum(all []string) *jsonschema.Schema {
	e := &jsonschema.Schema{Type: "string"}
	var quoted []string
	for _, w := range all {
		e.Enum = append(e.Enum, w)
		quoted = append(quoted, "`"+w+"`")
	}
	e.Title = enumerate(quoted, "or")
	return e
}

// text returns the schema of a word.
func text(title, pattern string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Title: title, Pattern: pattern}
}

// anyOf returns the schema of what may be written in several ways, the shortest first.
func anyOf(forms ...*jsonschema.Schema) *jsonschema.Schema {
	titles := make([]string, len(forms))
	for i, f := range forms {
		titles[i] = prose(f)
	}
	return &jsonschema.Schema{AnyOf: forms, Title: enumerate(titles, "or")}
}

// limitSchema adds the limits of a tag.
func limitSchema(p *jsonschema.Schema, limits string) {
	low, high, ok := strings.Cut(limits, "..")
	switch {
	case !ok:
	case high == "":
		p.Title += ", " + low + " or more"
	default:
		p.Title += " from " + low + " to " + high
	}
	if p.Type == "integer" {
		p.Minimum, p.Maximum = json.Number(low), json.Number(high)
	}
}

// defaultOf returns the default as it would be written, or nil if nothing stands for it.
func defaultOf(v reflect.Value) any {
	if l, ok := reflect.TypeAssert[interface{ inner() reflect.Value }](v.Addr()); ok {
		v = l.inner()
	}
	if v.Kind() == reflect.Pointer {
		return nil
	}
	if w, ok := reflect.TypeAssert[words](v); ok {
		return w.words()[v.Uint()]
	}
	if v.IsZero() || v.Kind() == reflect.Struct && isCompound(v.Type()) {
		return nil
	}
	switch value := v.Interface().(type) {
	case time.Duration:
		return shortDuration(value)
	case fmt.Stringer:
		return value.String()
	}
	if _, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return nil // a word, and only reading it is known
	}
	switch v.Kind() {
	case reflect.Bool, reflect.String, reflect.Int, reflect.Float64, reflect.Uint8, reflect.Int64:
		return v.Interface()
	}
	return nil
}

// shortDuration writes a duration as a person would: 36d, 1m, 1h30m.
func shortDuration(t time.Duration) string {
	const day = 24 * time.Hour
	if t%day == 0 {
		return strconv.Itoa(int(t/day)) + "d"
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
