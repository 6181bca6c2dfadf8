// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HAProxy is the load balancer that is there already, or one to compare with.
type HAProxy struct {
	Listen      List[netip.AddrPort] `yaml:"listen"`
	Mode        string               `yaml:"mode"` // tcp or http; "" means http
	Servers     List[netip.AddrPort] `yaml:"servers"`
	Check       string               `yaml:"check"`         // path to ask for; "" means never ask
	ForwardFor  bool                 `yaml:"forwarded-for"` // tell servers the client in X-Forwarded-For
	Threads     int                  `yaml:"threads"`       // 0 means 1
	Connections int                  `yaml:"connections"`   // at once; 0 means as many as the limit on files allows, at most 20000
}

func (x *HAProxy) name() string { return "haproxy" }

func (x *HAProxy) check(h HostSpec) []problem {
	all := checkListen(h, "listen", x.Listen)
	if x.Mode != "" && x.Mode != "tcp" && x.Mode != "http" {
		all = append(all, problem{[]string{"mode"}, errors.New("must be tcp or http")})
	}
	if len(x.Servers) == 0 {
		all = append(all, problem{[]string{"servers"}, errors.New("name at least one server")})
	}
	return all
}

func (x *HAProxy) daemon(_ context.Context, h *Host) (Daemon, error) {
	binary, err := need("haproxy", "haproxy")
	if err != nil {
		return Daemon{}, err
	}
	if err := h.WriteFile("/run/haproxy.cfg", []byte(x.config())); err != nil {
		return Daemon{}, err
	}
	return Daemon{Name: "haproxy", Argv: []string{binary, "-db", "-f", "/run/haproxy.cfg"},
		Ready: AnswersTCP(x.Listen...)}, nil
}

func (x *HAProxy) config() string {
	var b strings.Builder
	p := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }
	mode, connections := x.Mode, x.Connections
	if mode == "" {
		mode = "http"
	}
	if connections == 0 {
		connections = mostConnections()
	}
	p("global\n	nbthread %d\n	maxconn %d", max(x.Threads, 1), connections)
	p("defaults\n	mode %s\n	timeout connect 5s\n	timeout client 1m\n	timeout server 1m", mode)
	if mode == "http" && x.ForwardFor {
		p("	option forwardfor")
	}
	if x.Check != "" {
		p("	option httpchk GET %s", x.Check)
	}
	p("listen all")
	for _, a := range x.Listen {
		p("	bind %s%s", a, map[bool]string{true: "", false: " v6only"}[a.Addr().Is4()])
	}
	for i, s := range x.Servers {
		p("	server s%s %s%s", strconv.Itoa(i+1), s, map[bool]string{true: " check inter 1s", false: ""}[x.Check != ""])
	}
	return b.String()
}

// mostConnections returns how many connections HAProxy can promise: it refuses to start when two files for each, and
// some of its own, are more than it may open.
func mostConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 400 // fits the smallest usual limit, 1024
	}
	return int(min(20000, (limit.Max-100)/2))
}
