// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Which path a packet takes: that of its flow, or a new one.
 *
 *   tuple ─▶ flows ─▶ pending ─▶ services ─▶ access, ring, backend, source, port ─▶ two paths in pending
 *                        │
 *                        └─ the client's word after the server's: both go to flows
 *
 * The path of the answers is put in first, and only if there is none: it is what reserves the port of the source. */

#pragma once

#include "route.h"

inline_always __u64 mix(__u64 x) /* as ip.Mix, so that both planes send a client to the same place */
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* client_key is ip.Key: the same for all addresses of a client prefix. */
inline_always __u64 client_key(const struct packet *p)
{
	if (p->family == 4)
		return mix(be32(*(__u32 *)(p->tuple.saddr + 12)) | 1ULL << 32);
	return mix(be64(*(__u64 *)p->tuple.saddr));
}

/* flow_key differs for each flow of a client. */
inline_always __u64 flow_key(const struct packet *p)
{
	const __u64 *words = (const __u64 *)p->tuple.saddr;

	return mix(mix(words[0] ^ words[1] << 1) ^ *(const __u32 *)&p->tuple.sport);
}

inline_always struct path *find(const struct tuple *t)
{
	struct path *path = bpf_map_lookup_elem(&flows, t);

	return path ? path : bpf_map_lookup_elem(&pending, t);
}

/* turn makes the tuple of the packets that answer those that leave by the path. */
inline_always void turn(const struct path *path, __u8 protocol, struct tuple *back)
{
	memset(back, 0, sizeof *back);
	memcpy(back->saddr, path->daddr, 16);
	memcpy(back->daddr, path->saddr, 16);
	back->sport = path->dport;
	back->dport = path->sport;
	back->protocol = protocol;
}

/* differences are what a path adds to the checksum of a packet. RFC 1624 */
inline_always void differences(const struct tuple *t, struct path *path)
{
	path->addresses = fold((__u32)bpf_csum_diff((__u32 *)t->saddr, 32, (__u32 *)path->saddr, 32, 0));
	path->ports = 0;
	if (t->sport != path->sport || t->dport != path->dport)
		path->ports = fold((__u32)bpf_csum_diff((__u32 *)&t->sport, 4, (__u32 *)&path->sport, 4, 0));
}

/* mirror makes the path of the answers out of a path to the server. */
inline_always void mirror(const struct tuple *t, const struct tuple *back, const struct path *path, __u8 family, struct path *to)
{
	memcpy(to->saddr, t->daddr, 16);
	memcpy(to->daddr, t->saddr, 16);
	to->sport = t->dport;
	to->dport = t->sport;
	to->service = path->service;
	to->backend = path->backend;
	to->crossing = path->crossing;
	to->seen = path->seen;
	to->began = path->began;
	to->kind = TO_CLIENT;
	to->family = family;
	to->state = PENDING | (path->state & CLEAR);
	differences(back, to);
}

/* owner says who else sends from the address that a backend sees. */
enum owner {
	STAND_IN, /* all clients of a /64: a port is the first's */
	CLIENT,   /* nobody: any port of the client's is free */
	EDGE,     /* all clients, and the host, whose sockets have ports of their own */
};

/* choose_source decides which address the backend sees. It returns 0, or why the flow is not for this plane. */
inline_always int choose_source(struct packet *p, struct backend *b, struct path *path, __u64 key, int *owner)
{
	struct client client = {};
	struct address *address;
	__u32 i;

	*owner = STAND_IN;
	if (b->source == SOURCE_CLIENT) {
		if (p->family == b->family) {
			memcpy(path->saddr, p->tuple.saddr, 16);
			*owner = CLIENT;
			return 0;
		}
		if (p->family == 4) {
			memcpy(path->saddr, b->prefix, 12);
			memcpy(path->saddr + 12, p->tuple.saddr + 12, 4);
			*owner = CLIENT;
			return 0;
		}
		memcpy(client.prefix, p->tuple.saddr, 8);
		address = bpf_map_lookup_elem(&stand_ins, &client);
		if (!address)
			return PASSED_NO_STAND_IN;
	} else {
		*owner = EDGE;
		if (!b->count)
			return PASSED_NO_BACKEND;
		i = path->backend * SOURCES + (__u32)(key % b->count);
		address = bpf_map_lookup_elem(&sources, &i);
		if (!address)
			return PASSED_NO_BACKEND;
	}
	memcpy(path->saddr, address->bytes, 16);
	return 0;
}

