// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// abroad returns an address of family f that is not loopback's.
func abroad(f ip.Family) netip.AddrPort {
	return map[ip.Family]netip.AddrPort{ip.V4: netip.MustParseAddrPort("192.0.2.77:4711"),
		ip.V6: netip.MustParseAddrPort("[2001:db8:77::1]:4711")}[f]
}

// serveAbroad is serve for clients who all come from abroad, as if a proxy that is believed had said so.
func (b *bench) serveAbroad(t testing.TB, name string, f ip.Family, spec backend.Spec) *edge {
	t.Helper()
	return b.serveAbroadAs(t, name, f, spec, inClear)
}

func (b *bench) serveAbroadAs(t testing.TB, name string, f ip.Family, spec backend.Spec, change func(*Options)) *edge {
	t.Helper()
	lease, err := b.sockets.Stream(listen.Addr{Transport: listen.TCP, AddrPort: netip.AddrPortFrom(iptest.Loopback(f), 0)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Close)
	e := b.build(t, service.Listen{Name: name, Addr: lease.Addr()}, spec, change)
	acceptor, err := b.loops.Listen(lease.FD(), func(c *relay.Conn) {
		c.SetAddrs(abroad(f), c.Local())
		e.server.Doors[lease.Addr()].Conn(c)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(acceptor.Close)
	return e
}

// oneStandIn is a ledger that has one address for all.
type oneStandIn netip.Addr

func (s oneStandIn) Find(netip.Addr) (netip.Addr, bool) { return netip.Addr(s), true }
func (s oneStandIn) Lease(_ netip.Addr, done func(netip.Addr, error)) {
	done(netip.Addr(s), nil)
}
func (s oneStandIn) LeaseUnproven(client netip.Addr, done func(netip.Addr, error)) {
	s.Lease(client, done)
}
func (s oneStandIn) Prove(netip.Addr) {}

// logs wants the log of a server to have a line with all the parts.
func logs(t testing.TB, b *bench, d *servertest.Dovecot, parts ...string) {
	t.Helper()
	b.waitFor(fmt.Sprintf("%q in one line of the log", parts), func() bool {
		for line := range strings.Lines(d.Log()) {
			n := 0
			for _, p := range parts {
				if strings.Contains(line, p) {
					n++
				}
			}
			if n == len(parts) {
				return true
			}
		}
		return false
	})
}

// TestDovecotIMAP: a real server lets users in by each form of a login, knows who the client is, and tells who waits for
// mail of what another session has brought.
func TestDovecotIMAP(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		d := servertest.OpenDovecot(t, c.Backend)
		spec := to(d.IMAP)
		spec.Handover = backend.HandoverAuto
		e := b.serveAbroad(t, "imap", c.Client, spec)
		waits := read(t, e.at, "* OK Ready.")
		waits.do("a CAPABILITY", "* CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ AUTH=PLAIN SASL-IR|a OK Capability completed.")
		waits.do("b LOGIN tim guess", "b NO [AUTHENTICATIONFAILED] Authentication failed.")
		waits.say("c LOGIN {3}", "tim {6+}", "secret")
		waits.want("+ OK")
		waits.until("c OK [CAPABILITY IMAP4rev1")
		logs(t, b, d, "imap-login: Info: Login: user=<tim>", "method=PLAIN", "rip="+abroad(c.Client).Addr().String()+",")
		waits.do("d SELECT INBOX", "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)")
		waits.until("d OK")
		waits.do("e IDLE", "+ idling")

		other := read(t, e.at, "* OK [CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ AUTH=PLAIN SASL-IR] Ready.")
		other.say("a AUTHENTICATE PLAIN")
		other.want("+ ")
		other.say("AHRpbQBzZWNyZXQ=")
		other.until("a OK")
		other.say("b APPEND INBOX {9+}", "To: tim\r\n")
		other.until("b OK")
		waits.until("* 1 EXISTS")
		waits.say("DONE")
		waits.until("e OK")

		third := read(t, e.at, "* OK [CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ AUTH=PLAIN SASL-IR] Ready.")
		third.say("a AUTHENTICATE PLAIN AHRvbQBzZWNyZXQ=", "b LOGOUT") // one behind the other: the second is the server's
		third.until("b OK")
		third.ends()
		logs(t, b, d, "user=<tom>", "rip="+abroad(c.Client).Addr().String()+",")
	})
}

// until reads lines until one begins so.
func (r *reader) until(prefix string) {
	r.t.Helper()
	for last := ""; ; {
		line, err := r.in.ReadString('\n')
		if err != nil {
			r.t.Fatalf("%v before %q, behind %q", err, prefix, last)
		}
		last = line
		if strings.HasPrefix(line, prefix) {
			return
		}
	}
}

// TestDovecotPOP3 is TestDovecotIMAP for POP3.
func TestDovecotPOP3(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		d := servertest.OpenDovecot(t, c.Backend)
		spec := to(d.POP3)
		spec.Handover = backend.HandoverXclient
		e := b.serveAbroad(t, "pop3", c.Client, spec)
		r := read(t, e.at, "+OK Ready.")
		r.do("CAPA", "+OK Capability list follows|CAPA|TOP|UIDL|RESP-CODES|PIPELINING|AUTH-RESP-CODE|USER|SASL PLAIN|.")
		r.do("USER tim", "+OK Send your password.")
		r.do("PASS guess", "-ERR [AUTH] Authentication failed.")
		r.say("USER tim", "PASS secret", "STAT")
		r.want("+OK Send your password.|+OK Logged in.|+OK 0 0")
		logs(t, b, d, "pop3-login: Info: Login: user=<tim>", "rip="+abroad(c.Client).Addr().String()+",")
		r = read(t, e.at, "+OK Ready.")
		r.do("AUTH PLAIN AHRvbQBzZWNyZXQ=", "+OK Logged in.")
		r.do("QUIT", "+OK Logging out.")
		r.ends()
	})
}

