// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* The kernel plane: packets of services go to their backends and back, between the families or within one, at TC ingress.
 *
 *   parse ─▶ which path? ─▶ hop limit, MTU ─▶ rewrite ─▶ redirect
 *     │           │              │
 *     └───────────┴─ pass ───────┴─ ICMP answer, cut, drop: each with its reason, counted
 *
 * What is not ours, or not for this plane, passes to the host's stack, where the user plane listens. RFC 7915, RFC 6146. */

#include "cut.h"

char __license[] SEC("license") = "Dual BSD/GPL";

/* tally counts a packet, and returns the verdict that goes with the reason. */
inline_always int tally(struct __sk_buff *skb, struct packet *p, __u32 service, __u32 crossing, int reason)
{
	__u32 key = (service * 4 + crossing) * REASONS + reason;
	struct count *count = bpf_map_lookup_elem(&counts, &key);

	if (count) {
		count->packets += skb->gso_segs > 1 ? skb->gso_segs : 1;
		count->bytes += p->size;
	}
	return reason >= PASSED_UNKNOWN && reason <= PASSED_ERROR ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

/* sent is tally for a packet that an action has already been found for. */
inline_always int sent(struct __sk_buff *skb, struct packet *p, struct path *path, int reason, int action)
{
	tally(skb, p, path->service, path->crossing, reason);
	return action;
}

/* tell answers a packet with an ICMP error. */
inline_always int tell(struct __sk_buff *skb, struct packet *p, struct path *path, struct scratch *s, const struct message *m, int reason)
{
	int failed = answer(skb, p, s, m);

	if (failed)
		return tally(skb, p, path->service, path->crossing, failed);
	return sent(skb, p, path, reason, bpf_redirect(skb->ifindex, 0));
}

/* carry sends a packet by its path. Both paths of a new flow are in s. */
inline_always int carry(struct __sk_buff *skb, struct packet *p, struct path *path, struct scratch *s, int reason)
{
	__u32 segment = p->size, second = now(), tcp = p->tuple.protocol == IPPROTO_TCP, mss = 0;
	struct message m = {};
	int failed, hole;

	if (p->flags & FRAGMENT && !p->offset)
		keep_ports(p);
	if (path->resolved != stamp(second)) {
		failed = look_up(skb, path, &s->hop, skb->ifindex);
		if (failed)
			return tally(skb, p, path->service, path->crossing, failed);
	}
	if (p->ttl <= 1) {
		set(&m, p->family == 4 ? EXPIRED4 : EXPIRED6, 0, 0);
		return tell(skb, p, path, s, &m, ANSWERED_EXPIRED);
	}
	if (p->flags & SOURCE_ROUTED && crosses(p, path->family)) {
		if (p->family == 4)
			set(&m, UNREACHABLE4, 5, 0);
		else
			set(&m, PARAMETER6, 0, p->bad);
		return tell(skb, p, path, s, &m, p->family == 4 ? ANSWERED_SOURCE_ROUTE : ANSWERED_ROUTING);
	}
	if (skb->gso_size)
		segment = p->l4 - p->at + (tcp ? (p->transport.tcp.length >> 4) * 4 : 8) + skb->gso_size;
	segment = translated_size(p, path->family, segment);
	if (segment > path->mtu && p->flags & DONT_FRAGMENT) {
		set(&m, p->family == 4 ? UNREACHABLE4 : TOO_BIG6, p->family == 4 ? 4 : 0, mtu_for_sender(p, path));
		return tell(skb, p, path, s, &m, ANSWERED_TOO_BIG);
	}
	hole = path->family == 6 && p->family == 4 && !tcp && !p->offset && !p->transport.udp.checksum;
	if (hole) {
		failed = p->flags & FRAGMENT ? DROPPED_CHECKSUM : fill_checksum(skb, p);
		if (failed)
			return tally(skb, p, path->service, path->crossing, failed);
	}
	if (!(p->flags & DONT_FRAGMENT) && segment > longest_piece(p, path)) {
		failed = cut(skb, p, longest_piece(p, path));
		return failed ? tally(skb, p, path->service, path->crossing, failed)
			      : sent(skb, p, path, FRAGMENTED, bpf_redirect(skb->ifindex, BPF_F_INGRESS));
	}
	p->ttl--;
	if (path->state & CLEAR)
		p->class = 0;
	if (tcp && !p->offset && p->transport.tcp.flags & TCP_SYN)
		mss = reason == FORWARDED_NEW ? min(largest(path), largest(&s->reverse)) : (__u32)fits(p, path, s);
	failed = set_header(skb, p, path, s, segment);
	if (!failed && !p->offset)
		failed = set_transport(skb, p, path, crosses(p, path->family) ? ETH_LENGTH + header_length(p, path->family) : p->l4, mss);
	if (failed)
		return tally(skb, p, path->service, path->crossing, failed);
	path->seen = second;
	path->packets++;
	path->bytes += p->size;
	return sent(skb, p, path, reason, send(skb, path, &s->hop));
}

/* plan_error works out by which path an error goes to the server, if another edge has the flow: every edge has the same rings, and the
 * port is most likely the client's. RFC 7690 §3 */
inline_always struct path *plan_error(struct __sk_buff *skb, struct packet *p, struct scratch *s)
{
	struct packet *quoted = &s->quoted;
	struct front front = {};
	struct service *service;
	struct tuple error = p->tuple;
	int owner;

	memcpy(front.address, quoted->tuple.saddr, 16);
	front.port = quoted->tuple.sport;
	front.protocol = quoted->tuple.protocol;
	service = bpf_map_lookup_elem(&services, &front);
	if (!service || !(service->flags & SPREAD))
		return 0;
	p->tuple = s->back;
	owner = plan(skb, p, s, service);
	set_port(p, s, p->tuple.sport);
	p->tuple = error;
	if (owner < 0)
		return 0;
	s->planned = s->forward;
	return &s->planned;
}

/* carry_error sends an ICMP error to the other end of the flow that it is about. */
inline_always int carry_error(struct __sk_buff *skb, struct packet *p, struct scratch *s)
{
	struct packet *quoted = &s->quoted;
	struct path *path;
	int failed;

	if (!is_error(p) || p->flags & FRAGMENT)
		return tally(skb, p, 0, 0, PASSED_ECHO);
	if (parse(skb, quoted, p->l4 + 8, p->family, 1) || quoted->offset ||
	    (quoted->tuple.protocol != IPPROTO_TCP && quoted->tuple.protocol != IPPROTO_UDP))
		return tally(skb, p, 0, 0, PASSED_ERROR);
	memcpy(s->back.saddr, quoted->tuple.daddr, 16);
	memcpy(s->back.daddr, quoted->tuple.saddr, 16);
	s->back.sport = quoted->tuple.dport;
	s->back.dport = quoted->tuple.sport;
	s->back.protocol = quoted->tuple.protocol;
	path = find(&s->back);
	if (!path)
		path = plan_error(skb, p, s);
	if (!path || path->kind == USER)
		return tally(skb, p, 0, 0, PASSED_ERROR);
	if (path->resolved != stamp(now())) {
		failed = look_up(skb, path, &s->hop, skb->ifindex);
		if (failed)
			return tally(skb, p, path->service, path->crossing, failed);
	}
	if (p->ttl <= 1) /* an error is not answered with an error. RFC 1812 §4.3.2.7 */
		return tally(skb, p, path->service, path->crossing, DROPPED_UNANSWERED);
	p->ttl--;
	failed = translate_error(skb, p, path, s);
	if (failed)
		return tally(skb, p, path->service, path->crossing, failed);
	return sent(skb, p, path, FORWARDED_ERROR, send(skb, path, &s->hop));
}

/* carry_first opens a flow, if there is a service for the packet, and sends the packet by it. */
inline_always int carry_first(struct __sk_buff *skb, struct packet *p, struct scratch *s)
{
	struct front front = {};
	struct service *service;
	int failed;

	memcpy(front.address, p->tuple.daddr, 16);
	front.port = p->tuple.dport;
	front.protocol = p->tuple.protocol;
	service = bpf_map_lookup_elem(&services, &front);
	if (!service)
		return tally(skb, p, 0, 0, PASSED_UNKNOWN);
	failed = create(skb, p, s, service);
	if (failed)
		return tally(skb, p, service->id, s->forward.crossing & 3, failed);
	return carry(skb, p, &s->forward, s, FORWARDED_NEW); /* what is in the map has counted it */
}

SEC("tc")
int forward(struct __sk_buff *skb)
{
	struct scratch *s;
	struct packet *p;
	struct path *path;
	int reason, family = 4;

	if (skb->protocol == be16(ETH_P_IPV6))
		family = 6;
	else if (skb->protocol != be16(ETH_P_IP))
		return TC_ACT_UNSPEC;
	if (skb->vlan_present) /* it belongs to an interface above this one */
		return TC_ACT_UNSPEC;
	s = scratch();
	if (!s)
		return TC_ACT_UNSPEC;
	p = &s->packet;
	reason = family == 4 ? parse(skb, p, ETH_LENGTH, 4, 0) : parse(skb, p, ETH_LENGTH, 6, 0);
	if (reason)
		return tally(skb, p, 0, 0, reason);
	if (skb->len > MINIMUM_FRAME && skb->len > ETH_LENGTH + p->size && bpf_skb_change_tail(skb, ETH_LENGTH + p->size, 0))
		return tally(skb, p, 0, 0, DROPPED_FAILED);
	if (p->tuple.protocol == IPPROTO_ICMP || p->tuple.protocol == IPPROTO_ICMPV6)
		return carry_error(skb, p, s);
	if (p->tuple.protocol != IPPROTO_TCP && p->tuple.protocol != IPPROTO_UDP)
		return tally(skb, p, 0, 0, PASSED_UNKNOWN);
	if (p->offset && find_ports(p))
		return tally(skb, p, 0, 0, PASSED_FRAGMENT);
	path = find(&p->tuple);
	if (path && is_over(p, path)) {
		forget(p, path, s);
		path = 0;
	}
	if (!path)
		return carry_first(skb, p, s);
	if (path->kind == USER)
		return tally(skb, p, path->service, path->crossing, PASSED_USER);
	if (!p->offset) {
		if (path->state & PENDING)
			path = notice_pending(p, path, s);
		if (!path)
			return tally(skb, p, 0, 0, DROPPED_FAILED);
		if (p->tuple.protocol == IPPROTO_TCP)
			notice_tcp(p, path, s);
	}
	return carry(skb, p, path, s, FORWARDED);
}
