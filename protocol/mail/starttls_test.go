// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"crypto/tls"
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
	"github.com/kyozon/kyozon/probe"
)

// speaking is to for servers with which TLS is spoken that have a certificate for a name; trust is that certificate.
func speaking(start probe.Start, name, trust string, servers ...netip.AddrPort) backend.Spec {
	s := to(servers...)
	s.TLS = &backend.ClientTLS{Start: start, Verify: true, Name: name, CA: trust}
	return s
}

// A real Postfix that takes mail in TLS only is asked for it, and told in TLS who the client is, over every crossing.
func TestPostfixStartTLS(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		server, _ := servertest.TLS(t, "mta.example")
		certificate, key := servertest.Files(t, servertest.Readable(t), server)
		settings := []string{"smtpd_tls_cert_file = " + certificate, "smtpd_tls_key_file = " + key, "smtpd_tls_security_level = encrypt",
			"smtpd_tls_received_header = yes"}
		for _, h := range []backend.Handover{backend.HandoverXclient, backend.HandoverAuto, backend.HandoverProxyV2} {
			if h != backend.HandoverXclient && x != (ip.Crossing{Client: ip.V6, Backend: ip.V4}) {
				continue // TestPostfix and TestPostfixProxy have them
			}
			own := settings
			if h == backend.HandoverProxyV2 {
				own = append(slices.Clone(settings), "smtpd_upstream_proxy_protocol = haproxy")
			}
			p := servertest.NewPostfix(t, x.Backend, own...)
			spec := speaking(probe.Required, "mta.example", certificate, p.Addr)
			spec.Handover = h
			got := b.deliver(t, p, b.serve(t, "smtp", x.Client, spec, require))
			want := "[127.0.0.1]"
			if x.Client == ip.V6 {
				want = "[IPv6:::1]"
			}
			if !strings.Contains(got, want) || !strings.Contains(got, "(using TLSv1.3 with cipher") {
				t.Errorf("%v: got %s\nwant %s by TLS", h, got, want)
			}
		}
	})
}

// tlsMail is a small server that agrees to STARTTLS, if it has a certificate. answer is what it says to that.
func tlsMail(t *testing.T, f ip.Family, server *tls.Config, answer string) *servertest.Mail {
	return servertest.NewMail(t, f, func(m *servertest.Mail) {
		m.TLS = server
		if answer == "" {
			return
		}
		m.Offers = append(m.Offers, "STARTTLS")
		m.Reply = func(line string) string {
			if line == "STARTTLS" {
				return answer
			}
			return ""
		}
	})
}

// TestStartTLSToServers: with which servers mail is exchanged, and what others hear in clear.
func TestStartTLSToServers(t *testing.T) {
	t.Parallel()
	good, _ := servertest.TLS(t, "mta.example")
	trust, _ := servertest.Files(t, t.TempDir(), good)
	stranger, _ := servertest.TLS(t, "mta.example")
	for _, tt := range []struct {
		name   string
		start  probe.Start
		asked  string // whom the server is asked for
		server *tls.Config
		answer string // to STARTTLS
		want   string // to MAIL
		heard  string // commands in clear
		reason metrics.Reason
	}{
		{"required", probe.Required, "mta.example", good, "", "250 ", "EHLO STARTTLS", metrics.Fine},
		{"opportunistic", probe.Offered, "mta.example", good, "", "250 ", "EHLO STARTTLS", metrics.Fine},
		{"another's name", probe.Required, "other.example", good, "", "451 4.4.1", "EHLO STARTTLS", metrics.ConnectFailed},
		{"a stranger's certificate", probe.Required, "mta.example", stranger, "", "451 4.4.1", "EHLO STARTTLS", metrics.ConnectFailed},
		{"a stranger's certificate, opportunistic", probe.Offered, "mta.example", stranger, "", "451 4.4.1", "EHLO STARTTLS", metrics.ConnectFailed},
		{"not offered", probe.Required, "mta.example", nil, "", "451 4.4.1", "EHLO", metrics.ServerFault},
		{"not offered, opportunistic", probe.Offered, "mta.example", nil, "", "250 ", "EHLO MAIL", metrics.Fine},
		{"refused", probe.Required, "mta.example", nil, "454 4.7.0 Not now", "451 4.4.1", "EHLO STARTTLS", metrics.ServerFault},
		{"refused, opportunistic", probe.Offered, "mta.example", nil, "454 4.7.0 Not now", "250 ", "EHLO STARTTLS MAIL", metrics.Fine},
		{"more in clear", probe.Required, "mta.example", nil, "220 Go on\r\n250 2.0.0 Ok", "451 4.4.1", "EHLO STARTTLS", metrics.ServerFault},
		{"no TLS behind it", probe.Required, "mta.example", nil, "220 Go on", "451 4.4.1", "EHLO STARTTLS", metrics.ConnectFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				b := newBench(t)
				m := tlsMail(t, x.Backend, tt.server, tt.answer)
				e := b.serve(t, "smtp", x.Client, speaking(tt.start, tt.asked, trust, m.Addr), nil)
				c := dial(t, e.at)
				c.do("HELO client.example", "250 ")
				c.do("MAIL FROM:<a@example.com>", tt.want)
				if got := strings.Join(m.Clear(), " "); !strings.HasPrefix(got+" ", tt.heard+" ") || tt.reason != metrics.Fine && strings.Contains(got, "MAIL") {
					t.Errorf("it heard %.40q in clear, want %q", got, tt.heard)
				}
				if slices.Contains(m.Commands(), "MAIL") != strings.HasPrefix(tt.want, "250") {
					t.Errorf("it heard %q", m.Commands())
				}
				c.do("QUIT", "221 ")
				if n := b.sum().Errors[tt.reason]; tt.reason != metrics.Fine && n != maxAttempts {
					t.Errorf("counted %+v, want %d %v", b.sum(), maxAttempts, tt.reason)
				}
			})
		})
	}
}

