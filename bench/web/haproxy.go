// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kyozon/kyozon/lab"
)

// haproxyDaemon prepares HAProxy, tuned: two threads, upstream connections that all clients share, no log, and for
// bulk the pipe of 1 MB with splice forced, without which it needs five times as much.
func haproxyDaemon(p *place, number int) (lab.Daemon, error) {
	if err := p.edge.WriteFile("/run/haproxy.pem", slices.Concat(p.keyPair.certificate, p.keyPair.key)); err != nil {
		return lab.Daemon{}, err
	}
	if err := p.edge.WriteFile("/run/haproxy.cfg", []byte(haproxyConfig(number))); err != nil {
		return lab.Daemon{}, err
	}
	web, tcp := listens(number, portWeb), listens(number, portTCP)
	return lab.Daemon{Name: "haproxy", Argv: []string{"haproxy", "-db", "-f", "/run/haproxy.cfg"},
		Ready: lab.AnswersTCP(web[0], web[1], tcp[0], tcp[1])}, nil
}

func haproxyConfig(number int) string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	listen := func(name string, port uint16, more string, backends ...netip.AddrPort) {
		p("listen %s", name)
		for _, a := range listens(number, port) {
			only := ""
			if a.Addr().Is6() {
				only = " v6only"
			}
			p("	bind %s%s%s", a, only, more)
		}
		for i, s := range backends {
			p("	server s%d %s", i+1, s)
		}
	}
	p("global\n	nbthread 2\n	maxconn %d\n	maxpipes 32\n	tune.pipesize 1048576", mostConnections())
	p("	ssl-default-bind-options ssl-min-ver TLSv1.3\n	ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256")
	p("defaults\n	timeout connect 30s\n	timeout client 5m\n	timeout server 5m\n	http-reuse always")
	web := func(name string, port uint16, more, scheme string) {
		listen(name, port, more, webServers()...)
		p("	mode http\n	option forwardfor\n	http-request set-header X-Forwarded-Proto %s", scheme)
	}
	web("web", portWeb, "", "http")
	web("tls", portTLS, " ssl crt /run/haproxy.pem alpn h2,http/1.1", "https")
	web("h2", portH2, " proto h2", "http")
	web("client", portClient, "", "http")
	p("	http-reuse never")
	listen("tcp", portTCP, "", webServers()...)
	p("	mode tcp")
	listen("bulk", portBulk, "", netip.AddrPortFrom(servers()[0], portBulk))
	p("	mode tcp\n	option splice-request\n	option splice-response")
	return b.String()
}
