// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/kyozon/kyozon/lab"
)

// adminAddr is where ours answers questions about itself, on the edge.
const adminAddr = "127.0.0.1:8464"

// kyozonDaemon prepares ours: as it is, without a tuning that a site would not have. As its peers, it asks no server
// whether it is well.
func kyozonDaemon(p *place, number int, binary string) (lab.Daemon, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return lab.Daemon{}, err
	}
	err = errors.Join(
		p.edge.WriteFile("/run/kyozon/shop.pem", p.keyPair.certificate),
		p.edge.WriteFile("/run/kyozon/shop.key", p.keyPair.key),
		p.edge.WriteFile("/var/lib/kyozon/.lab", nil), // makes the state directory
		p.edge.WriteFile("/run/kyozon/site.yaml", []byte(kyozonSite(number))),
	)
	if err != nil {
		return lab.Daemon{}, err
	}
	return lab.Daemon{Name: ours, Argv: []string{binary, "run", "/run/kyozon/site.yaml"},
		Ready: lab.AnswersHTTP(netip.MustParseAddrPort(adminAddr), "/readyz")}, nil
}

func kyozonSite(number int) string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	service := func(name, protocol, section string, backends []netip.AddrPort, handover string, ports ...uint16) {
		var at, to []string
		for _, port := range ports {
			for _, a := range listens(number, port) {
				at = append(at, fmt.Sprintf("%q", a))
			}
		}
		for _, s := range backends {
			to = append(to, fmt.Sprintf("%q", s))
		}
		p("  %s:\n    protocol: %s\n    listen: [%s]", name, protocol, strings.Join(at, ", "))
		p("    pools: {existing: {servers: [%s], handover: %s}}", strings.Join(to, ", "), handover)
		p("    clients: {ipv4: existing, ipv6: existing}\n    health: {every: never}")
		p("%s", section)
	}
	p("site: bench\nservices:")
	service("web", "web", "    web: {tls: {certificate: shop.pem, key: shop.key}}", webServers(), "header", portWeb, portTLS)
	service("tcp", "tcp", "", webServers(), "none", portTCP)
	service("bulk", "tcp", "", []netip.AddrPort{netip.AddrPortFrom(servers()[0], portBulk)}, "none", portBulk)
	p("admin: {listen: %q}", adminAddr)
	return b.String()
}

// webServers returns where the IPv4-only servers answer.
func webServers() (all []netip.AddrPort) {
	for _, s := range servers() {
		all = append(all, netip.AddrPortFrom(s, 80))
	}
	return all
}
