// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// postbox is a small server of IMAP or POP3 that notes what it is told.
type postbox struct {
	at       netip.AddrPort
	greeting string

	mu   sync.Mutex
	said []string
}

func (p *postbox) note(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.said = append(p.said, line)
}

func (p *postbox) heard() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

// newIMAP opens the mailboxes of who says secret, and then answers each line with the same in capitals.
func newIMAP(t testing.TB, f ip.Family, greeting string) *postbox {
	p := &postbox{greeting: greeting}
	p.at = servertest.TCP(t, f, func(c *net.TCPConn) {
		c.Write([]byte(greeting + "\r\n"))
		open := false
		for r := bufio.NewScanner(c); r.Scan(); {
			line := r.Text()
			tag, rest, _ := strings.Cut(line, " ")
			p.note(rest)
			switch {
			case open:
				c.Write([]byte(strings.ToUpper(line) + "\r\n"))
			case strings.HasPrefix(rest, "CAPABILITY"):
				c.Write([]byte("* CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN AUTH=CRAM-MD5\r\n" + tag + " OK done\r\n"))
			case strings.HasPrefix(rest, "ID "):
				c.Write([]byte("* ID NIL\r\n" + tag + " OK done\r\n"))
			case strings.Contains(rest, "secret"):
				open = true
				c.Write([]byte(tag + " OK [CAPABILITY IMAP4rev1 IDLE MOVE] in\r\n"))
			default:
				c.Write([]byte(tag + " NO [AUTHENTICATIONFAILED] wrong\r\n"))
			}
		}
	})
	return p
}

// newPOP3 is newIMAP for POP3.
func newPOP3(t testing.TB, f ip.Family, greeting string) *postbox {
	p := &postbox{greeting: greeting}
	p.at = servertest.TCP(t, f, func(c *net.TCPConn) {
		c.Write([]byte(greeting + "\r\n"))
		open := false
		for r := bufio.NewScanner(c); r.Scan(); {
			line := r.Text()
			p.note(line)
			switch {
			case open:
				c.Write([]byte(strings.ToUpper(line) + "\r\n"))
			case line == "CAPA":
				c.Write([]byte("+OK\r\nUSER\r\nTOP\r\nSASL PLAIN CRAM-MD5\r\n.\r\n"))
			case strings.HasPrefix(line, "USER"), strings.HasPrefix(line, "XCLIENT"):
				c.Write([]byte("+OK\r\n"))
			case line == "PASS secret":
				open = true
				c.Write([]byte("+OK in\r\n"))
			default:
				c.Write([]byte("-ERR [AUTH] wrong\r\n"))
			}
		}
	})
	return p
}

const (
	imapGreeting = "* OK [CAPABILITY IMAP4rev1 ID IDLE LOGIN-REFERRALS AUTH=PLAIN AUTH=CRAM-MD5] ready"
	popGreeting  = "+OK [XCLIENT] ready"
)

// reader is a client that reads mail.
type reader struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func read(t testing.TB, at netip.AddrPort, greeting string) *reader {
	t.Helper()
	r := connect(t, at)
	r.want(greeting)
	return r
}

func connect(t testing.TB, at netip.AddrPort) *reader {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &reader{t, conn, bufio.NewReader(conn)}
}

