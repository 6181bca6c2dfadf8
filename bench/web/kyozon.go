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
		p.writeKeyPair("/run/kyozon/shop"),
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
	service := func(name, protocol, pool string, backends []netip.AddrPort, at ...endpoint) {
		p("  %s:\n    protocol: %s\n    pools: {existing: {servers: [%s], %s}}", name, protocol, quoted(backends...), pool)
		var listen []netip.AddrPort
		var clients []string
		for _, e := range at {
			for _, f := range e.families() {
				listen = append(listen, netip.AddrPortFrom(addressOf(f, number), e.port))
			}
		}
		for _, f := range at[0].families() {
			clients = append(clients, f.String()+": existing")
		}
		p("    listen: [%s]\n    clients: {%s}\n    health: {every: never}", quoted(listen...), strings.Join(clients, ", "))
	}
	p("site: bench\naddresses: {ledger: {pool: %s}}\nservices:", standIns())
	service("web", "web", "handover: header", webServers(), endpoint{port: portWeb}, endpoint{port: portTLS},
		endpoint{port: portH2})
	p("    web: {tls: {certificate: shop.pem, key: shop.key, plain-ports: [%d]}}", portH2)
	service("client", "web", "source: client, handover: header", webServers(), endpoint{port: portClient})
	service("tcp", "tcp", "handover: none", webServers(), endpoint{port: portTCP})
	service("bulk", "tcp", "handover: none", []netip.AddrPort{netip.AddrPortFrom(servers()[0], portBulk)}, endpoint{port: portBulk})
	p("admin: {listen: %q}", adminAddr)
	return b.String()
}

// quoted returns addresses as a list of YAML.
func quoted(addresses ...netip.AddrPort) string {
	var all []string
	for _, a := range addresses {
		all = append(all, fmt.Sprintf("%q", a))
	}
	return strings.Join(all, ", ")
}

// webServers returns where the IPv4-only servers answer.
func webServers() (all []netip.AddrPort) {
	for _, s := range servers() {
		all = append(all, netip.AddrPortFrom(s, 80))
	}
	return all
}
