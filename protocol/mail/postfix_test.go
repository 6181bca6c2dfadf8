// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// require has servers prove that they relay for nobody.
func require(o *Options) { o.RelayProof = true }

// deliver sends a message to a Postfix and returns it as it was delivered.
func (b *bench) deliver(t *testing.T, p *servertest.Postfix, e *edge) string {
	t.Helper()
	b.waitFor("the proof", func() bool { return e.server.Shut("x") == "" })
	c := dial(t, e.at)
	if got := c.do("EHLO client.example", "250"); strings.Contains(got, "XCLIENT") || !strings.Contains(got, "CHUNKING") {
		t.Errorf("clients are offered %q", got)
	}
	before := len(p.Messages(t))
	c.do("MAIL FROM:<a@example.com> SIZE=100 BODY=8BITMIME", "250")
	c.do("RCPT TO:<b@"+servertest.PostfixDomain+"> NOTIFY=NEVER", "250")
	c.do("RCPT TO:<b@example.org>", "554 5.7.1")
	c.do("DATA", "354")
	c.say("Subject: hello", "", "..a dot", ".")
	c.want("250 2.0.0 Ok: ")
	c.do("QUIT", "221")
	b.waitFor("the message", func() bool { return len(p.Messages(t)) > before })
	return p.Messages(t)[0]
}

// A real Postfix is told the client's own address, over every crossing, and writes it down.
func TestPostfix(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for _, h := range []backend.Handover{backend.HandoverXclient, backend.HandoverAuto} {
			p := servertest.NewPostfix(t, x.Backend)
			spec := to(p.Addr)
			spec.Handover = h
			e := b.serve(t, "smtp", x.Client, spec, require)
			got := b.deliver(t, p, e)
			want := "from client.example (unknown [127.0.0.1])"
			if x.Client == ip.V6 {
				want = "from client.example (unknown [IPv6:::1])"
			}
			if !strings.Contains(got, want) || !strings.Contains(got, "\n.a dot\n") {
				t.Errorf("%v: got %s\nwant %s", h, got, want)
			}
			if told := e.pool.Backends()[0].Told(); told.Handover != backend.HandoverXclient || told.Carry != backend.CarryClient {
				t.Errorf("%v: told by %v", h, told)
			}
		}
	})
}

// A Postfix that knows only IPv4 refuses every IPv6 client that it is told of: it is told the stand-in. Without a
// ledger there is none, and the service stays shut.
func TestPostfixOnlyIPv4(t *testing.T) {
	t.Parallel()
	p := servertest.NewPostfix(t, ip.V4, "inet_protocols = ipv4")
	spec := to(p.Addr)
	spec.Handover = backend.HandoverAuto
	without := newBench(t)
	e := without.serve(t, "smtp", ip.V6, spec, require)
	without.waitFor("a finding", func() bool {
		return strings.Contains(e.server.Shut("x"), `XCLIENT with 2001:db8::1: "501 5.5.4 Bad ADDR syntax`)
	})
	b := newBench(t)
	b.standIns = standIns(netip.MustParseAddr("100.64.0.17"))
	e = b.serve(t, "smtp", ip.V6, spec, require)
	if got, want := b.deliver(t, p, e), "from client.example (unknown [100.64.0.17])"; !strings.Contains(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// A Postfix that waits for a PROXY header is found out, and told by one.
func TestPostfixProxy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		p := servertest.NewPostfix(t, x.Backend, "smtpd_upstream_proxy_protocol = haproxy", "smtpd_upstream_proxy_timeout = 1s",
			"smtpd_authorized_xclient_hosts =")
		spec := to(p.Addr)
		spec.Handover = backend.HandoverAuto
		e := b.serve(t, "smtp", x.Client, spec, require)
		want := "[127.0.0.1]"
		if x.Client == ip.V6 {
			want = "[IPv6:::1]"
		}
		if got := b.deliver(t, p, e); !strings.Contains(got, want) {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if told := e.pool.Backends()[0].Told(); told.Handover != backend.HandoverProxyV2 {
			t.Errorf("told by %v", told)
		}
	})
}

// TestPostscreen: so is a Postfix whose postscreen waits for one, and judges the client by it.
func TestPostscreen(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.mute = 2 * time.Second
	postfixes, edges := make(map[ip.Crossing]*servertest.Postfix), make(map[ip.Crossing]*edge)
	for _, x := range ip.Crossings() { // all are asked at once
		p := servertest.NewPostscreen(t, x.Backend, "postscreen_upstream_proxy_protocol = haproxy", "smtpd_authorized_xclient_hosts =")
		spec := to(p.Addr)
		spec.Handover = backend.HandoverAuto
		postfixes[x], edges[x] = p, b.serve(t, "smtp", x.Client, spec, require)
	}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		want := "[127.0.0.1]"
		if x.Client == ip.V6 {
			want = "[IPv6:::1]"
		}
		if got := b.deliver(t, postfixes[x], edges[x]); !strings.Contains(got, want) {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if told := edges[x].pool.Backends()[0].Told(); told.Handover != backend.HandoverProxyV2 {
			t.Errorf("told by %v", told)
		}
	})
}