// TestDovecotStandIn: a server for whom IPv6 clients have stand-ins logs those, whichever way it is told.
func TestDovecotStandIn(t *testing.T) {
	t.Parallel()
	b := newBench(t)

	b.standIns = oneStandIn(netip.MustParseAddr("100.64.0.17"))
	d := servertest.OpenDovecot(t, ip.V4)
	for _, tt := range []struct {
		user, listen string
		at           netip.AddrPort
		handover     backend.Handover
	}{
		{"id", "imap", d.IMAP, backend.HandoverID}, {"proxy", "imap", d.IMAPProxy, backend.HandoverProxyV2},
		{"xclient", "pop3", d.POP3, backend.HandoverXclient},
	} {
		spec := to(tt.at)
		spec.Handover, spec.Carry = tt.handover, backend.CarryStandIn
		e := b.serveAbroad(t, tt.listen, ip.V6, spec)
		if tt.listen == "imap" {
			r := read(t, e.at, "* OK Ready.")
			r.say("a LOGIN " + tt.user + " secret")
			r.until("a OK")
		} else {
			r := read(t, e.at, "+OK Ready.")
			r.say("USER "+tt.user, "PASS secret")
			r.want("+OK Send your password.|+OK Logged in.")
		}
		logs(t, b, d, "user=<"+tt.user+">", "rip=100.64.0.17,")
	}
}

// TestDovecotTrust holds what this package relies on, and what it guards against: the first ID of a connection is believed
// and no other; XCLIENT of POP3 is believed again and again, and is a bare address.
func TestDovecotTrust(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		b := newBench(t)
		d := servertest.OpenDovecot(t, f)
		r := readAny(t, d.IMAP)
		r.say(`a ID ("x-originating-ip" "192.0.2.1")`, `b ID ("x-originating-ip" "192.0.2.2")`, "c LOGIN imap secret")
		r.until("c OK")
		logs(t, b, d, "user=<imap>", "rip=192.0.2.1,")
		r = readAny(t, d.POP3)
		r.do("XCLIENT ADDR=IPV6:2001:db8::1 PORT=1", "-ERR Invalid parameters")
		r.do("XCLIENT ADDR=2001:db8::1 PORT=1", "+OK Updated")
		r.do("XCLIENT ADDR=2001:db8::2 PORT=1", "+OK Updated")
		r.say("USER pop3", "PASS secret")
		r.until("+OK Logged in.")
		logs(t, b, d, "user=<pop3>", "rip=2001:db8::2,")
	})
}

// readAny is read without a look at the greeting.
func readAny(t testing.TB, at netip.AddrPort) *reader {
	t.Helper()
	r := connect(t, at)
	r.until("")
	return r
}

