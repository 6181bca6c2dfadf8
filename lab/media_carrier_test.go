// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// carrierLab is S14: another carrier's proxy, Kamailio, whom media pass by rtpengine, to telephones that nobody else reaches.
//
//	ta4, ta6 ── access ── edge ── carriers ── carrier ── inside ── far4, far6
//	                                         Kamailio, rtpengine
//
// What comes to the carrier over IPv4 goes to far4, and over IPv6 to far6; and what they call goes back the same way.
const carrierLab = `
lab: carrier
links: {access: {}, carriers: {}, inside: {}}
hosts:
  ta4: {links: {access: 203.0.113.101/24}}
  ta6: {links: {access: "2001:db8:100::103/64"}, gateway: "2001:db8:100::50"}
  carrier:
    links: {carriers: [198.51.100.5/24, "2001:db8:900::5/64"], inside: 10.9.0.1/24}
    gateway: ["2001:db8:900::1"]
  far4: {links: {inside: 10.9.0.4/24}}
  far6: {links: {inside: 10.9.0.6/24}}
  edge:
    links:
      access: [203.0.113.11/24, "2001:db8:100::50/64"]
      carriers: [198.51.100.1/24, "2001:db8:900::1/64"]
    servers:
      - kyozon:
          inline: |
            site: carrier
            networks:
              access: {media: [203.0.113.11, "2001:db8:100:50::/64"]}
              carriers: {media: [198.51.100.1, "2001:db8:900:51::/64"]}
            services:
              phone:
                protocol: phone
                listen:
                  access: ["203.0.113.11:5060", "[2001:db8:100::50]:5060"]
                  carriers: ["198.51.100.1:5060", "[2001:db8:900::1]:5060"]
                phone:
                  domain: voip.example.jp
                  subscribers: {from: subscribers, networks: [access]}
                  numbers: {own: 0501000xxxx, plan: japan}
                  cdr: /var/log/kyozon/calls.jsonl
                  trunks:
                    over4: {gateways: ["198.51.100.5:5060"], network: carriers}
                    over6: {gateways: ["[2001:db8:900::5]:5060"], network: carriers}
                  routes:
                    - {to: own, via: subscribers}
                    - {to: [emergency, 0502000000x], via: over4}
                    - {to: 0502000001x, via: over6}
            state: {directory: /var/lib/kyozon}
            admin: {listen: "127.0.0.1:8464"}
          files:
            subscribers: |
              05010000001:voip.example.jp:c4ce9faeca23ac6c045e78362992c706
              05010000002:voip.example.jp:74458205b483b8f2dc7607bd8a8cf7a9
`

// carrierConf makes Kamailio the carrier's proxy: %s is where its modules are. It stays in the path, and has rtpengine take the media of each
// call from one side to the other.
const carrierConf = `#!KAMAILIO
debug=2
log_stderror=yes
children=1
auto_aliases=no
disable_tcp=yes
mhomed=1
listen=udp:198.51.100.5:5060
listen=udp:[2001:db8:900::5]:5060
listen=udp:10.9.0.1:5060
mpath="%s/"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "rtpengine.so"
modparam("rtpengine", "rtpengine_sock", "udp:127.0.0.1:2223")
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
		if (!loose_route()) {
			if (is_method("ACK") && t_check_trans()) t_relay();
			exit;
		}
		if (is_method("INVITE|BYE|ACK")) rtpengine_manage("replace-origin");
		if (is_method("INVITE")) t_on_reply("MEDIA");
		t_relay();
		exit;
	}
	if (!is_method("INVITE")) {
		sl_send_reply("405", "Not Here");
		exit;
	}
	record_route();
	t_on_reply("MEDIA");
	if ($Ri != "10.9.0.1" && af == INET6) {
		$du = "sip:10.9.0.6:5060";
		rtpengine_manage("replace-origin direction=out direction=in address-family=IP4");
	} else if ($Ri != "10.9.0.1") {
		$du = "sip:10.9.0.4:5060";
		rtpengine_manage("replace-origin direction=out direction=in address-family=IP4");
	} else if ($si == "10.9.0.6") {
		$du = "sip:[2001:db8:900::1]:5060";
		rtpengine_manage("replace-origin direction=in direction=out address-family=IP6");
	} else {
		$du = "sip:198.51.100.1:5060";
		rtpengine_manage("replace-origin direction=in direction=out address-family=IP4");
	}
	t_relay();
}
onreply_route[MEDIA] {
	if (has_body("application/sdp")) rtpengine_manage("replace-origin");
}
`

