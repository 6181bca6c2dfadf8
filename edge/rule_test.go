// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rulePaths are the kinds of rules there are.
func rulePaths() []path {
	from4, from6 := netip.MustParseAddrPort("10.0.1.11:80"), netip.MustParseAddrPort("[fd00::21]:53")
	return []path{
		{backend: from4, protocol: unix.IPPROTO_TCP},
		{backend: from6, protocol: unix.IPPROTO_UDP},
		{backend: netip.AddrPortFrom(from4.Addr(), 0), to: netip.MustParseAddr("192.0.2.1"), protocol: unix.IPPROTO_ICMP},
		{backend: netip.AddrPortFrom(from6.Addr(), 0), to: netip.MustParseAddr("2001:db8::1"), protocol: unix.IPPROTO_ICMPV6},
	}
}

// The kernel logs an attribute that is longer than it should be, each time.
func TestRuleProtocolIsAByte(t *testing.T) {
	t.Parallel()
	for _, p := range rulePaths() {
		message := p.describe(nl.NewNetlinkRequest(unix.RTM_NEWRULE, 0), firstPriority).Serialize()
		attrs, err := nl.ParseRouteAttr(message[unix.SizeofNlMsghdr+unix.SizeofRtMsg:])
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, a := range attrs {
			if a.Attr.Type == nl.FRA_IP_PROTO {
				found = true
				if len(a.Value) != 1 || int(a.Value[0]) != p.protocol {
					t.Errorf("%v: the protocol is % x", p, a.Value)
				}
			}
		}
		if !found {
			t.Errorf("%v: no protocol", p)
		}
	}
}

// What the kernel has of a rule is what it was told, and one rule is removed by what it was added by.
func TestRules(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal("needs root, for a network namespace")
		}
		t.Skip("needs root, for a network namespace")
	}
	done := make(chan struct{})
	go func() { // its thread ends with it, and the namespace with the thread
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		for _, p := range rulePaths() {
			addAndRemove(t, p)
		}
	}()
	<-done
}

func addAndRemove(t *testing.T, p path) {
	list := func() []netlink.Rule {
		all, err := netlink.RuleListFiltered(netlink.FAMILY_ALL, &netlink.Rule{Table: transparentTable}, netlink.RT_FILTER_TABLE)
		if err != nil {
			t.Errorf("list rules: %v", err)
		}
		return all
	}
	if err := p.addRule(firstPriority); err != nil {
		t.Errorf("add %v: %v", p, err)
		return
	}
	if err := p.addRule(firstPriority); !errors.Is(err, unix.EEXIST) {
		t.Errorf("add %v again: got %v, want EEXIST", p, err)
	}
	rules := list()
	if len(rules) != 1 {
		t.Errorf("%v: the rules are %v", p, rules)
		return
	}
	r := rules[0]
	dst, port := "", uint16(0)
	if r.Dst != nil {
		dst = r.Dst.IP.String()
	}
	if r.Sport != nil && r.Sport.Start == r.Sport.End {
		port = r.Sport.Start
	}
	wantDst := ""
	if p.to.IsValid() {
		wantDst = p.to.String()
	}
	if r.Src.IP.String() != p.backend.Addr().String() || dst != wantDst || port != p.backend.Port() || r.IPProto != p.protocol || r.Priority != firstPriority {
		t.Errorf("%v: the rule is %v, protocol %d, port %d", p, r, r.IPProto, port)
	}
	if err := p.removeRule(firstPriority); err != nil || len(list()) > 0 {
		t.Errorf("remove %v: %v; left %v", p, err, list())
	}
}