// want reads lines, joined by |, which end with the one that is wanted last.
func (r *reader) want(text string) {
	r.t.Helper()
	for want := range strings.SplitSeq(text, "|") {
		line, err := r.in.ReadString('\n')
		if got := strings.TrimSuffix(line, "\r\n"); err != nil || got != want {
			r.t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
}

func (r *reader) say(lines ...string) {
	r.t.Helper()
	if _, err := r.conn.Write([]byte(strings.Join(lines, "\r\n") + "\r\n")); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reader) do(line, want string) {
	r.t.Helper()
	r.say(line)
	r.want(want)
}

// ends wants the connection to end.
func (r *reader) ends() {
	r.t.Helper()
	if line, err := r.in.ReadString('\n'); err == nil {
		r.t.Fatalf("got %q, want the end", line)
	}
}

func inClear(o *Options) { o.AuthInClear = true }

// TestIMAP: what is said before the login is answered here, the login by the server, and then nobody reads any more.
func TestIMAP(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server := newIMAP(t, c.Backend, imapGreeting)
		spec := to(server.at)
		spec.Handover = backend.HandoverID
		e := b.serve(t, "imap", c.Client, spec, inClear)
		r := read(t, e.at, "* OK Ready.")
		r.do("a CAPABILITY", "* CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN SASL-IR|a OK Capability completed.")
		r.do(`b ID ("x-originating-ip" "192.0.2.66")`, "* ID NIL|b OK ID completed.")
		r.do("c LOGIN tim guess", "c NO [AUTHENTICATIONFAILED] wrong")
		r.do("d SELECT INBOX", "d BAD Not a command before login.")
		r.say("e LOGIN {3}", "tim {6+}", "secret", "f idle", "g xclient")
		r.want("+ OK|e OK [CAPABILITY IMAP4rev1 IDLE MOVE] in|F IDLE|G XCLIENT")
		client := ip.CanonicalPort(r.conn.LocalAddr().(*net.TCPAddr).AddrPort())
		who := `ID ("x-originating-ip" "` + client.Addr().String() + `" "x-originating-port" "`
		if got := server.heard(); strings.Count(got, who) != 2 || strings.Contains(got, "192.0.2.66") {
			t.Errorf("the server was told\n%s\nwant %s twice", got, who)
		}
		again := read(t, e.at, "* OK [CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN SASL-IR] Ready.")
		again.do("a AUTHENTICATE PLAIN AHRpbQBndWVzcw==", "a NO [AUTHENTICATIONFAILED] wrong")
		again.do("b LOGOUT", "* BYE Logging out|b OK Logout completed.")
		again.ends()
		r.conn.Close()
		b.waitFor("the end of the session", func() bool { return b.sum().Active == 0 })
		if s := b.sum(); s.Requests != 3 || s.Errors[metrics.LoginFailed] != 2 {
			t.Errorf("counted %+v, want 3 logins, 2 of which failed", s)
		}
	})
}

// TestPOP3 is TestIMAP for POP3.
func TestPOP3(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server := newPOP3(t, c.Backend, popGreeting)
		spec := to(server.at)
		spec.Handover = backend.HandoverAuto
		r := read(t, b.serve(t, "pop3", c.Client, spec, inClear).at, "+OK Ready.")
		r.do("CAPA", "+OK Capability list follows|USER|TOP|SASL PLAIN|.")
		r.do("XCLIENT ADDR=192.0.2.66", "-ERR Not for clients.")
		r.do("USER tim", "+OK Send your password.")
		r.do("PASS guess", "-ERR [AUTH] wrong")
		r.say("USER tim", "PASS secret", "stat", "xclient addr=192.0.2.66")
		r.want("+OK Send your password.|+OK in|STAT|XCLIENT ADDR=192.0.2.66")
		client := ip.CanonicalPort(r.conn.LocalAddr().(*net.TCPAddr).AddrPort())
		who := "XCLIENT ADDR=" + client.Addr().String() + " PORT="
		if got := server.heard(); strings.Count(got, who) != 2 {
			t.Errorf("the server was told\n%s\nwant %s twice", got, who)
		}
		r.conn.Close()
	})
}

// pemFiles writes a certificate for localhost, and returns it as options and as what a client trusts.
func pemFiles(t testing.TB) (*TLS, *tls.Config) {
	t.Helper()
	server, client := servertest.TLS(t, "localhost")
	key, err := x509.MarshalPKCS8PrivateKey(server.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certificate, private := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	for name, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: server.Certificates[0].Certificate[0]},
		private: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &TLS{Certificate: service.Path(certificate), Key: service.Path(private)}, client
}

// TestMailboxTLS: TLS first, and TLS after a word, before which no password is taken.
func TestMailboxTLS(t *testing.T) {
	t.Parallel()
	files, trust := pemFiles(t)
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		spec := to(newIMAP(t, c.Backend, imapGreeting).at)
		withTLS := func(o *Options) { o.TLS = files }
		r := read(t, b.serve(t, "imap", c.Client, spec, withTLS).at, "* OK Ready.")
		r.do("a CAPABILITY", "* CAPABILITY IMAP4rev1 ID IDLE STARTTLS LOGINDISABLED|a OK Capability completed.")
		r.do("b LOGIN tim secret", "b NO [PRIVACYREQUIRED] Not without TLS.")
		r.do("c STARTTLS", "c OK Begin TLS negotiation now.")
		r.secure(trust)
		r.do("d CAPABILITY", "* CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN SASL-IR|d OK Capability completed.")
		r.do("e LOGIN tim secret", "e OK [CAPABILITY IMAP4rev1 IDLE MOVE] in")
		r.do("f noop", "F NOOP")

		conn, err := tls.Dial("tcp", b.serve(t, "imaps", c.Client, spec, withTLS).at.String(), trust)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		s := &reader{t, conn, bufio.NewReader(conn)}
		s.want("* OK Ready.")
		s.do("a LOGIN tim secret", "a OK [CAPABILITY IMAP4rev1 IDLE MOVE] in")
		s.do("b noop", "B NOOP")

		pop := to(newPOP3(t, c.Backend, popGreeting).at)
		r = read(t, b.serve(t, "pop3", c.Client, pop, withTLS).at, "+OK Ready.")
		r.do("USER tim", "-ERR Not without TLS.")
		r.do("STLS", "+OK Begin TLS negotiation now.")
		r.secure(trust)
		r.do("CAPA", "+OK Capability list follows|USER|TOP|SASL PLAIN|.")
		r.do("USER tim", "+OK Send your password.")
		r.do("PASS secret", "+OK in")
	})
}

