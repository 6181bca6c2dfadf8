// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kyozon/kyozon/ip"
)

var (
	hostName   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	domainName = regexp.MustCompile(`^[a-z0-9-]+(\.[a-z0-9-]+)+$`)
	linkName   = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`) // also the interface's: IFNAMSIZ
)

// freely are the prefixes that belong to nobody: private ones and those for documentation and tests.
// RFC 1918, RFC 6598, RFC 5737, RFC 2544, RFC 3927, RFC 3849, RFC 9637, RFC 4193, RFC 6052, RFC 8215.
func freely() ip.Prefixes {
	var all []netip.Prefix
	for _, s := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.2.0/24",
		"198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "169.254.0.0/16", "127.0.0.0/8", "2001:db8::/32",
		"3fff::/20", "fc00::/7", "fe80::/10", "64:ff9b::/96", "64:ff9b:1::/48", "::1/128"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return ip.NewPrefixes(all...)
}

// checker collects the mistakes of a file.
type checker struct {
	file     *File
	freely   ip.Prefixes
	seen     map[string]string // link and address → host
	problems []problem
}

// check returns what is wrong with a file that could be read.
func (f *File) check() []problem {
	c := &checker{file: f, freely: freely(), seen: make(map[string]string)}
	if !hostName.MatchString(f.Lab) {
		c.add(errors.New("name the lab with lower case letters, digits and dashes"), "lab")
	}
	if len(f.Hosts) == 0 {
		c.add(errors.New("the lab has no hosts"), "hosts")
	}
	for _, name := range slices.Sorted(maps.Keys(f.Links)) {
		c.link(name)
	}
	for _, name := range slices.Sorted(maps.Keys(f.Names)) {
		for i, a := range f.Names[name] {
			c.free(a, "names", name, strconv.Itoa(i))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Hosts)) {
		c.host(name, f.Hosts[name])
	}
	for i, a := range f.Try {
		c.attempt(a, "try", strconv.Itoa(i))
	}
	return c.problems
}

func (c *checker) add(err error, path ...string) {
	c.problems = append(c.problems, problem{slices.Clone(path), err})
}

func (c *checker) free(a netip.Addr, path ...string) {
	if !c.freely.Contains(a) {
		c.add(fmt.Errorf("%s belongs to somebody: use a private address or one for documentation", a), path...)
	}
}

func (c *checker) link(name string) {
	if !linkName.MatchString(name) || name == "lo" {
		c.add(fmt.Errorf("link %q: at most 15 lower case letters, digits and dashes", name), "links", name)
	}
	if m := c.file.Links[name].MTU; m != 0 && (m < 68 || m > 65535) {
		c.add(fmt.Errorf("mtu %d: must be 68 to 65535", m), "links", name, "mtu")
	}
	for _, h := range c.file.Hosts {
		if _, on := h.Links[name]; on {
			return
		}
	}
	c.add(fmt.Errorf("no host is on link %s", name), "links", name)
}

func (c *checker) host(name string, h HostSpec) {
	at := func(path ...string) []string { return append([]string{"hosts", name}, path...) }
	if !hostName.MatchString(name) {
		c.add(fmt.Errorf("host %q: lower case letters, digits and dashes only", name), at()...)
	}
	for _, link := range slices.Sorted(maps.Keys(h.Links)) {
		if _, ok := c.file.Links[link]; !ok {
			c.add(fmt.Errorf("there is no link %s", link), at("links", link)...)
		}
		for i, p := range h.Links[link] {
			c.address(name, link, p, at("links", link, strconv.Itoa(i)))
		}
	}
	c.routes(h, at)
	for _, key := range slices.Sorted(maps.Keys(h.Sysctls)) {
		if !strings.HasPrefix(key, "net.") || strings.Contains(key, "/") {
			c.add(fmt.Errorf("sysctl %s: only net.… is the host's own", key), at("sysctls", key)...)
		}
	}
	for i, s := range h.Servers {
		c.server(h, s, at("servers", strconv.Itoa(i)))
	}
}

func (c *checker) address(host, link string, p netip.Prefix, path []string) {
	c.free(p.Addr(), path...)
	key := link + " " + p.Addr().String()
	if other, ok := c.seen[key]; ok {
		c.add(fmt.Errorf("%s is the address of %s", p.Addr(), other), path...)
	}
	c.seen[key] = host
}

func (c *checker) routes(h HostSpec, at func(...string) []string) {
	have := make(map[ip.Family]bool)
	for i, g := range h.Gateway {
		path := at("gateway", strconv.Itoa(i))
		if have[ip.FamilyOf(g)] {
			c.add(fmt.Errorf("a second gateway for %s", ip.FamilyOf(g)), path...)
		}
		have[ip.FamilyOf(g)] = true
		if !h.onLink(g) {
			c.add(fmt.Errorf("gateway %s is on none of the host's links", g), path...)
		}
	}
	for i, r := range h.Routes {
		path := at("routes", strconv.Itoa(i))
		switch {
		case !r.To.IsValid() || !r.Via.IsValid():
			c.add(errors.New("a route needs to and via"), path...)
		case ip.FamilyOf(r.To.Addr()) != ip.FamilyOf(r.Via):
			c.add(fmt.Errorf("%s and %s are of two families", r.To, r.Via), path...)
		case !h.onLink(r.Via):
			c.add(fmt.Errorf("%s is on none of the host's links", r.Via), append(path, "via")...)
		}
	}
}

func (c *checker) server(h HostSpec, s Server, path []string) {
	kinds := s.kinds()
	if len(kinds) != 1 {
		c.add(errors.New("a server is exactly one of postgres, app, udp, nginx, dovecot, postfix, haproxy, kyozon, baresip"), path...)
	}
	for _, k := range kinds {
		for _, p := range k.check(h) {
			c.add(p.err, append(append(slices.Clone(path), k.name()), p.path...)...)
		}
	}
}

func (c *checker) attempt(a Attempt, path ...string) {
	at := func(key string) []string { return append(slices.Clone(path), key) }
	if h, ok := c.file.Hosts[a.From]; !ok {
		c.add(fmt.Errorf("there is no host %q", a.From), at("from")...)
	} else if f := a.family(); f != 0 && !h.families()[f] {
		c.add(fmt.Errorf("%s has no %s address", a.From, f), at("crossing")...)
	}
	n := 0
	for _, set := range []bool{a.Get != "", a.Ask != "", a.Dial != "", len(a.Command) > 0} {
		if set {
			n++
		}
	}
	if n != 1 {
		c.add(errors.New("an attempt has exactly one of get, ask, dial, command"), path...)
	}
	if a.Get != "" {
		if u, err := url.Parse(a.Get); err != nil || u.Host == "" {
			c.add(fmt.Errorf("%q is not a URL", a.Get), at("get")...)
		}
	}
	if a.Ask != "" {
		if _, err := netip.ParseAddrPort(a.Ask); err != nil {
			c.add(fmt.Errorf("ask %q: must be an address and a port", a.Ask), at("ask")...)
		}
	}
	if a.Dial != "" && !telephoneNumber.MatchString(a.Dial) {
		c.add(fmt.Errorf("dial %q: must be a number", a.Dial), at("dial")...)
	}
	for _, p := range [...]struct{ key, pattern string }{{"body", a.Want.Body}, {"not", a.Want.Not}} {
		if _, err := regexp.Compile(p.pattern); err != nil {
			c.add(err, append(at("want"), p.key)...)
		}
	}
}

// checkListen returns what is wrong with the addresses of a server on h.
func checkListen(h HostSpec, key string, listen List[netip.AddrPort]) []problem {
	if len(listen) == 0 {
		return []problem{{[]string{key}, errors.New("say where it listens")}}
	}
	var all []problem
	for i, a := range listen {
		if !h.has(a.Addr()) {
			all = append(all, problem{[]string{key, strconv.Itoa(i)}, fmt.Errorf("the host has no address %s", a.Addr())})
		}
	}
	return all
}
