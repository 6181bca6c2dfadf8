// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"fmt"
	"net/netip"
	"net/textproto"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// TestRefusals: the status says whom the rules of a protocol have refused, and whom they would have, also after a reload.
func TestRefusals(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server := servertest.NewMail(t, c.Backend, nil)
		at := b.free(listen.TCP, c.Client)
		site := func(mode string) string {
			return fmt.Sprintf("  mail: {protocol: mail, listen: {smtp: %q}, pools: {%s}, clients: {%v: {smtp: existing}}, "+
				"mail: {name: mx.example, relay-proof: off, policy: {clients: all, hello: %s}}}\n", at, servers([]netip.AddrPort{server.Addr}), c.Client, mode)
		}
		for _, step := range []struct {
			mode string
			code int
			want []edge.RefusalStatus
		}{
			{"off", 250, []edge.RefusalStatus{}},
			{"observe", 250, []edge.RefusalStatus{{Service: "mail", ClientFamily: c.Client.String(), Rule: "hello", Outcome: "observed", Count: 1}}},
			{"enforce", 550, []edge.RefusalStatus{{Service: "mail", ClientFamily: c.Client.String(), Rule: "hello", Outcome: "refused", Count: 1},
				{Service: "mail", ClientFamily: c.Client.String(), Rule: "hello", Outcome: "observed", Count: 1}}},
		} {
			b.serve(site(step.mode))
			s := textproto.NewConn(dial(t, at))
			for _, say := range []struct {
				line string
				code int
			}{{"", 220}, {"EHLO localhost", 250}, {"MAIL FROM:<a@example.com>", step.code}, {"QUIT", 221}} {
				if say.line != "" {
					if err := s.PrintfLine("%s", say.line); err != nil {
						t.Fatal(err)
					}
				}
				if _, _, err := s.ReadResponse(say.code); err != nil {
					t.Fatalf("%s: %s: %v", step.mode, say.line, err)
				}
			}
			s.Close()
			if diff := cmp.Diff(step.want, b.edge.Status().Refusals); diff != "" {
				t.Errorf("%s: refusals (-want +got):\n%s", step.mode, diff)
			}
		}
	})
}
