// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* ICMP: errors that others send about our flows, translated with the packet that they quote, and those that we send ourselves.
 *
 *   an error comes in ─▶ quoted packet ─▶ its flow, turned round ─▶ [IP | ICMP | quoted IP | rest]
 *                                                                    └ both headers change their length ┘
 *
 * RFC 7915 §4.2, §4.3, §5.2, §5.3; RFC 4884 (extensions). */

#pragma once

#include "flow.h"

enum {
	UNREACHABLE4 = 3,
	EXPIRED4 = 11,
	PARAMETER4 = 12,
	UNREACHABLE6 = 1,
	TOO_BIG6 = 2,
	EXPIRED6 = 3,
	PARAMETER6 = 4,
	MINIMUM6 = 1280, /* of an IPv6 link. RFC 8200 §5 */
	MINIMUM4 = 68,   /* of an IPv4 link. RFC 791 §3.2 */
	LONGEST4 = 576,  /* of an ICMP error. RFC 1812 §4.3.2.3 */
	LONGEST6 = 1280, /* RFC 4443 §2.4 */
};

/* message is the first 8 bytes of an ICMP error in other words. */
struct message {
	__u8 type;
	__u8 code;
	__u8 length;  /* of the quoted datagram before an extension, in words of its family. RFC 4884 §4 */
	__u8 pad;
	__u32 value;  /* an MTU or a pointer */
};

/* may_answer says whether this processor has not yet sent too many in this second. RFC 4443 §2.4 (f) */
inline_always int may_answer(struct scratch *s)
{
	__u32 second = now();

	if (s->second != second) {
		s->second = second;
		s->answers = 0;
	}
	return s->answers++ < ANSWERS;
}

/* put_message writes the ICMP header, with a checksum of 0. */
inline_always void put_message(const struct message *m, __u8 family, __u8 *to)
{
	struct transport *icmp = (void *)to;
	__u32 rest = m->value;

	if (family == 4) {
		rest = m->type == PARAMETER4 ? m->value << 24 : m->value;
		rest |= m->length << 16;
	} else if (m->length) {
		rest = m->length << 24;
	}
	icmp->icmp.type = m->type;
	icmp->icmp.code = m->code;
	icmp->icmp.checksum = 0;
	icmp->icmp.rest = be32(rest);
}

/* set_checksum computes the checksum of an ICMP message; over IPv6 it covers the addresses. RFC 4443 §2.3 */
inline_always int set_checksum(struct __sk_buff *skb, const struct path *path, __u32 l4, __u32 length)
{
	__s32 data = sum(skb, l4, length);
	__u64 total = data;
	__u16 checksum;

	if (data < 0)
		return DROPPED_FAILED;
	if (path->family == 6)
		total += (__u64)(__u32)bpf_csum_diff(0, 0, (__u32 *)path->saddr, 32, 0) + be32(length) + be16(IPPROTO_ICMPV6);
	checksum = ~fold(total);
	return bpf_skb_store_bytes(skb, l4 + 2, &checksum, 2, BPF_F_RECOMPUTE_CSUM) ? DROPPED_FAILED : 0;
}

