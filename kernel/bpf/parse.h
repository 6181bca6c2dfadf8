// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Bytes → struct packet, both families. The same code reads the packet that is quoted inside an ICMP error.
 *
 * Reads are bpf_skb_load_bytes, which fails at the end of the packet instead of going past it; but where a packet begins with both
 * headers, as most do, they are read where they lie. */

#pragma once

#include "header.h"
#include "maps.h"

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset;
	__be32 id;
};

struct transport { /* what TCP, UDP and ICMP need: the first 8 bytes of any, 20 of TCP */
	union {
		struct {
			__be16 sport, dport;
			__be32 seq, ack;
			__u8 length, flags;
			__be16 window, checksum, urgent;
		} tcp;
		struct {
			__be16 sport, dport, length, checksum;
		} udp;
		struct {
			__u8 type, code;
			__u16 checksum;
			__be32 rest;
		} icmp;
	};
};

enum { FRAGMENT_LENGTH = 8 };
enum { LOOSE_ROUTE = 131, STRICT_ROUTE = 137, MSS_OPTION = 2 };
enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_ACK = 16 };

enum packet_flags {
	DONT_FRAGMENT = 1,
	FRAGMENT = 2,      /* a fragment, first or later */
	MORE = 4,          /* not the last one */
	SOURCE_ROUTED = 8, /* an IPv4 source route that has not ended, or an IPv6 one */
};

struct packet {
	struct tuple tuple;
	union {
		struct ip4 ip4;
		struct ip6 ip6;
	};
	struct transport transport;
	__u32 at;     /* where its IP header begins in the frame */
	__u32 l4;     /* where its transport header begins */
	__u32 size;   /* from the IP header to the end, as the header says */
	__u32 id;     /* of a datagram in fragments */
	__u16 extra;  /* bytes between the base header and the transport: options, extension headers */
	__u16 offset; /* of a fragment, in bytes */
	__u16 bad;    /* where the routing header is that says what cannot be done */
	__u8 family;
	__u8 class;
	__u8 ttl;
	__u8 flags;
	__u8 there; /* the transport header has been read */
	__u8 pad[5];
};

/* scratch is what does not fit on the stack of 512 bytes. */
struct scratch {
	struct packet packet;
	struct packet quoted; /* inside an ICMP error */
	struct tuple back;    /* of the packets that answer */
	struct path forward;
	struct path reverse;
	struct path planned;  /* of a flow that another edge has */
	struct bpf_redir_neigh hop;
	__u8 header[64];
	__u8 chunk[CHUNK];
	__u32 ids;     /* IPv4 identifications given */
	__u32 second;  /* of the answers below */
	__u32 answers;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct scratch);
	__uint(max_entries, 1);
} scratches SEC(".maps");

inline_always struct scratch *scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratches, &zero);
}

inline_always __u32 min(__u32 a, __u32 b)
{
	return a < b ? a : b;
}

inline_always __u32 max(__u32 a, __u32 b)
{
	return a > b ? a : b;
}

/* copy copies words that are aligned, as headers are behind an Ethernet header. */
inline_always void copy(void *to, const void *from, __u32 length)
{
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < length / 4; i++)
		((__u32 *)to)[i] = ((const __u32 *)from)[i];
}

/* begins reads the IP header and the 20 bytes after it, if the packet's linear part has them. */
inline_always int begins(struct __sk_buff *skb, struct packet *p, void *ip, __u32 length)
{
	const __u8 *from = (const __u8 *)(long)skb->data + ETH_LENGTH;

	if ((const void *)(from + length + sizeof p->transport) > (const void *)(long)skb->data_end)
		return 0;
	copy(ip, from, length);
	copy(&p->transport, from + length, sizeof p->transport);
	return 1;
}

/* find_option returns where in the frame an option of the given kind begins; 0 if there is none. IPv4 and TCP write their lists in
 * the same way: kinds 0 and 1 are alone, any other is followed by its length. RFC 791 §3.1, RFC 9293 §3.1 */
