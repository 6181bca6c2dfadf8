// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"fmt"
	"maps"
	"net/netip"
	"net/textproto"
	"runtime"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// TestCounts: the status has what a protocol counts by itself, also after a reload, and each service how many clients are
// connected to it.
func TestCounts(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server := servertest.NewMail(t, c.Backend, nil)
		at := b.free(listen.TCP, c.Client)
		site := func(size string) string {
			return fmt.Sprintf("  mail: {protocol: mail, listen: {smtp: %q}, pools: {%s}, clients: {%v: {smtp: existing}}, "+
				"mail: {name: mx.example, relay-proof: off, message-size: %s}}\n", at, servers([]netip.AddrPort{server.Addr}), c.Client, size)
		}
		sessions := func() int64 {
			s := b.edge.Status().Services[0]
			if s.Sessions == nil {
				t.Fatalf("%s has no sessions", s.Service)
			}
			return *s.Sessions
		}
		came := func() (n int64) {
			want := map[string]string{"service": "mail", "client_family": c.Client.String(), "listen": "smtp"}
			for _, one := range b.edge.Status().Counts {
				if one.Metric == "kyozon_mail_sessions_total" && maps.Equal(one.Labels, want) {
					n += one.Value
				}
			}
			return n
		}
		b.serve(site("1MiB"))
		for i, size := range []string{"2MiB", "3MiB"} {
			s := textproto.NewConn(dial(t, at))
			if _, _, err := s.ReadResponse(220); err != nil {
				t.Fatal(err)
			}
			b.serve(site(size))
			if got, n := sessions(), came(); got != 1 || n != int64(i)+1 {
				t.Errorf("%d sessions of %d, want 1 of %d", got, n, i+1)
			}
			s.Close()
			for deadline := time.Now().Add(patience); sessions() > 0; runtime.Gosched() {
				if time.Now().After(deadline) {
					t.Fatalf("%d sessions although the client has gone", sessions())
				}
			}
		}
	})
}
