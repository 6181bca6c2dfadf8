// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Headers and checksums: what is a packet of one family becomes the same packet of the other. RFC 7915.
 *
 *   remove what the other family has no place for ─▶ change the base header's length ─▶ write it ─▶ ports, checksum, MSS
 *
 * A checksum is never computed anew where it can be amended: the sender may have left it to the card (CHECKSUM_PARTIAL), and the
 * card may have summed the whole packet (CHECKSUM_COMPLETE). The kernel keeps both right if the base header is
 * written with BPF_F_RECOMPUTE_CSUM, or where it lies if the card has not summed, the pseudo header's part is amended with
 * BPF_F_PSEUDO_HDR, and the ports' without. */

#pragma once

#include "parse.h"

/* Go: writes, before the program is loaded. */
const volatile __u32 processors = 1;

/* sum adds up a part of the frame in one's complement. The helper takes 512 bytes at once; a datagram that is not a super-packet has
 * at most the 9,000 bytes and some of a jumbo frame. */
PROGRAM __s32 sum(struct __sk_buff *skb, __u32 at, __u32 length)
{
	struct scratch *s = scratch();
	__u32 total = 0;

	if (!s)
		return -1;
	for (int i = 0; i < 20 && length > CHUNK; i++) {
		if (bpf_skb_load_bytes(skb, at, s->chunk, CHUNK))
			return -1;
		total = bpf_csum_diff(0, 0, (__u32 *)s->chunk, CHUNK, total);
		at += CHUNK;
		length -= CHUNK;
	}
	if (length < 1 || length > CHUNK)
		return -1;
	memset(s->chunk, 0, CHUNK);
	if (bpf_skb_load_bytes(skb, at, s->chunk, bounded(length, CHUNK)))
		return -1;
	return fold((__u32)bpf_csum_diff(0, 0, (__u32 *)s->chunk, CHUNK, total));
}

/* identification returns one that no packet of this machine has had for the longest time: each processor has those that
 * are its own modulo their number. RFC 6864 §4.3, RFC 7915 §5.1 */
inline_always __u16 identification(struct scratch *s)
{
	return s->ids++ * processors + bpf_get_smp_processor_id();
}

inline_always int crosses(const struct packet *p, __u8 family)
{
	return p->family != family;
}

/* header_length is what the base header becomes in the given family, with the fragment header. */
inline_always __u32 header_length(const struct packet *p, __u8 family)
{
	if (family == 4)
		return IP4_LENGTH;
	return p->flags & FRAGMENT ? IP6_LENGTH + FRAGMENT_LENGTH : IP6_LENGTH;
}

/* translated_size is how long a packet of the given length becomes. */
inline_always __u32 translated_size(const struct packet *p, __u8 family, __u32 size)
{
	if (!crosses(p, family))
		return size;
	return size - (p->l4 - p->at) + header_length(p, family);
}

/* label is the same for all packets of a flow that go one way, and seldom that of another flow. RFC 6437 §3 */
inline_always __u32 label(const struct path *path)
{
	__u32 ports = (__u32)path->sport << 16 | path->dport;

	return (ports ^ (__u32)path->addresses << 8) * 0x9e3779b1u >> 12;
}

/* make6 writes the IPv6 header of an IPv4 packet, of the given length: with a fragment header or without. RFC 7915 §4.1 */
inline_always void make6(struct packet *p, const struct path *path, __u8 *to, __u32 length)
{
	struct ip6 *ip = (void *)to;
	struct fragment_header *fragment = (void *)(ip + 1);

	ip->class_label = be32(6 << 28 | (__u32)p->class << 20 | label(path));
	ip->payload = be16((__u16)(translated_size(p, 6, p->size) - IP6_LENGTH));
	ip->next = p->tuple.protocol == IPPROTO_ICMP ? IPPROTO_ICMPV6 : p->tuple.protocol;
	ip->ttl = p->ttl;
	memcpy(ip->saddr, path->saddr, 16);
	memcpy(ip->daddr, path->daddr, 16);
	if (length > IP6_LENGTH) {
		fragment->next = ip->next;
		fragment->reserved = 0;
		fragment->offset = be16(p->offset | (p->flags & MORE ? 1 : 0));
		fragment->id = be32(p->id);
		ip->next = EXT_FRAGMENT;
	}
}

/* make4 writes the IPv4 header of an IPv6 packet. A packet that fits into the smallest IPv6 path may be cut on the IPv4 side, since
 * its sender will make no smaller ones. It is made of words, which are summed before they are written: a processor waits when it
 * reads in one piece what it has just written in several. RFC 7915 §5.1 */
