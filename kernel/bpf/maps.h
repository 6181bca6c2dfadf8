// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* Every map, with who writes and who reads it. "Go" is the process, "packets" this program.
 *
 * Sizes are those of the tests; Go sets them when it opens the plane. */

#pragma once

#include "include/bpf.h"
#include "verdict.h"

/* tuple is what a packet says of itself. An address has one form for both families: IPv4 is ::ffff:a.b.c.d, in maps and
 * nowhere else. */
struct tuple {
	__u8 saddr[16];
	__u8 daddr[16];
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 pad[3];
} ALIGNED;

/* kind says whose a path is. */
enum kind {
	USER,      /* the user plane's: pass */
	TO_SERVER,
	TO_CLIENT,
} BYTE;

/* state is what one direction of a flow has seen. */
enum state {
	PENDING = 1, /* not proven by both sides yet: in the map pending */
	REPLIED = 2, /* the other side has answered */
	FIN = 4,
	RST = 8,
	CLEAR = 16, /* the traffic class is not copied */
} BYTE;

/* path is how the packets of one direction of a flow leave. A flow is two of them: what a packet of the one becomes is the
 * tuple of the other, turned round.
 *
 * With many flows most of a packet's time is spent waiting for memory, so a path is short. All but its addresses are 64 bytes, which
 * are one line of the cache: an entry of the map begins 8 bytes after a multiple of 64, and its value 88 bytes later
 * (Linux 6.1 and newer), so that it takes 192 bytes. */
struct path {
	__u8 saddr[16];
	__u8 daddr[16];
	__u64 packets; /* without a lock: one direction of a flow comes in on one processor */
	__u64 bytes;
	__u32 seen;   /* second of the last packet */
	__u32 began;  /* second of the first packet */
	__u32 answer; /* the acknowledgement with which a TCP client proves that it is there */
	__u32 oif;
	__u16 addresses; /* what the change of addresses adds to a checksum; RFC 1624 */
	__u16 ports;     /* what the change of ports adds */
	__be16 sport;
	__be16 dport;
	__u16 mtu;      /* of the route that leaves */
	__u16 resolved; /* stamp of the second in which the route was looked up; 0: none */
	__u16 service;
	__u16 backend;
	__u8 dmac[6];
	__u8 smac[6];
	enum kind kind;
	__u8 family;   /* of the packets that leave: 4 or 6 */
	__u8 crossing; /* as ip.Crossing.Index */
	enum state state;
} ALIGNED;

/* front is where clients come. */
struct front {
	__u8 address[16];
	__be16 port;
	__u8 protocol;
	__u8 pad[5];
} ALIGNED;

enum service_flags {
	STICKY = 1,        /* all flows of a client prefix go to one backend */
	ALLOW_LISTED = 2,  /* who is in no prefix of the access list may not come in */
	SPREAD = 4,        /* other edges answer here too: an ICMP error may be about a flow of theirs. RFC 7690 */
	CLEAR_CLASS = 8,   /* do not copy the traffic class. RFC 7915 §4.1, §5.1 */
};

struct service {
	__u32 id;
	__u32 ring;
	enum service_flags flags;
	__u32 pad;
};

enum source {
	SOURCE_EDGE,   /* one of the edge's addresses */
	SOURCE_CLIENT, /* the client's own, its stand-in, or its embedding */
} BYTE;

enum backend_flags {
	UP = 1, /* takes new flows */
};

struct backend {
	__u8 address[16];
	__u8 prefix[16]; /* a /96 in which an IPv4 client is embedded. RFC 6052 §2.2 */
	__be16 port;
	__u8 family;
	enum source source;
	__u32 count; /* of its addresses in the map sources */
	enum backend_flags flags;
};

/* address is one of either family, in the form of a tuple's. */
struct address {
	__u8 bytes[16];
};

/* client is a subscriber's /64. */
struct client {
	__u8 prefix[8];
} ALIGNED;

struct access_key {
	__u32 length; /* 32 for the service, and the prefix's */
	__u32 service;
	__u8 address[16];
};

struct fragment_key {
	__u8 saddr[16];
	__u8 daddr[16];
	__u32 id;
	__u8 protocol;
	__u8 pad[3];
} ALIGNED;

struct fragment_ports {
	__be16 sport;
	__be16 dport;
};

struct count {
	__u64 packets;
	__u64 bytes;
};

struct name {
	__u8 bytes[64]; /* padded with zeros */
};

struct control {
	__u32 heartbeat; /* second of the monotonic clock in which the process last lived */
	__u32 floor;     /* the smallest MTU of an IPv6 path. RFC 7915 §4.1 */
	__u8 errors4[4]; /* the source of an ICMP error from an IPv6 router, to IPv4. RFC 6791 */
	__u16 local;     /* the first port that the host's own sockets get by themselves */
	__u16 locals;    /* how many there are */
};

enum {
	RING = 65537,     /* slots of a Maglev table */
	CURSORS = 65536,
	SOURCES = 16,     /* addresses at most that one backend sees */
	HEARTBEAT = 30,   /* seconds without the process until there are no new flows */
	CHUNK = 512,      /* what bpf_csum_diff takes at once */
	ANSWERS = 1000,   /* ICMP answers a second and processor */
};

/* Established flows. Packets: insert, update. Go: reads, and deletes what has ended. Nothing is evicted. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct tuple);
	__type(value, struct path);
	__uint(max_entries, 65536);
} flows SEC(".maps");

/* Flows that one side alone has spoken of yet. Packets: insert, update, delete. A flood evicts here, and only here. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct tuple);
	__type(value, struct path);
	__uint(max_entries, 16384);
} pending SEC(".maps");

/* Go: writes. Packets: read. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct front);
	__type(value, struct service);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} services SEC(".maps");

/* A Maglev table for each front: slot → number of the backend. Go: puts a new table in place of one. Packets: read. */
struct ring {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, RING);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 4096);
	__array(values, struct ring);
} rings SEC(".maps");

/* Number → backend; 0 is none. Go: writes. Packets: read. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct backend);
	__uint(max_entries, 4096);
} backends SEC(".maps");

/* Number of a backend × SOURCES + n → the nth address of the edge that it sees. Go: writes. Packets: read. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct address);
	__uint(max_entries, 4096 * SOURCES);
} sources SEC(".maps");

/* /64 → stand-in, in the form of an address. Go: writes what the ledger has leased. Packets: read. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct client);
	__type(value, struct address);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} stand_ins SEC(".maps");

/* Service and prefix → 1 may come in, 0 may not. Go: writes. Packets: read, for a new flow only. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__type(key, struct access_key);
	__type(value, __u32);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} access SEC(".maps");

/* The ports of a datagram, for its later fragments. Packets: insert, read. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
	__uint(max_entries, 4096);
} fragments SEC(".maps");

/* The port to try next, for a source and a backend (by their hash). Packets: count up. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, CURSORS);
} cursors SEC(".maps");

/* (service × 4 + crossing) × REASONS + reason → packets and bytes. Packets: add. Go: reads. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct count);
	__uint(max_entries, 32768);
} counts SEC(".maps");

/* Go: writes. Packets: read. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct control);
	__uint(max_entries, 1);
} control SEC(".maps");

/* Number of a service → its name. Go: writes, and reads it again when it takes over. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct name);
	__uint(max_entries, 256);
} names SEC(".maps");