/* set_port completes both paths for a source port. */
inline_always void set_port(struct packet *p, struct scratch *s, __be16 port)
{
	s->forward.sport = port;
	differences(&p->tuple, &s->forward);
	turn(&s->forward, p->tuple.protocol, &s->back);
	mirror(&p->tuple, &s->back, &s->forward, p->family, &s->reverse);
}

/* reserve puts in the path of the answers, and so takes the source's port. pending is asked before flows, since a flow
 * goes from the one to the other by being in both. It returns 0 if the port is taken by another client. */
inline_always int reserve(struct scratch *s)
{
	__u64 *client = (__u64 *)s->reverse.daddr, *owner;
	struct path *other;

	if (bpf_map_update_elem(&pending, &s->back, &s->reverse, BPF_NOEXIST)) {
		other = bpf_map_lookup_elem(&pending, &s->back);
		if (!other || other->kind != TO_CLIENT)
			return 0;
		owner = (__u64 *)other->daddr;
		if (other->dport != s->reverse.dport || owner[0] != client[0] || owner[1] != client[1])
			return 0;
		return !bpf_map_update_elem(&pending, &s->back, &s->reverse, BPF_ANY); /* its own, whose other half was evicted */
	}
	if (!bpf_map_lookup_elem(&flows, &s->back))
		return 1;
	bpf_map_delete_elem(&pending, &s->back);
	return 0;
}

/* try_port takes one port of the source that s has chosen, if it is free. */
PROGRAM int try_port(__u32 port)
{
	struct scratch *s = scratch();

	if (!s)
		return 0;
	set_port(&s->packet, s, port);
	return reserve(s);
}

/* take_port reserves the client's own port, for which s is made already, or the next of the source's that is free. In order, so that one that was used
 * rests for as long as possible: the backend may have it in TIME_WAIT. An address of the edge's has two parts of ports: the
 * host's sockets get theirs by themselves, and these are not among them. The cursors are the counters of RFC 6056 §3.3.4 without its
 * secret offset: where the client's own port is free, nothing is chosen. RFC 9293 §3.6.1 */
SUBPROGRAM int take_port(struct packet *p, struct scratch *s, int owner)
{
	__u32 *cursor, at, local = 0, locals = 0, zero = 0, port = be16(p->tuple.sport);
	struct control *c;

	if (owner == EDGE) {
		c = bpf_map_lookup_elem(&control, &zero);
		local = c ? c->local : 0;
		locals = c ? c->locals : 0;
		if (locals > 60000)
			return PASSED_NO_PORT;
	}
	if ((port < local || port >= local + locals) && reserve(s))
		return 0;
	if (owner == CLIENT)
		return PASSED_NO_PORT;
	at = mix(*(__u32 *)(s->forward.saddr + 12) | (__u64)s->forward.backend << 32) % CURSORS;
	cursor = bpf_map_lookup_elem(&cursors, &at);
	if (!cursor)
		return PASSED_NO_PORT;
	for (int i = 0; i < 64; i++) {
		port = 1024 + __sync_fetch_and_add(cursor, 1) % (65536 - 1024 - locals);
		if (locals && port >= local)
			port += locals;
		if (try_port(be16((__u16)port)))
			return 0;
	}
	return PASSED_NO_PORT;
}

/* may_come_in asks the access list; the most precise prefix decides. */
inline_always int may_come_in(const struct packet *p, const struct service *service)
{
	struct access_key key = {.length = 32 + 128, .service = service->id};
	__u32 *answer;

	memcpy(key.address, p->tuple.saddr, 16);
	answer = bpf_map_lookup_elem(&access, &key);
	return answer ? *answer : !(service->flags & ALLOW_LISTED);
}

/* choose_backend asks the ring of the service. */
inline_always struct backend *choose_backend(const struct packet *p, const struct service *service, __u32 *number)
{
	__u64 key = service->flags & STICKY ? client_key(p) : flow_key(p);
	__u32 slot = key % RING, ring = service->ring, *chosen;
	void *table = bpf_map_lookup_elem(&rings, &ring);

	if (!table)
		return 0;
	chosen = bpf_map_lookup_elem(table, &slot);
	if (!chosen || !*chosen)
		return 0;
	*number = *chosen;
	return bpf_map_lookup_elem(&backends, chosen);
}

