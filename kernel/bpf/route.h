// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Where a packet leaves. The answer of the host's routing table is kept in the path for a second. */

#pragma once

#include "rewrite.h"

inline_always __u32 now(void)
{
	return bpf_ktime_get_coarse_ns() / 1000000000;
}

/* stamp is a second of the last 18 hours, in 16 bits; never 0. */
inline_always __u16 stamp(__u32 second)
{
	__u16 low = second;

	return low ? low : 1;
}

/* look_up asks the routing table for the way to where the path leads, as for a packet that came in on the given
 * interface. The next hop is put into hop if its MAC address is not known yet: then the path's is not either. */
SUBPROGRAM enum reason look_up(struct __sk_buff *skb, struct path *path, struct bpf_redir_neigh *hop, __u32 iif)
{
	struct bpf_fib_lookup fib = {};
	__u32 mtu = 0;
	long result;

	fib.ifindex = iif;
	fib.size = 1; /* not 0, so that the answer has the MTU of the route and not that of the interface */
	if (path->family == 4) {
		fib.family = AF_INET;
		memcpy(fib.saddr, path->saddr + 12, 4);
		memcpy(fib.daddr, path->daddr + 12, 4);
	} else {
		fib.family = AF_INET6;
		memcpy(fib.saddr, path->saddr, 16);
		memcpy(fib.daddr, path->daddr, 16);
	}
	result = bpf_fib_lookup(skb, &fib, sizeof fib, 0);
	path->resolved = 0;
	switch (result) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		path->oif = fib.ifindex;
		path->mtu = fib.size;
		memcpy(path->dmac, fib.dmac, 6);
		memcpy(path->smac, fib.smac, 6);
		path->resolved = stamp(now());
		return 0;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		if (bpf_check_mtu(skb, fib.ifindex, &mtu, 0, 0) < 0)
			return DROPPED_NO_ROUTE;
		path->oif = fib.ifindex;
		path->mtu = mtu;
		hop->nh_family = fib.family;
		memcpy(hop->nh, fib.daddr, 16);
		return 0;
	default:
		return DROPPED_NO_ROUTE;
	}
}

/* send gives the packet to the interface where it leaves. */
inline_always int send(struct __sk_buff *skb, struct path *path, struct bpf_redir_neigh *hop)
{
	struct ethernet *ethernet = (void *)(long)skb->data;

	if (!path->resolved)
		return bpf_redirect_neigh(path->oif, hop, sizeof *hop, 0);
	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	memcpy(ethernet->dmac, path->dmac, 6);
	memcpy(ethernet->smac, path->smac, 6);
	return bpf_redirect(path->oif, 0);
}
