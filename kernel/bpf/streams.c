// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* RTP and RTCP of calls, between the families or within one, at TC ingress: packets of who was heard at a port of the relay, by the
 * lane that `kyozon media` has written for him.
 *
 *   parse ─▶ lane of both ends? ─▶ RTP, RTCP? ─▶ count ─▶ new IP header, ports, checksum ─▶ redirect to the next hop
 *     │             │                   │           │
 *     └─────────────┴────── pass ───────┴───────────┘
 *
 * What passes goes to the sockets of the relay, which drops what is a stranger's. A lane is found by who sends as by where to, so
 * nobody else's packet goes by it. The packets that leave are new ones, of this host: they have its hop limit, and their lane's class. */

#include "streams.h"

char __license[] SEC("license") = "Dual BSD/GPL";

enum { UDP_LENGTH = 8, RTP_LENGTH = 12, RTCP_LENGTH = 8, FRAME = 60, HOPS = 64 };
enum { MAX_DROPOUT = 3000, MAX_MISORDER = 100 }; /* as in media/stream. RFC 3550 §A.1 */

/* The number of the last bucket, one less than a power of two. Go: writes, before the program is loaded. */
const volatile __u32 last = 1;

static const __u64 max_transit = 4000000000; /* a larger step is a new beginning */

struct udp {
	__be16 sport, dport, length;
	__u16 checksum;
};

/* rtp is what there must be of RTP; of RTCP it is the first 8 bytes. RFC 3550 §5.1 */
struct rtp {
	__u8 version, type;
	__be16 number;
	__be32 timestamp, ssrc;
};

/* packet is what is known of one. */
struct packet {
	__u32 header;  /* length of its IP header */
	__u32 payload; /* length of what UDP carries */
	__u8 family;
	__u8 whole; /* as a host must see it to take it as it is */
	__u8 checked;
};

