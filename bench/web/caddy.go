// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"debug/buildinfo"
	"fmt"
	"strings"

	"github.com/kyozon/kyozon/lab"
)

// caddyDaemon prepares Caddy, the neighbour in Go: no log, kept upstream connections, and the collector as seldom as
// ours has it.
func caddyDaemon(p *place, number int, binary string) (lab.Daemon, error) {
	if err := p.writeKeyPair("/run/caddy"); err != nil {
		return lab.Daemon{}, err
	}
	if err := p.edge.WriteFile("/run/Caddyfile", []byte(caddyConfig(number))); err != nil {
		return lab.Daemon{}, err
	}
	web := listens(number, portWeb)
	return lab.Daemon{Name: "caddy", Argv: []string{binary, "run", "--config", "/run/Caddyfile", "--adapter", "caddyfile"},
		Env: []string{"GOGC=400"}, Ready: lab.AnswersTCP(web[0], web[1])}, nil
}

func caddyConfig(number int) string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	at := listens(number, portWeb)
	site := func(names, more string) {
		p("%s {\n	bind %s %s%s", names, at[0].Addr(), at[1].Addr(), more)
		p("	reverse_proxy %s %s {", webServers()[0], webServers()[1])
		p("		lb_policy round_robin\n		transport http {\n			keepalive_idle_conns_per_host 128\n		}\n	}\n}")
	}
	p("{\n	admin off\n	auto_https off\n	persist_config off\n	log {\n		output discard\n	}")
	p("	servers {\n		protocols h1 h2 h2c\n	}\n}")
	site(fmt.Sprintf("http://:%d, http://:%d", portWeb, portH2), "")
	site(fmt.Sprintf("https://:%d", portTLS), "\n	tls /run/caddy.pem /run/caddy.key {\n		protocols tls1.3\n	}")
	return b.String()
}

// caddyVersion returns the version that a binary was built from. It does not say so itself.
func caddyVersion(binary string) string {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return "unknown"
	}
	return info.Main.Version
}
