// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/service"
)

// This file holds what may be written in more than one way, and the words.

// Addresses with their place. They are distinct types so that file.go reads as the file does.
type (
	address  = located[netip.Addr]
	network  = located[netip.Prefix]
	addrPort = netip.AddrPort
)

// The words of the file, each the index of a constant of package backend, service or probe.
type (
	source   uint8
	handover uint8
	carry    uint8
	pick     uint8
	verify   uint8
	starttls uint8
	hosting  uint8
	plane    uint8
	greeting uint8
	asking   uint8
	mode     uint8
)

// The words of mode.
const (
	_ mode = iota // enforce
	modeObserve
)

// The words of verify.
const (
	verifyFull verify = iota
	verifyNone
)

func (source) words() []string { return []string{"edge", "client"} }
func (handover) words() []string {
	return []string{"none", "header", "proxy-v1", "proxy-v2", "xclient", "id", "auto"}
}
func (carry) words() []string  { return []string{"client", "stand-in"} }
func (pick) words() []string   { return []string{"round-robin", "fewest-flows", "hash"} }
func (verify) words() []string { return []string{"full", "none"} }
func (starttls) words() []string {
	return []string{"off", "required", "opportunistic"}
}
func (hosting) words() []string { return []string{"shared", "vps", "dedicated", "housing"} }
func (mode) words() []string    { return []string{"enforce", "observe"} }
func (plane) words() []string   { return []string{"auto", "kernel", "user"} }
func (greeting) words() []string {
	return []string{"none", "smtp", "imap", "pop3", "mail"}
}

func (asking) words() []string { return []string{"none", "udp", "tcp"} }

// shape reads a service: its protocol comes first, for it says which section the service may have.
func (f *serviceFile) shape(d *decoder, n *node) {
	f.node = n
	if !d.is(n, mapping) {
		return
	}
	names := d.protocolNames()
	name := ""
	if p := n.get("protocol"); p != nil {
		name = p.text
	}
	i := slices.Index(names, name)
	if i < 0 {
		d.structure(n, reflect.ValueOf(f).Elem(), append(names, name)...) // its section may be any
		d.needed(n, ofServers()[:2])
		if p := f.Protocol.node; p != nil && !p.bad {
			d.fail(p, "unknown protocol %q; known here: %s", name, enumerate(names, "and"))
		}
		return
	}
	d.structure(n, reflect.ValueOf(f).Elem(), name)
	f.kind = &d.protocols[i]
	if f.kind.Standalone {
		d.needless(n, ofServers(), name)
	} else {
		d.needed(n, ofServers()[:2])
	}
	f.section = n.get(name)
	if f.section == nil { // its defaults may do, if nothing in it is required
		key := *n.name()
		key.text, key.parent = name, n
		f.section = &node{kind: mapping, line: key.line, column: key.column, key: &key, parent: n}
	}
}

// ofServers returns the keys of a service that has servers; it must have the first two.
func ofServers() []string { return []string{"pools", "clients", "health"} }

// needed reports the keys that are missing in n, but those that another was probably meant to be.
func (d *decoder) needed(n *node, keys []string) {
	for _, key := range keys {
		meant := slices.ContainsFunc(n.pairs, func(p pair) bool { return service.Nearest(p.key.text, keys) == key })
		if !meant {
			d.missing(n, key)
		}
	}
}

// needless reports the keys that mean nothing, because the protocol has no servers.
func (d *decoder) needless(n *node, keys []string, protocol string) {
	for _, key := range keys {
		if v := n.get(key); v != nil {
			d.fail(v.name(), "%s has no servers; remove this", protocol)
			v.bad = true
		}
	}
}

func (d *decoder) protocolNames() []string {
	var names []string
	for _, p := range d.protocols {
		names = append(names, p.Name)
	}
	return names
}

// listenPlace is one address of a listen. The name is empty where listens have none.
type listenPlace struct {
	name string
	key  *node // of the name
	addr located[netip.AddrPort]
}

