// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* The headers of Ethernet and IP, and sums of them. It knows no map, so that every program can have it. */

#pragma once

#include "include/bpf.h"

enum { ETH_LENGTH = 14, IP4_LENGTH = 20, IP6_LENGTH = 40 };
enum { IP4_DF = 0x4000, IP4_MF = 0x2000, IP4_OFFSET = 0x1fff };

struct ethernet {
	__u8 dmac[6];
	__u8 smac[6];
	__be16 protocol;
};

struct ip4 {
	__u8 version_length;
	__u8 class;
	__be16 size;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 checksum;
	__u8 saddr[4];
	__u8 daddr[4];
};

struct ip6 {
	__be32 class_label; /* version, class and flow label */
	__be16 payload;
	__u8 next;
	__u8 ttl;
	__u8 saddr[16];
	__u8 daddr[16];
};

inline_always void map4(__u8 *to, const __u8 *from)
{
	__u32 *words = (__u32 *)to;

	words[0] = 0;
	words[1] = 0;
	words[2] = be32(0xffff);
	memcpy(&words[3], from, 4);
}

inline_always __u16 fold(__u64 sum)
{
	sum = (sum >> 32) + (__u32)sum;
	sum = (sum >> 32) + (__u32)sum;
	sum = (sum >> 16) + (__u16)sum;
	sum = (sum >> 16) + (__u16)sum;
	return sum;
}

inline_always __u64 sum4(const struct ip4 *ip)
{
	const __u32 *words = (const __u32 *)ip;

	return (__u64)words[0] + words[1] + words[2] + words[3] + words[4];
}
