// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

// program is what carries the streams.
type program struct {
	name   string
	number int                                   // gives it its address
	kernel bool                                  // it is in the lab of the kernel plane
	daemon func(*place, int) (lab.Daemon, error) // nil: the kernel routes
}

const ours = "ours"

// programs returns the kernel plane, then what it is measured beside.
func programs() []program {
	return []program{
		{ours, 0, true, func(p *place, n int) (lab.Daemon, error) { return kyozonDaemon(p, n, "kernel") }},
		{"user", 1, false, func(p *place, n int) (lab.Daemon, error) { return kyozonDaemon(p, n, "user") }},
		{"haproxy", 2, false, haproxyDaemon},
		{"nginx", 3, false, nginxDaemon},
		{"routing", 4, false, nil},
	}
}

// at returns where clients reach the program.
func (pr program) at(port uint16) netip.AddrPort {
	if pr.daemon == nil {
		if port == portTCP {
			port = portWeb
		}
		return netip.AddrPortFrom(server6(), port)
	}
	return netip.AddrPortFrom(edgeAddr(pr.number), port)
}

// front is an address of a program and the servers behind it.
type front struct {
	name     string
	port     uint16
	backends []netip.AddrPort
}

func fronts() []front {
	var web []netip.AddrPort
	for _, s := range servers() {
		web = append(web, netip.AddrPortFrom(s, portWeb))
	}
	one := func(port uint16) []netip.AddrPort { return []netip.AddrPort{netip.AddrPortFrom(servers()[0], port)} }
	return []front{{"tcp", portTCP, web}, {"down", portDown, one(portDown)}, {"up", portUp, one(portUp)}}
}

const admin = "127.0.0.1:8464"

// kyozonDaemon prepares ours, whose servers see their clients' stand-ins.
func kyozonDaemon(p *place, number int, plane string) (lab.Daemon, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "site: bench\naddresses: {ledger: {pool: %s}}\nadmin: {listen: %q}\nservices:\n", standIns(), admin)
	for _, f := range fronts() {
		var quoted []string
		for _, a := range f.backends {
			quoted = append(quoted, fmt.Sprintf("%q", a))
		}
		fmt.Fprintf(&b, "  %s: {protocol: tcp, plane: %s, listen: [%q], clients: {ipv6: all}, health: {every: never},\n"+
			"    pools: {all: {servers: [%s], source: client}}}\n", f.name, plane, netip.AddrPortFrom(edgeAddr(number), f.port), strings.Join(quoted, ", "))
	}
	err := errors.Join(p.edge.WriteFile("/var/lib/kyozon/.lab", nil), p.edge.WriteFile("/run/kyozon/site.yaml", []byte(b.String())))
	return lab.Daemon{Name: "kyozon", Argv: []string{p.binary, "run", "/run/kyozon/site.yaml"},
		Ready: lab.AnswersHTTP(netip.MustParseAddrPort(admin), "/readyz")}, err
}

// haproxyDaemon prepares HAProxy as bench/web does for TCP.
func haproxyDaemon(p *place, number int) (lab.Daemon, error) {
	var b strings.Builder
	b.WriteString("global\n	nbthread 2\n	maxconn 4000\n	maxpipes 32\n	tune.pipesize 1048576\n" +
		"defaults\n	mode tcp\n	timeout connect 5s\n	timeout client 5m\n	timeout server 5m\n")
	for _, f := range fronts() {
		fmt.Fprintf(&b, "listen %s\n	bind %s v6only\n", f.name, netip.AddrPortFrom(edgeAddr(number), f.port))
		if f.port != portTCP {
			b.WriteString("	option splice-request\n	option splice-response\n")
		}
		for i, a := range f.backends {
			fmt.Fprintf(&b, "	server s%d %s\n", i+1, a)
		}
	}
	err := p.edge.WriteFile("/run/haproxy.cfg", []byte(b.String()))
	return lab.Daemon{Name: "haproxy", Argv: []string{"haproxy", "-db", "-f", "/run/haproxy.cfg"},
		Ready: lab.AnswersTCP(netip.AddrPortFrom(edgeAddr(number), portTCP))}, err
}

// nginxDaemon prepares nginx as bench/web does for TCP.
func nginxDaemon(p *place, number int) (lab.Daemon, error) {
	var b strings.Builder
	b.WriteString("load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off; worker_processes 2; pid /run/nginx-edge.pid; error_log stderr;\n" +
		"events { worker_connections 4000; }\nstream {\n")
	for _, f := range fronts() {
		fmt.Fprintf(&b, "	upstream %s {", f.name)
		for _, a := range f.backends {
			fmt.Fprintf(&b, " server %s;", a)
		}
		fmt.Fprintf(&b, " }\n	server { listen %s reuseport ipv6only=on; proxy_buffer_size 64k; proxy_pass %s; }\n",
			netip.AddrPortFrom(edgeAddr(number), f.port), f.name)
	}
	b.WriteString("}\n")
	err := errors.Join(p.edge.WriteFile("/var/lib/nginx/.lab", nil), p.edge.WriteFile("/run/nginx-edge.conf", []byte(b.String())))
	return lab.Daemon{Name: "nginx", Argv: []string{"nginx", "-e", "stderr", "-c", "/run/nginx-edge.conf"},
		Ready: lab.AnswersTCP(netip.AddrPortFrom(edgeAddr(number), portTCP))}, err
}

var errElsewhere = errors.New("the kernel plane has not carried it")

// carried returns how many packets the kernel plane has carried.
func (p *place) carried(ctx context.Context) (n int64, err error) {
	out, err := p.edge.Command(ctx, p.binary, "status", "--json").Output()
	if err != nil {
		return 0, err
	}
	var s struct {
		Kernel struct {
			Packets []struct {
				Service, Reason string
				Packets         int64
			}
		}
	}
	if err := json.Unmarshal(out, &s); err != nil {
		return 0, err
	}
	for _, k := range s.Kernel.Packets {
		if k.Service != "" && (k.Reason == "forwarded" || k.Reason == "forwarded new") {
			n += k.Packets
		}
	}
	return n, nil
}

// warm asks until the kernel plane carries: the first flow of a prefix goes through the process.
func (p *place) warm(ctx context.Context) error {
	ours := programs()[0]
	for range 100 {
		if _, err := p.client.Command(ctx, "curl", "-sf", "-o", "/dev/null", "http://"+ours.at(portTCP).String()+"/").Output(); err != nil {
			return fmt.Errorf("ask the kernel plane: %w", err)
		}
		if n, err := p.carried(ctx); err != nil || n > 0 {
			return err
		}
		if err := bench.Wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	out, err := p.edge.Command(ctx, p.binary, "services").CombinedOutput()
	return errors.Join(fmt.Errorf("%w: %s", errElsewhere, out), err)
}
