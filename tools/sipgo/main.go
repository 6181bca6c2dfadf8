// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Command sipgo is a stateful proxy made with github.com/emiago/sipgo, which bench/sip measures beside ours. It stays in the
// path of a call, and sends each on to one address.
//
//	sipgo LISTEN TO
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sipgo LISTEN TO")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "sipgo:", err)
		os.Exit(1)
	}
}

func run(at, to string) error {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	agent, err := sipgo.NewUA()
	if err != nil {
		return err
	}
	defer agent.Close()
	server, err := sipgo.NewServer(agent)
	if err != nil {
		return err
	}
	client, err := sipgo.NewClient(agent, sipgo.WithClientAddr(at))
	if err != nil {
		return err
	}
	p := &proxy{client: client, to: to}
	server.OnInvite(p.relay)
	server.OnBye(p.relay)
	server.OnAck(func(r *sip.Request, _ sip.ServerTransaction) { _ = p.pass(r) })
	return server.ListenAndServe(ctx, "udp", at)
}

// proxy sends all on to one address.
type proxy struct {
	client *sipgo.Client
	to     string
}

// prepare removes our own route and says where a request goes.
func (p *proxy) prepare(r *sip.Request) {
	r.RemoveHeader("Route")
	r.SetDestination(p.to)
}

// pass sends an ACK on. RFC 3261 §16.
func (p *proxy) pass(r *sip.Request) error {
	p.prepare(r)
	return p.client.WriteRequest(r, sipgo.ClientRequestAddVia)
}

// relay sends a request on, and what is answered back.
func (p *proxy) relay(r *sip.Request, tx sip.ServerTransaction) {
	back := r.Source()
	p.prepare(r)
	onward, err := p.client.TransactionRequest(context.Background(), r, sipgo.ClientRequestAddVia, sipgo.ClientRequestAddRecordRoute)
	if err != nil {
		_ = tx.Respond(sip.NewResponseFromRequest(r, 503, err.Error(), nil))
		return
	}
	defer onward.Terminate()
	for {
		select {
		case answer, more := <-onward.Responses():
			if !more {
				return
			}
			answer.RemoveHeader("Via")
			answer.SetDestination(back)
			if tx.Respond(answer) != nil || answer.StatusCode >= 200 {
				return
			}
		case <-onward.Done():
			return
		case <-tx.Done():
			return
		}
	}
}
