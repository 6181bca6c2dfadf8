// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strings"
)

// Nginx is Debian's nginx: it answers everything with Body, or hands it to Upstream; /healthz always is "ok". Its
// access log, in the combined format, is the host's /var/log/nginx/access.log.
type Nginx struct {
	Listen   List[netip.AddrPort] `yaml:"listen"`
	Body     string               `yaml:"body"`     // nginx's variables work in it: $remote_addr
	Upstream string               `yaml:"upstream"` // address and port of an application
	Files    map[string]int       `yaml:"files"`    // name → bytes, as Numbered makes them, to be downloaded
	Trust    List[netip.Prefix]   `yaml:"trust"`    // whose X-Forwarded-For replaces $remote_addr
	Workers  int                  `yaml:"workers"`  // 0 means 1
	Quiet    bool                 `yaml:"quiet"`    // no access log: for measurements
}

func (n *Nginx) name() string { return "nginx" }

func (n *Nginx) check(h HostSpec) []problem {
	all := checkListen(h, "listen", n.Listen)
	if n.Body != "" && n.Upstream != "" {
		all = append(all, problem{[]string{"upstream"}, errors.New("give either body or upstream")})
	}
	if strings.ContainsAny(n.Body, "'\\") {
		all = append(all, problem{[]string{"body"}, errors.New(`a body has no ' and no \`)})
	}
	for name, size := range n.Files {
		if name != path.Base(path.Clean("/"+name)) || size < 0 {
			all = append(all, problem{[]string{"files", name}, errors.New("must be a plain name and a size in bytes")})
		}
	}
	return all
}

func (n *Nginx) daemon(_ context.Context, h *Host) (Daemon, error) {
	binary, err := need("nginx", "nginx-light")
	if err != nil {
		return Daemon{}, err
	}
	for name, size := range n.Files {
		if err := h.WriteFile("/var/lib/nginx/files/"+name, Numbered(size)); err != nil {
			return Daemon{}, err
		}
	}
	for at, text := range map[string]string{"/run/nginx.conf": n.config(), "/var/lib/nginx/.lab": "",
		"/var/log/nginx/.lab": ""} {
		if err := h.WriteFile(at, []byte(text)); err != nil {
			return Daemon{}, err
		}
	}
	return Daemon{Name: "nginx", Argv: []string{binary, "-e", "stderr", "-c", "/run/nginx.conf"},
		Ready: AnswersTCP(n.Listen...)}, nil
}

func (n *Nginx) config() string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	p("daemon off; user www-data; worker_processes %d; pid /run/nginx.pid; error_log stderr;", max(n.Workers, 1))
	p("worker_rlimit_nofile 65536;")
	p("events { worker_connections 16384; }")
	p("http {")
	p("	access_log %s;", map[bool]string{true: "off", false: "/var/log/nginx/access.log"}[n.Quiet])
	p("	sendfile on; tcp_nopush on; keepalive_requests 100000000;")
	for _, t := range n.Trust {
		p("	set_real_ip_from %s;", t)
	}
	if len(n.Trust) > 0 {
		p("	real_ip_header X-Forwarded-For;")
	}
	if n.Upstream != "" {
		p("	upstream application { server %s; keepalive 16; }", n.Upstream)
	}
	p("	server {")
	for _, a := range n.Listen {
		p("		listen %s;", listenOf(a))
	}
	p("		default_type text/plain;")
	p("		location = /healthz { access_log off; return 200 'ok\n'; }")
	for name := range n.Files {
		p("		location = /%s { root /var/lib/nginx/files; }", name)
	}
	if n.Upstream != "" {
		p("		location / { proxy_pass http://application; proxy_http_version 1.1; proxy_set_header Connection '';")
		p("			proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }")
	} else {
		p("		location / { return 200 '%s'; }", n.Body)
	}
	p("	}\n}")
	return b.String()
}

// Numbered returns size bytes in which every eight say, little-endian, where they are: who downloads them sees what
// is lost, doubled or moved.
func Numbered(size int) []byte {
	data := make([]byte, 0, size+7)
	for i := 0; i < size; i += 8 {
		data = binary.LittleEndian.AppendUint64(data, uint64(i))
	}
	return data[:size]
}

// listenOf writes an address so that [::]:80 means IPv6 only.
func listenOf(a netip.AddrPort) string {
	if a.Addr().Is4() {
		return a.String()
	}
	return a.String() + " ipv6only=on"
}