/* plan works out both paths of a new flow, but for the source's port. */
SUBPROGRAM int plan(struct __sk_buff *skb, struct packet *p, struct scratch *s, struct service *service)
{
	struct path *path;
	struct backend *b;
	__u32 number = 0;
	int reason, owner;

	path = &s->forward;
	memset(path, 0, sizeof *path);
	memset(&s->reverse, 0, sizeof s->reverse);
	path->service = service->id;
	path->crossing = p->family == 4 ? 0 : 2;
	if (!may_come_in(p, service))
		return -PASSED_ACCESS;
	b = choose_backend(p, service, &number);
	if (!b || !(b->flags & UP))
		return -PASSED_NO_BACKEND;
	path->backend = number;
	path->family = b->family;
	path->crossing += b->family == 4 ? 0 : 1;
	path->kind = TO_SERVER;
	path->state = PENDING | (service->flags & CLEAR_CLASS ? CLEAR : 0);
	path->seen = now();
	path->began = path->seen;
	memcpy(path->daddr, b->address, 16);
	path->dport = b->port;
	reason = choose_source(p, b, path, client_key(p), &owner);
	return reason ? -reason : owner;
}

/* largest is the largest segment of TCP that fits a path. */
inline_always __u32 largest(const struct path *path)
{
	return path->mtu < 576 ? 0 : path->mtu - (path->family == 4 ? 40 : 60);
}

/* fits returns the largest segment that fits both ways; 0 if one of them is not known. */
SUBPROGRAM int fits(struct packet *p, const struct path *path, struct scratch *s)
{
	struct path *other;

	turn(path, p->tuple.protocol, &s->back);
	other = find(&s->back);
	return other ? min(largest(path), largest(other)) : 0;
}

