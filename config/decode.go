// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/kyozon/kyozon/service"
)

// decoder fills Go values from nodes, strictly: every key must have a field and every value the field's type.
// It knows what a field may hold from its type alone, as the schema does:
//
//	shaped            decodes itself: what may be written in several ways
//	struct            a mapping; the keys are in the tags: `yaml:"key"` or `yaml:"key,required"`
//	slice, map        a list, a mapping
//	words             one of a few words
//	everything else   a scalar, see scalar.go
//
// A tag `range:"1..256"` or `range:"1ms.."` limits a number or a duration.
type decoder struct {
	*report
	dir       string // where a service.Path that is not absolute begins
	protocols []service.Protocol
}

// shaped is a value of the file that may be written in several ways.
type shaped interface {
	shape(d *decoder, n *node)
}

// defaulter is a struct of the file that is not empty where nothing is written.
type defaulter interface{ setDefaults() }

// located is a value with its place. The place is nil where nothing was written.
type located[T any] struct {
	value T
	node  *node
}

func (l *located[T]) shape(d *decoder, n *node) {
	l.node = n
	d.value(n, reflect.ValueOf(&l.value).Elem())
}

// inner returns the value that a range is about.
func (l *located[T]) inner() reflect.Value { return reflect.ValueOf(&l.value).Elem() }

// dict is a mapping whose keys are names that the file gives. It keeps their order.
type dict[T any] struct {
	node    *node
	entries []entry[T]
}

// entry is one name of a dict and what it names.
type entry[T any] struct {
	name  string
	key   *node
	value T
}

// nameForm is how a name may be written, so that it can be a label of a metric and a word of a command.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func (m *dict[T]) shape(d *decoder, n *node) {
	m.node = n
	if !d.is(n, mapping) {
		return
	}
	if len(n.pairs) == 0 {
		d.fail(n, "must not be empty")
	}
	for _, p := range d.unique(n) {
		if !nameForm.MatchString(p.key.text) {
			d.fail(p.key, "%q cannot be a name; use letters, digits, dots, dashes and underscores, at most 63", p.key.text)
		}
		m.entries = append(m.entries, entry[T]{name: p.key.text, key: p.key})
		v := reflect.ValueOf(&m.entries[len(m.entries)-1].value).Elem()
		setDefaults(v)
		d.value(p.value, v)
	}
}

// get returns what name names, or nil.
func (m *dict[T]) get(name string) *T {
	for i := range m.entries {
		if m.entries[i].name == name {
			return &m.entries[i].value
		}
	}
	return nil
}

// setDefaults calls setDefaults of v and of all structs inside it.
func setDefaults(v reflect.Value) {
	if v.Kind() != reflect.Struct {
		return
	}
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			setDefaults(v.Field(i))
		}
	}
	if s, ok := reflect.TypeAssert[defaulter](v.Addr()); ok {
		s.setDefaults()
	}
}

// value decodes n into v, which must be settable.
func (d *decoder) value(n *node, v reflect.Value) {
	switch n.kind {
	case refused:
		return
	case null:
		d.fail(n.name(), "has no value; write one or remove it")
		n.bad = true
		return
	}
	if s, ok := reflect.TypeAssert[shaped](v.Addr()); ok {
		s.shape(d, n)
		return
	}
	if isScalar(v.Type()) && (n.kind == scalar || !isCompound(v.Type())) {
		if d.is(n, scalar) {
			d.scalar(n, v)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		setDefaults(v.Elem())
		d.value(n, v.Elem())
	case reflect.Struct:
		d.structure(n, v)
	case reflect.Slice:
		d.slice(n, v)
	case reflect.Map:
		d.table(n, v)
	default:
		d.fail(n, "cannot be written in a site file: the program has no form for %v", v.Type())
	}
}

// isCompound says whether t may be written as a mapping or a list, perhaps beside a short form in one word.
func isCompound(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		return len(fieldsOf(t)) > 0
	case reflect.Slice, reflect.Map:
		return true
	}
	return false
}

// is reports a mistake if n is not of kind k.
func (d *decoder) is(n *node, k kind) bool {
	switch {
	case n.kind == k:
		return true
	case k == list && n.kind == scalar:
		d.fail(n, "must be a list, not a value; write [%s]", n.text)
	default:
		d.fail(n, "must be %v, not %v", k, n.kind)
	}
	return false
}

