// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* The map of streams.c, and what is counted. "Go" is the process `kyozon media`, "packets" the program. */

#pragma once

#include "header.h"

/* where is both ends of the packets that come: the relay's address, and who was heard there. IPv4 is ::ffff:a.b.c.d. */
struct where {
	__u8 local[16];
	__u8 remote[16];
	__be16 local_port;
	__be16 remote_port;
};

enum lane_flags {
	MEDIA = 1,   /* RTP passes */
	REPORTS = 2, /* RTCP passes */
	OPAQUE = 4,  /* all that there is passes */
} BYTE;

/* lane is what becomes of the packets of one direction of a stream, at one port.
 *
 * All but the addresses is two lines of the cache, the first for what each packet changes: an entry of the map begins 8 bytes
 * after a multiple of 64, and its value 88 bytes later (Linux 6.1 and newer), so that it takes 256 bytes. */
struct lane {
	__u8 saddr[16];
	__u8 daddr[16];

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
	__be16 sport;
	__be16 dport;
	__u8 family; /* of the packets that leave: 4 or 6 */
	enum lane_flags flags;
	__u16 limit; /* a longer packet passes */

	__u64 call;
	__u32 scale; /* nanoseconds of a step of the timestamp, 4096 times */
	__u32 iif;   /* by which packets must come; 0: by any */
	struct bpf_redir_neigh hop;
	__u32 oif;
	__u32 reports;
	__u32 base; /* the first number of this source */
	__u32 lost; /* of earlier sources */
	__u16 addresses; /* what the change of addresses adds to a checksum; RFC 1624 */
	__u16 ports;     /* what the change of ports adds */
	__u16 report_ports;
	__be16 report_sport; /* where RTCP goes that comes with RTP */
	__be16 report_dport;
	__u8 seat; /* Go's: side, stream and port */
	__u8 pad;
} ALIGNED;

/* fate is why a packet of a lane did not go its way. */
enum fate {
	PASSED_FORM,     /* options, fragments, lengths that contradict each other, no checksum towards IPv6 */
	PASSED_KIND,     /* neither RTP nor RTCP */
	PASSED_SOURCE,   /* another SSRC, or a jump in its numbers: the process judges it */
	PASSED_LONG,     /* for the smallest of paths */
	DROPPED_HEADERS, /* a helper refused: no memory */
	FATES = 8,
};

/* Go: inserts when a stream has latched, and deletes. Packets: update. Nothing is evicted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct where);
	__type(value, struct lane);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} lanes SEC(".maps");

/* Packets: count. Go: reads. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, FATES);
} fates SEC(".maps");