SUBPROGRAM int pass(enum fate fate, __u32 family)
{
	__u32 key = 2 * fate + (family == 6);
	__u64 *n = bpf_map_lookup_elem(&fates, &key);

	if (n)
		*n += 1;
	return fate >= DROPPED_HEADERS ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

/* parse4 and parse6 read the headers, if the packet may be a stream's: then it is UDP, with no other header before that. */
inline_always int parse4(struct __sk_buff *skb, struct packet *p, struct where *w)
{
	struct ip4 *ip = (void *)(long)skb->data + ETH_LENGTH;
	struct udp *udp = (void *)(ip + 1);
	__u32 length;

	if ((void *)(udp + 1) > (void *)(long)skb->data_end || ip->version_length != 0x45 || ip->protocol != IPPROTO_UDP)
		return 0;
	if (ip->fragment & be16(IP4_MF | IP4_OFFSET))
		return 0;
	map4(w->local, ip->daddr);
	map4(w->remote, ip->saddr);
	w->local_port = udp->dport;
	w->remote_port = udp->sport;
	length = be16(udp->length);
	p->payload = length - UDP_LENGTH;
	p->whole = length >= UDP_LENGTH && be16(ip->size) == length + IP4_LENGTH && fold(sum4(ip)) == 0xffff;
	p->checked = udp->checksum != 0;
	p->header = IP4_LENGTH;
	p->family = 4;
	return 1;
}

inline_always int parse6(struct __sk_buff *skb, struct packet *p, struct where *w)
{
	struct ip6 *ip = (void *)(long)skb->data + ETH_LENGTH;
	struct udp *udp = (void *)(ip + 1);
	__u32 length;

	if ((void *)(udp + 1) > (void *)(long)skb->data_end || ip->next != IPPROTO_UDP)
		return 0;
	if (be32(ip->class_label) >> 28 != 6)
		return 0;
	memcpy(w->local, ip->daddr, 16);
	memcpy(w->remote, ip->saddr, 16);
	w->local_port = udp->dport;
	w->remote_port = udp->sport;
	length = be16(udp->length);
	p->payload = length - UDP_LENGTH;
	p->whole = length >= UDP_LENGTH && ip->payload == udp->length && udp->checksum; /* RFC 8200 §8.1 */
	p->checked = 1;
	p->header = IP6_LENGTH;
	p->family = 6;
	return 1;
}

/* hash_of differs for all ports that there are, but by a rare chance: is_of says whose lane it is. Nobody but Go chooses the ports. */
inline_always __u64 hash_of(const struct where *w)
{
	const __u64 *local = (const __u64 *)w->local;

	return ((local[0] * 0x9e3779b97f4a7c15ULL + w->local_port * 0xbf58476d1ce4e5b9ULL) ^ local[1]) * 0x94d049bb133111ebULL;
}

/* is_of says whether a packet is of who has the lane: all of its addresses and ports are the lane's. */
inline_always int is_of(const struct lane *lane, const struct where *w)
{
	const __u64 *local = (const __u64 *)lane->local, *remote = (const __u64 *)lane->remote;
	const __u64 *to = (const __u64 *)w->local, *from = (const __u64 *)w->remote;
	__u64 differ = (remote[0] ^ from[0]) | (remote[1] ^ from[1]) | (local[0] ^ to[0]) | (local[1] ^ to[1]);

	return !(differ | (*(const __u32 *)&lane->remote_port ^ *(const __u32 *)&w->remote_port));
}

/* look returns the lane in a bucket that has the mark; the first entry that is looked at is where Go puts it if it can. */
inline_always struct lane *look(__u32 number, __u32 mark, __u32 first)
{
	struct bucket *bucket = bpf_map_lookup_elem(&ports, &number);
	__u64 entry;

	if (!bucket)
		return 0;
#pragma unroll
	for (int i = 0; i < ENTRIES; i++) {
		entry = bucket->entries[(first + i) % ENTRIES];
		if (entry >> 32 == mark && (__u32)entry) {
			number = (__u32)entry - 1;
			return bpf_map_lookup_elem(&lanes, &number);
		}
	}
	return 0;
}

/* find returns the lane of the port that a packet came to. */
inline_always struct lane *find(const struct where *w)
{
	__u64 hash = hash_of(w);
	__u32 mark = hash ^ hash >> 32, first = hash >> 32, bucket = hash >> 40 & last;
	struct lane *lane = look(bucket, mark, first);

	return lane ? lane : look(bucket ^ ((mark | 1) & last), mark, first);
}

/* distance is how far apart two numbers are. */
inline_always __u64 distance(__u64 a, __u64 b)
{
	return a > b ? a - b : b - a;
}

inline_always int to4(const struct lane *lane)
{
	return (lane->flags & TO4) != 0;
}

/* step updates the jitter. RFC 3550 §A.8 */
inline_always void step(struct lane *lane, __u32 timestamp, __u64 now)
{
	__u32 ahead = timestamp - lane->timestamp, back = lane->timestamp - timestamp;
	__u64 came = now - lane->arrival, moved;

	if (ahead <= back)
		moved = distance(came, (__u64)ahead * lane->scale >> 12);
	else
		moved = came + ((__u64)back * lane->scale >> 12);
	lane->timestamp = timestamp;
	lane->arrival = now;
	if (moved <= max_transit)
		lane->jitter += moved - (lane->jitter >> 4);
}

/* follow counts a packet of RTP as media/stream does. What begins anew is not for this plane: it returns 0. RFC 3550 §A.1 */
inline_always int follow(struct lane *lane, const struct rtp *rtp, __u64 now)
{
	__u16 ahead = be16(rtp->number) - (__u16)lane->max;

	if (be32(rtp->ssrc) != lane->ssrc)
		return 0;
	if (ahead > 0 && ahead < MAX_DROPOUT) {
		lane->max += ahead;
		if (be32(rtp->timestamp) != lane->timestamp)
			step(lane, be32(rtp->timestamp), now);
	} else if (ahead > 0 && ahead <= 65536 - MAX_MISORDER) {
		return 0;
	}
	lane->received++;
	return 1;
}

/* is_report and is_media say what a packet is, of which there are so many bytes. RFC 7983 §7, RFC 5761 §4 */
inline_always int is_report(const struct rtp *rtp, __u32 length)
{
	return length >= RTCP_LENGTH && rtp->version >> 6 == 2 && rtp->type >= 192 && rtp->type <= 223;
}

inline_always int is_media(const struct rtp *rtp, __u32 length)
{
	__u8 type = rtp->type & 0x7f;

	return length >= RTP_LENGTH && rtp->version >> 6 == 2 && (type < 64 || type > 95);
}

/* judge counts a packet, and says whether it is one of RTCP: 0 or 1. Otherwise it returns one more than its fate, negative. */
inline_always int judge(struct __sk_buff *skb, const struct packet *p, struct lane *lane)
{
	struct rtp *rtp = (void *)(long)skb->data + ETH_LENGTH + p->header + UDP_LENGTH;
	__u64 now = bpf_ktime_get_ns();
	int report = 0;

	if (!(lane->flags & OPAQUE)) {
		if (p->payload < RTCP_LENGTH || (void *)&rtp->ssrc > (void *)(long)skb->data_end)
			return -1 - PASSED_KIND;
		report = is_report(rtp, p->payload);
		if (!report) {
			if ((void *)(rtp + 1) > (void *)(long)skb->data_end || !is_media(rtp, p->payload) || !(lane->flags & MEDIA))
				return -1 - PASSED_KIND;
			if (!follow(lane, rtp, now))
				return -1 - PASSED_SOURCE;
		} else if (!(lane->flags & REPORTS)) {
			return -1 - PASSED_KIND;
		}
	}
	if (report) {
		lane->reports++;
	} else {
		lane->packets++;
		lane->bytes += p->payload;
	}
	lane->heard = now;
	return report;
}

/* place returns where a header of the given length may be written into the frame; 0: bpf_skb_store_bytes must do it, see rewrite.h. */
inline_always void *place(struct __sk_buff *skb, __u32 length)
{
	__u8 *at;

	if (bpf_csum_update(skb, 0) >= 0)
		return 0;
	at = (__u8 *)(long)skb->data + ETH_LENGTH;
	return at + length > (__u8 *)(long)skb->data_end ? 0 : at;
}

/* put4 and put6 write the header of the packet that leaves. It may not be cut on its way: so it needs no identification. RFC 6864 §4.1 */
inline_always int put4(struct __sk_buff *skb, const struct lane *lane, __u32 datagram)
{
	__u32 words[5], *to = place(skb, IP4_LENGTH), third = be32((__u32)HOPS << 24 | IPPROTO_UDP << 16);

	words[0] = lane->first | be32(IP4_LENGTH + datagram);
	words[1] = be32(IP4_DF);
	memcpy(&words[3], lane->saddr + 12, 4);
	memcpy(&words[4], lane->daddr + 12, 4);
	words[2] = third | be32((__u16)~be16(fold((__u64)words[0] + words[1] + third + words[3] + words[4])));
	if (!to)
		return bpf_skb_store_bytes(skb, ETH_LENGTH, words, sizeof words, BPF_F_RECOMPUTE_CSUM);
	memcpy(to, words, sizeof words);
	return 0;
}

inline_always int put6(struct __sk_buff *skb, const struct lane *lane, __u32 datagram)
{
	struct ip6 ip = {.class_label = lane->first, .payload = be16((__u16)datagram), .next = IPPROTO_UDP, .ttl = HOPS}, *to = place(skb, IP6_LENGTH);

	memcpy(ip.saddr, lane->saddr, 16);
	memcpy(ip.daddr, lane->daddr, 16);
	if (!to)
		return bpf_skb_store_bytes(skb, ETH_LENGTH, &ip, sizeof ip, BPF_F_RECOMPUTE_CSUM);
	*to = ip;
	return 0;
}

/* report_ports is what the ports add to the checksum of RTCP that came with RTP. RFC 1624 */
inline_always __u32 report_ports(const struct lane *lane)
{
	return (__u16)~lane->remote_port + (__u16)~lane->local_port + lane->report_sport + lane->report_dport;
}

/* put_ports writes the ports and amends the checksum. A datagram of IPv4 without one, to IPv4, keeps none. RFC 768 */
inline_always int put_ports(struct __sk_buff *skb, const struct packet *p, const struct lane *lane, int report)
{
	__u32 l4 = ETH_LENGTH + (to4(lane) ? IP4_LENGTH : IP6_LENGTH), sum = report ? report_ports(lane) : lane->ports;
	__be16 ports[2] = {report ? lane->report_sport : lane->sport, report ? lane->report_dport : lane->dport};
	__be16 *at = (void *)(long)skb->data + (to4(lane) ? ETH_LENGTH + IP4_LENGTH : ETH_LENGTH + IP6_LENGTH);

	if (p->checked && (void *)(at + 2) <= (void *)(long)skb->data_end) { /* the checksum follows them, and so the sum of all stays */
		at[0] = ports[0];
		at[1] = ports[1];
	} else if (bpf_skb_store_bytes(skb, l4, ports, sizeof ports, p->checked ? 0 : BPF_F_RECOMPUTE_CSUM)) {
		return -1;
	}
	if (bpf_l4_csum_replace(skb, l4 + 6, 0, sum, BPF_F_MARK_MANGLED_0))
		return -1;
	return bpf_l4_csum_replace(skb, l4 + 6, 0, lane->addresses, BPF_F_MARK_MANGLED_0 | BPF_F_PSEUDO_HDR);
}

/* rewrite makes the packet that leaves. */
inline_always int rewrite(struct __sk_buff *skb, const struct packet *p, const struct lane *lane, int report)
{
	__u32 datagram = UDP_LENGTH + p->payload;
	__be16 protocol = to4(lane) ? be16(ETH_P_IP) : be16(ETH_P_IPV6);
	struct ethernet *ethernet;

	if (to4(lane) != (p->family == 4) && bpf_skb_change_proto(skb, protocol, 0))
		return -1;
	if (to4(lane) ? put4(skb, lane, datagram) : put6(skb, lane, datagram))
		return -1;
	ethernet = (void *)(long)skb->data;
	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end)
		return -1;
	ethernet->protocol = protocol;
	return put_ports(skb, p, lane, report);
}

