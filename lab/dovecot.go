// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Dovecot is Debian's Dovecot as a spool server: it takes mail by LMTP for whoever it may be, and gives it out by IMAP to
// who says "secret". Its mailboxes are in memory, below MailDirectory.
type Dovecot struct {
	LMTP List[netip.AddrPort] `yaml:"lmtp"`
	IMAP List[netip.AddrPort] `yaml:"imap"`

	// Trust has the networks that may say by IMAP's ID for whom they speak, and log in without TLS.
	Trust List[netip.Prefix] `yaml:"trust"`
}

// MailDirectory is where a spool server has its mailboxes: a maildir for each address.
const MailDirectory = "/var/lib/mail"

func (d *Dovecot) name() string { return "dovecot" }

func (d *Dovecot) check(h HostSpec) []problem {
	all := checkListen(h, "lmtp", d.LMTP)
	if len(d.IMAP) > 0 {
		all = append(all, checkListen(h, "imap", d.IMAP)...)
	}
	return all
}

func (d *Dovecot) daemon(_ context.Context, h *Host) (Daemon, error) {
	binary, err := need("dovecot", "dovecot-imapd")
	if err != nil {
		return Daemon{}, err
	}
	if _, err := os.Stat("/usr/lib/dovecot/lmtp"); err != nil {
		return Daemon{}, missing("/usr/lib/dovecot/lmtp", "dovecot-lmtpd")
	}
	owner, err := credential("dovecot")
	if err != nil {
		return Daemon{}, missing("user dovecot", "dovecot-core")
	}
	if err := h.WriteFile("/run/dovecot.conf", []byte(d.config())); err != nil {
		return Daemon{}, err
	}
	err = h.inside(func() error {
		if err := os.Mkdir(MailDirectory, 0o755); err != nil {
			return err
		}
		return os.Chown(MailDirectory, int(owner.Uid), -1)
	})
	if err != nil {
		return Daemon{}, err
	}
	return Daemon{Name: "dovecot", Argv: []string{binary, "-F", "-c", "/run/dovecot.conf"}, Ready: AnswersTCP(append(d.LMTP, d.IMAP...)...)}, nil
}

func (d *Dovecot) config() string {
	var trust strings.Builder
	for _, p := range d.Trust {
		fmt.Fprintf(&trust, " %v", p)
	}
	return fmt.Sprintf(`base_dir = /run/dovecot
state_dir = /run/dovecot-state
log_path = /dev/stderr
protocols = imap lmtp
ssl = no
login_trusted_networks =%s
mail_location = maildir:%s/%%u
first_valid_uid = 1
default_vsz_limit = 0
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=dovecot gid=dovecot home=%[2]s/%%u allow_all_users=yes
}
service lmtp {
%[3]s}
service imap-login {
  service_count = 0
%[4]s  inet_listener imaps {
    port = 0
  }
}
`, trust.String(), MailDirectory, listeners("lmtp", d.LMTP), listeners("imap", d.IMAP))
}

// listeners are those of a service; without addresses the one that it has by itself is taken away.
func listeners(name string, all []netip.AddrPort) string {
	if len(all) == 0 {
		return fmt.Sprintf("  inet_listener %s {\n    port = 0\n  }\n", name)
	}
	var b strings.Builder
	for i, a := range all {
		more := ""
		if i > 0 {
			more = strconv.Itoa(i)
		}
		fmt.Fprintf(&b, "  inet_listener %s%s {\n    address = %v\n    port = %d\n  }\n", name, more, a.Addr(), a.Port())
	}
	return b.String()
}