/* answer sends the packet back to its sender, inside an ICMP error. It returns 0 if it did. */
SUBPROGRAM enum reason answer(struct __sk_buff *skb, struct packet *p, struct scratch *s, const struct message *m)
{
	__u32 base = p->family == 4 ? IP4_LENGTH : IP6_LENGTH, longest = p->family == 4 ? LONGEST4 : LONGEST6;
	__u32 quote = min(p->size, longest - base - 8);
	struct path *path = &s->reverse;
	struct ethernet ethernet;
	__u8 mac[6];

	if ((p->family == 4 && p->offset) || !may_answer(s)) /* RFC 1812 §4.3.2.7 */
		return DROPPED_UNANSWERED;
	if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof ethernet))
		return DROPPED_FAILED;
	memcpy(mac, ethernet.dmac, 6);
	memcpy(ethernet.dmac, ethernet.smac, 6);
	memcpy(ethernet.smac, mac, 6);
	if (skb->len > ETH_LENGTH + quote && bpf_skb_change_tail(skb, ETH_LENGTH + quote, 0))
		return DROPPED_FAILED;
	if (bpf_skb_change_head(skb, base + 8, 0))
		return DROPPED_FAILED;
	path->family = p->family;
	path->sport = 0;
	path->dport = 0;
	path->addresses = 0; /* the flow label is 0 */
	memcpy(path->saddr, p->tuple.daddr, 16);
	memcpy(path->daddr, p->tuple.saddr, 16);
	p->class = 0;
	p->ttl = 64;
	p->flags = 0;
	p->size = base + 8 + quote;
	p->l4 = ETH_LENGTH + base;
	if (p->family == 4) {
		p->tuple.protocol = IPPROTO_ICMP;
		make4(p, path, s->header, 0, identification(s));
	} else {
		p->tuple.protocol = IPPROTO_ICMPV6;
		make6(p, path, s->header, header_length(p, 6));
	}
	put_message(m, p->family, s->header + 48);
	if (bpf_skb_store_bytes(skb, 0, &ethernet, sizeof ethernet, 0) ||
	    bpf_skb_store_bytes(skb, p->l4, s->header + 48, 8, BPF_F_RECOMPUTE_CSUM))
		return DROPPED_FAILED;
	if (p->family == 4 ? bpf_skb_store_bytes(skb, ETH_LENGTH, s->header, IP4_LENGTH, BPF_F_RECOMPUTE_CSUM)
			   : bpf_skb_store_bytes(skb, ETH_LENGTH, s->header, IP6_LENGTH, BPF_F_RECOMPUTE_CSUM))
		return DROPPED_FAILED;
	return set_checksum(skb, path, p->l4, 8 + quote);
}

inline_always void set(struct message *m, __u8 type, __u8 code, __u32 value)
{
	m->type = type;
	m->code = code;
	m->value = value;
}

/* pointer6 is where the field of an IPv4 header is in the IPv6 header; -1 if it is not. RFC 7915 §4.2, figure 3 */
inline_always int pointer6(__u32 at)
{
	switch (at) {
	case 0: return 0;
	case 1: return 1;
	case 2: case 3: return 4;
	case 8: return 7;
	case 9: return 6;
	}
	if (at >= 12 && at < 16)
		return 8;
	if (at >= 16 && at < 20)
		return 24;
	return -1;
}

/* pointer4 is the other way round. RFC 7915 §5.2, figure 6 */
inline_always int pointer4(__u32 at)
{
	switch (at) {
	case 0: return 0;
	case 1: return 1;
	case 4: case 5: return 2;
	case 6: return 9;
	case 7: return 8;
	}
	if (at >= 8 && at < 24)
		return 12;
	if (at >= 24 && at < 40)
		return 16;
	return -1;
}

/* plateau is the next smaller MTU that is found in the world, for a router that does not tell its own. RFC 1191 §7 */
inline_always __u32 plateau(__u32 size)
{
	if (size > 32000) return 32000;
	if (size > 17914) return 17914;
	if (size > 8166) return 8166;
	if (size > 4352) return 4352;
	if (size > 2002) return 2002;
	if (size > 1492) return 1492;
	if (size > 1006) return 1006;
	if (size > 508) return 508;
	if (size > 296) return 296;
	return 68;
}

/* message46 says an ICMPv4 error in ICMPv6. mtu6 and mtu4 are those of the links that it leaves by and came in by.
 * It returns 0, or that there is no word for it. RFC 7915 §4.2 */
SUBPROGRAM enum reason message46(const struct packet *p, const struct packet *quoted, __u32 mtu6, __u32 mtu4, struct message *m)
{
	__u32 rest = be32(p->transport.icmp.rest), code = p->transport.icmp.code, mtu;
	int at;

	m->length = rest >> 16;
	switch (p->transport.icmp.type) {
	case EXPIRED4:
		set(m, EXPIRED6, code, 0);
		return 0;
	case PARAMETER4:
		at = code == 0 || code == 2 ? pointer6(rest >> 24) : -1;
		if (at < 0)
			return DROPPED_ERROR_TYPE;
		m->length = 0;
		set(m, PARAMETER6, 0, at);
		return 0;
	}
	switch (code) {
	case 2: /* the protocol: what IPv6 calls an unknown next header */
		m->length = 0;
		set(m, PARAMETER6, 1, 6);
		return 0;
	case 3:
		set(m, UNREACHABLE6, 4, 0);
		return 0;
	case 4:
		mtu = rest & 0xffff;
		if (!mtu)
			mtu = plateau(quoted->size);
		m->length = 0;
		set(m, TOO_BIG6, 0, max(MINIMUM6, min(mtu + 20, min(mtu6, mtu4 + 20))));
		return 0;
	case 9: case 10: case 13: case 15:
		set(m, UNREACHABLE6, 1, 0);
		return 0;
	case 14:
		return DROPPED_ERROR_TYPE;
	}
	if (code > 15)
		return DROPPED_ERROR_TYPE;
	set(m, UNREACHABLE6, 0, 0);
	return 0;
}

