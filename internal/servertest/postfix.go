// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// PostfixDomain is the domain that a Postfix takes mail for.
const PostfixDomain = "example.test"

// Postfix is a Postfix that runs until the test ends, with folders of its own. It delivers into a folder.
type Postfix struct {
	Addr netip.AddrPort

	mail string
}

// NewPostfix starts one. settings are lines of main.cf, which come after our own. It trusts this machine with XCLIENT and
// nobody with relaying.
func NewPostfix(t testing.TB, f ip.Family, settings ...string) *Postfix {
	t.Helper()
	return newPostfix(t, f, "", smtpd, settings)
}

// NewPostscreen starts a Postfix whose postscreen looks at clients first, and lets in who waits for a second.
func NewPostscreen(t testing.TB, f ip.Family, settings ...string) *Postfix {
	t.Helper()
	return newPostfix(t, f, "", postscreen, append(settings, "postscreen_greet_wait = 1s"))
}

// NewSender starts a Postfix that relays for this machine and knows the addresses of other hosts from a text of its own in
// the place of /etc/hosts.
func NewSender(t testing.TB, f ip.Family, hosts string, settings ...string) *Postfix {
	t.Helper()
	return newPostfix(t, f, hosts, smtpd, append(settings, "mynetworks = 127.0.0.0/8, [::1]/128", "inet_protocols = all", "smtp_host_lookup = native"))
}

// The services at the address where a Postfix takes mail.
const (
	smtpd      = "%s inet n - n - - smtpd\n"
	postscreen = "%s inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n"
)

func newPostfix(t testing.TB, f ip.Family, hosts, front string, settings []string) *Postfix {
	t.Helper()
	program := Find(t, "postfix")
	if os.Getuid() != 0 {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal("Postfix needs root")
		}
		t.Skip("needs root")
	}
	at, err := FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	dir := Readable(t)
	p := &Postfix{Addr: at, mail: filepath.Join(dir, "mail")}
	for _, d := range []string{"spool", "data", "mail", "conf"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"data", "mail"} {
		if err := os.Chown(filepath.Join(dir, d), uid, -1); err != nil {
			t.Fatal(err)
		}
	}
	main := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
meta_directory = /etc/postfix
myhostname = mx.%[2]s
mydestination =
mynetworks = 192.0.2.200/32
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_authorized_xclient_hosts = 127.0.0.1, [::1]
virtual_mailbox_domains = %[2]s
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:%[3]d
virtual_gid_maps = static:%[4]s
virtual_minimum_uid = 1
maillog_file = /dev/stdout
%[5]s
`, dir, PostfixDomain, uid, owner.Gid, strings.Join(settings, "\n"))
	for name, text := range map[string]string{"main.cf": main, "master.cf": fmt.Sprintf(front, at) + master} {
		if err := os.WriteFile(filepath.Join(dir, "conf", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "conf")
	if text, err := exec.Command(program, "-c", conf, "check").CombinedOutput(); err != nil { // makes the queue's folders
		t.Fatalf("postfix check: %v: %s", err, text)
	}
	c := exec.Command("/usr/lib/postfix/sbin/master", "-c", conf, "-d")
	if hosts != "" {
		c = amongHosts(t, c, filepath.Join(dir, "hosts"), hosts)
	}
	Run(t, c, "daemon started") // its end is that of all its children
	return p
}

// amongHosts has a command see a file of ours as /etc/hosts: in a mount namespace of its own.
func amongHosts(t testing.TB, c *exec.Cmd, file, hosts string) *exec.Cmd {
	t.Helper()
	if err := os.WriteFile(file, []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	shell := exec.Command("/bin/sh", append([]string{"-c", `mount --bind "$1" /etc/hosts && shift && exec "$@"`, "sh", file}, c.Args...)...)
	shell.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return shell
}

// master is the other services of a Postfix that delivers mail.
const master = `pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
`

// Messages returns what has been delivered, in no order.
func (p *Postfix) Messages(t testing.TB) []string {
	t.Helper()
	return maildir(t, filepath.Join(p.mail, "all"))
}