// TestFailedHandshakes: a client that does not trust the certificate is counted, wherever TLS begins.
func TestFailedHandshakes(t *testing.T) {
	t.Parallel()
	files, _ := pemFiles(t)
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		spec := to(newIMAP(t, c.Backend, imapGreeting).at)
		withTLS := func(o *Options) { o.TLS = files }
		if conn, err := tls.Dial("tcp", b.serve(t, "imaps", c.Client, spec, withTLS).at.String(), &tls.Config{ServerName: "localhost"}); err == nil {
			conn.Close()
			t.Fatal("the client trusts anybody")
		}
		r := read(t, b.serve(t, "imap", c.Client, spec, withTLS).at, "* OK Ready.")
		r.do("a STARTTLS", "a OK Begin TLS negotiation now.")
		if err := tls.Client(r.conn, &tls.Config{ServerName: "localhost"}).Handshake(); err == nil {
			t.Fatal("the client trusts anybody")
		}
		b.waitFor("the count", func() bool { return b.sum().Errors[metrics.TLSRejected] == 2 })
	})
}

// secure speaks TLS from here on.
func (r *reader) secure(trust *tls.Config) {
	r.t.Helper()
	conn := tls.Client(r.conn, trust)
	if err := conn.Handshake(); err != nil {
		r.t.Fatal(err)
	}
	r.conn, r.in = conn, bufio.NewReader(conn)
}

// TestMailboxInjection: what comes in clear behind STARTTLS is not taken, whether with the word or after it.
func TestMailboxInjection(t *testing.T) {
	t.Parallel()
	files, _ := pemFiles(t)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		b := newBench(t)
		server := newIMAP(t, ip.V4, imapGreeting)
		e := b.serve(t, "imap", f, to(server.at), func(o *Options) { o.TLS = files })
		r := read(t, e.at, "* OK Ready.")
		r.say("a STARTTLS", "b LOGIN tim secret")
		r.want("* BYE Sent before its time.")
		r.ends()
		r = read(t, e.at, "* OK Ready.")
		r.do("a STARTTLS", "a OK Begin TLS negotiation now.")
		r.say("b LOGIN tim secret")
		rest := new(bytes.Buffer)
		rest.ReadFrom(r.in)
		if strings.Contains(rest.String(), "b ") || server.heard() != "" {
			t.Errorf("answered %q; the server heard %q", rest, server.heard())
		}
	})
}

// TestUsers: the sessions of one user go to one server, from either family; those of many go to all.
func TestUsers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var servers []*postbox
	var at []netip.AddrPort
	for range 3 {
		p := newIMAP(t, ip.V4, imapGreeting)
		servers, at = append(servers, p), append(at, p.at)
	}
	users := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"}
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		e := b.serve(t, "imap", f, to(at...), inClear)
		for _, u := range users {
			r := read(t, e.at, "* OK Ready.")
			r.do("a LOGIN "+u+"@example.jp secret", "a OK [CAPABILITY IMAP4rev1 IDLE MOVE] in")
			r = read(t, e.at, "* OK [CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN SASL-IR] Ready.")
			r.do("a LOGIN "+strings.ToUpper(u)+"@example.jp secret", "a OK [CAPABILITY IMAP4rev1 IDLE MOVE] in")
			b.waitFor("the greeting to be forgotten", func() bool { return forget(b, e.at) })
		}
	})
	for _, u := range users {
		n := 0
		for _, s := range servers {
			heard := strings.ToLower(s.heard())
			if k := strings.Count(heard, `login "`+u+`@`); k == 4 {
				n++
			} else if k != 0 {
				t.Errorf("%s was at one of the servers %d times, want 4", u, k)
			}
		}
		if n != 1 {
			t.Errorf("%s was at %d servers", u, n)
		}
	}
	for i, s := range servers {
		if s.heard() == "" {
			t.Errorf("server %d had nobody", i)
		}
	}
}

// forget makes a front forget what backends can do.
func forget(b *bench, at netip.AddrPort) bool {
	f := b.kept["fronts"].(*fronts).byAddr[listen.Addr{Transport: listen.TCP, AddrPort: at}]
	f.offers.Store(nil)
	return true
}