/* message64 says an ICMPv6 error in ICMPv4. RFC 7915 §5.2 */
SUBPROGRAM enum reason message64(const struct packet *p, __u32 mtu4, __u32 mtu6, struct message *m)
{
	__u32 rest = be32(p->transport.icmp.rest), code = p->transport.icmp.code;
	int at;

	m->length = 0;
	switch (p->transport.icmp.type) {
	case UNREACHABLE6:
		if (code > 4)
			return DROPPED_ERROR_TYPE;
		m->length = rest >> 24;
		set(m, UNREACHABLE4, code == 1 ? 10 : code == 4 ? 3 : 1, 0);
		return 0;
	case TOO_BIG6:
		set(m, UNREACHABLE4, 4, min(min(rest, 65535) - 20, min(mtu4, mtu6 - 20)));
		return 0;
	case EXPIRED6:
		m->length = rest >> 24;
		set(m, EXPIRED4, code, 0);
		return 0;
	}
	if (code == 1) {
		set(m, UNREACHABLE4, 2, 0);
		return 0;
	}
	at = code == 0 ? pointer4(rest) : -1;
	if (at < 0)
		return DROPPED_ERROR_TYPE;
	set(m, PARAMETER4, 0, at);
	return 0;
}

/* is_error says whether an ICMP message is one about a packet that was sent. */
inline_always int is_error(const struct packet *p)
{
	__u8 type = p->transport.icmp.type;

	if (p->tuple.protocol == IPPROTO_ICMP)
		return p->family == 4 && (type == UNREACHABLE4 || type == EXPIRED4 || type == PARAMETER4);
	return p->family == 6 && type >= UNREACHABLE6 && type <= PARAMETER6;
}

/* is_small says that somebody lies about an MTU, to make a server send crumbs. RFC 8201 §4 */
inline_always int is_small(const struct packet *p)
{
	__u32 mtu = be32(p->transport.icmp.rest);

	if (p->family == 6)
		return p->transport.icmp.type == TOO_BIG6 && mtu < MINIMUM6;
	mtu &= 0xffff;
	return p->transport.icmp.type == UNREACHABLE4 && p->transport.icmp.code == 4 && mtu && mtu < MINIMUM4;
}

/* choose_reporter decides whom an error seems to come from. The end point of the flow has its translated address. A router has
 * its own where that is possible; towards clients, to whom the network behind the edge is closed, it is the listening
 * address. RFC 6791, RFC 7915 §5.1 */
inline_always void choose_reporter(const struct packet *p, const struct packet *quoted, const struct path *path, struct path *outer)
{
	const __u64 *from = (const __u64 *)p->tuple.saddr, *end = (const __u64 *)quoted->tuple.daddr;
	__u32 number = path->backend, zero = 0;
	struct control *c;
	struct backend *b;

	memcpy(outer->saddr, path->saddr, 16);
	if (path->kind == TO_CLIENT || (from[0] == end[0] && from[1] == end[1]))
		return;
	if (p->family == path->family) {
		memcpy(outer->saddr, p->tuple.saddr, 16);
		return;
	}
	if (p->family == 6) {
		c = bpf_map_lookup_elem(&control, &zero);
		if (c && *(__u32 *)c->errors4)
			map4(outer->saddr, c->errors4);
		return;
	}
	b = bpf_map_lookup_elem(&backends, &number);
	if (b && b->source == SOURCE_CLIENT && b->family == 6) {
		memcpy(outer->saddr, b->prefix, 12);
		memcpy(outer->saddr + 12, p->tuple.saddr + 12, 4);
	}
}