// A Postfix that trusts the edge, or the addresses that stand for clients, with relaying keeps the service shut.
func TestPostfixRelays(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, networks string
		handover       backend.Handover
		carry          backend.Carry
		want           string
	}{
		{"trusts the edge", "127.0.0.0/8", backend.HandoverNone, backend.CarryClient, "from 127.0.0.1;"},
		{"trusts the stand-ins", "100.64.0.0/10", backend.HandoverXclient, backend.CarryStandIn, "from 100.64.0.17;"},
		{"trusts clients", "[2001:db8::]/32", backend.HandoverXclient, backend.CarryClient, "from 2001:db8::1;"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.standIns = standIns(netip.MustParseAddr("100.64.0.17"))
			p := servertest.NewPostfix(t, ip.V4, "mynetworks = "+test.networks)
			spec := to(p.Addr)
			spec.Handover, spec.Carry = test.handover, test.carry
			e := b.serve(t, "smtp", ip.V6, spec, require)
			b.waitFor("a finding", func() bool { return strings.Contains(e.server.Shut("x"), test.want) })
			c := dial(t, e.at)
			c.do("HELO client.example", "250")
			c.do("MAIL FROM:<>", "451 4.4.1")
		})
	}
}

// TestSwaks lets a client that we have not written speak to a Postfix, by STARTTLS, over every crossing.
func TestSwaks(t *testing.T) {
	t.Parallel()
	swaks := servertest.Find(t, "swaks")
	b := newBench(t)
	o, _ := certificate(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		p := servertest.NewPostfix(t, x.Backend)
		spec := to(p.Addr)
		spec.Handover = backend.HandoverXclient
		e := b.serve(t, "smtp", x.Client, spec, func(all *Options) { all.TLS, all.RelayProof = o, true })
		b.waitFor("the proof", func() bool { return e.server.Shut("x") == "" })
		c := exec.CommandContext(t.Context(), swaks, "--server", e.at.Addr().String(), "--port", strconv.Itoa(int(e.at.Port())),
			"--tls", "--ehlo", "client.example", "--from", "a@example.com", "--to", "b@"+servertest.PostfixDomain, "--body", "by swaks")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		b.waitFor("the message", func() bool { return len(p.Messages(t)) == 1 })
		want := "[" + iptest.Loopback(x.Client).String() + "]"
		if x.Client == ip.V6 {
			want = "[IPv6:::1]"
		}
		if got := p.Messages(t)[0]; !strings.Contains(got, want) || !strings.Contains(got, "by swaks") {
			t.Errorf("got %s\nwant %s", got, want)
		}
	})
}

// TestSMTPSource: what Postfix's own load generator brings, over every crossing and by several connections at once, is there
// once, each message of it.
func TestSMTPSource(t *testing.T) {
	t.Parallel()
	source := servertest.Find(t, "smtp-source")
	b := newBench(t)
	const messages = 200
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		m := servertest.NewMail(t, x.Backend, nil)
		e := b.serve(t, "smtp", x.Client, to(m.Addr), nil)
		for _, how := range [][]string{{}, {"-d"}} { // a connection for each message, or for many
			before := len(m.Messages())
			c := exec.CommandContext(t.Context(), source, append(how, "-N", "-m", strconv.Itoa(messages), "-s", "5", "-l", "4096", "-f", "a@example.com",
				"-t", "b@example.test", e.at.String())...)
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			seen := make(map[string]int)
			for _, one := range m.Messages()[before:] {
				seen[strings.Join(one.Rcpt, " ")]++
			}
			if len(seen) != messages || len(m.Messages()) != before+messages {
				t.Errorf("%d messages, %d of them different, want %d", len(m.Messages())-before, len(seen), messages)
			}
		}
	})
}

// TestPosttlsFinger: Postfix's own test of STARTTLS is content with the edge's certificate.
func TestPosttlsFinger(t *testing.T) {
	t.Parallel()
	finger := servertest.Find(t, "posttls-finger")
	b := newBench(t)
	o, _ := certificate(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		m := servertest.NewMail(t, x.Backend, nil)
		e := b.serve(t, "smtp", x.Client, to(m.Addr), func(all *Options) { all.TLS = o })
		c := exec.CommandContext(t.Context(), finger, "-c", "-l", "secure", "-F", string(o.Certificate), "-o", "inet_protocols=all", "["+e.at.Addr().String()+"]:"+strconv.Itoa(int(e.at.Port())), "mx.example")
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Verified TLS connection established") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestPostfixCounts: a Postfix that limits what a client may do counts the clients that it is told of, each by himself, not
// the edge; by XCLIENT and by PROXY.
func TestPostfixCounts(t *testing.T) {
	t.Parallel()
	one, another := netip.MustParseAddr("127.0.0.21"), netip.MustParseAddr("127.0.0.22")
	for _, h := range []backend.Handover{backend.HandoverXclient, backend.HandoverProxyV2} {
		for _, f := range []ip.Family{ip.V4, ip.V6} {
			t.Run(h.String()+" "+f.String(), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				settings := []string{"smtpd_client_message_rate_limit = 1", "smtpd_client_connection_count_limit = 1"}
				if h == backend.HandoverProxyV2 {
					settings = append(settings, "smtpd_upstream_proxy_protocol = haproxy")
				}
				p := servertest.NewPostfix(t, f, settings...)
				spec := to(p.Addr)
				spec.Handover = h
				e := b.serve(t, "smtp", ip.V4, spec, nil)
				c := dialFrom(t, one, e.at)
				c.want("220")
				c.do("EHLO client.example", "250")
				c.do("MAIL FROM:<a@example.com>", "250")
				d := dialFrom(t, one, e.at)
				d.want("220")
				d.do("HELO client.example", "250")
				d.do("MAIL FROM:<a@example.com>", "451 4.4.1") // his second connection at once
				d = dialFrom(t, another, e.at)
				d.want("220")
				d.do("HELO client.example", "250")
				d.do("MAIL FROM:<a@example.com>", "250")
				c.do("RSET", "250")
				c.do("MAIL FROM:<a@example.com>", "450 4.7.1") // his second message
			})
		}
	}
}