// TestHandoverRefused: a server that cannot be told who the client is gets no password, and the client may come again.
func TestHandoverRefused(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server := newIMAP(t, c.Backend, "* OK [CAPABILITY IMAP4rev1] ready")
		spec := to(server.at)
		spec.Handover = backend.HandoverAuto
		r := read(t, b.serve(t, "imap", c.Client, spec, inClear).at, "* OK Ready.")
		r.do("a LOGIN tim secret", "a NO [UNAVAILABLE] Mailboxes cannot be reached now.")
		r.do("b NOOP", "b OK NOOP completed.")
		pop := newPOP3(t, c.Backend, "+OK ready")
		spec = to(pop.at)
		spec.Handover = backend.HandoverXclient
		p := read(t, b.serve(t, "pop3", c.Client, spec, inClear).at, "+OK Ready.")
		p.do("USER tim", "+OK Send your password.")
		p.do("PASS secret", "-ERR [SYS/TEMP] Mailboxes cannot be reached now.")
		if heard := server.heard() + pop.heard(); heard != "" {
			t.Errorf("the servers heard %q, want nothing", heard)
		}
		if n := b.sum().Errors[metrics.ServerFault]; n != 2 {
			t.Errorf("%d faults of servers, want 2", n)
		}
	})
}

// TestFailedLogins: who has guessed often enough must wait, and one who knows his password has all of his tries.
func TestFailedLogins(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		r := limit.Rules{Wider4: limit.DefaultWider(ip.V4), Wider6: limit.DefaultWider(ip.V6)}
		r.Rates[limit.FailedLogins] = limit.Rate{Count: 1, Per: time.Hour, Burst: 3}
		b.limits = limit.NewTable(0).Limits(r)
		server := newIMAP(t, c.Backend, imapGreeting)
		e := b.serve(t, "imap", c.Client, to(server.at), inClear)
		greeting := "* OK Ready."
		for range 4 {
			r := read(t, e.at, greeting)
			r.do("a LOGIN tim secret", "a OK [CAPABILITY IMAP4rev1 IDLE MOVE] in")
			greeting = "* OK [CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN SASL-IR] Ready."
		}
		for range 3 {
			read(t, e.at, greeting).do("a LOGIN tim guess", "a NO [AUTHENTICATIONFAILED] wrong")
		}
		read(t, e.at, greeting).do("a LOGIN tim secret", "a NO [UNAVAILABLE] Too many failed logins, try again later.")
		if n := strings.Count(server.heard(), "LOGIN"); n != 7 {
			t.Errorf("the server was asked %d times, want 7", n)
		}
		if n := b.sum().Errors[metrics.Limited]; n != 1 {
			t.Errorf("%d were limited, want 1", n)
		}
	})
}

// TestMailboxChecks: what the file cannot mean is said.
func TestMailboxChecks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, listen string
		spec         backend.Spec
		clear        bool
		want         string
	}{
		{name: "fine", listen: "imap", spec: backend.Spec{Handover: backend.HandoverID}, clear: true},
		{name: "found out", listen: "pop3", spec: backend.Spec{Handover: backend.HandoverAuto}, clear: true},
		{name: "PROXY", listen: "pop3", spec: backend.Spec{Handover: backend.HandoverProxyV2}, clear: true},
		{name: "no login", listen: "imap", want: "listen 0: " + errNoOpen.Error()},
		{name: "no TLS", listen: "imaps", clear: true, want: "listen 0: " + errNoTLS.Error()},
		{name: "IMAP has no XCLIENT", listen: "imap", spec: backend.Spec{Handover: backend.HandoverXclient}, clear: true,
			want: "pools p handover: " + errID.Error()},
		{name: "POP3 has no ID", listen: "pop3", spec: backend.Spec{Handover: backend.HandoverID}, clear: true,
			want: "pools p handover: " + errXclient.Error()},
		{name: "not by flows", listen: "imap", spec: backend.Spec{Pick: backend.FewestFlows}, clear: true,
			want: "pools p pick: " + errFewest.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := defaults()
			o.Name, o.AuthInClear = "mx.example", tt.clear
			s := &service.Service{Listen: []service.Listen{{Name: tt.listen}}, Pools: map[string]backend.Spec{"p": tt.spec},
				Routes: map[service.Door]backend.RouteSpec{{Listen: tt.listen, Family: ip.V6}: {Fallback: []string{"p"}}}}
			var got []string
			for _, err := range o.Check(s) {
				var e *service.Error
				if !errors.As(err, &e) {
					t.Fatal(err)
				}
				got = append(got, strings.Join(e.Path, " ")+": "+e.Error())
			}
			if text := strings.Join(got, "; "); text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
}

// TestServerGone: a login that cannot be brought to a server is answered, and another is brought to it when it is back.
func TestServerGone(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		at, err := servertest.FreeAddr(c.Backend)
		if err != nil {
			t.Fatal(err)
		}
		b := newBench(t)
		r := read(t, b.serve(t, "imap", c.Client, to(at), inClear).at, "* OK Ready.")
		r.do("a CAPABILITY", "* CAPABILITY IMAP4rev1|a OK Capability completed.")
		r.do("b LOGIN tim secret", "b NO [UNAVAILABLE] Mailboxes cannot be reached now.")
		closing := servertest.TCP(t, c.Backend, func(*net.TCPConn) {})
		r = read(t, b.serve(t, "imap", c.Client, to(closing), inClear).at, "* OK Ready.")
		r.do("a LOGIN tim secret", "a NO [UNAVAILABLE] Mailboxes cannot be reached now.")
		silent := servertest.TCP(t, c.Backend, func(conn *net.TCPConn) { conn.Read(make([]byte, 1)) })
		r = read(t, b.serve(t, "imap", c.Client, to(silent), inClear).at, "* OK Ready.")
		r.say("a LOGIN tim secret")
		b.waitFor("the server to be asked", func() bool { return b.sum().Active == 1 })
		r.conn.Close()
		b.waitFor("the client to be missed", func() bool { return b.sum().Active == 0 })
	})
}