/* quoted_length is how much of the message is the quoted datagram, if an extension follows it; otherwise 0. RFC 4884 §4 */
inline_always __u32 quoted_length(const struct packet *p)
{
	__u32 rest = be32(p->transport.icmp.rest), length;

	if (p->family == 4)
		length = (rest >> 16 & 255) * 4;
	else
		length = p->transport.icmp.type == UNREACHABLE6 || p->transport.icmp.type == EXPIRED6 ? (rest >> 24) * 8 : 0;
	return p->l4 - p->at + 8 + length < p->size ? length : 0;
}

/* move_extension puts zeros between the quoted datagram, which has got another length, and the extension, so that the one has at
 * least 128 bytes and ends at a word of the family. It returns how many, or -1. RFC 4884 §3, §4 */
SUBPROGRAM int move_extension(struct __sk_buff *skb, struct scratch *s, __u32 end, __u32 length, __u32 align)
{
	__u32 want = max(128, (length + align - 1) & ~(align - 1)), pad = want - length, n = skb->len - end;

	if (!pad)
		return 0;
	if (pad > sizeof s->header || n > CHUNK)
		return -1;
	n = bounded(n, CHUNK);
	pad = bounded(pad, sizeof s->header);
	if (bpf_skb_load_bytes(skb, end, s->chunk, n) || bpf_skb_change_tail(skb, skb->len + pad, 0))
		return -1;
	memset(s->header, 0, sizeof s->header);
	if (bpf_skb_store_bytes(skb, end, s->header, pad, BPF_F_RECOMPUTE_CSUM) ||
	    bpf_skb_store_bytes(skb, end + pad, s->chunk, n, BPF_F_RECOMPUTE_CSUM))
		return -1;
	return pad;
}

/* put_quoted writes the ICMP header, the quoted IP header and the first 8 bytes after it, all one after the other. */
inline_always int put_quoted(struct __sk_buff *skb, struct packet *p, struct scratch *s, const struct message *m, __u32 l4)
{
	struct packet *quoted = &s->quoted;
	struct path *inner = &s->forward;
	int cross = crosses(quoted, inner->family);
	__u32 base = cross ? header_length(quoted, inner->family) : quoted->l4 - quoted->at;
	__u16 checksum;

	if (cross) {
		put_message(m, inner->family, s->header);
		if (bpf_skb_store_bytes(skb, l4, s->header, 8, BPF_F_RECOMPUTE_CSUM))
			return DROPPED_FAILED;
		if (inner->family == 4)
			make4(quoted, inner, s->header, quoted->size, quoted->id);
		else
			make6(quoted, inner, s->header, header_length(quoted, 6));
	} else {
		keep(quoted, inner, s->header);
	}
	if (!cross && inner->family == 6) {
		if (bpf_skb_store_bytes(skb, l4 + 8, s->header, IP6_LENGTH, BPF_F_RECOMPUTE_CSUM))
			return DROPPED_FAILED;
	} else if (base == IP6_LENGTH + FRAGMENT_LENGTH) {
		if (bpf_skb_store_bytes(skb, l4 + 8, s->header, IP6_LENGTH + FRAGMENT_LENGTH, BPF_F_RECOMPUTE_CSUM))
			return DROPPED_FAILED;
	} else if (inner->family == 6) {
		if (bpf_skb_store_bytes(skb, l4 + 8, s->header, IP6_LENGTH, BPF_F_RECOMPUTE_CSUM))
			return DROPPED_FAILED;
	} else if (bpf_skb_store_bytes(skb, l4 + 8, s->header, IP4_LENGTH, BPF_F_RECOMPUTE_CSUM)) {
		return DROPPED_FAILED;
	}
	l4 += 8 + base;
	if (bpf_skb_store_bytes(skb, l4, &inner->sport, 4, BPF_F_RECOMPUTE_CSUM))
		return DROPPED_FAILED;
	l4 += quoted->tuple.protocol == IPPROTO_UDP ? 6 : 16;
	if (bpf_skb_load_bytes(skb, l4, &checksum, 2))
		return 0; /* not quoted */
	if (quoted->tuple.protocol == IPPROTO_UDP && !checksum)
		return 0;
	checksum = ~fold((__u64)(__u16)~checksum + inner->addresses + inner->ports);
	return bpf_skb_store_bytes(skb, l4, &checksum, 2, BPF_F_RECOMPUTE_CSUM) ? DROPPED_FAILED : 0;
}

/* reshape gives the error the length that it has in the other family, before anything is written into it. It changes the size in p,
 * and the length in m. */