// TestMailPrograms: programs of users fetch a message through the edge.
func TestMailPrograms(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mbsync", "fetchmail"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("KYOZON_LAB") == "require" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		d := servertest.OpenDovecot(t, c.Backend)
		spec := to(d.IMAP)
		spec.Handover = backend.HandoverID
		imap := b.serveAbroad(t, "imap", c.Client, spec)
		spec = to(d.POP3)
		spec.Handover = backend.HandoverXclient
		pop := b.serveAbroad(t, "pop3", c.Client, spec)
		r := read(t, imap.at, "* OK Ready.")
		r.say("a LOGIN tim secret", "b APPEND INBOX {31+}", "To: tim\r\n\r\nthe wonder of it all")
		r.until("b OK")

		home := t.TempDir()
		write := func(name, text string) string {
			path := filepath.Join(home, name)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		program := func(name string, arguments ...string) string {
			p := exec.CommandContext(t.Context(), name, arguments...)
			p.Env = append(os.Environ(), "HOME="+home, "FETCHMAILHOME="+home)
			out, err := p.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, out)
			}
			return string(out)
		}
		host := imap.at.Addr().String()
		conf := write("mbsyncrc", fmt.Sprintf("IMAPStore far\nHost %s\nPort %d\nUser tim\nPass secret\nSSLType None\nAuthMechs *\n\n"+
			"MaildirStore near\nPath %s/\nInbox %s/inbox\n\nChannel c\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\n",
			host, imap.at.Port(), home, home))
		program("mbsync", "-c", conf, "-a")
		files, _ := filepath.Glob(filepath.Join(home, "inbox", "new", "*"))
		more, _ := filepath.Glob(filepath.Join(home, "inbox", "cur", "*"))
		if files = append(files, more...); len(files) != 1 {
			t.Fatalf("mbsync brought %d messages, want 1", len(files))
		}
		if text, err := os.ReadFile(files[0]); err != nil || !strings.Contains(string(text), "the wonder of it all") {
			t.Errorf("mbsync brought %q, %v", text, err)
		}
		conf = write("fetchmailrc", fmt.Sprintf("poll \"%s\" protocol POP3 port %d auth password user \"tim\" password \"secret\" sslproto \"\" mda \"cat >%s/fetched\"\n",
			host, pop.at.Port(), home))
		program("fetchmail", "-f", conf, "--nosyslog", "--pidfile", filepath.Join(home, "pid"))
		if text, err := os.ReadFile(filepath.Join(home, "fetched")); err != nil || !strings.Contains(string(text), "the wonder of it all") {
			t.Errorf("fetchmail brought %q, %v", text, err)
		}
		logs(t, b, d, "pop3-login: Info: Login: user=<tim>", "rip="+abroad(c.Client).Addr().String()+",")
	})
}

// TestDovecotSubmission: Dovecot's submission service is told the client's own address by XCLIENT, which handover: auto finds
// out, and writes it down; what is sent goes to its relay.
func TestDovecotSubmission(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		relay := servertest.NewMail(t, x.Backend, nil)
		d := servertest.OpenDovecotSubmission(t, x.Backend, relay.Addr)
		spec := to(d.Submission)
		spec.Handover = backend.HandoverAuto
		e := b.serveAbroad(t, "submission", x.Client, spec)
		b.waitFor("the proof", func() bool { return e.server.Shut("x") == "" })
		c := dial(t, e.at)
		c.do("EHLO client.example", "250")
		c.do("MAIL FROM:<a@example>", "530")
		c.do("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00me\x00secret")), "235")
		c.do("MAIL FROM:<me@example>", "250")
		c.do("RCPT TO:<b@example>", "250")
		c.do("DATA", "354")
		c.say("hello", ".")
		c.want("250")
		c.do("QUIT", "221")
		if got := relay.Messages(); len(got) != 1 || !strings.Contains(got[0].Text, "hello") {
			t.Errorf("the relay got %q", got)
		}
		logs(t, b, d, "submission-login: Info: Login: user=<me>", "rip="+abroad(x.Client).Addr().String()+",")
	})
}

// TestDovecotSubmissionTwice: it believes XCLIENT again after the first, until the login. So a client must never be let
// through to it before.
func TestDovecotSubmissionTwice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := servertest.OpenDovecotSubmission(t, ip.V4, netip.MustParseAddrPort("127.0.0.1:9"))
	c := dial(t, d.Submission)
	c.do("EHLO edge.example", "250")
	c.do("XCLIENT ADDR=192.0.2.1", "220")
	c.do("EHLO client.example", "250")
	c.do("XCLIENT ADDR=192.0.2.2", "220")
	c.do("EHLO client.example", "250")
	c.say("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00me\x00wrong")))
	c.want("535")
	c.do("QUIT", "221")
	logs(t, b, d, "submission-login: Info:", "rip=192.0.2.2,")
}
