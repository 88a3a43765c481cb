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

#define OMAMORI_GATE_ABI 2

/* Bits of skb->mark that are ours. No other bit is ever changed. */
#define OMAMORI_MARK_BYPASS 0x1u    /* set by the engine's verdict: it has finished with this flow */
#define OMAMORI_MARK_SKIP 0x2u	    /* set by the gate: let this packet pass the queue by */
#define OMAMORI_MARK_INSPECTED 0x4u /* set by the engine's verdict: it has seen this packet and accepts it */
#define OMAMORI_MARK_WAITING 0x8u   /* set by our rules before the queue; they change it to INSPECTED after it */
#define OMAMORI_MARK_MASK (OMAMORI_MARK_BYPASS | OMAMORI_MARK_SKIP | OMAMORI_MARK_INSPECTED) /* it is decided */
#define OMAMORI_MARK_OURS (OMAMORI_MARK_MASK | OMAMORI_MARK_WAITING)

#define OMAMORI_MAP_CONFIG "config"
#define OMAMORI_MAP_PORTS "ports"
#define OMAMORI_MAP_BLOCK "block"
#define OMAMORI_MAP_BLOCKED "blocked"
#define OMAMORI_MAP_TERMINALS "terminals"
#define OMAMORI_MAP_FLOWS "flows"
#define OMAMORI_MAP_COUNTERS "counters"
#define OMAMORI_MAP_CONTROL "control"
#define OMAMORI_MAP_EXEMPT "exempt"
#define OMAMORI_MAP_EXEMPT_MAC "exempt_mac"
#define OMAMORI_MAP_STATIONS "stations"
#define OMAMORI_MAP_UNINSPECTED "uninspected"

/* Idle times that the loader writes into the configuration. */
#define OMAMORI_UDP_IDLE_S 60
#define OMAMORI_TCP_IDLE_S 7200
#define OMAMORI_STATION_IDLE_S 300 /* what a bridge's own table uses */

#define OMAMORI_MAX_PORTS 16
#define OMAMORI_MAX_BLOCK 131072
#define OMAMORI_MAX_BLOCKED 4096
#define OMAMORI_MAX_TERMINALS 8192
#define OMAMORI_MAX_FLOWS 65536
#define OMAMORI_MAX_EXEMPT 4096
#define OMAMORI_MAX_EXEMPT_MAC 1024
#define OMAMORI_MAX_STATIONS 8192
#define OMAMORI_CONTROL_SLOTS 8
#define OMAMORI_UNINSPECTED_SLOTS 8

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

/* Packets are those on the cable: what the kernel joined to one large packet counts as many, its headers once. */
enum omamori_counter {
	OMAMORI_COUNTER_INSPECTED = 0, /* left to bridge, queue and engine */
	OMAMORI_COUNTER_RETURNED,      /* left the box by a port */
	OMAMORI_COUNTER_BYPASSED,      /* belonged to a flow the engine has finished with */
	OMAMORI_COUNTER_BLOCKED,       /* dropped: an address is on the block list */
	OMAMORI_COUNTER_UNPARSED,      /* IP that the gate could not read to its end; handled all the same */
	OMAMORI_COUNTER_OTHER,	       /* not IP (ARP and the like); left to the bridge */
	OMAMORI_COUNTER_LEARNED,       /* flows that became bypassed (bytes: of the packet that said so) */
	OMAMORI_COUNTER_EXPIRED,       /* flows whose bypass ended: age, SYN, RST, QUIC Initial, epoch, block */
	OMAMORI_COUNTER_REFUSED,       /* dropped: nothing had inspected it and the policy is fail-closed */
	OMAMORI_COUNTER_EXEMPTED,      /* an exemption lets it pass the engine by */
	OMAMORI_COUNTER_SKIPPED,       /* a lease (hung, command, button) lets it pass the engine by */
	OMAMORI_COUNTER_TUNNELLED,     /* IP in IP; counted besides what else happened to it */
	OMAMORI_COUNTER_REDIRECTED,    /* bypassed and sent straight to the receiver's port; the rest took the bridge */
	OMAMORI_COUNTER_COUNT,
};

/*
 * Slots of the map control. Each has one writer, so no update is ever lost; each holds a number, all 0 at first. (Two
 * may ask for a pause; they ask for the same, and the watch takes it back only when there is no queue left.)
 * *_UNTIL_NS are leases: CLOCK_BOOTTIME, they end by themselves.
 */