inline_always void make4(struct packet *p, const struct path *path, __u8 *to, __u32 segment, __u16 id)
{
	__u32 *words = (__u32 *)to, protocol = p->tuple.protocol == IPPROTO_ICMPV6 ? IPPROTO_ICMP : p->tuple.protocol;
	__u32 fragment = 0, first, second, third, saddr, daddr;

	if (p->flags & FRAGMENT) {
		fragment = p->offset / 8 | (p->flags & MORE ? IP4_MF : 0);
		id = p->id;
	} else if (segment > 1260) {
		fragment = IP4_DF;
	}
	memcpy(&saddr, path->saddr + 12, 4);
	memcpy(&daddr, path->daddr + 12, 4);
	first = be32(0x45u << 24 | (__u32)p->class << 16 | (__u16)translated_size(p, 4, p->size));
	second = be32((__u32)id << 16 | fragment);
	third = be32((__u32)p->ttl << 24 | protocol << 16);
	words[0] = first;
	words[1] = second;
	words[2] = third | be32((__u16)~be16(fold((__u64)first + second + third + saddr + daddr)));
	words[3] = saddr;
	words[4] = daddr;
}

/* keep writes the header of a packet that stays in its family. The checksum is amended, so that one that was wrong stays wrong. */
inline_always void keep(struct packet *p, const struct path *path, __u8 *to)
{
	if (p->family == 4) {
		struct ip4 *ip = (void *)to;
		__u32 old = p->ip4.ttl << 8 | p->ip4.protocol, new = p->ttl << 8 | p->ip4.protocol;

		*ip = p->ip4;
		ip->ttl = p->ttl;
		memcpy(ip->saddr, path->saddr + 12, 4);
		memcpy(ip->daddr, path->daddr + 12, 4);
		ip->checksum = ~fold((__u64)(__u16)~ip->checksum + path->addresses + be16(new) + (__u16)~be16(old));
	} else {
		struct ip6 *ip = (void *)to;

		*ip = p->ip6;
		ip->ttl = p->ttl;
		memcpy(ip->saddr, path->saddr, 16);
		memcpy(ip->daddr, path->daddr, 16);
	}
}

