// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/service"
)

// TestGood reads the site.yaml of each archive of testdata/good and compares what it becomes, and the warnings.
func TestGood(t *testing.T) {
	t.Parallel()
	for _, path := range glob(t, "testdata/good/*.txtar") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			o := Options{Demo: strings.HasPrefix(filepath.Base(path), "demo")}
			c, err := Parse("/etc/kyozon/site.yaml", section(t, path, "site.yaml"), protocols(), o)
			if err != nil {
				t.Fatal(err)
			}
			var warnings bytes.Buffer
			for _, w := range c.Warnings {
				fmt.Fprintln(&warnings, strings.TrimPrefix(w.Error(), "/etc/kyozon/site.yaml:"))
			}
			config := view(t, c)
			if *update {
				rewrite(t, path, config, warnings.Bytes())
			}
			if diff := cmp.Diff(string(section(t, path, "config")), string(config)); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(string(section(t, path, "warnings")), warnings.String()); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// section returns a file of an archive, or nothing.
func section(t *testing.T, path, name string) []byte {
	t.Helper()
	for _, f := range txtar.Parse(read(t, path)).Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// rewrite puts what was found into an archive.
func rewrite(t *testing.T, path string, config, warnings []byte) {
	t.Helper()
	a := txtar.Parse(read(t, path))
	a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return f.Name == "config" || f.Name == "warnings" })
	a.Files = append(a.Files, txtar.File{Name: "config", Data: config})
	if len(warnings) > 0 {
		a.Files = append(a.Files, txtar.File{Name: "warnings", Data: warnings})
	}
	write(t, path, txtar.Format(a))
}

// view writes all of a Config as JSON that is the same each time. What is zero is left out.
func view(t *testing.T, c *Config) []byte {
	t.Helper()
	services := make([]any, len(c.Services))
	for i, s := range c.Services {
		services[i] = viewService(s)
	}
	o := object{
		"Site": c.Site, "Addresses": c.Addresses, "Services": services, "State": c.State, "Admin": c.Admin, "Log": c.Log,
		"Kernel": c.Kernel,
		"Drain":  c.Drain.String(), "Demo": c.Demo,
	}
	if len(c.Networks) > 0 {
		o["Networks"] = c.Networks
	}
	data, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

type object map[string]any

func viewService(s *service.Service) object {
	var listens, pools, routes []string
	for _, l := range s.Listen {
		listens = append(listens, strings.TrimSpace(l.Name+" "+l.Addr.String()))
	}
	for _, p := range s.Pools {
		text := fmt.Sprintf("%s: source=%d handover=%d carry=%d pick=%d %+v",
			p.Name, p.Source, p.Handover, p.Carry, p.Pick, p.Servers)
		if p.TLS != nil {
			text += fmt.Sprintf(" tls=%+v", *p.TLS)
		}
		pools = append(pools, text)
	}
	for door, r := range s.Routes {
		routes = append(routes, fmt.Sprintf("%v %q: %v then %v", door.Family, door.Listen, r.Shares, r.Fallback))
	}
	slices.Sort(pools)
	slices.Sort(routes)
	o := object{
		"Name": s.Name, "Protocol": s.Protocol, "Hosting": s.Hosting, "Listen": listens, "Pools": pools, "Routes": routes,
		"Allow": networksOf(s.Allow), "Deny": networksOf(s.Deny), "Proxy": networksOf(s.Proxy),
		"Health": fmt.Sprintf("%+v", s.Health), "Timeouts": fmt.Sprintf("%+v", s.Timeouts), "Options": s.Options,
	}
	if s.Plane != service.PlaneAuto {
		o["Plane"] = s.Plane.String()
	}
	if !s.Limits.IsZero() {
		o["Limits"] = fmt.Sprintf("%+v", s.Limits)
	}
	return o
}

// networksOf says which of some addresses are in the set, for a set cannot be listed.
func networksOf(set ip.Prefixes) string {
	if set.IsZero() {
		return ""
	}
	var in []string
	for _, a := range []string{"10.0.0.1", "10.1.0.1", "192.0.2.7", "2001:db8:7::1", "fd00::1"} {
		if set.Contains(mustAddr(a)) {
			in = append(in, a)
		}
	}
	return "contains " + strings.Join(in, " ")
}

// TestHash holds that a file that says the same is known to.
func TestHash(t *testing.T) {
	t.Parallel()
	data := section(t, "testdata/good/smallest.txtar", "site.yaml")
	hash := func(data []byte) string {
		c, err := Parse("site.yaml", data, protocols(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(c.Hash[:])
	}
	if hash(data) != hash(slices.Clone(data)) {
		t.Error("two hashes of one file")
	}
	if hash(data) == hash(append(slices.Clone(data), '#')) {
		t.Error("one hash of two files")
	}
}

// TestLineEnds holds that the marks of other systems do not move the places.
func TestLineEnds(t *testing.T) {
	t.Parallel()
	data := section(t, "testdata/good/smallest.txtar", "site.yaml")
	dos := append([]byte("\ufeff"), bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))...)
	if _, err := Parse("site.yaml", dos, protocols(), Options{}); err != nil {
		t.Error(err)
	}
	got := mistakes(t, append(dos, "lisen: x\r\n"...))
	want := []string{fmt.Sprintf(`%d:1: unknown key "lisen"; known here: addresses, admin, drain, kernel, log, networks, services, site and state`,
		bytes.Count(data, []byte("\n"))+1)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestWordsAreConstants holds that the words of the file and the constants are in one order.
func TestWordsAreConstants(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		words []string
		word  string
		index int
	}{
		{source(0).words(), "edge", int(backend.SourceEdge)},
		{source(0).words(), "client", int(backend.SourceClient)},
		{handover(0).words(), "none", int(backend.HandoverNone)},
		{handover(0).words(), "header", int(backend.HandoverHeader)},
		{handover(0).words(), "proxy-v1", int(backend.HandoverProxyV1)},
		{handover(0).words(), "proxy-v2", int(backend.HandoverProxyV2)},
		{handover(0).words(), "xclient", int(backend.HandoverXclient)},
		{handover(0).words(), "id", int(backend.HandoverID)},
		{handover(0).words(), "auto", int(backend.HandoverAuto)},
		{carry(0).words(), "client", int(backend.CarryClient)},
		{carry(0).words(), "stand-in", int(backend.CarryStandIn)},
		{pick(0).words(), "round-robin", int(backend.RoundRobin)},
		{pick(0).words(), "fewest-flows", int(backend.FewestFlows)},
		{pick(0).words(), "hash", int(backend.Hash)},
		{greeting(0).words(), "none", int(probe.NoGreeting)},
		{greeting(0).words(), "smtp", int(probe.SMTP)},
		{greeting(0).words(), "imap", int(probe.IMAP)},
		{greeting(0).words(), "pop3", int(probe.POP3)},
		{greeting(0).words(), "mail", int(probe.AnyMail)},
		{asking(0).words(), "udp", int(probe.SIPOverUDP)},
		{asking(0).words(), "tcp", int(probe.SIPOverTCP)},
		{plane(0).words(), "auto", int(service.PlaneAuto)},
		{plane(0).words(), "kernel", int(service.PlaneKernel)},
		{plane(0).words(), "user", int(service.PlaneUser)},
	} {
		if test.words[test.index] != test.word {
			t.Errorf("%q is at the place of %q", test.word, test.words[test.index])
		}
	}
}
