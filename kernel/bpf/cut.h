// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Fragments. Those that come in are translated each by itself: the first one has the ports, and leaves them for the others.
 * An IPv4 packet that may be cut and must be is cut in two here, while it still is IPv4, and both pieces come in once more:
 *
 *   [IP | a b c d] ─▶ [IP, more follow | a b]   ─▶ ingress ─▶ translated as any fragment
 *                  └▶ [IP, offset      | c d]   ─▶ ingress ─▶ translated, or cut again
 */

#pragma once

#include "icmp.h"

enum { MINIMUM_FRAME = 60 };

inline_always void fragment_of(const struct packet *p, struct fragment_key *key)
{
	memset(key, 0, sizeof *key);
	memcpy(key->saddr, p->tuple.saddr, 16);
	memcpy(key->daddr, p->tuple.daddr, 16);
	key->id = p->id;
	key->protocol = p->tuple.protocol;
}

/* keep_ports remembers the ports of a first fragment. RFC 6146 §3.4 */
inline_always void keep_ports(const struct packet *p)
{
	struct fragment_ports ports = {.sport = p->tuple.sport, .dport = p->tuple.dport};
	struct fragment_key key;

	fragment_of(p, &key);
	bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
}

/* find_ports puts the ports of the first fragment into the tuple of a later one; it returns -1 if none has come. */
inline_always int find_ports(struct packet *p)
{
	struct fragment_ports *ports;
	struct fragment_key key;

	fragment_of(p, &key);
	ports = bpf_map_lookup_elem(&fragments, &key);
	if (!ports)
		return -1;
	p->tuple.sport = ports->sport;
	p->tuple.dport = ports->dport;
	return 0;
}

/* mtu_for_sender is what a sender must not exceed, so that its packet fits the route of the path. RFC 7915 §4.1, §5.1 */
inline_always __u32 mtu_for_sender(const struct packet *p, const struct path *path)
{
	__u32 grows = header_length(p, path->family) - (p->family == 4 ? IP4_LENGTH : IP6_LENGTH);

	if (!crosses(p, path->family))
		return path->mtu;
	if (p->family == 4)
		return path->mtu - grows;
	return max(MINIMUM6, path->mtu + 20);
}

/* longest_piece is how long a packet that may be cut becomes at most. Towards IPv6 that is the smallest MTU that a path there has, since
 * no router will cut it. RFC 7915 §4.1 */
inline_always __u32 longest_piece(const struct packet *p, const struct path *path)
{
	struct control *c;
	__u32 zero = 0;

	if (!crosses(p, path->family))
		return path->mtu;
	c = bpf_map_lookup_elem(&control, &zero);
	return min(path->mtu, c && c->floor > MINIMUM6 ? c->floor : MINIMUM6);
}

/* put_header4 writes an IPv4 base header without options. */
inline_always int put_header4(struct __sk_buff *skb, struct ip4 *ip)
{
	ip->checksum = 0;
	ip->checksum = ~fold(sum4(ip));
	return bpf_skb_store_bytes(skb, ETH_LENGTH, ip, IP4_LENGTH, BPF_F_RECOMPUTE_CSUM) ? DROPPED_FAILED : 0;
}

/* cut takes the first piece off, sends it to ingress as a clone, and leaves the rest in the packet. Options go, as they do when the packet
 * becomes IPv6; within IPv4 the pieces are a little shorter than they could be. */
SUBPROGRAM enum reason cut(struct __sk_buff *skb, struct packet *p, __u32 longest)
{
	__u32 n = (longest - IP6_LENGTH - FRAGMENT_LENGTH) & ~7, rest = p->size - (p->l4 - p->at), tail = p->flags & MORE ? IP4_MF : 0;
	struct ip4 ip = p->ip4;

	if (n < 8 || n >= rest)
		return DROPPED_FAILED;
	if (p->extra && bpf_skb_adjust_room(skb, -(__s32)p->extra, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return DROPPED_FAILED;
	ip.version_length = 0x45;
	ip.size = be16((__u16)(IP4_LENGTH + n));
	ip.fragment = be16((__u16)(p->offset / 8 | IP4_MF));
	if (put_header4(skb, &ip) || bpf_clone_redirect(skb, skb->ifindex, BPF_F_INGRESS))
		return DROPPED_FAILED;
	if (bpf_skb_adjust_room(skb, -(__s32)n, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return DROPPED_FAILED;
	ip.size = be16((__u16)(IP4_LENGTH + rest - n));
	ip.fragment = be16((__u16)((p->offset + n) / 8 | tail));
	return put_header4(skb, &ip);
}
