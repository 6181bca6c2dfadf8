// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

const (
	ours  = "ours"
	host  = "mail.example"
	admin = "127.0.0.1:8464"
)

// program is one that is measured. They have the same address, in turn.
type program struct {
	name   string
	daemon func(*place) (lab.Daemon, error)
}

func programs() []program {
	return []program{{ours, kyozonDaemon}, {"nginx", nginxDaemon}}
}

// start starts a program. Call stop when it is not measured any more.
func (p *place) start(ctx context.Context, pr program) (processes bench.Program, stop func(), err error) {
	d, err := pr.daemon(p)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", pr.name, err)
	}
	r, err := p.edge.Start(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	if processes, err = bench.OpenProgram(r.PID()); err != nil {
		r.Stop(context.WithoutCancel(ctx))
		return nil, nil, err
	}
	return processes, func() { r.Stop(context.WithoutCancel(ctx)) }, nil
}

func kyozonDaemon(p *place) (lab.Daemon, error) {
	site := fmt.Sprintf(`site: bench
admin: {listen: %q}
services:
  plain:
    protocol: mail
    listen: {imap: "[%v]:%d"}
    pools: {all: {servers: ["%v:%d"], handover: id}}
    clients: {ipv6: {imap: all}}
    health: {every: never}
    mail: {name: %s, auth-in-clear: true}
  secure:
    protocol: mail
    listen: {imaps: "[%v]:%d"}
    pools: {all: {servers: ["%v:%d"], handover: id}}
    clients: {ipv6: {imaps: all}}
    health: {every: never}
    mail: {name: %s, tls: {certificate: /run/mail/c.pem, key: /run/mail/k.pem}}
`, admin, edge6(), portIMAP, server4(), portIMAP, host, edge6(), portIMAPS, server4(), portIMAP, host)
	err := errors.Join(p.edge.WriteFile("/var/lib/kyozon/.lab", nil), p.edge.WriteFile("/run/kyozon/site.yaml", []byte(site)))
	return lab.Daemon{Name: "kyozon", Argv: []string{p.binary, "run", "/run/kyozon/site.yaml"},
		Ready: lab.AnswersHTTP(netip.MustParseAddrPort(admin), "/readyz")}, err
}

// nginxDaemon prepares nginx. It asks itself where each user's mailbox is, which takes no memory of a session.
func nginxDaemon(p *place) (lab.Daemon, error) {
	conf := fmt.Sprintf(`load_module /usr/lib/nginx/modules/ngx_mail_module.so;
daemon off; worker_processes 2; pid /run/nginx-edge.pid; error_log stderr;
worker_rlimit_nofile 20000;
events { worker_connections 20000; }
http {
	access_log off;
	server {
		listen 127.0.0.1:9000;
		location / { add_header Auth-Status OK; add_header Auth-Server %v; add_header Auth-Port %d; return 204; }
	}
}
mail {
	auth_http 127.0.0.1:9000/;
	server_name %s;
	timeout 35m;
	imap_capabilities IMAP4rev1 ID IDLE;
	server { listen [%v]:%d; protocol imap; }
	server { listen [%v]:%d ssl; protocol imap; ssl_certificate /run/mail/c.pem; ssl_certificate_key /run/mail/k.pem; ssl_protocols TLSv1.3; }
}
`, server4(), portIMAP, host, edge6(), portIMAP, edge6(), portIMAPS)
	err := errors.Join(p.edge.WriteFile("/var/lib/nginx/.lab", nil), p.edge.WriteFile("/run/nginx-edge.conf", []byte(conf)))
	return lab.Daemon{Name: "nginx", Argv: []string{"nginx", "-e", "stderr", "-c", "/run/nginx-edge.conf"},
		Ready: lab.AnswersTCP(netip.AddrPortFrom(edge6(), portIMAPS))}, err
}
