// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// Exim is an Exim that takes mail for PostfixDomain until the test ends.
type Exim struct {
	Addr netip.AddrPort
	box  *unpacked
}

// eximConf is its configuration: %[1]v the address, %[2]s the domain, %[3]s more settings, %[4]s whom it relays for.
const eximConf = `primary_hostname = mx.%[2]s
local_interfaces = <; [%[1]v]:%[5]d
spool_directory = /var/spool/exim4
log_file_path = /var/log/exim4/%%slog
exim_user = Debian-exim
notifier_socket =
keep_environment =
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max_per_host = 0
message_logs = false
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
%[3]s

begin acl
rcpt:
  accept domains = %[2]s
  accept hosts = <; %[4]s
  deny message = relay not permitted

begin routers
all:
  driver = accept
  domains = %[2]s
  transport = maildir
none:
  driver = redirect
  data = :blackhole:

begin transports
maildir:
  driver = appendfile
  directory = /var/mail/box
  maildir_format
  user = Debian-exim
  group = Debian-exim
`

// NewExim starts Debian's exim4-daemon-light, or another of its kind. settings are lines of the main section; relays
// are addresses that it relays for.
func NewExim(t testing.TB, f ip.Family, kind, settings, relays string) *Exim {
	t.Helper()
	u := newUnpacked(t, "exim4-daemon-"+kind, "Debian-exim")
	at, err := FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	u.write("etc/exim4/exim4.conf", fmt.Sprintf(eximConf, at.Addr(), PostfixDomain, settings, relays, at.Port()))
	for _, d := range []string{"var/spool/exim4", "var/log/exim4", "var/mail", "run/exim4"} {
		u.folder(d, userID)
	}
	u.run(at, "var/log/exim4/mainlog", "/usr/sbin/exim4", "-bdf", "-q1h")
	return &Exim{Addr: at, box: u}
}

// Messages returns what has been delivered, in no order.
func (e *Exim) Messages(testing.TB) []string { return e.box.messages("var/mail/box") }
