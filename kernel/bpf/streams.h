// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* The map of streams.c, and what is counted. "Go" is the process `kyozon media`, "packets" the program. */

#pragma once

#include "header.h"

/* where is both ends of the packets that come: the relay's address, and who was heard there. IPv4 is ::ffff:a.b.c.d. */
struct where {
	__u8 local[16];
	__u8 remote[16];
	__be16 remote_port;
	__be16 local_port;
};

enum lane_flags {
	MEDIA = 1,   /* RTP passes */
	REPORTS = 2, /* RTCP passes */
	OPAQUE = 4,  /* all that there is passes */
	TO4 = 8,     /* what leaves is IPv4 */
} BYTE;

/* lane is what becomes of the packets of one direction of a stream, at one port.
 *
 * It is three lines of the cache: who is heard and what he becomes; what each packet changes; the next hop, and what few
 * packets change. */
struct lane {
	__u8 remote[16];
	__u8 saddr[16];
	__u8 daddr[16];
	__be16 remote_port;
	__be16 local_port;
	__be16 sport;
	__be16 dport;
	__u16 addresses; /* what the change of addresses adds to a checksum; RFC 1624 */
	__u16 ports;     /* what the change of ports adds */
	__u16 limit;     /* a longer packet passes */
	enum lane_flags flags;
	__u8 seat; /* Go's: side, stream and port */

	__u64 heard;   /* when a packet last came: nanoseconds of the monotonic clock */
	__u64 arrival; /* when the packet came that timestamp is of */
	__u64 jitter;  /* nanoseconds, 16 times. RFC 3550 §A.8 */
	__u64 bytes;
	__u32 packets;
	__u32 ssrc;
	__u32 timestamp;
	__u32 max;      /* sequence number with its cycles. RFC 3550 §A.1 */
	__u32 received; /* of this source */
	__be32 first;   /* of the header that leaves: version, class, and the flow label or no length */
	__u32 scale;    /* nanoseconds of a step of the timestamp, 4096 times */
	__u32 oif;

	struct bpf_redir_neigh hop;
	__u32 iif; /* by which packets must come; 0: by any */
	__u8 local[16];
	__u64 call;
	__u32 reports;
	__u32 base; /* the first number of this source */
	__u32 lost; /* of earlier sources */
	__be16 report_sport; /* where RTCP goes that comes with RTP */
	__be16 report_dport;
} ALIGNED;

/* fate is why a packet of a lane did not go its way. */
enum fate {
	PASSED_FORM,     /* lengths that contradict each other, no checksum towards IPv6, several packets in one (GRO) */
	PASSED_KIND,     /* neither RTP nor RTCP */
	PASSED_SOURCE,   /* another SSRC, or a jump in its numbers: the process judges it */
	PASSED_LONG,     /* for the smallest of paths */
	DROPPED_HEADERS, /* a helper refused: no memory */
};

/* FATES is more than there are; each has a count for IPv4 and one for IPv6. */
enum { FATES = 8 };

/* bucket says which lanes ports of the relay have: in each entry, bits of the port's hash, and the number of the lane plus one; 0 if
 * there is none. It is one line of the cache. A port is in one of two buckets. */
enum { ENTRIES = 8 };
struct bucket {
	__u64 entries[ENTRIES];
};

/* What the lanes are found by. It is an array of our own, since Go alone decides what is where: so a packet finds its lane in two
 * steps, and lanes lie close together, as the hash map of the kernel has them not. The lines that are read, and the pages that they
 * are in, are what a packet costs; an array that may be mapped begins at a page.
 * Go: writes, an entry after its lane. Packets: read. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct bucket);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_MMAPABLE);
} ports SEC(".maps");

/* Go: inserts when a stream has latched, and deletes. Packets: update. Nothing is evicted. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct lane);
	__uint(max_entries, 2);
	__uint(map_flags, BPF_F_MMAPABLE);
} lanes SEC(".maps");

/* Packets: count, twice the fate and one more for what came by IPv6. Go: reads. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 2 * FATES);
} fates SEC(".maps");