/* create makes a flow for the first packet of one. */
SUBPROGRAM enum reason create(struct __sk_buff *skb, struct packet *p, struct scratch *s, struct service *service)
{
	struct control *c;
	__u32 zero = 0;
	int owner, reason;

	if (p->tuple.protocol == IPPROTO_TCP && (p->transport.tcp.flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_SYN)
		return PASSED_MIDDLE;
	c = bpf_map_lookup_elem(&control, &zero);
	if (!c || now() - c->heartbeat > HEARTBEAT)
		return PASSED_HEARTBEAT;
	owner = plan(skb, p, s, service);
	if (owner < 0) {
		if (owner == -PASSED_NO_STAND_IN) { /* it stays the user plane's, also when its SYN comes again */
			s->forward.kind = USER;
			bpf_map_update_elem(&pending, &p->tuple, &s->forward, BPF_ANY);
		}
		return -owner;
	}
	set_port(p, s, p->tuple.sport);
	/* The routes are looked up before the port is taken: a flow without a way is none. */
	reason = look_up(skb, &s->forward, &s->hop, skb->ifindex);
	if (reason)
		return reason;
	reason = look_up(skb, &s->reverse, &s->hop, s->forward.oif);
	if (reason)
		return reason;
	s->forward.packets = 1;
	s->forward.bytes = p->size;
	reason = take_port(p, s, owner);
	if (reason)
		return reason;
	bpf_map_update_elem(&pending, &p->tuple, &s->forward, BPF_ANY);
	return 0;
}

/* establish moves a flow from pending to flows. If there is no room it stays where it is, and may be evicted. */
SUBPROGRAM int establish(const struct tuple *t, struct path *path, struct scratch *s)
{
	struct path *reverse;

	turn(path, t->protocol, &s->back);
	reverse = bpf_map_lookup_elem(&pending, &s->back);
	if (!reverse)
		return 0;
	s->forward = *path;
	s->reverse = *reverse;
	s->forward.state &= ~PENDING;
	s->reverse.state &= ~PENDING;
	if (bpf_map_update_elem(&flows, &s->back, &s->reverse, BPF_ANY))
		return 0;
	if (bpf_map_update_elem(&flows, t, &s->forward, BPF_ANY)) {
		bpf_map_delete_elem(&flows, &s->back);
		return 0;
	}
	bpf_map_delete_elem(&pending, t);
	bpf_map_delete_elem(&pending, &s->back);
	return 1;
}

/* restore puts the path of the answers back if it was evicted while the client still knocks. */
SUBPROGRAM void restore(struct packet *p, struct path *path, struct scratch *s)
{
	turn(path, p->tuple.protocol, &s->back);
	if (bpf_map_lookup_elem(&pending, &s->back))
		return;
	memset(&s->reverse, 0, sizeof s->reverse);
	mirror(&p->tuple, &s->back, path, p->family, &s->reverse);
	reserve(s);
}

/* notice_pending looks at a packet of a flow that is not established. The server's answer is remembered; a client is there if it
 * then goes on: with the right acknowledgement (TCP), or at all (UDP). An address that was made up never gets that far. */
inline_always struct path *notice_pending(struct packet *p, struct path *path, struct scratch *s)
{
	int tcp = p->tuple.protocol == IPPROTO_TCP;
	__u8 flags = tcp ? p->transport.tcp.flags : 0;
	struct path *forward;

	if (path->kind == TO_CLIENT) {
		if (tcp ? (flags & (TCP_SYN | TCP_ACK)) != (TCP_SYN | TCP_ACK) : path->state & REPLIED)
			return path;
		path->state |= REPLIED;
		turn(path, p->tuple.protocol, &s->back);
		forward = bpf_map_lookup_elem(&pending, &s->back);
		if (forward) {
			forward->answer = tcp ? be32(p->transport.tcp.seq) + 1 : 0;
			forward->state |= REPLIED;
		}
		return path;
	}
	if (!(path->state & REPLIED)) {
		if (!tcp || flags & TCP_SYN)
			restore(p, path, s);
		return path;
	}
	if (tcp && ((flags & (TCP_SYN | TCP_ACK | TCP_RST)) != TCP_ACK || be32(p->transport.tcp.ack) != path->answer))
		return path;
	if (!establish(&p->tuple, path, s))
		return path;
	return bpf_map_lookup_elem(&flows, &p->tuple);
}

/* notice_tcp keeps what the sweeper must know: who has ended. A client that opens the same flow again gets the same port at the same
 * backend, which the backend accepts even in TIME_WAIT. RFC 9293 §3.6.1, RFC 6191 */
inline_always void notice_tcp(struct packet *p, struct path *path, struct scratch *s)
{
	__u8 flags = p->transport.tcp.flags;
	struct path *reverse;

	if (flags & TCP_FIN)
		path->state |= FIN;
	if (flags & TCP_RST)
		path->state |= RST;
	if ((flags & (TCP_SYN | TCP_ACK)) != TCP_SYN || path->kind != TO_SERVER || !(path->state & (FIN | RST)))
		return;
	path->state &= ~(FIN | RST);
	turn(path, p->tuple.protocol, &s->back);
	reverse = bpf_map_lookup_elem(&flows, &s->back);
	if (reverse)
		reverse->state &= ~(FIN | RST);
}

/* is_over says whether a SYN opens a new flow in place of one whose backend takes none any more. */
inline_always int is_over(struct packet *p, struct path *path)
{
	__u32 number = path->backend;
	struct backend *b;

	if (p->tuple.protocol != IPPROTO_TCP || (p->transport.tcp.flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return 0;
	if (path->kind != TO_SERVER || !(path->state & (FIN | RST)))
		return 0;
	b = bpf_map_lookup_elem(&backends, &number);
	return !b || !(b->flags & UP) || b->port != path->dport || ((__u64 *)b->address)[0] != ((__u64 *)path->daddr)[0] ||
	       ((__u64 *)b->address)[1] != ((__u64 *)path->daddr)[1];
}

/* forget removes both paths of a flow. */
SUBPROGRAM void forget(struct packet *p, struct path *path, struct scratch *s)
{
	turn(path, p->tuple.protocol, &s->back);
	bpf_map_delete_elem(&flows, &s->back);
	bpf_map_delete_elem(&pending, &s->back);
	bpf_map_delete_elem(&flows, &p->tuple);
	bpf_map_delete_elem(&pending, &p->tuple);
}