inline_always int reshape(struct __sk_buff *skb, struct packet *p, struct scratch *s, struct message *m, __u8 family)
{
	struct packet *quoted = &s->quoted;
	__u32 length = quoted_length(p), l4 = ETH_LENGTH + (family == 4 ? IP4_LENGTH : IP6_LENGTH);
	__u32 longest = family == 4 ? LONGEST4 - IP4_LENGTH : LONGEST6 - IP6_LENGTH, size;
	__s32 delta = (__s32)header_length(quoted, family) - (__s32)(quoted->l4 - quoted->at);
	int pad;

	if (length && (!m->length || p->size - (p->l4 - p->at) - 8 - length > CHUNK)) { /* no place for the extension */
		if (bpf_skb_change_tail(skb, p->l4 + 8 + length, 0))
			return DROPPED_FAILED;
		length = 0;
	}
	m->length = 0;
	if (resize(skb, p, family, 0))
		return DROPPED_FAILED;
	if (delta && bpf_skb_adjust_room(skb, delta, BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_NO_CSUM_RESET))
		return DROPPED_FAILED;
	if (length) {
		pad = move_extension(skb, s, l4 + 8 + length + delta, length + delta, family == 4 ? 4 : 8);
		if (pad < 0)
			return DROPPED_FAILED;
		m->length = (length + delta + pad) / (family == 4 ? 4 : 8);
	}
	size = skb->len - l4;
	if (size > longest) {
		size = longest;
		if (bpf_skb_change_tail(skb, l4 + size, 0))
			return DROPPED_FAILED;
	}
	p->size = p->l4 - p->at + size;
	return 0;
}

/* translate_error turns an error about a packet that left by one path of a flow into one about the packet as it came in. It leaves
 * by the given path, which is the other one of the flow. */
SUBPROGRAM enum reason translate_error(struct __sk_buff *skb, struct packet *p, struct path *path, struct scratch *s)
{
	struct path *outer = &s->reverse, *inner = &s->forward, *other;
	struct packet *quoted = &s->quoted;
	__u32 l4 = p->l4, mtu = 0;
	struct message m = {};
	int failed;

	if (is_small(p))
		return DROPPED_ERROR_SMALL;
	turn(path, quoted->tuple.protocol, &s->back);
	other = find(&s->back);
	mtu = other ? other->mtu : 0;
	if (mtu < MINIMUM4)
		mtu = path->mtu;
	if (crosses(p, path->family)) {
		failed = path->family == 6 ? message46(p, quoted, path->mtu, mtu, &m) : message64(p, path->mtu, mtu, &m);
		if (failed)
			return failed;
	}
	if (!may_answer(s))
		return DROPPED_UNANSWERED;
	*inner = *path;
	memcpy(inner->saddr, path->daddr, 16);
	memcpy(inner->daddr, path->saddr, 16);
	inner->sport = path->dport;
	inner->dport = path->sport;
	differences(&quoted->tuple, inner);
	*outer = *path;
	outer->sport = 0;
	outer->dport = 0;
	choose_reporter(p, quoted, path, outer);
	differences(&p->tuple, outer);
	if (crosses(p, path->family)) {
		failed = reshape(skb, p, s, &m, path->family);
		if (failed)
			return failed;
		l4 = ETH_LENGTH + (path->family == 4 ? IP4_LENGTH : IP6_LENGTH);
	}
	failed = put_quoted(skb, p, s, &m, l4);
	if (failed)
		return failed;
	if (!crosses(p, path->family))
		keep(p, outer, s->header);
	else if (path->family == 4)
		make4(p, outer, s->header, 0, identification(s));
	else
		make6(p, outer, s->header, header_length(p, 6));
	if (path->family == 4 ? bpf_skb_store_bytes(skb, ETH_LENGTH, s->header, IP4_LENGTH, BPF_F_RECOMPUTE_CSUM)
			      : bpf_skb_store_bytes(skb, ETH_LENGTH, s->header, IP6_LENGTH, BPF_F_RECOMPUTE_CSUM))
		return DROPPED_FAILED;
	if (bpf_skb_store_bytes(skb, l4 + 2, &(__u16){0}, 2, BPF_F_RECOMPUTE_CSUM))
		return DROPPED_FAILED;
	if (set_checksum(skb, outer, l4, p->size - (p->l4 - p->at)))
		return DROPPED_FAILED;
	return set_ethernet(skb, path->family);
}
