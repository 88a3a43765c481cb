/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the gate in the kernel (gate.bpf.c) and its readers in user space (omamori_wire.c, the agent's gate package)
 * agree on: names of the pinned maps, their sizes and layouts, flags, marks.
 *
 * Integers are in host order unless a name says otherwise (__be16). Addresses are 16 bytes in network order, IPv4 as
 * ::ffff:a.b.c.d. Every structure is free of implicit padding; the agent's mirror is checked against this file by a
 * test. A change of any layout raises OMAMORI_GATE_ABI: the loader then makes new maps instead of reusing pinned ones.
 */
#ifndef OMAMORI_GATE_H
#define OMAMORI_GATE_H

#include <linux/types.h>

#define OMAMORI_GATE_ABI 1

/* Bits of skb->mark that are ours. No other bit is ever changed. */
#define OMAMORI_MARK_BYPASS 0x1u /* set by the engine's verdict: it has finished with this flow */
#define OMAMORI_MARK_SKIP 0x2u	 /* set by the gate: let this packet pass the queue by */
#define OMAMORI_MARK_MASK (OMAMORI_MARK_BYPASS | OMAMORI_MARK_SKIP)

#define OMAMORI_MAP_CONFIG "config"
#define OMAMORI_MAP_PORTS "ports"
#define OMAMORI_MAP_BLOCK "block"
#define OMAMORI_MAP_BLOCKED "blocked"
#define OMAMORI_MAP_TERMINALS "terminals"
#define OMAMORI_MAP_FLOWS "flows"
#define OMAMORI_MAP_COUNTERS "counters"

/* Idle times that the loader writes into the configuration. */
#define OMAMORI_UDP_IDLE_S 60
#define OMAMORI_TCP_IDLE_S 7200

#define OMAMORI_MAX_PORTS 16
#define OMAMORI_MAX_BLOCK 131072
#define OMAMORI_MAX_BLOCKED 4096
#define OMAMORI_MAX_TERMINALS 8192
#define OMAMORI_MAX_FLOWS 65536

enum omamori_role {
	OMAMORI_ROLE_WAN = 1,
	OMAMORI_ROLE_LAN = 2,
};

enum omamori_direction {
	OMAMORI_DIRECTION_IN = 1,  /* came in by a WAN port */
	OMAMORI_DIRECTION_OUT = 2, /* came in by a LAN port */
};

enum omamori_config_flag {
	OMAMORI_CONFIG_ENABLED = 1,	   /* without it the gate lets everything pass and looks at nothing */
	OMAMORI_CONFIG_BLOCK_ENABLED = 2,  /* drop what the block list names */
	OMAMORI_CONFIG_BYPASS_ENABLED = 4, /* learn and use bypass */
};

enum omamori_counter {
	OMAMORI_COUNTER_INSPECTED = 0, /* left to bridge, queue and engine */
	OMAMORI_COUNTER_RETURNED,      /* left the box by a port */
	OMAMORI_COUNTER_BYPASSED,      /* belonged to a flow the engine has finished with */
	OMAMORI_COUNTER_BLOCKED,       /* dropped: an address is on the block list */
	OMAMORI_COUNTER_UNPARSED,      /* IP that the gate could not read; left to the bridge, part of inspected */
	OMAMORI_COUNTER_OTHER,	       /* not IP (ARP and the like); left to the bridge */
	OMAMORI_COUNTER_LEARNED,       /* flows that became bypassed (bytes: of the packet that said so) */
	OMAMORI_COUNTER_EXPIRED,       /* flows whose bypass ended by age, SYN or RST */
	OMAMORI_COUNTER_COUNT,
};

/* config: ARRAY[1] */
struct omamori_config {
	__u32 abi;	     /* OMAMORI_GATE_ABI of the loader */
	__u32 flags;	     /* enum omamori_config_flag */
	__u32 wan_ifindex;   /* the only WAN port, or 0 when there is not exactly one WAN and one LAN port */
	__u32 lan_ifindex;   /* the only LAN port, or 0 likewise */
	__u64 udp_idle_ns;   /* a UDP flow silent for longer is inspected again */
	__u64 tcp_idle_ns;   /* the same for TCP */
};

/* ports: HASH, __u32 ifindex -> */
struct omamori_port {
	__u32 role;  /* enum omamori_role */
	__u32 index; /* 0 for wan and lan1, 1 for the next of the same role, ... */
};

/* block: LPM_TRIE; an IPv4 prefix of n bits has prefixlen 96 + n */
struct omamori_block_key {
	__u32 prefixlen;
	__u8 addr[16];
};

struct omamori_block {
	__u32 flags; /* none yet, 0 */
	__u32 list_id;
};

/* blocked: LRU_HASH, what the block list dropped, per pair of addresses, port, protocol and direction */
struct omamori_blocked_key {
	__u8 src[16];
	__u8 dst[16];
	__be16 dport; /* 0 when the packet has no ports or they could not be read */
	__u8 proto;   /* IP protocol number */
	__u8 direction;
};

struct omamori_blocked {
	__u64 packets;
	__u64 bytes;
	__u64 first_ns; /* CLOCK_BOOTTIME */
	__u64 last_ns;
	__u8 mac[6]; /* of the terminal: the sender on a LAN port, the receiver of what came from outside; zero for a group */
	__u8 pad[2];
	__be16 sport; /* of the first packet */
	__u16 pad2;
	__u32 list_id;
};

/* terminals: LRU_HASH, __u8 addr[16] -> ; learned from the source of packets that came in by a LAN port */
struct omamori_terminal_key {
	__u8 addr[16];
};

struct omamori_terminal {
	__u8 mac[6];
	__u16 pad;
	__u32 ifindex;
	__u32 pad2;
	__u64 first_ns; /* of this address with this MAC; CLOCK_BOOTTIME */
	__u64 last_ns;
	__u64 tx_packets;
	__u64 tx_bytes;
};

/* flows: LRU_HASH, both directions of a flow have one key: which end is a and which is b is the gate's choice */
struct omamori_flow_key {
	__u8 a[16];
	__u8 b[16];
	__be16 aport;
	__be16 bport;
	__u16 vlan;	  /* outer VLAN number, 0 if none */
	__u16 inner_vlan; /* inner VLAN number, 0 if none */
	__u16 session;	  /* PPPoE session, 0 if none */
	__u8 proto;
	__u8 pad;
};

struct omamori_flow {
	__u64 learned_ns; /* CLOCK_BOOTTIME */
	__u64 last_ns;
	__u64 in_packets; /* bypassed since, by direction */
	__u64 in_bytes;
	__u64 out_packets;
	__u64 out_bytes;
};

/* counters: PERCPU_ARRAY[OMAMORI_COUNTER_COUNT] */
struct omamori_count {
	__u64 packets;
	__u64 bytes;
};

#endif
