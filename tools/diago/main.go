// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command diago is a telephone made with github.com/emiago/diago, for the tests: it says what it hears. It registers, answers who calls it,
// and does what it is told by lines on its standard input, for the call that it has:
//
//	call NUMBER · reinvite · hangup · quit
//
// What happens is a line on its standard output: registered, established, reinvited, ended, or "failed" and why.
//
//	diago HOST SERVER NAME DOMAIN PASSWORD
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/emiago/diago"
	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: diago HOST SERVER NAME DOMAIN PASSWORD")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, "diago:", err)
		os.Exit(1)
	}
}

func run(host, server, name, domain, password string) error {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	agent, err := sipgo.NewUA(sipgo.WithUserAgent(name), sipgo.WithUserAgentHostname(domain))
	if err != nil {
		return err
	}
	defer agent.Close()
	p := &telephone{server: server, name: name, domain: domain, password: password, calls: make(chan call)}
	p.diago = diago.NewDiago(agent, diago.WithTransport(diago.Transport{Transport: "udp", BindHost: host}))
	if err := p.diago.ServeBackground(ctx, p.called); err != nil {
		return err
	}
	if err := p.register(ctx); err != nil {
		return err
	}
	fmt.Println("registered")
	return p.obey(ctx)
}

// register may have to try again: sipgo does not say when it knows the socket that it listens at, and before that opens another.
func (p *telephone) register(ctx context.Context) error {
	to := sip.Uri{Scheme: "sip", User: p.name, Host: p.domain}
	for try := 0; ; try++ {
		transaction, err := p.diago.RegisterTransaction(ctx, to, diago.RegisterOptions{Username: p.name, Password: p.password, ProxyHost: p.server})
		if err == nil {
			err = transaction.Register(ctx)
		}
		if try == 100 || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// telephone has one call at a time.
type telephone struct {
	diago                          *diago.Diago
	server, name, domain, password string
	calls                          chan call // those that have begun
}

// call is one of either direction.
type call interface {
	Context() context.Context
	Hangup(ctx context.Context) error
	ReInvite(ctx context.Context) error
}

// called answers a call, and says what it hears until it ends.
func (p *telephone) called(d *diago.DialogServerSession) {
	if err := d.Ringing(); err != nil {
		fmt.Println("failed", err)
		return
	}
	m, err := d.Answer(diago.AnswerOptions{})
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	p.calls <- d
	go func() { _ = m.Echo() }() // ends with the call
	fmt.Println("established")
	<-d.Context().Done()
	fmt.Println("ended")
}

// dial calls a number.
func (p *telephone) dial(ctx context.Context, number string) {
	route := sip.NewHeader("Route", "<sip:"+p.server+";lr>")
	d, m, err := p.diago.Invite(ctx, sip.Uri{Scheme: "sip", User: number, Host: p.domain},
		diago.InviteOptions{Username: p.name, Password: p.password, Headers: []sip.Header{route}})
	if err != nil {
		fmt.Println("failed", err)
		return
	}
	p.calls <- d
	go func() { _ = m.Echo() }()
	fmt.Println("established")
	<-d.Context().Done()
	fmt.Println("ended")
}

// obey does what it is told.
func (p *telephone) obey(ctx context.Context) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(os.Stdin); s.Scan(); {
			lines <- s.Text()
		}
	}()
	var now call
	for {
		select {
		case now = <-p.calls:
		case line, ok := <-lines:
			word, number, _ := strings.Cut(line, " ")
			switch {
			case !ok, word == "quit":
				return nil
			case word == "call":
				go p.dial(ctx, number)
			case now == nil:
				fmt.Println("failed: there is no call")
			case word == "reinvite":
				done(now.ReInvite(ctx), "reinvited")
			case word == "hangup":
				done(now.Hangup(ctx), "hung up")
			}
		}
	}
}

func done(err error, what string) {
	if err != nil {
		what = fmt.Sprint("failed ", err)
	}
	fmt.Println(what)
}