enum omamori_control {
	OMAMORI_CONTROL_HUNG_UNTIL_NS = 0, /* omamori-watch: the engine hangs, pass the queue by; not with fail-closed */
	OMAMORI_CONTROL_BYPASS_UNTIL_NS,   /* agent, by command: pass queue and block list by */
	OMAMORI_CONTROL_EPOCH,		   /* agent: raising it ends every bypass at once */
	OMAMORI_CONTROL_FAIL_CLOSED,	   /* agent: 1 drops forwarded IP that nothing has inspected */
	OMAMORI_CONTROL_BUTTON_UNTIL_NS,   /* omamori-watch, the board's button: like the command */
	OMAMORI_CONTROL_PAUSED_UNTIL_NS,   /* agent or watch: the engine is about to be stopped; like hung. Seconds. */
};

/* Why a forwarded IP packet left uninspected; each packet is counted once, for one reason. */
enum omamori_uninspected {
	OMAMORI_UNINSPECTED_NO_VERDICT = 0, /* no engine was listening, or its queue was full or not used for it */
	OMAMORI_UNINSPECTED_HUNG,
	OMAMORI_UNINSPECTED_COMMAND,
	OMAMORI_UNINSPECTED_EXEMPT,
	OMAMORI_UNINSPECTED_PAUSED, /* led past an engine that is about to be stopped */
};

/* How an address is exempt (bits). */
enum omamori_exempt_kind {
	OMAMORI_EXEMPT_TERMINAL = 1,	/* when it is on the LAN side */
	OMAMORI_EXEMPT_DESTINATION = 2, /* when it is on the far side */
};

/* config: ARRAY[1], written by the loader only */
struct omamori_config {
	__u32 abi;	       /* OMAMORI_GATE_ABI of the loader */
	__u32 flags;	       /* enum omamori_config_flag */
	__u32 wan_ifindex;     /* the only WAN port, or 0 when there is not exactly one WAN and one LAN port */
	__u32 lan_ifindex;     /* the only LAN port, or 0 likewise */
	__u64 udp_idle_ns;     /* a UDP flow silent for longer is inspected again */
	__u64 tcp_idle_ns;     /* the same for TCP */
	__u64 station_idle_ns; /* nothing is redirected to a station silent for longer */
	__u8 own_mac[6];       /* of the bridge: frames to it are for the box and never redirected */
	__u8 pad[2];
};

/* control: ARRAY[OMAMORI_CONTROL_SLOTS] of __u64, enum omamori_control */

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
	__u32 generation; /* of user space: the writing of the whole list that it belongs to */
	__u32 list_id;
};

/* exempt: LPM_TRIE like block; comes before it */
struct omamori_exempt {
	__u32 kind; /* enum omamori_exempt_kind */
	__u32 id;   /* of the agent */
};

/* exempt_mac: HASH; MAC on the LAN side */
struct omamori_exempt_mac_key {
	__u8 mac[6];
	__u16 pad;
};

struct omamori_exempt_mac {
	__u32 id;
};

/* stations: LRU_HASH; where a MAC was last seen as a sender, on any port; the newest port wins */
struct omamori_station_key {
	__u8 mac[6];
	__u16 vlan; /* outer VLAN number, 0 if none */
};

struct omamori_station {
	__u32 ifindex;
	__u32 pad;
	__u64 last_ns; /* CLOCK_BOOTTIME, to the second: it is not written for every packet */
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
	__u64 tx_packets; /* sent by it */
	__u64 tx_bytes;
	__u64 rx_packets; /* sent to it by others (what the engine then stopped included) */
	__u64 rx_bytes;
	__u64 bypassed_tx_bytes; /* the part that belonged to bypassed flows */
	__u64 bypassed_rx_bytes;
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
	__u32 tunnel; /* 0, or for IP in IP a hash of the outer addresses; everything above is then the inner packet's */
};

struct omamori_flow {
	__u64 learned_ns; /* CLOCK_BOOTTIME */
	__u64 last_ns;
	__u64 in_packets; /* bypassed since, by direction */
	__u64 in_bytes;
	__u64 out_packets;
	__u64 out_bytes;
	__u64 epoch; /* of the time it was learned; any other one ends the bypass */
};

/* counters: PERCPU_ARRAY[OMAMORI_COUNTER_COUNT]; uninspected: PERCPU_ARRAY[OMAMORI_UNINSPECTED_SLOTS] */
struct omamori_count {
	__u64 packets;
	__u64 bytes;
};

#endif
