// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// Dovecot is a real one that has a mailbox for everybody who says "secret", and believes who connects to it from
// loopback what he says of his clients.
type Dovecot struct {
	IMAP, POP3  netip.AddrPort
	IMAPProxy   netip.AddrPort // whose connections begin with a PROXY header
	IMAPS       netip.AddrPort // TLS first, like those that follow; none without a certificate
	POP3S       netip.AddrPort
	IMAPSProxy  netip.AddrPort
	Submission  netip.AddrPort // none without a relay
	LMTP        netip.AddrPort // none but of OpenDovecotLMTP
	t           testing.TB
	folder, log string
}

// dovecotConf has Debian's defaults but for where things are; %[1]s is a folder, %[9]s what else there is to say, the rest
// ports and a listening address.
const dovecotConf = `
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
listen = %[2]v
protocols = imap pop3
ssl = no
login_trusted_networks = 127.0.0.0/8 ::1/128
haproxy_trusted_networks = 127.0.0.0/8 ::1/128
mail_location = maildir:%[1]s/mail/%%u
first_valid_uid = 1
default_vsz_limit = 0
auth_failure_delay = 0 # tests guess wrong on purpose
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
remote 100.64.0.0/10 { # told by PROXY: not trusted, and TLS has ended before
  disable_plaintext_auth = no
}
passdb {
  driver = static
  args = password=secret
}
service imap-login {
  service_count = 0
  inet_listener imap {
    port = %[3]d
  }
  inet_listener imaps {
    port = %[6]d
  }
  inet_listener imaps_proxy {
    port = %[8]d
    ssl = %[10]s
    haproxy = yes
  }
  inet_listener imap_proxy {
    port = %[5]d
    haproxy = yes
  }
}
service pop3-login {
  service_count = 0
  inet_listener pop3 {
    port = %[4]d
  }
  inet_listener pop3s {
    port = %[7]d
  }
}
%[9]s
`

// submissionConf is what a Dovecot needs to take mail: its relay, and its port.
const submissionConf = `
protocols = $protocols submission
hostname = mx.example.test
submission_relay_host = %v
submission_relay_port = %d
submission_relay_trusted = yes
service submission-login {
  service_count = 0
  inet_listener submission {
    port = %d
  }
}
`

// OpenDovecot starts one that listens on loopback of family f, and stops it when the test ends. Without root, or without
// Dovecot, the test is skipped, unless KYOZON_LAB forbids that.
func OpenDovecot(t testing.TB, f ip.Family) *Dovecot {
	t.Helper()
	return openDovecot(t, f, dovecotKind{})
}

// OpenDovecotSubmission is OpenDovecot for one that takes mail too, of who has logged in, and hands it to a relay.
func OpenDovecotSubmission(t testing.TB, f ip.Family, relay netip.AddrPort) *Dovecot {
	t.Helper()
	return openDovecot(t, f, dovecotKind{relay: relay})
}

// dovecotEverybody lets everybody be.
const dovecotEverybody = `
userdb {
  driver = static
  args = uid=dovecot gid=dovecot home=FOLDER/mail/%u
}
`

// dovecotLMTP is what one needs that takes messages.
const dovecotLMTP = `
protocols = imap pop3 lmtp
service lmtp {
  inet_listener lmtp {
    port = PORT
  }
}
userdb {
  driver = passwd-file
  args = FOLDER/users
  default_fields = uid=dovecot gid=dovecot home=FOLDER/mail/%u
}
`

// OpenDovecotLMTP is OpenDovecot for one that takes messages too, for these users, whose mailboxes are in Mailbox.
func OpenDovecotLMTP(t testing.TB, f ip.Family, users ...string) *Dovecot {
	t.Helper()
	at, err := FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	return openDovecot(t, f, dovecotKind{lmtp: at, users: users})
}

// Mailbox returns the folder of a user's mailbox, which need not be there.
func (d *Dovecot) Mailbox(user string) string { return filepath.Join(d.folder, "mail", user) }

// OpenDovecotTLS is OpenDovecot for one that has a certificate, and lets nobody in without TLS, also if it trusts him.
func OpenDovecotTLS(t testing.TB, f ip.Family, server *tls.Config) *Dovecot {
	t.Helper()
	return openDovecot(t, f, dovecotKind{server: server})
}

