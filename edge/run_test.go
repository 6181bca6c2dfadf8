// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"context"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/l4"
	"github.com/kyozon/kyozon/service"
)

// runner is the protocol tcp with servers that run something and have a certificate.
type runner struct {
	began, ended chan string // the state directory that the server was built with
}

func (r *runner) protocol() service.Protocol {
	p := l4.TCP()
	build := p.Build
	p.Build = func(services []*service.Service, env service.Env) (service.Server, error) {
		s, err := build(services, env)
		s.Run = func(ctx context.Context) {
			r.began <- env.State
			<-ctx.Done()
			r.ended <- env.State
		}
		s.Certificates = func() []certs.Info {
			return []certs.Info{{Source: "shop.pem", Names: []string{"shop.example"}, End: time.Unix(1e9, 0)}}
		}
		return s, err
	}
	return p
}

// TestServerRuns holds that what a server runs begins when its generation goes into service, and ends when the next
// one has, or the edge drains; and that its certificates are in the picture.
func TestServerRuns(t *testing.T) {
	t.Parallel()
	r := &runner{began: make(chan string, 1), ended: make(chan string, 1)}
	b := &bench{t: t, sockets: listen.NewSet(listen.Options{}), dir: stateDir(t), drain: time.Second}
	var err error
	b.edge, err = edge.New(edge.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test",
		Protocols: []service.Protocol{r.protocol()}, Loops: 1, Sockets: b.sockets})
	if err != nil {
		t.Fatal(err)
	}
	at, server := b.free(listen.TCP, ip.V6), teller(t, ip.V4)
	hear := func(what string, from chan string) {
		t.Helper()
		select {
		case state := <-from:
			if state != b.dir {
				t.Errorf("%s: state directory %q, want %q", what, state, b.dir)
			}
		case <-time.After(patience):
			t.Fatalf("%s: waited in vain", what)
		}
	}
	b.serve(line("one", "tcp", at, servers([]netip.AddrPort{server})))
	hear("the first begins", r.began)
	b.serve(line("two", "tcp", at, servers([]netip.AddrPort{server})))
	hear("the second begins", r.began)
	hear("the first ends", r.ended)

	want := []edge.CertificateStatus{{Source: "shop.pem", Names: []string{"shop.example"}, End: time.Unix(1e9, 0),
		State: "expired", Reason: "expired on 2001-09-09T01:46:40Z"}}
	if diff := cmp.Diff(want, b.edge.Status().Certificates); diff != "" {
		t.Errorf("certificates (-want +got):\n%s", diff)
	}
	b.stop()
	hear("the second ends", r.ended)
}