// TestMediaCarrier: subscribers of either family call over IP, over a trunk of either family, to telephones of another carrier behind Kamailio and
// rtpengine, and are called from there. Both ends hear the other's tone; the records name the trunk.
func TestMediaCarrier(t *testing.T) {
	needRoot(t)
	binary := servertest.Kyozon(t)
	f, err := Parse("carrier.yaml", []byte(carrierLab))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Up(t.Context(), f, Options{Out: t.Output(), Kyozon: binary})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	startCarrier(t, l)
	far, near := make(map[ip.Family]*servertest.Baresip), make(map[ip.Family]*servertest.Baresip)
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		host, number, addr, server := "ta4", callerNumber, "203.0.113.101", edges()[0]
		if f == ip.V6 {
			host, number, addr, server = "ta6", calledNumber, "2001:db8:100::103", edges()[1]
		}
		near[f] = servertest.NewBaresip(t, servertest.Telephone{Name: number, Domain: "voip.example.jp", Password: "secret", Server: server, Transport: "udp",
			Codec: "g711", Tone: callerTone, Addr: netip.MustParseAddr(addr), Do: l.Host(host).Do})
		far[f] = servertest.NewBaresip(t, servertest.Telephone{Name: farNumber(f), Domain: "voip.example.jp", Server: netip.MustParseAddrPort("10.9.0.1:5060"),
			Transport: "udp", Codec: "g711", Tone: calledTone, Addr: netip.MustParseAddr(fmt.Sprintf("10.9.0.%d", f)), Port: 5060, Do: l.Host(fmt.Sprintf("far%d", f)).Do})
	}
	var want []carried
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		one, two := near[x.Client], far[x.Backend]
		own := map[ip.Family]string{ip.V4: callerNumber, ip.V6: calledNumber}[x.Client]
		trunk := fmt.Sprintf("over%d", x.Backend)
		one.Do("dial", "0"+strings.TrimPrefix(farNumber(x.Backend), "+81"))
		converse(t, one, two)
		two.Do("dial", "sip:+81"+own[1:]+"@voip.example.jp")
		converse(t, two, one)
		want = append(want, carried{own, trunk, "other network", 16, true, true}, carried{trunk, own, "other network", 16, true, true})
	})
	if diff := cmp.Diff(want, carriedCalls(t, l, len(want))); diff != "" {
		t.Errorf("the records (-want +got):\n%s", diff)
	}
}

// farNumber is the number of the telephone behind the trunk of a family.
func farNumber(f ip.Family) string {
	return map[ip.Family]string{ip.V4: "+815020000001", ip.V6: "+815020000011"}[f]
}

// converse has a telephone answer another, which has called it, and the caller hang up when both have heard the other's tone.
func converse(t *testing.T, caller, called *servertest.Baresip) {
	t.Helper()
	called.Event("CALL_INCOMING")
	caller.Forget()
	called.Forget()
	called.Do("accept", "")
	caller.Event("CALL_ESTABLISHED")
	called.Event("CALL_ESTABLISHED")
	for _, of := range [][2]*servertest.Baresip{{caller, called}, {called, caller}} {
		tone := of[0].Hears(of[1].Tone)
		n, lost := of[0].Received()
		t.Logf("%v hears %.3f of the other's tone, %d packets, and has lost %d", of[0].Addr, tone, n, lost)
		if tone < 0.9 || lost != 0 {
			t.Errorf("%v hears %.3f of the other's tone, %d packets, and has lost %d", of[0].Addr, tone, n, lost)
		}
	}
	caller.Do("hangup", "")
	called.Event("CALL_CLOSED")
}

// startCarrier starts Kamailio and rtpengine, in user space.
func startCarrier(t *testing.T, l *Lab) {
	t.Helper()
	kamailio, engine := servertest.Find(t, "kamailio"), servertest.Find(t, "rtpengine")
	modules, err := filepath.Glob("/usr/lib/*/kamailio/modules/rtpengine.so")
	if err != nil || len(modules) == 0 {
		t.Fatal("the modules of Kamailio are not there")
	}
	h := l.Host("carrier")
	if err := h.WriteFile("/run/kamailio/kamailio.cfg", fmt.Appendf(nil, carrierConf, filepath.Dir(modules[0]))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, d := range []Daemon{
		{Name: "rtpengine", Argv: []string{engine, "-f", "-E", "--table=-1", "--listen-ng=127.0.0.1:2223", "--interface=in/10.9.0.1",
			"--interface=out/198.51.100.5", "--interface=out/2001:db8:900::5", "--port-min=30000", "--port-max=30999"}, Ready: boundAt("0100007F:08AF")},
		{Name: "kamailio", Argv: []string{kamailio, "-DD", "-E", "-f", "/run/kamailio/kamailio.cfg", "-Y", "/run/kamailio", "-m", "32", "-M", "4"},
			Ready: boundAt("0100090A:13C4")},
	} {
		if _, err := h.Start(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
}

// boundAt says that a daemon is ready when a UDP socket is bound to an address, as /proc/net has it.
func boundAt(at string) Ready {
	return func(context.Context) error {
		text, err := os.ReadFile("/proc/thread-self/net/udp")
		if err == nil && !strings.Contains(string(text), at) {
			err = fmt.Errorf("nobody is at %s", at)
		}
		return err
	}
}

// carried is what is looked at of a record.
type carried struct {
	Caller, Called string
	Path           string
	Cause          int
	ToCaller       bool // packets went there
	ToCalled       bool
}

// carriedCalls waits for n records and returns them.
func carriedCalls(t *testing.T, l *Lab, n int) (all []carried) {
	t.Helper()
	var text []byte
	await(t, "the records are written", func() (done bool) {
		var err error
		if text, err = l.Host("edge").ReadFile("/var/log/kyozon/calls.jsonl"); err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n") >= n
	})
	for line := range strings.Lines(string(text)) {
		var r struct {
			Cause  int
			Caller struct{ Peer string }
			Called struct{ Peer string }
			Media  struct {
				Path     string
				ToCaller struct{ Packets, Lost int } `json:"to-caller"`
				ToCalled struct{ Packets, Lost int } `json:"to-called"`
			}
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if m := r.Media; m.ToCaller.Lost+m.ToCalled.Lost != 0 {
			t.Errorf("packets are lost: %s", line)
		}
		all = append(all, carried{r.Caller.Peer, r.Called.Peer, r.Media.Path, r.Cause, r.Media.ToCaller.Packets > 40, r.Media.ToCalled.Packets > 40})
	}
	return slices.Clip(all)
}
