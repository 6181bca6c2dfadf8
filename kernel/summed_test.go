// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// TestSummed: what the card has summed up for the stack (CHECKSUM_COMPLETE) is still the sum of the packet when the program has
// changed it. The kernel itself compares.
func TestSummed(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newRig(t, Options{Flows: 100, Pending: 100, StandIns: 10})
		r.serve(c)
		mss := []byte{2, 4, 1460 >> 8, 1460 & 255}
		for name, p := range map[string]packet{
			"datagram":            {protocol: protocolUDP, payload: []byte("hello")},
			"without a checksum":  {protocol: protocolUDP, payload: []byte("hello"), noSum: c.Client == ip.V4},
			"traffic class":       {protocol: protocolUDP, payload: []byte("odd"), class: 0xb8},
			"first segment":       {protocol: protocolTCP, flags: syn, options: mss},
			"odd place of option": {protocol: protocolTCP, flags: syn, options: append([]byte{1}, append(mss, 1, 1, 1)...)},
		} {
			p.from, p.to, p.ttl = clientAt(c.Client), frontOf(c.Client), 64
			r.stillSummed(name, r.clients, p.bytes())
			p.from, p.to, p.flags = serverOf(c.Backend), sourceOf(c), p.flags|p.flags<<3 // SYN becomes SYN and ACK
			p.noSum = p.noSum && c.Backend == ip.V4
			r.stillSummed("answer to "+name, r.servers, p.bytes())
		}
	})
}

// stillSummed has a frame come in that the card has summed, and go on.
func (r *rig) stillSummed(what string, l netlink.Link, frame []byte) {
	r.t.Helper()
	const complete = 1 << 2 // BPF_F_TEST_SKB_CHECKSUM_COMPLETE
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 4096), Context: skb{Index: uint32(l.Attrs().Index)}, Flags: complete}
	switch verdict, err := r.objects.Forward.Run(&o); {
	case errors.Is(err, unix.EINVAL) && !knowsComplete(r.t):
		r.t.Skip("this kernel does not sum packets of tests: it needs Linux 6.17")
	case errors.Is(err, unix.EBADMSG):
		r.t.Errorf("%s: the sum is not the packet's", what)
	case err != nil || verdict != actRedirect:
		r.t.Errorf("%s: verdict %d, %v; %s", what, int32(verdict), err, r.reasons())
	}
}

// knowsComplete says whether the kernel is one that sums packets of tests.
func knowsComplete(t testing.TB) bool {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil {
		t.Fatal(err)
	}
	return major > 6 || major == 6 && minor >= 17
}
