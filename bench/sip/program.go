// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
	"github.com/kyozon/kyozon/service"
)

const (
	ours     = "ours"
	kamailio = "kamailio"
	sipgo    = "sipgo"
	admin    = "127.0.0.1:8464"
)

// program is one that is measured. They have the same address, in turn.
type program struct {
	name   string
	daemon func(p *place, subscribers int) (lab.Daemon, error)
}

// start starts a program. Call stop when it is not measured any more.
func (p *place) start(ctx context.Context, pr program, subscribers int) (processes bench.Program, stop func(), err error) {
	d, err := pr.daemon(p, subscribers)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", pr.name, err)
	}
	d.Ready = lab.AnswersUDP(fmt.Appendf(nil, "OPTIONS sip:%s SIP/2.0\r\nVia: SIP/2.0/UDP [%v]:9;rport;branch=z9hG4bKready\r\nMax-Forwards: 70\r\n"+
		"From: <sip:ready@%[1]s>;tag=1\r\nTo: <sip:%[1]s>\r\nCall-ID: ready\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n", domain, edge6()),
		netip.AddrPortFrom(edge6(), portSIP))
	all := []lab.Daemon{d}
	if pr.name == ours && p.server4 {
		all = []lab.Daemon{p.relay(), d}
	}
	var running []*lab.Process
	stop = func() {
		for _, r := range running {
			r.Stop(context.WithoutCancel(ctx))
		}
	}
	for _, d := range all {
		r, err := p.edge.Start(ctx, d)
		if err != nil {
			stop()
			return nil, nil, err
		}
		running = append(running, r)
		of, err := bench.OpenProgram(r.PID())
		if err != nil {
			stop()
			return nil, nil, err
		}
		processes = append(processes, of...)
	}
	return processes, stop, nil
}

// relay is the process that relays media of ours, which is measured with it.
func (p *place) relay() lab.Daemon {
	return lab.Daemon{Name: "kyozon media", Argv: []string{p.binary, "media", "/run/kyozon/site.yaml"}, Ready: func(context.Context) error {
		_, err := p.edge.ReadFile(service.MediaSocket("/var/lib/kyozon"))
		if errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil // a socket cannot be read
	}}
}

// kyozonDaemon has calls go from one trunk to another. The records of calls are written.
func kyozonDaemon(p *place, subscribers int) (lab.Daemon, error) {
	site := fmt.Sprintf(`site: bench
drain: 1s
admin: {listen: %q}
services:
  phone:
    protocol: phone
    listen: {net: ["[%v]:%d", "%v:%d"]}
    phone:
      domain: %s
      subscribers: {from: subscribers}
      numbers: {own: 050xxxxxxxx, plan: japan}
      trunks:
        from: {gateways: [{at: "[%v]:%d"}], network: net, onward: [to]}
        to: {gateways: [{at: %q}], network: net}
      routes:
        - {to: own, via: subscribers}
        - {to: [emergency, 0ab-j], via: to}
      cdr: /var/lib/kyozon/calls.jsonl
%s`, admin, edge6(), portSIP, edge4(), portSIP, domain, load6(), portClient, p.serverAt(), p.networks())
	var file []byte
	for i := range subscribers {
		file = fmt.Appendf(file, "%s:%s:%x\n", name(i), domain, md5.Sum(fmt.Appendf(nil, "%s:%s:%s", name(i), domain, password)))
	}
	err := errors.Join(p.edge.WriteFile("/var/lib/kyozon/.lab", nil), p.edge.WriteFile("/run/kyozon/site.yaml", []byte(site)),
		p.edge.WriteFile("/run/kyozon/subscribers", file))
	return lab.Daemon{Name: "kyozon", Argv: []string{p.binary, "run", "/run/kyozon/site.yaml"}}, err
}

// networks is where media are relayed, if they are.
func (p *place) networks() string {
	if !p.server4 {
		return ""
	}
	return fmt.Sprintf("networks: {net: {media: [%v, \"2001:db8:200::/64\"]}}\n", edge4())
}

// kamailioConf is a stateful proxy that stays in the path of calls, and a registrar whose bindings are in memory. %[5]d says
// whether it asks for a digest.
const kamailioConf = `#!KAMAILIO
debug=-1
log_stderror=yes
children=2
auto_aliases=no
disable_tcp=yes
dns=no
rev_dns=no
listen=udp:[%[1]v]:%[2]d
listen=udp:%[6]v:%[2]d
mpath="%[4]s/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("usrloc", "db_mode", 0)
modparam("usrloc", "hash_size", 16)
request_route {
	if (is_method("REGISTER")) {
		if (%[5]d == 1) {
			if (!pv_www_authenticate("%[7]s", "%[8]s", "0")) {
				www_challenge("%[7]s", "1");
				exit;
			}
		}
		save("location");
		exit;
	}
	if (is_method("OPTIONS")) {
		sl_send_reply("200", "OK");
		exit;
	}
	if (!mf_process_maxfwd_header("10")) {
		sl_send_reply("483", "Too Many Hops");
		exit;
	}
	if (has_totag()) {
		if (loose_route()) t_relay();
		exit;
	}
	if (is_method("INVITE")) record_route();
	$du = "sip:%[3]v";
	t_relay();
}
`

func kamailioDaemon(digest int) func(p *place, _ int) (lab.Daemon, error) {
	return func(p *place, _ int) (lab.Daemon, error) {
		modules, err := filepath.Glob("/usr/lib/*/kamailio/modules")
		if err == nil && len(modules) == 0 {
			err = fmt.Errorf("%w: the modules of Kamailio", lab.ErrMissing)
		}
		if err != nil {
			return lab.Daemon{}, err
		}
		conf := fmt.Sprintf(kamailioConf, edge6(), portSIP, p.serverAt(), modules[0], digest, edge4(), domain, password)
		return lab.Daemon{Name: kamailio, Argv: []string{"kamailio", "-DD", "-E", "-f", "/run/kamailio.cfg", "-Y", "/run", "-m", "4096", "-M", "16"}},
			p.edge.WriteFile("/run/kamailio.cfg", []byte(conf))
	}
}

func sipgoDaemon(p *place, _ int) (lab.Daemon, error) {
	return lab.Daemon{Name: sipgo, Argv: []string{p.sipgo, netip.AddrPortFrom(edge6(), portSIP).String(), p.serverAt().String()}}, nil
}