func (f *listenFile) shape(d *decoder, n *node) {
	f.node = n
	if n.kind != mapping {
		f.add(d, n, nil)
		return
	}
	for _, p := range d.unique(n) {
		if p.value.kind == mapping {
			d.is(p.value, list)
			continue
		}
		f.add(d, p.value, p.key)
	}
}

// add takes one address or a list of them.
func (f *listenFile) add(d *decoder, n, key *node) {
	if n.kind == list && len(n.items) == 0 {
		d.fail(n, "must not be empty")
	}
	for _, item := range oneOrMore(n) {
		place := listenPlace{key: key}
		if key != nil {
			place.name = key.text
		}
		d.value(item, reflect.ValueOf(&place.addr).Elem())
		f.places = append(f.places, place)
	}
}

// oneOrMore returns the items of a list, or what is written instead of a list of one.
func oneOrMore(n *node) []*node {
	if n.kind == list {
		return n.items
	}
	return []*node{n}
}

func (f *poolFile) shape(d *decoder, n *node) {
	servers := n
	if n.kind == list {
		d.slice(n, reflect.ValueOf(&f.Servers).Elem())
	} else {
		d.structure(n, reflect.ValueOf(f).Elem())
		servers = n.get("servers")
	}
	if servers != nil && servers.kind == list && len(servers.items) == 0 {
		d.fail(servers, "must not be empty")
	}
}

func (f *clientTLSFile) shape(d *decoder, n *node) {
	f.node = n
	if n.kind == scalar {
		d.value(n, reflect.ValueOf(&f.on).Elem())
		return
	}
	f.on = true
	d.structure(n, reflect.ValueOf(f).Elem())
}

func (f *serverFile) shape(d *decoder, n *node) {
	if n.kind == scalar {
		d.value(n, reflect.ValueOf(&f.Address).Elem())
		return
	}
	d.structure(n, reflect.ValueOf(f).Elem())
}

func (f *familyFile) shape(d *decoder, n *node) {
	f.node = n
	if n.kind != mapping || isRoute(n) {
		f.all = new(routeFile)
		d.value(n, reflect.ValueOf(f.all).Elem())
		return
	}
	if len(n.pairs) == 0 {
		d.fail(n, "must not be empty")
	}
	for _, p := range d.unique(n) {
		e := entry[routeFile]{name: p.key.text, key: p.key}
		d.value(p.value, reflect.ValueOf(&e.value).Elem())
		f.named = append(f.named, e)
	}
}

// isRoute says whether a mapping is a route, perhaps with a mistake in its keys, and not names of listens.
func isRoute(n *node) bool {
	return slices.ContainsFunc(n.pairs, func(p pair) bool {
		return service.Nearest(p.key.text, []string{"share", "fallback"}) != ""
	})
}

func (f *routeFile) shape(d *decoder, n *node) {
	f.node = n
	if n.kind != scalar {
		d.structure(n, reflect.ValueOf(f).Elem())
		return
	}
	whole := located[service.Percent]{value: 100, node: n}
	f.Share = dict[located[service.Percent]]{node: n,
		entries: []entry[located[service.Percent]]{{name: n.text, key: n, value: whole}}}
}

// networks is `any`, a network, an address, or a list of them.
type networks struct {
	node *node
	any  bool
	list []located[netip.Prefix]
}

func (f *networks) shape(d *decoder, n *node) {
	f.node = n
	if n.kind == list && len(n.items) == 0 {
		d.fail(n, "must not be empty; leave it out or write [any]")
	}
	for _, item := range oneOrMore(n) {
		if item.kind == scalar && item.text == "any" {
			f.any = true
			if len(oneOrMore(n)) > 1 {
				d.fail(item, "any makes the rest of the list meaningless; write one or the other")
			}
			continue
		}
		f.add(d, item)
	}
}