// A server whose TLS is not to be had is left for another, and soon not tried any more: the client hears nothing of it.
func TestStartTLSOtherServer(t *testing.T) {
	t.Parallel()
	good, _ := servertest.TLS(t, "mta.example")
	trust, _ := servertest.Files(t, t.TempDir(), good)
	stranger, _ := servertest.TLS(t, "mta.example")
	b := newBench(t)
	b.health = backend.Health{Eject: 2, EjectFor: time.Hour}
	bad, well := tlsMail(t, ip.V4, stranger, ""), tlsMail(t, ip.V4, good, "")
	e := b.serve(t, "smtp", ip.V6, speaking(probe.Required, "mta.example", trust, bad.Addr, well.Addr), nil)
	const clients = 8 // each server would be the first to be asked by a half of them
	for range clients {
		c := dial(t, e.at)
		c.do("EHLO client.example", "250")
		c.do("MAIL FROM:<a@example.com>", "250 ")
		c.do("RCPT TO:<b@example.test>", "250 ")
		c.do("DATA", "354")
		c.say("hello", ".")
		c.want("250 ")
		c.do("QUIT", "221")
	}
	if got := strings.Join(bad.Commands(), " "); got != "EHLO STARTTLS EHLO STARTTLS" || len(well.Messages()) != clients {
		t.Errorf("the server that is not to be trusted heard %q, the other has %d messages", got, len(well.Messages()))
	}
}

// TestDovecotStartTLS: users come to a Dovecot that lets nobody in without TLS, and which knows who they are.
func TestDovecotStartTLS(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server, _ := servertest.TLS(t, "mail.example")
		d := servertest.OpenDovecotTLS(t, x.Backend, server)
		trust, _ := servertest.Files(t, t.TempDir(), server)
		for _, tt := range []struct {
			user, listen string
			at           netip.AddrPort
			start        probe.Start
		}{
			{"asked", "imap", d.IMAP, probe.Required}, {"offered", "imap", d.IMAP, probe.Offered}, {"first", "imap", d.IMAPS, probe.AtOnce},
			{"stls", "pop3", d.POP3, probe.Required}, {"pop3s", "pop3", d.POP3S, probe.AtOnce},
		} {
			spec := speaking(tt.start, "mail.example", trust, tt.at)
			spec.Handover = backend.HandoverAuto
			e := b.serveAbroad(t, tt.listen, x.Client, spec)
			if tt.listen == "imap" {
				r := read(t, e.at, "* OK Ready.")
				r.do("a CAPABILITY", "* CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ AUTH=PLAIN SASL-IR|a OK Capability completed.")
				r.say("b LOGIN "+tt.user+" secret", "c LOGOUT")
				r.until("b OK")
				r.until("c OK")
			} else {
				r := read(t, e.at, "+OK Ready.")
				r.say("CAPA")
				r.until(".")
				r.say("USER "+tt.user, "PASS secret", "QUIT")
				r.want("+OK Send your password.|+OK Logged in.|+OK Logging out.")
			}
			logs(t, b, d, "user=<"+tt.user+">", "rip="+abroad(x.Client).Addr().String()+",", "TLS")
		}
		spec := speaking(probe.Required, "other.example", trust, d.IMAP)
		r := read(t, b.serveAbroad(t, "imap", x.Client, spec).at, "* OK Ready.")
		r.do("a LOGIN stranger secret", "a NO [UNAVAILABLE] Mailboxes cannot be reached now.")
		spec.TLS.Name, spec.Servers[0].Addr = "other.example", d.POP3
		r = read(t, b.serveAbroad(t, "pop3", x.Client, spec).at, "+OK Ready.")
		r.do("USER stranger", "+OK Send your password.")
		r.do("PASS secret", "-ERR [SYS/TEMP] Mailboxes cannot be reached now.")
		if strings.Contains(d.Log(), "stranger") {
			t.Errorf("it has heard of who must not be named: %s", d.Log())
		}
	})
}

// A server that does not agree to the TLS that its pool requires gets no mail, also if nobody has come yet.
func TestProofWantsTLS(t *testing.T) {
	t.Parallel()
	good, _ := servertest.TLS(t, "mta.example")
	trust, _ := servertest.Files(t, t.TempDir(), good)
	for _, tt := range []struct{ name, asked, answer, want string }{
		{"not offered", "mta.example", "", "does not offer STARTTLS"},
		{"refused", "mta.example", "454 4.7.0 Not now", "refuses STARTTLS"},
		{"another's name", "other.example", "", "certificate is for mta.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			var server *tls.Config
			if tt.asked == "other.example" {
				server = good
			}
			m := tlsMail(t, ip.V4, server, tt.answer)
			e := b.serve(t, "smtp", ip.V6, speaking(probe.Required, tt.asked, trust, m.Addr), require)
			b.waitFor("a finding", func() bool { return strings.Contains(e.server.Shut("x"), tt.want) })
			if slices.Contains(m.Commands(), "MAIL") {
				t.Errorf("it heard %q", m.Commands())
			}
		})
	}
}
