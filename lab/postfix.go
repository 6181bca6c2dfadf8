// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kyozon/kyozon/ip"
)

// Postfix is Debian's Postfix as the MTA of a mail system: it takes mail for Domain, from anybody, and hands it to the spool
// servers. On a host without IPv6 it has inet_protocols = ipv4, as one in service has that has never heard of it.
type Postfix struct {
	Listen  List[netip.AddrPort] `yaml:"listen"`
	Domain  string               `yaml:"domain"`
	Spools  List[netip.AddrPort] `yaml:"spools"`  // LMTP: which one has a mailbox, its name's last digit says
	Xclient List[netip.Addr]     `yaml:"xclient"` // who may say by XCLIENT for whom he speaks
}

const (
	postfixConf  = "/run/postfix/conf"
	postfixHosts = postfixConf + "/spools" // the table that says which spool server has a mailbox
)

func (p *Postfix) name() string { return "postfix" }

func (p *Postfix) check(h HostSpec) []problem {
	all := checkListen(h, "listen", p.Listen)
	if !domainName.MatchString(p.Domain) {
		all = append(all, problem{[]string{"domain"}, errors.New("say which domain it takes mail for")})
	}
	if len(p.Spools) == 0 {
		all = append(all, problem{[]string{"spools"}, errors.New("name at least one spool server")})
	}
	return all
}

func (p *Postfix) daemon(_ context.Context, h *Host) (Daemon, error) {
	if _, err := need("postfix", "postfix"); err != nil {
		return Daemon{}, err
	}
	owner, err := credential("postfix")
	if err != nil {
		return Daemon{}, missing("user postfix", "postfix")
	}
	for name, text := range map[string]string{postfixConf + "/main.cf": p.main(h), postfixConf + "/master.cf": p.master(), postfixHosts: spoolTable(p.Spools)} {
		if err := h.WriteFile(name, []byte(text)); err != nil {
			return Daemon{}, err
		}
	}
	if err := h.inside(func() error { return postfixFolders("/run/postfix", int(owner.Uid)) }); err != nil {
		return Daemon{}, err
	}
	return Daemon{Name: "postfix", Argv: []string{"/usr/lib/postfix/sbin/master", "-c", postfixConf, "-d"}, Ready: AnswersTCP(p.Listen...)}, nil
}

// postfixFolders makes the folders of a Postfix. So does `postfix check`, which takes a second for it.
func postfixFolders(base string, owner int) error {
	group, err := user.LookupGroup("postdrop")
	if err != nil {
		return err
	}
	drop, err := strconv.Atoi(group.Gid)
	if err != nil {
		return err
	}
	for _, d := range []struct {
		mode  os.FileMode
		group int
		names string
	}{
		{0o755, -1, "data"}, {0o700, -1, "spool/active spool/bounce spool/corrupt spool/defer spool/deferred spool/flush spool/hold spool/incoming " +
			"spool/private spool/saved spool/trace"},
		{0o730, drop, "spool/maildrop"}, {0o710, drop, "spool/public"},
	} {
		for name := range strings.FieldsSeq(d.names) {
			at := filepath.Join(base, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Mkdir(at, 0o700), os.Chown(at, owner, d.group), os.Chmod(at, d.mode)); err != nil {
				return err
			}
		}
	}
	return os.Mkdir(filepath.Join(base, "spool/pid"), 0o755)
}

// main is main.cf. Nobody is trusted, and no name is looked up: there is no DNS.
func (p *Postfix) main(h *Host) string {
	protocols := "ipv4"
	if h.spec.families()[ip.V6] {
		protocols = "all"
	}
	xclient := make([]string, 0, len(p.Xclient))
	for _, a := range p.Xclient {
		xclient = append(xclient, bracketed(a))
	}
	return fmt.Sprintf(`compatibility_level = 3.6
queue_directory = /run/postfix/spool
data_directory = /run/postfix/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
meta_directory = /etc/postfix
maillog_file = /dev/stdout
myhostname = %s.%s
mydestination =
mynetworks =
inet_protocols = %s
smtpd_peername_lookup = no
smtpd_relay_restrictions = reject_unauth_destination
smtpd_authorized_xclient_hosts = %s
smtpd_client_connection_count_limit = 0
virtual_mailbox_domains = %[2]s
virtual_mailbox_maps = static:all
transport_maps = regexp:%[5]s
lmtp_host_lookup = native
minimal_backoff_time = 1s
queue_run_delay = 1s
`, h.name, p.Domain, protocols, strings.Join(xclient, ", "), postfixHosts)
}

// bracketed writes an address as lists of Postfix have it.
func bracketed(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// spoolTable says which spool server has a mailbox: a table of Postfix's type regexp. A mailbox is known by its last digit.
func spoolTable(spools []netip.AddrPort) string {
	var b strings.Builder
	for digit := range 10 {
		s := spools[digit%len(spools)]
		fmt.Fprintf(&b, "/%d@/ lmtp:inet:[%v]:%d\n", digit, s.Addr(), s.Port())
	}
	fmt.Fprintf(&b, "/./ lmtp:inet:[%v]:%d\n", spools[0].Addr(), spools[0].Port())
	return b.String()
}

// master is master.cf: an smtpd at each address, and what it needs.
func (p *Postfix) master() string {
	var b strings.Builder
	for _, a := range p.Listen {
		fmt.Fprintf(&b, "%v inet n - n - - smtpd\n", a)
	}
	b.WriteString(`pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
`)
	return b.String()
}