// add takes one network, or one address as the network that holds it alone.
func (f *networks) add(d *decoder, n *node) {
	var prefix located[netip.Prefix]
	if a, err := netip.ParseAddr(n.text); n.kind == scalar && err == nil {
		if d.canonical(n, a) {
			f.list = append(f.list, located[netip.Prefix]{value: host(a), node: n})
		}
		return
	}
	d.value(n, reflect.ValueOf(&prefix).Elem())
	if prefix.value.IsValid() {
		f.list = append(f.list, prefix)
	}
}

// mediaFile is one address or prefix, or one of each family.
type mediaFile struct {
	node *node
	list []network
}

func (f *mediaFile) shape(d *decoder, n *node) {
	f.node = n
	var all networks
	for _, item := range oneOrMore(n) {
		all.add(d, item)
	}
	f.list = all.list
}

// portRange is a range of ports.
type portRange struct {
	node      *node
	low, high uint16
}

func (f *portRange) shape(d *decoder, n *node) {
	f.node = n
	if !d.is(n, scalar) {
		return
	}
	from, to, ok := strings.Cut(n.text, "-")
	low, bad := strconv.ParseUint(from, 10, 16)
	high, worse := strconv.ParseUint(to, 10, 16)
	if !ok || bad != nil || worse != nil || low < 1024 || low >= high || low%2 != 0 || high%2 != 1 {
		d.fail(n, "%q is not a range of ports from 1024 on, the first even and the last odd; write, for example, 20000-39999", n.text)
		return
	}
	f.low, f.high = uint16(low), uint16(high)
}

// adminListen is an address with a port, or off.
type adminListen struct{ located[netip.AddrPort] }

func (f *adminListen) setDefaults() { f.value = netip.MustParseAddrPort("127.0.0.1:8464") }

func (f *adminListen) shape(d *decoder, n *node) {
	f.value = netip.AddrPort{}
	if n.kind == scalar && n.text == "off" {
		f.node = n
		return
	}
	f.located.shape(d, n)
}

// accessLog is a file, stderr, or off, which is "".
type accessLog struct{ located[service.Path] }

func (f *accessLog) shape(d *decoder, n *node) {
	switch f.node = n; {
	case n.kind == scalar && n.text == "off":
		f.value = ""
	case n.kind == scalar && n.text == accesslog.Stderr:
		f.value = accesslog.Stderr
	case n.kind == scalar && slices.Contains([]string{"on", "true", "false", "yes", "no", "stdout"}, n.text):
		d.fail(n, "must be a file, stderr or off; write, for example, /var/log/kyozon/access.log")
	default:
		f.located.shape(d, n)
	}
}

// interval is a duration, or never.
type interval time.Duration

func (f *interval) shape(d *decoder, n *node) {
	if n.kind == scalar && n.text == "never" {
		*f = 0
		return
	}
	d.value(n, reflect.ValueOf((*time.Duration)(f)).Elem())
	if *f < interval(10*time.Millisecond) && !n.bad {
		d.fail(n, "must be 10ms or more, or never")
	}
}

var errStatus = errors.New("not HTTP status codes; write, for example, 200 or 200-399")

// statusRange is the lowest and the highest of some HTTP status codes. RFC 9110 §15.
type statusRange [2]int

// UnmarshalText reads "200" or "200-399".
func (f *statusRange) UnmarshalText(text []byte) error {
	low, high, ok := strings.Cut(string(text), "-")
	if !ok {
		high = low
	}
	for i, s := range []string{low, high} {
		code, err := strconv.Atoi(s)
		if err != nil || len(s) != 3 || code < 100 || code > 599 {
			return errStatus
		}
		f[i] = code
	}
	if f[0] > f[1] {
		return errStatus
	}
	return nil
}

// String returns, for example, "200-399".
func (f statusRange) String() string { return fmt.Sprintf("%d-%d", f[0], f[1]) }
