// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// OpenSMTPD is one that takes mail for PostfixDomain until the test ends.
type OpenSMTPD struct {
	Addr netip.AddrPort
	box  *unpacked
}

// NewOpenSMTPD starts Debian's. options stand behind the address that it listens at; rules are more lines.
func NewOpenSMTPD(t testing.TB, f ip.Family, options, rules string) *OpenSMTPD {
	t.Helper()
	u := newUnpacked(t, "opensmtpd", "opensmtpd", "opensmtpq", "vmail")
	at, err := FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	u.write("etc/smtpd.conf", fmt.Sprintf(`table users { "@" = "vmail" }
listen on %v port %d hostname "mx.%s" %s
action "in" maildir "/var/mail/box" virtual <users>
%s
match from any for domain "%[3]s" action "in"
`, at.Addr(), at.Port(), PostfixDomain, options, rules))
	for _, d := range []string{"var/spool/smtpd", "var/lib/opensmtpd/empty"} {
		u.folder(d, 0)
	}
	if err := os.Chmod(u.path("var/spool/smtpd"), 0o711); err != nil { // it insists
		t.Fatal(err)
	}
	u.folder("var/mail", userID+2)
	u.run(at, "var/log/mail", "/usr/sbin/smtpd", "-d")
	return &OpenSMTPD{Addr: at, box: u}
}

// Messages returns what has been delivered, in no order.
func (o *OpenSMTPD) Messages(testing.TB) []string { return o.box.messages("var/mail/box") }