// TestMailboxDrain: who is not logged in is sent away when the edge stops; whose mailbox is open keeps it.
func TestMailboxDrain(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		server := newIMAP(t, c.Backend, imapGreeting)
		e := b.serve(t, "imap", c.Client, to(server.at), inClear)
		open := read(t, e.at, "* OK Ready.")
		open.do("a LOGIN tim secret", "a OK [CAPABILITY IMAP4rev1 IDLE MOVE] in")
		before := read(t, e.at, "* OK [CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN SASL-IR] Ready.")

		next := newIMAP(t, c.Backend, imapGreeting)
		renewed := b.build(t, service.Listen{Name: "imap", Addr: listen.Addr{Transport: listen.TCP, AddrPort: e.at}}, to(next.at), inClear)
		e.server.Drain(false)
		before.do("a LOGIN tim secret", "a OK [CAPABILITY IMAP4rev1 IDLE MOVE] in")
		open.do("b noop", "B NOOP")
		if strings.Count(server.heard(), "LOGIN") != 1 || strings.Count(next.heard(), "LOGIN") != 1 {
			t.Errorf("the first server heard %q, the next %q", server.heard(), next.heard())
		}
		waiting := read(t, e.at, "* OK [CAPABILITY IMAP4rev1 ID IDLE AUTH=PLAIN SASL-IR] Ready.")
		renewed.server.Drain(true)
		waiting.want("* BYE Service is restarting, come again.")
		waiting.ends()
		open.do("c noop", "C NOOP")
		b.loops.Do(func(l *relay.Loop) { b.book.Each(l, func(f *backend.Flow) { f.Cut(metrics.Drained) }) })
		open.ends()
	})
}

// TestSilentHello: who says nothing where TLS comes first holds no goroutine, and who says something else is sent away.
func TestSilentHello(t *testing.T) {
	t.Parallel()
	files, trust := pemFiles(t)
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		e := b.serve(t, "imaps", c.Client, to(newIMAP(t, c.Backend, imapGreeting).at), func(o *Options) { o.TLS = files })
		silent := connect(t, e.at)
		talks := connect(t, e.at)
		talks.say("a LOGIN tim secret")
		talks.ends()
		conn, err := tls.Dial("tcp", e.at.String(), trust)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		(&reader{t, conn, bufio.NewReader(conn)}).want("* OK Ready.")
		var waits, shakes atomic.Int64
		b.loops.Do(func(l *relay.Loop) {
			l.Each(func(c *relay.Conn) {
				switch c.Handler().(type) {
				case *unshaken:
					waits.Add(1)
				case backend.Handshaking:
					shakes.Add(1)
				}
			})
		})
		if waits.Load() != 1 || shakes.Load() != 0 {
			t.Errorf("%d wait for a ClientHello and %d shake hands, want 1 and 0: one is done, and one was never begun", waits.Load(), shakes.Load())
		}
		silent.conn.Close()
		if n := b.sum().Errors[metrics.TLSFault]; n != 1 {
			t.Errorf("%d were sent away, want 1", n)
		}
	})
}