/* resize makes room for a base header of the given length where the packet's is, and takes away options or extension headers. */
inline_always int resize(struct __sk_buff *skb, struct packet *p, __u8 family, __u32 length)
{
	if (p->extra && bpf_skb_adjust_room(skb, -(__s32)p->extra, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return DROPPED_FAILED;
	if (bpf_skb_change_proto(skb, family == 4 ? be16(ETH_P_IP) : be16(ETH_P_IPV6), 0))
		return DROPPED_FAILED;
	if (length > IP6_LENGTH && bpf_skb_adjust_room(skb, FRAGMENT_LENGTH, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return DROPPED_FAILED;
	return 0;
}

/* set_ethernet writes the protocol of the frame. */
inline_always int set_ethernet(struct __sk_buff *skb, __u8 family)
{
	struct ethernet *ethernet = (void *)(long)skb->data;

	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end)
		return DROPPED_FAILED;
	ethernet->protocol = family == 4 ? be16(ETH_P_IP) : be16(ETH_P_IPV6);
	return 0;
}

/* place returns where a base header of the given length may be written into the frame. It is 0 where bpf_skb_store_bytes must do it:
 * behind the linear part, and if the card has summed the packet, whose sum must follow. */
inline_always __u8 *place(struct __sk_buff *skb, __u32 length)
{
	__u8 *at;

	if (bpf_csum_update(skb, 0) >= 0)
		return 0;
	at = (__u8 *)(long)skb->data + ETH_LENGTH;
	return (void *)(at + length) > (void *)(long)skb->data_end ? 0 : at;
}

/* put_base4 and put_base6 write the base header of a packet that leaves by the path. They return 0 on success. */
inline_always int put_base4(struct __sk_buff *skb, struct packet *p, const struct path *path, struct scratch *s, __u32 segment)
{
	__u8 *at = place(skb, IP4_LENGTH), *to = at ? at : s->header;

	if (crosses(p, 4))
		make4(p, path, to, segment, identification(s));
	else
		keep(p, path, to);
	return at ? 0 : bpf_skb_store_bytes(skb, ETH_LENGTH, s->header, IP4_LENGTH, BPF_F_RECOMPUTE_CSUM);
}

inline_always int put_base6(struct __sk_buff *skb, struct packet *p, const struct path *path, struct scratch *s, __u32 length)
{
	__u8 *at = place(skb, length), *to = at ? at : s->header;

	if (crosses(p, 6))
		make6(p, path, to, length);
	else
		keep(p, path, to);
	return at ? 0 : bpf_skb_store_bytes(skb, ETH_LENGTH, s->header, length, BPF_F_RECOMPUTE_CSUM);
}

/* set_header translates everything before the transport header. The frame is resized before the path is read, which is still on its
 * way from memory then. */
inline_always int set_header(struct __sk_buff *skb, struct packet *p, struct path *path, struct scratch *s, __u32 segment)
{
	long failed;

	if (crosses(p, path->family) && resize(skb, p, path->family, header_length(p, path->family)))
		return DROPPED_FAILED;
	if (path->family == 4)
		failed = put_base4(skb, p, path, s, segment);
	else if (crosses(p, 6) && p->flags & FRAGMENT)
		failed = put_base6(skb, p, path, s, IP6_LENGTH + FRAGMENT_LENGTH);
	else
		failed = put_base6(skb, p, path, s, IP6_LENGTH);
	if (failed)
		return DROPPED_FAILED;
	return crosses(p, path->family) ? set_ethernet(skb, path->family) : 0;
}

/* clamp lowers the MSS option of a SYN to what fits both ways; it never raises it. RFC 9293 §3.7.1 */
SUBPROGRAM int clamp(struct __sk_buff *skb, __u32 l4, __u32 length, __u16 mss)
{
	int at = find_option(skb, l4 + 20, length - 20, MSS_OPTION);
	__u8 option[4];
	__u16 old, new = be16(mss);

	if (!at || at + sizeof option > l4 + length || bpf_skb_load_bytes(skb, at, option, sizeof option) || option[1] != 4)
		return 0;
	old = option[2] << 8 | option[3];
	if (old <= mss)
		return 0;
	if (bpf_skb_store_bytes(skb, at + 2, &new, 2, 0))
		return -1;
	old = be16(old);
	if ((at - l4) & 1) { /* its bytes lie in two words of the sum */
		old = __builtin_bswap16(old);
		new = __builtin_bswap16(new);
	}
	return bpf_l4_csum_replace(skb, l4 + 16, old, new, 2);
}

/* put_ports writes the ports of a path where the transport header begins. If there is no checksum that follows them, the sum that the
 * card has made must. They are copied first: bpf_skb_store_bytes reads whole lines of the cache, and a path's ports lie so near
 * to its end that it would wait for the next one's. */
inline_always int put_ports(struct __sk_buff *skb, const struct path *path, __u32 l4, int checked)
{
	__be16 ports[2] = {path->sport, path->dport}, *at = (void *)(long)skb->data + bounded(l4, 32768);

	if (!checked || (void *)(at + 2) > (void *)(long)skb->data_end)
		return bpf_skb_store_bytes(skb, l4, ports, sizeof ports, checked ? 0 : BPF_F_RECOMPUTE_CSUM) ? DROPPED_FAILED : 0;
	at[0] = ports[0];
	at[1] = ports[1];
	return 0;
}

/* set_transport puts in the ports of the path and amends the checksum. UDP of IPv4 may have none, and keeps none. mss
 * is the largest segment for a SYN; 0 for others. RFC 768 */
inline_always int set_transport(struct __sk_buff *skb, struct packet *p, struct path *path, __u32 l4, __u32 mss)
{
	int udp = p->tuple.protocol == IPPROTO_UDP;
	__u32 at = l4 + (udp ? 6 : 16);
	__u64 mangled = udp ? BPF_F_MARK_MANGLED_0 : 0;

	if (path->ports) {
		if (put_ports(skb, path, l4, !udp || p->transport.udp.checksum))
			return DROPPED_FAILED;
		if (bpf_l4_csum_replace(skb, at, 0, path->ports, mangled))
			return DROPPED_FAILED;
	}
	if (bpf_l4_csum_replace(skb, at, 0, path->addresses, mangled | BPF_F_PSEUDO_HDR))
		return DROPPED_FAILED;
	if (mss && clamp(skb, l4, (p->transport.tcp.length >> 4) * 4, mss))
		return DROPPED_FAILED;
	return 0;
}

/* fill_checksum gives a whole datagram of IPv4 the checksum that IPv6 asks for. RFC 7915 §4.5, RFC 8200 §8.1 */
inline_always int fill_checksum(struct __sk_buff *skb, struct packet *p)
{
	__u32 length = be16(p->transport.udp.length);
	__s32 data = sum(skb, p->l4, length);
	__u16 checksum;

	if (data < 0)
		return DROPPED_FAILED;
	checksum = ~fold((__u64)(__u32)data + (__u32)bpf_csum_diff(0, 0, (__u32 *)p->tuple.saddr, 32, 0) + be32(length) +
			 be16(IPPROTO_UDP));
	/* The ffff of two mapped addresses is nothing in one's complement. */
	if (!checksum)
		checksum = 0xffff;
	p->transport.udp.checksum = checksum;
	return bpf_skb_store_bytes(skb, p->l4 + 6, &checksum, 2, BPF_F_RECOMPUTE_CSUM) ? DROPPED_FAILED : 0;
}