// dovecotKind is what one is beside a server of mailboxes for everybody.
type dovecotKind struct {
	server *tls.Config    // it has this certificate
	relay  netip.AddrPort // it takes mail, and hands it to a relay
	lmtp   netip.AddrPort // it takes messages there, for these users, and has no others
	users  []string
}

func openDovecot(t testing.TB, f ip.Family, k dovecotKind) *Dovecot {
	t.Helper()
	program, err := exec.LookPath("dovecot")
	if err == nil && os.Getuid() != 0 {
		err = os.ErrPermission
	}
	if err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatalf("Dovecot needs root and its package (build/setup.sh): %v", err)
		}
		t.Skipf("Dovecot needs root and its package (build/setup.sh): %v", err)
	}
	d := &Dovecot{t: t}
	all, ssl := []*netip.AddrPort{&d.IMAP, &d.POP3, &d.IMAPProxy}, "no"
	if k.server != nil {
		all, ssl = append(all, &d.IMAPS, &d.POP3S, &d.IMAPSProxy), "yes"
	}
	if k.relay.IsValid() {
		all = append(all, &d.Submission)
	}
	for _, at := range all {
		if *at, err = FreeAddr(f); err != nil {
			t.Fatal(err)
		}
	}
	// Not t.TempDir: Dovecot's own users must reach it, and its sockets have short names.
	if d.folder, err = os.MkdirTemp("", "dovecot"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d.folder) })
	d.log = filepath.Join(d.folder, "log")
	mail := filepath.Join(d.folder, "mail")
	conf := filepath.Join(d.folder, "dovecot.conf")
	more := dovecotEverybody
	if k.lmtp.IsValid() {
		d.LMTP, more = k.lmtp, strings.Replace(dovecotLMTP, "PORT", strconv.Itoa(int(k.lmtp.Port())), 1)
	}
	if k.server != nil {
		certificate, key := Files(t, d.folder, k.server)
		more += "ssl = required\nssl_cert = <" + certificate + "\nssl_key = <" + key
	}
	if k.relay.IsValid() {
		more += fmt.Sprintf(submissionConf, k.relay.Addr(), k.relay.Port(), d.Submission.Port())
	}
	text := fmt.Sprintf(dovecotConf, d.folder, iptest.Loopback(f), d.IMAP.Port(), d.POP3.Port(), d.IMAPProxy.Port(),
		d.IMAPS.Port(), d.POP3S.Port(), d.IMAPSProxy.Port(), strings.ReplaceAll(more, "FOLDER", d.folder), ssl)
	for _, err := range []error{os.Chmod(d.folder, 0o755), os.Mkdir(mail, 0o777), os.Chmod(mail, 0o777), os.WriteFile(conf, []byte(text), 0o644),
		os.WriteFile(filepath.Join(d.folder, "users"), []byte(strings.Join(k.users, "::::::\n")+"::::::\n"), 0o644)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	d.run(program, conf)
	return d
}

// run starts it and waits until it greets.
func (d *Dovecot) run(program, conf string) {
	d.t.Helper()
	var output bytes.Buffer
	c := exec.Command(program, "-F", "-c", conf)
	c.Stdout, c.Stderr = &output, &output
	if err := c.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		c.Wait() // an error is what the log says
		close(ended)
	}()
	d.t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		<-ended
	})
	for _, at := range []netip.AddrPort{d.IMAP, d.POP3, d.Submission} {
		for deadline := time.Now().Add(patience); at.IsValid() && !greets(at); {
			select {
			case <-ended:
				d.t.Fatalf("Dovecot has ended: %s%s", &output, d.Log())
			case <-time.After(10 * time.Millisecond):
			}
			if time.Now().After(deadline) {
				d.t.Fatalf("Dovecot does not answer: %s%s", &output, d.Log())
			}
		}
	}
}

// greets says whether a server at an address says something by itself.
func greets(at netip.AddrPort) bool {
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	n, _ := c.Read(make([]byte, 1))
	return n == 1
}

// Log returns what it has written to its log.
func (d *Dovecot) Log() string {
	text, _ := os.ReadFile(d.log) // there is none before it has said something
	return string(text)
}
