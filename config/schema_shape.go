// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"reflect"
	"time"

	"github.com/invopop/jsonschema"
)

// The schemas of what may be written in several ways: the counterparts of the shape methods.

func (l *located[T]) schema(s *schemer) *jsonschema.Schema { return s.of(l.inner()) }

func (m *dict[T]) schema(s *schemer) *jsonschema.Schema {
	value := reflect.New(reflect.TypeFor[T]()).Elem()
	setDefaults(value)
	one := uint64(1)
	values := s.of(value)
	return &jsonschema.Schema{
		Type:                 "object",
		Title:                "a mapping from names to " + prose(values),
		MinProperties:        &one,
		PropertyNames:        &jsonschema.Schema{Pattern: nameForm.String()},
		AdditionalProperties: values,
	}
}

// schema of a service has the section of each protocol and refuses those of the others.
func (f *serviceFile) schema(s *schemer) *jsonschema.Schema {
	o := s.object(reflect.ValueOf(f).Elem())
	protocol, _ := o.Properties.Get("protocol")
	for _, p := range s.protocols {
		protocol.Enum = append(protocol.Enum, p.Name)
		own := &schemer{comments: s.options[p.Name]}
		options := own.of(reflect.ValueOf(p.Options()).Elem())
		options.Title = p.Name
		options.Description = "What only " + p.Name + " understands (" + p.Doc + ")."
		o.Properties.Set(p.Name, options)
		others := jsonschema.NewProperties()
		for _, other := range s.protocols {
			if other.Name != p.Name {
				others.Set(other.Name, jsonschema.FalseSchema)
			}
		}
		required := ofServers()[:2]
		if p.Standalone {
			required = nil
			for _, key := range ofServers() {
				others.Set(key, jsonschema.FalseSchema)
			}
		}
		is := jsonschema.NewProperties()
		is.Set("protocol", &jsonschema.Schema{Const: p.Name})
		o.AllOf = append(o.AllOf, &jsonschema.Schema{
			If:   &jsonschema.Schema{Properties: is},
			Then: &jsonschema.Schema{Properties: others, Required: required},
		})
	}
	return o
}

// several returns the schema of one or a list.
func several(one *jsonschema.Schema) *jsonschema.Schema {
	n := uint64(1)
	return anyOf(one, &jsonschema.Schema{Type: "array", Title: "a list of them", Items: one, MinItems: &n})
}

func (f *listenFile) schema(s *schemer) *jsonschema.Schema {
	addresses := several(s.of(reflect.ValueOf(new(addrPort)).Elem()))
	named := &jsonschema.Schema{Type: "object", Title: "a mapping from the kind to them", AdditionalProperties: addresses}
	return anyOf(append(addresses.AnyOf, named)...)
}

func (f *poolFile) schema(s *schemer) *jsonschema.Schema {
	o := s.object(reflect.ValueOf(f).Elem())
	servers, _ := o.Properties.Get("servers")
	one := uint64(1)
	servers.MinItems = &one
	return anyOf(&jsonschema.Schema{Type: "array", Title: "a list of servers", Items: servers.Items, MinItems: &one}, o)
}

func (f *clientTLSFile) schema(s *schemer) *jsonschema.Schema {
	return anyOf(s.of(reflect.ValueOf(&f.on).Elem()), s.object(reflect.ValueOf(f).Elem()))
}

func (f *serverFile) schema(s *schemer) *jsonschema.Schema {
	return anyOf(s.of(reflect.ValueOf(new(addrPort)).Elem()), s.object(reflect.ValueOf(f).Elem()))
}

func (f *familyFile) schema(s *schemer) *jsonschema.Schema {
	route := s.of(reflect.ValueOf(new(routeFile)).Elem())
	named := &jsonschema.Schema{Type: "object", Title: "a mapping from listens to them", AdditionalProperties: route}
	return anyOf(append(route.AnyOf, named)...)
}

func (f *routeFile) schema(s *schemer) *jsonschema.Schema {
	return anyOf(text("a pool", nameForm.String()), s.object(reflect.ValueOf(f).Elem()))
}

func (f *networks) schema(*schemer) *jsonschema.Schema {
	return several(text("a network, an address, `any`", ""))
}

func (f *mediaFile) schema(*schemer) *jsonschema.Schema {
	return several(text("an address or a network", ""))
}

func (f *portRange) schema(*schemer) *jsonschema.Schema {
	return text("a range of ports", `^[0-9]+-[0-9]+$`)
}

// String returns the range as it would be written.
func (f portRange) String() string { return fmt.Sprintf("%d-%d", f.low, f.high) }

func (f *adminListen) schema(*schemer) *jsonschema.Schema {
	return text("an address with a port, or `off`", `:[0-9]+$|^off$`)
}

func (f *accessLog) schema(*schemer) *jsonschema.Schema {
	return text("a file, `stderr` or `off`", "")
}

func (f *interval) schema(*schemer) *jsonschema.Schema {
	return text("a duration or `never`", `^never$|^[0-9.]+[a-zµ0-9.]+$`)
}

// String returns the interval as it would be written.
func (f interval) String() string {
	if f == 0 {
		return "never"
	}
	return shortDuration(time.Duration(f))
}

func (f *statusRange) schema(*schemer) *jsonschema.Schema {
	return anyOf(&jsonschema.Schema{Type: "integer", Title: "a status code"}, text("a range of them", `^[1-5][0-9]{2}(-[1-5][0-9]{2})?$`))
}
