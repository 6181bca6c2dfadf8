// Copyright the kyozon authors.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause

/* What the kernel promises to BPF programs, as far as this program uses it: types, the context of a packet at TC,
 * helpers by their numbers, maps. Written here, so that the object depends on no headers of the machine that builds
 * it and comes out the same everywhere. */

#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef __u16 __be16;
typedef __u32 __be32;

#define SEC(name) __attribute__((section(name), used))
#define inline_always static __attribute__((always_inline)) inline

/* A SUBPROGRAM is verified at each call, with what is known there. A PROGRAM is verified once, for any numbers: what has a loop is
 * one, or the verifier would go through the loop for every way that leads to it. */
#define SUBPROGRAM static __attribute__((noinline))
#define PROGRAM __attribute__((noinline))
#define BYTE __attribute__((packed)) /* of an enum: one byte */
#define ALIGNED __attribute__((aligned(8)))

/* Maps are described by a BTF type: numbers are the length of an array. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) value *name
#define __array(name, value) value *name[]

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
};

enum { BPF_F_NO_PREALLOC = 1, BPF_F_MMAPABLE = 1 << 10 };
enum { BPF_ANY = 0, BPF_NOEXIST = 1 };

enum { TC_ACT_OK = 0, TC_ACT_SHOT = 2, TC_ACT_UNSPEC = -1 };

enum { ETH_P_IP = 0x0800, ETH_P_IPV6 = 0x86dd };
enum { AF_INET = 2, AF_INET6 = 10 };
enum { IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_UDP = 17, IPPROTO_ICMPV6 = 58 };
enum { EXT_HOPOPTS = 0, EXT_ROUTING = 43, EXT_FRAGMENT = 44, EXT_DSTOPTS = 60 };

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 priority;
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 tc_index;
	__u32 cb[5];
	__u32 hash;
	__u32 tc_classid;
	__u32 data;
	__u32 data_end;
	__u32 napi_id;
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

struct bpf_fib_lookup {
	__u8 family; /* out: of the next hop */
	__u8 l4_protocol;
	__be16 sport;
	__be16 dport;
	__u16 size; /* in: length of the packet; out: MTU of the route */
	__u32 ifindex; /* in: where the packet came in; out: where it goes out */
	__u32 tos;
	__u32 saddr[4];
	__u32 daddr[4]; /* out: the next hop */
	__u32 vlan;
	__u8 smac[6];
	__u8 dmac[6];
};

enum { BPF_FIB_LKUP_RET_SUCCESS = 0, BPF_FIB_LKUP_RET_NO_NEIGH = 7 };

struct bpf_redir_neigh {
	__u32 nh_family;
	__u32 nh[4];
};

enum {
	BPF_F_RECOMPUTE_CSUM = 1 << 0,
	BPF_F_PSEUDO_HDR = 1 << 4,
	BPF_F_MARK_MANGLED_0 = 1 << 5,
	BPF_F_INGRESS = 1 << 0,
	BPF_ADJ_ROOM_NET = 0,
	BPF_F_ADJ_ROOM_FIXED_GSO = 1 << 0,
	BPF_F_ADJ_ROOM_NO_CSUM_RESET = 1 << 5,
};

#define HELPER(result, name, number, ...) static result (*const name)(__VA_ARGS__) __attribute__((unused)) = (void *)number

HELPER(void *, bpf_map_lookup_elem, 1, void *map, const void *key);
HELPER(long, bpf_map_update_elem, 2, void *map, const void *key, const void *value, __u64 flags);
HELPER(long, bpf_map_delete_elem, 3, void *map, const void *key);
HELPER(__u64, bpf_ktime_get_ns, 5, void);
HELPER(__u32, bpf_get_prandom_u32, 7, void);
HELPER(__u32, bpf_get_smp_processor_id, 8, void);
HELPER(long, bpf_skb_store_bytes, 9, struct __sk_buff *skb, __u32 offset, const void *from, __u32 len, __u64 flags);
HELPER(long, bpf_l4_csum_replace, 11, struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags);
HELPER(long, bpf_clone_redirect, 13, struct __sk_buff *skb, __u32 ifindex, __u64 flags);
HELPER(long, bpf_redirect, 23, __u32 ifindex, __u64 flags);
HELPER(long, bpf_skb_load_bytes, 26, const struct __sk_buff *skb, __u32 offset, void *to, __u32 len);
HELPER(long, bpf_csum_diff, 28, const __u32 *from, __u32 from_size, const __u32 *to, __u32 to_size, __u32 seed);
HELPER(long, bpf_skb_change_proto, 31, struct __sk_buff *skb, __be16 proto, __u64 flags);
HELPER(long, bpf_skb_change_tail, 38, struct __sk_buff *skb, __u32 len, __u64 flags);
HELPER(long, bpf_skb_pull_data, 39, struct __sk_buff *skb, __u32 len);
HELPER(long, bpf_csum_update, 40, struct __sk_buff *skb, __u32 sum);
HELPER(long, bpf_skb_change_head, 43, struct __sk_buff *skb, __u32 len, __u64 flags);
HELPER(long, bpf_skb_adjust_room, 50, struct __sk_buff *skb, __s32 diff, __u32 mode, __u64 flags);
HELPER(long, bpf_fib_lookup, 69, void *ctx, struct bpf_fib_lookup *params, int size, __u32 flags);
HELPER(long, bpf_redirect_neigh, 152, __u32 ifindex, struct bpf_redir_neigh *hop, int size, __u64 flags);
HELPER(__u64, bpf_ktime_get_coarse_ns, 160, void);
HELPER(long, bpf_check_mtu, 163, void *ctx, __u32 ifindex, __u32 *mtu, __s32 diff, __u64 flags);

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define be16(x) __builtin_bswap16(x)
#define be32(x) __builtin_bswap32(x)
#define be64(x) __builtin_bswap64(x)
#else
#define be16(x) ((__u16)(x))
#define be32(x) ((__u32)(x))
#define be64(x) ((__u64)(x))
#endif

/* bounded is n, if that is 1 to limit (a power of two), in a form that the verifier follows: it does not see through the
 * comparisons that compilers make of a check. */
inline_always __u32 bounded(__u32 n, __u32 limit)
{
	n--;
	asm volatile("" : "+r"(n));
	return (n & (limit - 1)) + 1;
}

#define memset __builtin_memset
#define memcpy __builtin_memcpy