SEC("tc")
int streams(struct __sk_buff *skb)
{
	struct packet p = {};
	struct where w = {};
	struct lane *lane;
	__u32 head, size, oif;
	int report;

	if (skb->protocol != be16(ETH_P_IP) && skb->protocol != be16(ETH_P_IPV6))
		return TC_ACT_UNSPEC;
	if (skb->vlan_present || skb->pkt_type) /* of another interface, or another host */
		return TC_ACT_UNSPEC;
	head = ETH_LENGTH + (skb->protocol == be16(ETH_P_IP) ? IP4_LENGTH : IP6_LENGTH) + UDP_LENGTH + RTP_LENGTH;
	if (skb->data_end - skb->data < head && skb->len > skb->data_end - skb->data)
		bpf_skb_pull_data(skb, skb->len < head ? skb->len : head);
	if (!(skb->protocol == be16(ETH_P_IP) ? parse4(skb, &p, &w) : parse6(skb, &p, &w)))
		return TC_ACT_UNSPEC;
	lane = find(&w);
	if (!lane)
		return TC_ACT_UNSPEC;
	oif = *(volatile __u32 *)&lane->oif; /* all lines are asked for at once */
	if (!is_of(lane, &w))
		return TC_ACT_UNSPEC;
	if (lane->iif && lane->iif != skb->ifindex) /* the host's rp_filter would not take it. RFC 3704 §2.2 */
		return TC_ACT_UNSPEC;
	size = ETH_LENGTH + p.header + UDP_LENGTH + p.payload;
	if (skb->gso_size || !p.whole || skb->len < size || (skb->len > size && skb->len > FRAME) || (!p.checked && !to4(lane)))
		return pass(PASSED_FORM, p.family);
	if (p.payload + UDP_LENGTH + (to4(lane) ? IP4_LENGTH : IP6_LENGTH) > lane->limit)
		return pass(PASSED_LONG, p.family);
	report = judge(skb, &p, lane);
	if (report < 0)
		return pass(-1 - report, p.family);
	if (rewrite(skb, &p, lane, report))
		return pass(DROPPED_HEADERS, p.family);
	return bpf_redirect_neigh(oif, &lane->hop, sizeof lane->hop, 0);
}