func (d *decoder) slice(n *node, v reflect.Value) {
	if !d.is(n, list) {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.items), len(n.items)))
	for i, item := range n.items {
		setDefaults(v.Index(i))
		d.value(item, v.Index(i))
	}
}

func (d *decoder) table(n *node, v reflect.Value) {
	if !d.is(n, mapping) {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, p := range d.unique(n) {
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		d.value(p.key, key)
		setDefaults(elem)
		d.value(p.value, elem)
		v.SetMapIndex(key, elem)
	}
}

// unique returns the pairs of a mapping but for those whose key was there before.
func (d *decoder) unique(n *node) []pair {
	var pairs []pair
	first := make(map[string]*node)
	for _, p := range n.pairs {
		if before, ok := first[p.key.text]; ok {
			d.fail(p.key, "duplicate key %q; the first is in line %d", p.key.text, before.line)
			continue
		}
		first[p.key.text] = p.key
		pairs = append(pairs, p)
	}
	return pairs
}

// structure decodes a mapping into the fields of v. Keys named in others are allowed too and left alone.
func (d *decoder) structure(n *node, v reflect.Value, others ...string) {
	if !d.is(n, mapping) {
		return
	}
	fields := fieldsOf(v.Type())
	meant := make(map[string]bool) // keys that others were probably meant to be
	for _, p := range d.unique(n) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == p.key.text })
		switch {
		case i >= 0:
			into := v.FieldByIndex(fields[i].index)
			d.value(p.value, into)
			d.limit(p.value, into, fields[i].limits)
		case !slices.Contains(others, p.key.text):
			meant[d.unknown(p.key, fields, others)] = true
		}
	}
	for _, f := range fields {
		if f.required && n.get(f.key) == nil && !meant[f.key] {
			d.missing(n, f.key)
		}
	}
}

// missing reports that n has no value for key.
func (d *decoder) missing(n *node, key string) {
	if n.key == nil {
		d.fail(n, "%q is missing", key)
		return
	}
	d.fail(n.key, "%q is missing in %q", key, n.key.text)
	n.bad = true
}

// bareIPv6 returns the IPv6 address of which the library has taken a part for a key, if it has.
func (d *decoder) bareIPv6(key *node) netip.Addr {
	line := []rune(d.lines[min(key.line, len(d.lines))-1])
	rest := string(line[min(key.column-1, len(line)):])
	if end := strings.IndexFunc(rest, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF:.", r) }); end >= 0 {
		rest = rest[:end]
	}
	a, err := netip.ParseAddr(rest)
	if err != nil || a.Is4() {
		return netip.Addr{}
	}
	return a
}

// unknown reports a key that no field has. It returns the key that was probably meant, or "".
func (d *decoder) unknown(key *node, fields []field, others []string) string {
	known := slices.Clone(others)
	for _, f := range fields {
		known = append(known, f.key)
	}
	slices.Sort(known)
	like := service.Nearest(key.text, known)
	switch bare := d.bareIPv6(key); {
	case bare.IsValid():
		d.fail(key, "quote an IPv6 address with a port, as in %s", withPort(bare.String(), bare))
	case like != "":
		d.fail(key, "unknown key %q; did you mean %q?", key.text, like)
	case len(known) == 0:
		d.fail(key, "unknown key %q; there are no keys here", key.text)
	default:
		d.fail(key, "unknown key %q; known here: %s", key.text, enumerate(known, "and"))
	}
	return like
}

// field is a field of a struct that a key of the file fills.
type field struct {
	key      string
	index    []int
	name     string // in Go
	typ      reflect.Type
	required bool
	limits   string
}

// fieldsOf returns the fields of t that have a key, in order, with those of embedded structs.
func fieldsOf(t reflect.Type) []field {
	var fields []field
	for _, f := range reflect.VisibleFields(t) {
		tag, ok := f.Tag.Lookup("yaml")
		if !ok || tag == "-" {
			continue
		}
		key, option, _ := strings.Cut(tag, ",")
		fields = append(fields, field{key: key, index: f.Index, name: f.Name, typ: f.Type,
			required: option == "required", limits: f.Tag.Get("range")})
	}
	return fields
}
