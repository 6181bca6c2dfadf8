// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// passed has all passed through.
func passed(o *Options) { o.TLS, o.RelayProof, o.Name = &TLS{PassThrough: true}, true, "" }

// TestPostfixPassed: a client ends its TLS with a Postfix, by whose certificate it knows it, and which knows the client.
func TestPostfixPassed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		server, trust := servertest.TLS(t, "mta.example")
		trust.ServerName = "mta.example"
		certificate, key := servertest.Files(t, servertest.Readable(t), server)
		p := servertest.NewPostfix(t, x.Backend, "smtpd_tls_cert_file = "+certificate, "smtpd_tls_key_file = "+key,
			"smtpd_tls_security_level = encrypt", "smtpd_tls_received_header = yes", "smtpd_upstream_proxy_protocol = haproxy",
			"smtpd_authorized_xclient_hosts =")
		spec := to(p.Addr)
		spec.Handover = backend.HandoverProxyV2
		e := b.serve(t, "smtp", x.Client, spec, passed)
		b.waitFor("the proof", func() bool { return e.server.Shut("x") == "" })
		c := dial(t, e.at)
		if got := c.do("EHLO client.example", "250-mx."+servertest.PostfixDomain); !strings.Contains(got, "VRFY") {
			t.Errorf("the server offers %q", got) // VRFY is nothing that the edge would offer
		}
		c.do("STARTTLS", "220 ")
		c = c.secure(trust)
		c.do("EHLO client.example", "250-mx.")
		c.do("MAIL FROM:<a@example.com>", "250 ")
		c.do("RCPT TO:<b@"+servertest.PostfixDomain+">", "250 ")
		c.do("DATA", "354 ")
		c.say("hello", ".")
		c.want("250 ")
		c.do("QUIT", "221 ")
		b.waitFor("the message", func() bool { return len(p.Messages(t)) == 1 })
		want := "[127.0.0.1]"
		if x.Client == ip.V6 {
			want = "[IPv6:::1]"
		}
		if got := p.Messages(t)[0]; !strings.Contains(got, want) || !strings.Contains(got, "(using TLSv1.3 with cipher") {
			t.Errorf("got %s\nwant %s by TLS", got, want)
		}
	})
}

// TestDovecotPassed: users speak TLS with a Dovecot, at the listens where it comes first and by STARTTLS, also while they wait for mail.
func TestDovecotPassed(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server, trust := servertest.TLS(t, "mail.example")
		trust.ServerName = "mail.example"
		d := servertest.OpenDovecotTLS(t, x.Backend, server)
		for _, tt := range []struct {
			user, listen string
			at           netip.AddrPort
			handover     backend.Handover
		}{{"proxied", "imaps", d.IMAPSProxy, backend.HandoverProxyV2}, {"untold", "imaps", d.IMAPS, backend.HandoverNone},
			{"asks", "imap", d.IMAP, backend.HandoverNone}} {
			spec := to(tt.at)
			spec.Handover = tt.handover
			conn := dialPlain(t, b.serve(t, tt.listen, x.Client, spec, passed).at)
			if tt.listen == "imap" {
				r := newReader(t, conn)
				r.until("* OK [CAPABILITY IMAP4rev1")
				r.say("a STARTTLS")
				r.until("a OK")
			}
			r := newReader(t, tls.Client(conn, trust))
			r.say("b LOGIN "+tt.user+" secret", "c SELECT INBOX", "d IDLE")
			r.until("b OK")
			r.until("+ idling")
			r.say("DONE", "e LOGOUT")
			r.until("e OK")
			r.ends()
			if tt.handover == backend.HandoverProxyV2 {
				logs(t, b, d, "user=<proxied>", "rip="+iptest.Loopback(x.Client).String()+",", "TLS")
			}
		}
	})
}

// newReader is connect for a connection that is there.
func newReader(t testing.TB, conn net.Conn) *reader {
	conn.SetDeadline(time.Now().Add(patience))
	return &reader{t, conn, bufio.NewReader(conn)}
}

// TestPassedProof: a server is given no clients who could tell it who they are, or whom it would take for the edge and send
// what they like.
func TestPassedProof(t *testing.T) {
	t.Parallel()
	server, _ := servertest.TLS(t, "mx.example")
	certificate, key := servertest.Files(t, servertest.Readable(t), server)
	secret := []string{"smtpd_tls_cert_file = " + certificate, "smtpd_tls_key_file = " + key, "smtpd_tls_security_level = encrypt"}
	dovecot := servertest.OpenDovecotTLS(t, ip.V4, server)
	plain := servertest.OpenDovecot(t, ip.V4)
	strict := slices.Concat(secret, []string{"smtpd_authorized_xclient_hosts ="})
	for _, tt := range []struct {
		name, listen string
		at           netip.AddrPort
		settings     []string // of a Postfix, if there is no address
		want         string   // why the service stays shut
	}{
		{"a Postfix that would believe XCLIENT", "smtp", netip.AddrPort{}, secret, "would believe clients who they are: it takes XCLIENT from 127.0.0.1;"},
		{"a Postfix that relays, in TLS", "submission", netip.AddrPort{}, slices.Concat(strict, []string{"mynetworks = 127.0.0.0/8"}),
			"relays for strangers: it has accepted mail for " + stranger + " from 127.0.0.1;"},
		{"a Postfix that relays, TLS first", "submissions", netip.AddrPort{}, slices.Concat(strict, []string{"mynetworks = 127.0.0.0/8",
			"smtpd_tls_wrappermode = yes"}), "relays for strangers: "},
		{"a Postfix in which one can trust", "smtp", netip.AddrPort{}, strict, ""},
		{"a Dovecot that would believe XCLIENT", "pop3", plain.POP3, nil, "would believe clients who they are: it takes XCLIENT from 127.0.0.1;"},
		{"and TLS first", "pop3s", dovecot.POP3S, nil, "would believe clients who they are: "},
		{"who is no server of POP3", "pop3", plain.IMAP, nil, "it does not greet"},
		{"who speaks no TLS", "pop3s", plain.POP3, nil, "cannot be asked whether it would believe clients who they are: "},
	} {
		t.Run(tt.name+" at "+tt.listen, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			at := tt.at
			if !at.IsValid() {
				at = servertest.NewPostfix(t, ip.V4, tt.settings...).Addr
			}
			e := b.serve(t, tt.listen, ip.V6, to(at), passed)
			b.waitFor("a finding", func() bool { return !strings.Contains(e.server.Shut("x"), unasked) })
			if got := e.server.Shut("x"); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if tt.want != "" {
				c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(e.at))
				if err == nil {
					_, err = c.Read(make([]byte, 1))
					c.Close()
				}
				if err == nil {
					t.Error("a client was not turned away")
				}
				b.waitFor("the count", func() bool { return b.sum().Errors[metrics.NoneUp] == 1 })
			}
		})
	}
}