PROGRAM int find_option(struct __sk_buff *skb, __u32 list, __u32 length, __u32 kind)
{
	__u8 options[64] ALIGNED = {};
	__u32 at = 0;

	if (length < 1 || length > 40 || bpf_skb_load_bytes(skb, list, options, bounded(length, sizeof options)))
		return 0;
	for (int i = 0; i < 40; i++) {
		__u32 here = bounded(at + 1, sizeof options) - 1, size;

		if (at >= length || options[here] == 0)
			return 0;
		if (options[here] == kind)
			return list + at;
		size = options[(here + 1) & 63];
		if (options[here] == 1)
			size = 1;
		if (size == 0)
			return 0;
		at += size;
	}
	return 0;
}

/* options4 looks through IPv4 options: their sum, and a source route that has not come to its end. RFC 791 §3.1 */
SUBPROGRAM enum reason options4(struct __sk_buff *skb, struct packet *p, int quoted)
{
	__u8 options[64] ALIGNED = {}, route[3];
	__u32 list = p->at + IP4_LENGTH;
	int at;

	if (bpf_skb_load_bytes(skb, list, options, bounded(p->extra, sizeof options)))
		return PASSED_TRUNCATED;
	if (!quoted && fold(sum4(&p->ip4) + (__u32)bpf_csum_diff(0, 0, (__u32 *)options, sizeof options, 0)) != 0xffff)
		return PASSED_MALFORMED;
	at = find_option(skb, list, p->extra, LOOSE_ROUTE);
	if (!at)
		at = find_option(skb, list, p->extra, STRICT_ROUTE);
	if (at && (bpf_skb_load_bytes(skb, at, route, sizeof route) || route[2] <= route[1]))
		p->flags |= SOURCE_ROUTED;
	return 0;
}

inline_always int parse4(struct __sk_buff *skb, struct packet *p, int quoted)
{
	struct ip4 *ip = &p->ip4;
	__u32 length, fragment;
	int there;

	there = !quoted && begins(skb, p, ip, IP4_LENGTH);
	if (!there && bpf_skb_load_bytes(skb, p->at, ip, sizeof *ip))
		return PASSED_TRUNCATED;
	length = (ip->version_length & 15) * 4;
	p->there = there && length == IP4_LENGTH;
	p->size = be16(ip->size);
	if (ip->version_length >> 4 != 4 || length < IP4_LENGTH)
		return PASSED_MALFORMED;
	p->family = 4;
	p->class = ip->class;
	p->ttl = ip->ttl;
	p->extra = length - IP4_LENGTH;
	p->l4 = p->at + length;
	fragment = be16(ip->fragment);
	p->offset = (fragment & IP4_OFFSET) * 8;
	p->id = be16(ip->id);
	if (fragment & IP4_DF)
		p->flags |= DONT_FRAGMENT;
	if (fragment & (IP4_MF | IP4_OFFSET))
		p->flags |= FRAGMENT;
	if (fragment & IP4_MF)
		p->flags |= MORE;
	map4(p->tuple.saddr, ip->saddr);
	map4(p->tuple.daddr, ip->daddr);
	p->tuple.protocol = ip->protocol;
	if (p->extra)
		return options4(skb, p, quoted);
	if (!quoted && fold(sum4(ip)) != 0xffff) /* a quoted header may have been changed on its way. RFC 1812 §5.2.2 */
		return PASSED_MALFORMED;
	return 0;
}

/* extensions6 walks to the transport header. Those it knows are left out when the packet becomes IPv4. RFC 7915 §5.1 */
PROGRAM int extensions6(struct __sk_buff *skb, int quoted)
{
	struct scratch *s = scratch();
	struct packet *p;
	__u32 next, at;

	if (!s)
		return PASSED_TRUNCATED;
	p = quoted ? &s->quoted : &s->packet;
	next = p->ip6.next;
	at = p->at + IP6_LENGTH;
	for (int i = 0; i < 6; i++) {
		__u8 header[8];

		if (next != EXT_HOPOPTS && next != EXT_ROUTING && next != EXT_FRAGMENT && next != EXT_DSTOPTS)
			break;
		/* What follows a fragment header is cut with the rest, so it cannot be left out. */
		if (p->flags & FRAGMENT)
			return PASSED_EXTENSION;
		if (bpf_skb_load_bytes(skb, at, header, sizeof header))
			return PASSED_TRUNCATED;
		if (next == EXT_FRAGMENT) {
			struct fragment_header *f = (void *)header;
			__u32 offset = be16(f->offset);

			p->id = be32(f->id);
			p->offset = offset & ~7;
			p->flags |= FRAGMENT;
			if (offset & 1)
				p->flags |= MORE;
			next = header[0];
			at += sizeof header;
			if (p->offset)
				break; /* the rest is payload */
			continue;
		}
		if (next == EXT_ROUTING && header[3] && !(p->flags & SOURCE_ROUTED)) {
			p->flags |= SOURCE_ROUTED;
			p->bad = at - p->at + 3;
		}
		next = header[0];
		at += (header[1] + 1) * 8;
	}
	p->extra = at - p->at - IP6_LENGTH;
	p->l4 = at;
	p->tuple.protocol = next;
	return 0;
}

