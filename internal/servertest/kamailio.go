// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// kamailioConf is another carrier's proxy, which stays in the path of a call: what comes from one side goes to the other.
// %[1]v is its address, %[2]v and %[3]v are the sides, %[4]s is where its modules are.
const kamailioConf = `#!KAMAILIO
debug=2
log_stderror=yes
children=1
auto_aliases=no
disable_tcp=yes
listen=udp:%[1]v
mpath="%[4]s/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
modparam("tm", "retr_timer1", 10000)
modparam("tm", "retr_timer2", 10000)
request_route {
	if (!mf_process_maxfwd_header("10")) {
		sl_send_reply("483", "Too Many Hops");
		exit;
	}
	if (is_method("CANCEL")) {
		if (t_check_trans()) t_relay();
		exit;
	}
	if (has_totag()) {
		if (loose_route()) {
			t_relay();
		} else if (is_method("ACK")) {
			if (t_check_trans()) t_relay();
		} else {
			sl_send_reply("404", "Not Here");
		}
		exit;
	}
	if (is_method("INVITE")) record_route();
	if ($sp == %[5]d) {
		$du = "sip:%[3]v";
	} else {
		$du = "sip:%[2]v";
	}
	t_relay();
}
`

// NewKamailio starts a Kamailio at an address, between two others of its family, until the test ends.
func NewKamailio(t testing.TB, at, one, other netip.AddrPort) {
	t.Helper()
	program := Find(t, "kamailio")
	modules, err := filepath.Glob("/usr/lib/*/kamailio/modules")
	if err != nil || len(modules) == 0 {
		t.Fatal("the modules of Kamailio are not there")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "kamailio.cfg")
	if err := os.WriteFile(conf, fmt.Appendf(nil, kamailioConf, at, one, other, modules[0], one.Port()), 0o600); err != nil {
		t.Fatal(err)
	}
	Run(t, exec.Command(program, "-DD", "-E", "-f", conf, "-Y", dir, "-m", "32", "-M", "4"), "SO_RCVBUF is finally")
}
