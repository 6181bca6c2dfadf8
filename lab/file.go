// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// File is a lab as written in a file: who is there, how they are joined, what runs on them, and what is tried.
type File struct {
	Lab   string                      `yaml:"lab"`   // its name
	About string                      `yaml:"about"` // what it shows
	Names map[string]List[netip.Addr] `yaml:"names"` // what every host finds in /etc/hosts
	Links map[string]Link             `yaml:"links"`
	Hosts map[string]HostSpec         `yaml:"hosts"`
	Try   []Attempt                   `yaml:"try"`

	dir string // where relative paths begin
}

// Link is an Ethernet between two hosts or more. Hosts say themselves that they are on it.
type Link struct {
	MTU int `yaml:"mtu"` // bytes; 0 means 1500
}

// HostSpec is a machine. A host without an IPv6 address has no IPv6 at all, not even link-local.
type HostSpec struct {
	Links   map[string]List[netip.Prefix] `yaml:"links"`   // the host's addresses on each link it is on
	Gateway List[netip.Addr]              `yaml:"gateway"` // default routes, at most one for each family
	Routes  []Route                       `yaml:"routes"`
	Local   List[netip.Prefix]            `yaml:"local"`   // whole prefixes that are the host's own (AnyIP)
	Forward bool                          `yaml:"forward"` // a router
	Sysctls map[string]string             `yaml:"sysctls"` // net.… only: the others are not the host's own
	Servers []Server                      `yaml:"servers"`
}

// Route is a way to a prefix.
type Route struct {
	To  netip.Prefix `yaml:"to"`
	Via netip.Addr   `yaml:"via"`
}

// Attempt is one thing to try. Exactly one of Get, Ask, Dial and Command is set.
type Attempt struct {
	From     string        `yaml:"from"`     // the host that tries
	Crossing Crossing      `yaml:"crossing"` // for the table; the client's family is also the one that is used
	Get      string        `yaml:"get"`      // a URL to ask for with curl
	Headers  List[string]  `yaml:"headers"`  // of Get
	Ask      string        `yaml:"ask"`      // address and port to send a datagram to
	Send     string        `yaml:"send"`     // what is in it
	Dial     string        `yaml:"dial"`     // a number that the host's telephone is to call, and hear something
	Command  []string      `yaml:"command"`  // anything else; kyozon is the binary under test
	Timeout  time.Duration `yaml:"timeout"`  // 0 means 5 s
	Want     Want          `yaml:"want"`
}

// Want is what makes an attempt good.
type Want struct {
	Fail   bool   `yaml:"fail"`   // there must be no answer; a command must exit with an error
	Status int    `yaml:"status"` // of HTTP; 0 means 200
	Body   string `yaml:"body"`   // a pattern that the answer must match
	Not    string `yaml:"not"`    // one that it must not
}

// Crossing is an ip.Crossing as written in a file: 6→4, or 6->4 where a keyboard lacks the arrow.
type Crossing struct{ ip.Crossing }

// IsZero says whether the file leaves the crossing out.
func (c Crossing) IsZero() bool { return c.Crossing == ip.Crossing{} }

// List is one value or a list of them.
type List[T any] []T

// timeout returns how long the attempt may take.
func (a Attempt) timeout() time.Duration { return cmp.Or(a.Timeout, 5*time.Second) }

// family returns the family the client uses, or 0 if that is left to its program.
func (a Attempt) family() ip.Family { return a.Crossing.Client }

// to returns what is tried, for the table.
func (a Attempt) to() string {
	switch {
	case a.Get != "":
		return a.Get
	case a.Ask != "":
		return "udp " + a.Ask
	case a.Dial != "":
		return "call " + a.Dial
	case len(a.Command) > 0:
		return a.Command[0]
	}
	return ""
}

// has says whether a host has an address, on a link, in a prefix that is its own, or on loopback.
func (h HostSpec) has(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	for _, p := range h.Local {
		if p.Contains(a) {
			return true
		}
	}
	for _, addresses := range h.Links {
		for _, p := range addresses {
			if p.Addr() == a {
				return true
			}
		}
	}
	return false
}

// onLink says whether a is a neighbour.
func (h HostSpec) onLink(a netip.Addr) bool {
	for _, addresses := range h.Links {
		for _, p := range addresses {
			if p.Masked().Contains(a) {
				return true
			}
		}
	}
	return false
}

// families says of which families the host has addresses.
func (h HostSpec) families() map[ip.Family]bool {
	f := make(map[ip.Family]bool)
	for _, addresses := range h.Links {
		for _, p := range addresses {
			f[ip.FamilyOf(p.Addr())] = true
		}
	}
	return f
}
