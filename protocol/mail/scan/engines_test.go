// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/mail/policy"
)

// virus is what the test's own signature finds.
const virus = "this is the virus of a test"

// writeFile writes a file of a server.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// startClamd runs Debian's clamd with one signature.
func startClamd(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	binary, dir := servertest.Find(t, "clamd"), t.TempDir()
	at, err := servertest.FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	database := t.TempDir()
	writeFile(t, database, "test.ndb", "Kyozon.Test:0:*:"+hex.EncodeToString([]byte(virus))+"\n")
	config := writeFile(t, dir, "clamd.conf", fmt.Sprintf("Foreground yes\nTCPAddr %v\nTCPSocket %d\nDatabaseDirectory %s\nTemporaryDirectory %s\n"+
		"StreamMaxLength 1M\nMaxThreads 4\n", at.Addr(), at.Port(), database, dir))
	servertest.Run(t, exec.Command(binary, "-c", config), "Self checking")
	return at
}

// startRspamd runs Debian's rspamd with SPF and DKIM and a rule of its own, which asks a DNS server of the test.
func startRspamd(t *testing.T, f ip.Family, zone string) netip.AddrPort {
	t.Helper()
	binary, dir := servertest.Find(t, "rspamd"), t.TempDir()
	at, err := servertest.FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	names := servertest.NewDNS(t, f, zone, nil).Addr
	rules := writeFile(t, dir, "rules.lua", `
rspamd_config:register_symbol{name = 'TEST_CLIENT', score = 0, callback = function(task)
	return true, tostring(task:get_from_ip())
end}
local function subject(name, word, score)
	rspamd_config:register_symbol{name = name, score = score, callback = function(task)
		return task:get_subject() == word
	end}
end
subject('TEST_SPAM', 'spam', 20)
subject('TEST_DOUBT', 'doubt', 8)
rspamd_config:register_symbol{name = 'TEST_LATER', type = 'prefilter', callback = function(task)
	if task:get_subject() == 'later' then task:set_pre_result('soft reject', 'Not yet') end
end}
rspamd_config:register_symbol{name = 'TEST_FIELD', type = 'idempotent', callback = function(task)
	task:set_milter_reply{add_headers = {['X-Test-Client'] = tostring(task:get_from_ip()) .. ' ' .. tostring(task:get_helo()) .. ' ' .. tostring(task:get_hostname()) .. ' ' .. #task:get_recipients('smtp')}}
end}
`)
	suffixes := writeFile(t, dir, "suffixes", "com\njp\n") // the whole list takes seconds
	config := writeFile(t, dir, "rspamd.conf", fmt.Sprintf(`
options {
	pidfile = "%[1]s/pid"; temp_dir = "%[1]s"; hs_cache_dir = "%[1]s"; control_socket = "%[1]s/control mode=0600";
	filters = "dkim"; local_addrs = []; history_rows = 1; url_tld = "%[2]s";
	dns { nameserver = ["%[3]s"]; timeout = 1s; retransmits = 1; }
}
logging { type = "console"; level = "info"; }
worker "normal" { bind_socket = "%[4]s"; count = 1; }
lua = "%[5]s";
modules { path = "/usr/share/rspamd/plugins/spf.lua"; }
actions { reject = 15; add_header = 6; }
spf { external_relay = []; }
dkim { check_local = true; }
`, dir, suffixes, names, at, rules))
	servertest.Run(t, exec.Command(binary, "-f", "-i", "-c", config), "starting normal process")
	return at
}

// TestRealClamd: clamd of Debian finds its virus, wherever in the message it is.
func TestRealClamd(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		e := New(Options{Clamd: []netip.AddrPort{startClamd(t, c.Backend)}})
		defer e.Close()
		long := strings.Repeat("a long line\r\n", 10_000)
		for _, test := range []struct {
			name, text string
			reason     Reason
		}{
			{"clean", "Subject: x\r\n\r\nhello\r\n", Fine},
			{"virus", "Subject: x\r\n\r\n" + virus + "\r\n", Virus},
			{"long and clean", "Subject: x\r\n\r\n" + long, Fine},
			{"long with a virus", "Subject: x\r\n\r\n" + long + virus + "\r\n", Virus},
			{"longer than clamd takes", "Subject: x\r\n\r\n" + strings.Repeat(long, 15), Broken},
		} {
			v := e.Check(t.Context(), message(c.Client, test.text))
			if v.Reason != test.reason || test.reason == Virus && !strings.Contains(v.Reply, "Kyozon.Test") {
				t.Errorf("%s: %v %q, %v", test.name, v.Reason, v.Reply, v.Unasked)
			}
		}
	})
}

// TestRealRspamd: rspamd of Debian judges by the true client: SPF knows its IPv6 address.
func TestRealRspamd(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		at := startRspamd(t, c.Backend, "example.com. IN TXT \"v=spf1 ip6:2001:db8:1::/48 ip4:192.0.2.25 -all\"\nother.com. IN TXT \"v=spf1 -all\"\n")
		e := New(Options{Rspamd: []netip.AddrPort{at}, Auth: policy.Enforce})
		defer e.Close()
		for _, test := range []struct {
			from, subject string
			reason        Reason
			reply, mark   string
		}{
			{"a@example.com", "hello", Fine, "", ""},
			{"a@example.com", "doubt", Fine, "", "X-Spam: Yes\r\n"},
			{"a@example.com", "spam", Reject, "554 5.7.1 ", ""},
			{"a@example.com", "later", Later, "451 4.7.1 Not yet", ""},
			{"a@other.com", "hello", Auth, "450 4.7.26 ", ""},
		} {
			m := message(c.Client, "From: a@example.com\r\nTo: b@example.jp\r\nSubject: "+test.subject+"\r\nMessage-Id: <1@example.com>\r\n\r\nhello\r\n")
			m.From, m.Recipients = test.from, []string{"b@example.jp", "c@example.jp"}
			v := e.Check(t.Context(), m)
			reason, reply := test.reason, test.reply
			if reason == Auth && c.Client == ip.V4 { // it is asked of IPv6 only
				reason, reply = Fine, ""
			}
			if v.Reason != reason || !strings.HasPrefix(v.Reply, reply) || v.Unasked != nil {
				t.Errorf("%s from %s: %v %q, %v", test.subject, test.from, v.Reason, v.Reply, v.Unasked)
			}
			want := test.mark + "X-Test-Client: " + m.Client.String() + " mx.example.com host.example.com 2\r\n"
			if reason == Fine && string(v.Fields) != want {
				t.Errorf("%s: fields %q, want %q", test.subject, v.Fields, want)
			}
		}
	})
}
