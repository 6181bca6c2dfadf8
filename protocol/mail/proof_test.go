// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// standIns is a ledger with one stand-in.
type standIns netip.Addr

func (s standIns) Find(netip.Addr) (netip.Addr, bool) { return netip.Addr(s), true }
func (s standIns) Lease(_ netip.Addr, done func(netip.Addr, error)) {
	done(netip.Addr(s), nil)
}
func (s standIns) LeaseUnproven(_ netip.Addr, done func(netip.Addr, error)) {
	done(netip.Addr(s), nil)
}
func (s standIns) Prove(netip.Addr) {}

// strict relays for nobody.
func strict(line string) string {
	if line == "RCPT TO:<"+stranger+">" {
		return "554 5.7.1 Relay access denied"
	}
	return ""
}

// A server that relays for a client that there is not gets no mail, and its service stays shut and says why. When it is
// put right it opens.
func TestRelayProof(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		m := servertest.NewMail(t, x.Backend, nil)
		e := b.serve(t, "smtp", x.Client, to(m.Addr), func(o *Options) { o.RelayProof = true })
		b.waitFor("a finding", func() bool { return strings.Contains(e.server.Shut("x"), "relays for strangers:") })
		if got, want := e.server.Shut("x"), "from "+iptest.Loopback(x.Backend).String()+"; take"; !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
		c := dial(t, e.at)
		c.do("HELO client.example", "250")
		c.do("MAIL FROM:<>", "451")
		good := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) { m.Reply = strict })
		e = b.serve(t, "smtp", x.Client, to(good.Addr), func(o *Options) { o.RelayProof = true })
		b.waitFor("the proof", func() bool { return e.server.Shut("x") == "" })
		c = dial(t, e.at)
		c.do("EHLO client.example", "250")
		c.do("MAIL FROM:<>", "250")
		if n := b.sum().Opened; n != int64(x.Index()+1) {
			t.Errorf("%d flows, want %d: inquiries are none", n, x.Index()+1)
		}
	})
}

// Handover auto finds what a server takes, and never sends it a client whom it cannot be told.
func TestAuto(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.standIns = standIns(netip.MustParseAddr("100.64.0.17"))
	for _, test := range []struct {
		name, offers, refuses string
		want                  string // attributes, or why the service stays shut
	}{
		{"as he is", "XCLIENT ADDR", "", "ADDR=IPV6:::1"},
		{"by his stand-in", "XCLIENT ADDR", "ADDR=IPV6:", "ADDR=100.64.0.17"},
		{"XCLIENT for others only", "HELP", "", "it does not offer XCLIENT to this machine"},
		{"no client at all", "XCLIENT ADDR", "ADDR=", "it refuses XCLIENT with 2001:db8::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
				m.Offers = append(m.Offers, test.offers)
				m.Reply = func(line string) string {
					if test.refuses != "" && strings.HasPrefix(line, "XCLIENT "+test.refuses) {
						return "501 5.5.4 Bad ADDR syntax"
					}
					if line == "" {
						asked.Add(1)
					}
					return strict(line)
				}
			})
			spec := to(m.Addr)
			spec.Handover = backend.HandoverAuto
			e := b.serve(t, "smtp", ip.V6, spec, func(o *Options) { o.RelayProof = true })
			if !strings.HasPrefix(test.want, "ADDR") {
				b.waitFor("a finding", func() bool { return strings.Contains(e.server.Shut("x"), test.want) })
				return
			}
			b.waitFor("the proof", func() bool { return e.server.Shut("x") == "" })
			c := dial(t, e.at)
			c.do("EHLO client.example", "250")
			c.do("MAIL FROM:<>", "250")
			c.do("RCPT TO:<a@example>", "250")
			c.do("DATA", "354")
			c.say("hello", ".")
			c.want("250")
			if got := m.Messages(); len(got) != 1 || got[0].Xclient != test.want {
				t.Errorf("got %q, want %s", got, test.want)
			}
		})
	}
}

// A server that greets in another way is another, and is asked again.
func TestBanner(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var changed atomic.Bool
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			switch {
			case line == "" && changed.Load():
				return "220 other.example ESMTP"
			case changed.Load():
				return ""
			}
			return strict(line)
		}
	})
	e := b.serve(t, "smtp", ip.V6, to(m.Addr), func(o *Options) { o.RelayProof = true })
	b.waitFor("the proof", func() bool { return e.server.Shut("x") == "" })
	changed.Store(true)
	c := dial(t, e.at)
	c.do("EHLO client.example", "250")
	c.do("MAIL FROM:<>", "250")
	b.waitFor("another finding", func() bool { return strings.Contains(e.server.Shut("x"), "relays for strangers:") })
	if got := e.pool.Backends()[0].Available(0); got {
		t.Error("the server may still get mail")
	}
}
