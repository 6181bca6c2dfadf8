// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/kyozon/kyozon/lab"
)

// nginxStream is the module that carries TCP, where Debian puts it.
const nginxStream = "/usr/lib/nginx/modules/ngx_stream_module.so"

// nginxDaemon prepares nginx, tuned: two workers, a socket for each, upstream connections that are kept, no log.
func nginxDaemon(p *place, number int) (lab.Daemon, error) {
	err := errors.Join(
		p.writeKeyPair("/run/nginx"),
		p.edge.WriteFile("/var/lib/nginx/.lab", nil), // makes the directory for what does not fit into memory
		p.edge.WriteFile("/run/nginx.conf", []byte(nginxConfig(number))),
	)
	if err != nil {
		return lab.Daemon{}, err
	}
	web, tcp := listens(number, portWeb), listens(number, portTCP)
	return lab.Daemon{Name: "nginx", Argv: []string{"nginx", "-e", "stderr", "-c", "/run/nginx.conf"},
		Ready: lab.AnswersTCP(web[0], web[1], tcp[0], tcp[1])}, nil
}

func nginxConfig(number int) string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	upstream := func(name, more string, backends ...netip.AddrPort) {
		p("	upstream %s {", name)
		for _, s := range backends {
			p("		server %s;", s)
		}
		p("%s	}", more)
	}
	listen := func(port uint16, more string) {
		for _, a := range listens(number, port) {
			only := ""
			if a.Addr().Is6() {
				only = " ipv6only=on"
			}
			p("		listen %s reuseport%s%s;", a, only, more)
		}
	}
	p("load_module %s;", nginxStream)
	p("daemon off; user www-data; worker_processes 2; pid /run/nginx-edge.pid; error_log stderr;")
	p("events { worker_connections %d; }", 2*mostConnections())
	p("http {\n	access_log off; tcp_nodelay on; keepalive_requests 1000000000;")
	upstream("web", "		keepalive 128; keepalive_requests 1000000000;\n", webServers()...)
	p("	server {")
	listen(portWeb, "")
	listen(portH2, " http2") // HTTP/2 from the first byte, and nothing else
	listen(portTLS, " ssl http2")
	p("		ssl_certificate /run/nginx.pem; ssl_certificate_key /run/nginx.key;")
	p("		ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;")
	p("		location / {\n			proxy_pass http://web; proxy_http_version 1.1;")
	p("			proxy_set_header Connection ''; proxy_set_header Host $host;")
	p("			proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;")
	p("		}\n	}\n}")
	p("stream {")
	upstream("tcp", "", webServers()...)
	p("	server {")
	listen(portTCP, "")
	p("		proxy_pass tcp;\n	}")
	p("	server {")
	listen(portBulk, "")
	p("		proxy_buffer_size 64k; proxy_pass %s;\n	}\n}", netip.AddrPortFrom(servers()[0], portBulk))
	return b.String()
}