inline_always int parse6(struct __sk_buff *skb, struct packet *p, int quoted)
{
	struct ip6 *ip = &p->ip6;
	__u32 class_label;

	p->there = !quoted && begins(skb, p, ip, IP6_LENGTH);
	if (!p->there && bpf_skb_load_bytes(skb, p->at, ip, sizeof *ip))
		return PASSED_TRUNCATED;
	class_label = be32(ip->class_label);
	if (class_label >> 28 != 6)
		return PASSED_MALFORMED;
	p->family = 6;
	p->class = class_label >> 20;
	p->ttl = ip->ttl;
	p->flags = DONT_FRAGMENT;
	p->size = IP6_LENGTH + be16(ip->payload);
	p->l4 = p->at + IP6_LENGTH;
	memcpy(p->tuple.saddr, ip->saddr, 16);
	memcpy(p->tuple.daddr, ip->daddr, 16);
	p->tuple.protocol = ip->next;
	if (ip->next == IPPROTO_TCP || ip->next == IPPROTO_UDP || ip->next == IPPROTO_ICMPV6)
		return 0;
	p->there = 0;
	return extensions6(skb, quoted);
}

/* parse_transport reads the transport header, and checks what the packet says of its lengths. Of a quoted packet only the
 * first 8 bytes must be there. RFC 792 */
inline_always int parse_transport(struct __sk_buff *skb, struct packet *p, int quoted)
{
	__u32 rest;

	if (p->size < IP4_LENGTH || p->size + p->at < p->l4)
		return PASSED_MALFORMED;
	rest = p->size - (p->l4 - p->at);
	if (p->offset) /* no transport header here */
		return 0;
	if (p->tuple.protocol == IPPROTO_TCP && !quoted) {
		__u32 length;

		if (!p->there && bpf_skb_load_bytes(skb, p->l4, &p->transport, 20))
			return PASSED_TRUNCATED;
		length = (p->transport.tcp.length >> 4) * 4;
		if (length < 20 || length > rest)
			return PASSED_MALFORMED;
	} else {
		if (!p->there && bpf_skb_load_bytes(skb, p->l4, &p->transport, 8))
			return PASSED_TRUNCATED;
		if (rest < 8)
			return PASSED_MALFORMED;
		if (p->tuple.protocol == IPPROTO_UDP) {
			__u32 length = be16(p->transport.udp.length);

			if (length < 8 || (length > rest && !(p->flags & FRAGMENT)))
				return PASSED_MALFORMED;
		}
	}
	if (p->tuple.protocol == IPPROTO_TCP || p->tuple.protocol == IPPROTO_UDP) {
		p->tuple.sport = p->transport.udp.sport;
		p->tuple.dport = p->transport.udp.dport;
	}
	return 0;
}

/* parse reads the packet whose IP header is at the given place in the frame. A super-packet may be longer than its header can
 * say. It returns 0, or why it passes. */
inline_always int parse(struct __sk_buff *skb, struct packet *p, __u32 at, int family, int quoted)
{
	int reason;

	memset(p, 0, sizeof *p);
	p->at = at;
	reason = family == 4 ? parse4(skb, p, quoted) : parse6(skb, p, quoted);
	if (reason)
		return reason;
	if (!quoted) {
		__u32 there = skb->len - at;

		if (skb->gso_size)
			p->size = there;
		if (p->size > there)
			return PASSED_TRUNCATED;
	}
	return parse_transport(skb, p, quoted);
}
