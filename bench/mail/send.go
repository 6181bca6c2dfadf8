// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/textproto"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

const (
	portSMTP = 25
	size     = 4096 // bytes of a message
	sessions = 20   // at once
)

// send is what is measured in messages.
type send struct {
	name    string
	metrics []bench.Metric
	do      func(ctx context.Context, p *place, messages int) (p99 float64, err error)
}

func sends() []send {
	rate := []bench.Metric{bench.Rate, bench.CPU}
	return []send{
		{"mail-smtp-close", rate, source()},
		{"mail-smtp-reuse", rate, source("-d")},
		{"mail-latency", []bench.Metric{bench.P99}, latency},
	}
}

// compare has kyozon and the others carry messages in turn, round by round.
func (p *place) compare(ctx context.Context, s send, o options) ([]bench.Line, error) {
	all := []program{{ours, smtpDaemon}, {"haproxy", haproxyDaemon}}
	if o.gosmtp != "" {
		all = append(all, program{gosmtp, gosmtpDaemon(o.gosmtp)})
	}
	series := make(bench.Series)
	for round := range o.Rounds {
		for _, pr := range slices.Concat(all[round%len(all):], all[:round%len(all)]) {
			one, err := p.sample(ctx, pr, s, o.messages)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", pr.name, err)
			}
			series[pr.name] = append(series[pr.name], one)
			fmt.Fprintf(p.progress, "%-16s %-8s %10.0f /s %10.2f µs, p99 %10.2f µs\n", s.name, pr.name, one.Rate, one.CPU, one.P99)
		}
	}
	var peers []string
	for _, pr := range all[1:] {
		peers = append(peers, pr.name)
	}
	return series.Compare(s.name, ours, s.metrics, peers...), nil
}

// sample has one program, started afresh, carry messages.
func (p *place) sample(ctx context.Context, pr program, s send, messages int) (one bench.Sample, err error) {
	processes, stop, err := p.start(ctx, pr)
	if err != nil {
		return one, err
	}
	defer stop()
	if _, err := s.do(ctx, p, messages/10+1); err != nil { // so that it is warm
		return one, err
	}
	before, err := processes.CPU()
	if err != nil {
		return one, err
	}
	began := time.Now()
	one.P99, err = s.do(ctx, p, messages)
	took := time.Since(began)
	after, cpuErr := processes.CPU()
	one.Rate = float64(messages) / took.Seconds()
	one.CPU = float64((after - before).Microseconds()) / float64(messages)
	return one, errors.Join(err, cpuErr)
}

// source sends with Postfix's smtp-source.
func source(more ...string) func(context.Context, *place, int) (float64, error) {
	return func(ctx context.Context, p *place, messages int) (float64, error) {
		argv := slices.Concat([]string{"smtp-source", "-6", "-s", strconv.Itoa(sessions), "-m", strconv.Itoa(messages), "-l", strconv.Itoa(size),
			"-f", "a@example.com", "-t", "b@example.com"}, more, []string{netip.AddrPortFrom(edge6(), portSMTP).String()})
		if out, err := p.client.Command(ctx, argv...).CombinedOutput(); err != nil || len(out) > 0 {
			return 0, fmt.Errorf("smtp-source: %w: %s", errors.Join(errSource, err), out)
		}
		return 0, nil
	}
}

var errSource = errors.New("not all messages were taken")

// latency sends one message after the other, and returns how long 99 of 100 took at most.
func latency(ctx context.Context, p *place, messages int) (float64, error) {
	conn, err := p.client.DialContext(ctx, "tcp6", netip.AddrPortFrom(edge6(), portSMTP).String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	c := textproto.NewConn(conn)
	if _, _, err := c.ReadResponse(220); err != nil {
		return 0, err
	}
	ask := func(text string, code int) error {
		if _, err := io.WriteString(conn, text+"\r\n"); err != nil {
			return err
		}
		_, _, err := c.ReadResponse(code)
		return err
	}
	body := strings.Repeat(strings.Repeat("x", 62)+"\r\n", size/64) + "."
	if err := ask("EHLO client.example", 250); err != nil {
		return 0, err
	}
	var all []time.Duration
	for range messages {
		began := time.Now()
		err := errors.Join(ask("MAIL FROM:<a@example.com>", 250), ask("RCPT TO:<b@example.com>", 250), ask("DATA", 354), ask(body, 250))
		if err != nil {
			return 0, err
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return float64(all[len(all)*99/100].Nanoseconds()) / 1000, nil
}

// serveMessages starts a server that takes every message and keeps none.
func serveMessages(ctx context.Context, server *lab.Host) error {
	at := netip.AddrPortFrom(server4(), portSMTP)
	_, err := server.Start(ctx, lab.Daemon{Name: "smtp-sink", Argv: []string{"smtp-sink", "-u", "nobody", at.String(), "1000"}, Ready: lab.AnswersTCP(at)})
	return err
}

func smtpDaemon(p *place) (lab.Daemon, error) {
	site := fmt.Sprintf(`site: bench
admin: {listen: %q}
services:
  messages:
    protocol: mail
    listen: {smtp: "[%v]:%d"}
    pools: {all: {servers: ["%v:%d"]}}
    clients: {ipv6: {smtp: all}}
    health: {every: never}
    mail: {name: %s, relay-proof: "off"}
`, admin, edge6(), portSMTP, server4(), portSMTP, host)
	err := errors.Join(p.edge.WriteFile("/var/lib/kyozon/.lab", nil), p.edge.WriteFile("/run/kyozon/site.yaml", []byte(site)))
	return lab.Daemon{Name: "kyozon", Argv: []string{p.binary, "run", "/run/kyozon/site.yaml"},
		Ready: lab.AnswersHTTP(netip.MustParseAddrPort(admin), "/readyz")}, err
}

// haproxyDaemon prepares HAProxy, which carries bytes and understands nothing of them.
func haproxyDaemon(p *place) (lab.Daemon, error) {
	conf := fmt.Sprintf(`global
	maxconn 4000
	nbthread 2
defaults
	mode tcp
	timeout connect 5s
	timeout client 60s
	timeout server 60s
listen messages
	bind [%v]:%d
	server all %v:%d
`, edge6(), portSMTP, server4(), portSMTP)
	return lab.Daemon{Name: "haproxy", Argv: []string{"haproxy", "-db", "-f", "/run/haproxy-edge.conf"},
		Ready: lab.AnswersTCP(netip.AddrPortFrom(edge6(), portSMTP))}, p.edge.WriteFile("/run/haproxy-edge.conf", []byte(conf))
}

const gosmtp = "gosmtp"

// gosmtpDaemon prepares the proxy made with go-smtp, whose path is given.
func gosmtpDaemon(path string) func(*place) (lab.Daemon, error) {
	return func(*place) (lab.Daemon, error) {
		at := netip.AddrPortFrom(edge6(), portSMTP)
		path, err := filepath.Abs(path)
		return lab.Daemon{Name: gosmtp, Argv: []string{path, at.String(), netip.AddrPortFrom(server4(), portSMTP).String()}, Ready: lab.AnswersTCP(at)}, err
	}
}
