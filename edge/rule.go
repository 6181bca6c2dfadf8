// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"encoding/binary"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// addRule adds the rule that p is, and removeRule removes it: rtnetlink(7), ip-rule(8). The messages are made here because
// package netlink gives the protocol four bytes, of which the kernel takes the first and says so in its log each time.
func (p path) addRule(priority int) error {
	return execute(p.describe(nl.NewNetlinkRequest(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK), priority))
}

func (p path) removeRule(priority int) error {
	return execute(p.describe(nl.NewNetlinkRequest(unix.RTM_DELRULE, unix.NLM_F_ACK), priority))
}

func execute(r *nl.NetlinkRequest) error {
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// describe completes r with the rule.
func (p path) describe(r *nl.NetlinkRequest, priority int) *nl.NetlinkRequest {
	from := p.backend.Addr()
	msg := nl.NewRtMsg() // its layout is that of struct fib_rule_hdr
	msg.Family = uint8(netlinkFamily(ip.FamilyOf(from)))
	msg.Table, msg.Type = unix.RT_TABLE_UNSPEC, unix.RTN_UNICAST // the table is an attribute, and the action to look there
	msg.Src_len = uint8(from.BitLen())
	r.AddData(msg)
	r.AddData(nl.NewRtAttr(nl.FRA_SRC, from.AsSlice()))
	if p.to.IsValid() {
		msg.Dst_len = uint8(p.to.BitLen())
		r.AddData(nl.NewRtAttr(nl.FRA_DST, p.to.AsSlice()))
	}
	r.AddData(nl.NewRtAttr(nl.FRA_PRIORITY, nl.Uint32Attr(uint32(priority))))
	r.AddData(nl.NewRtAttr(nl.FRA_TABLE, nl.Uint32Attr(transparentTable)))
	r.AddData(nl.NewRtAttr(nl.FRA_IP_PROTO, nl.Uint8Attr(uint8(p.protocol))))
	if port := p.backend.Port(); port != 0 {
		ports := binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, port), port) // first and last
		r.AddData(nl.NewRtAttr(nl.FRA_SPORT_RANGE, ports))
	}
	return r
}
