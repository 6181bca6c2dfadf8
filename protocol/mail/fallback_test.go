// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/mail/policy"
	"github.com/kyozon/kyozon/service"
)

// serveBoth opens a listen of each family at one port.
func (b *bench) serveBoth(t *testing.T, spec backend.Spec, change func(*Options)) (edge4, edge6 *edge) {
	t.Helper()
	lease6, lease4 := b.onePort(t)
	var edges []*edge
	for _, lease := range []*listen.Lease{lease4, lease6} {
		e := b.build(t, service.Listen{Name: "smtp", Addr: lease.Addr()}, spec, change)
		acceptor, err := b.loops.Listen(lease.FD(), e.server.Doors[lease.Addr()].Conn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(acceptor.Close)
		edges = append(edges, e)
	}
	return edges[0], edges[1]
}

func (b *bench) onePort(t *testing.T) (lease6, lease4 *listen.Lease) {
	t.Helper()
	for range 100 {
		lease6, err := b.sockets.Stream(tcpAddr(netip.AddrPortFrom(iptest.Loopback(ip.V6), 0)))
		if err != nil {
			t.Fatal(err)
		}
		lease4, err := b.sockets.Stream(tcpAddr(netip.AddrPortFrom(iptest.Loopback(ip.V4), lease6.Addr().AddrPort.Port())))
		if err == nil {
			t.Cleanup(lease4.Close)
			t.Cleanup(lease6.Close)
			return lease6, lease4
		}
		lease6.Close()
	}
	t.Fatal("no port is free for both families")
	return nil, nil
}

// TestFallback: a real Postfix that has both families, and whose IPv6 is not in order, is refused over IPv6 with 4.7.25 or
// 4.7.26, and delivers over IPv4 in the same attempt.
func TestFallback(t *testing.T) {
	t.Parallel()
	names := servertest.NewDNS(t, ip.V6, "", nil)
	rspamd := servertest.HTTP(t, ip.V4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, `{"action":"no action","symbols":{"R_SPF_SOFTFAIL":{},"R_DKIM_NA":{}}}`)
	}))
	for _, test := range []struct {
		name, rule string
		change     func(*Options)
	}{
		{"no reverse name", "reverse-name", func(o *Options) {
			o.Policy = &Policy{ReverseName: policy.Enforce, Resolvers: []netip.AddrPort{names.Addr}}
		}},
		{"neither SPF nor DKIM", "authentication", func(o *Options) {
			o.Scan = &Scan{Rspamd: []netip.AddrPort{rspamd}, Authentication: policy.Enforce}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				b := newBench(t)
				mta := servertest.NewMail(t, f, nil)
				_, edge6 := b.serveBoth(t, to(mta.Addr), test.change)
				sender := servertest.NewSender(t, f, "127.0.0.1 localhost mx.example.jp\n::1 mx.example.jp\n", "myhostname = sender.example.com",
					"smtp_address_preference = ipv6", fmt.Sprintf("relayhost = [mx.example.jp]:%d", edge6.at.Port()))
				c := dial(t, sender.Addr)
				c.do("EHLO client.example.com", "250")
				c.do("MAIL FROM:<a@example.com>", "250")
				c.do("RCPT TO:<b@example.jp>", "250")
				c.do("DATA", "354")
				c.say("Subject: hello", "", "hello", ".")
				c.want("250")
				c.do("QUIT", "221")
				b.waitFor("the message", func() bool { return len(mta.Messages()) > 0 })
				if got := mta.Messages()[0]; !strings.Contains(got.Text, "Subject: hello") || got.Helo != "sender.example.com" {
					t.Errorf("got %+v", got)
				}
				want := service.Refusal{Service: "x", Family: ip.V6, Rule: test.rule, Refused: true, Count: 1}
				if all := edge6.server.Refusals(); len(all) != 1 || all[0] != want {
					t.Errorf("refusals %+v, want %+v", all, want)
				}
			})
		})
	}
}
