// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The gate: two classifiers on every port of the bridge.
 *
 * Ingress drops what the block list names, notes the terminals behind the LAN ports, and sends flows that the engine
 * has finished with straight to the other side. Egress learns which flows those are from the mark of the engine's
 * verdict. Everything else goes the ordinary way: bridge, queue, engine.
 *
 * Rules:
 *  - What the gate cannot read it neither drops nor bypasses.
 *  - The block list comes before everything else, so a new entry acts on running and on bypassed flows at once.
 *  - A fragment is never bypassed: its ports may be missing.
 *  - Headers are read with bpf_skb_load_bytes through a cursor: it checks every access against the packet's length
 *    and works on paged packets without moving their data.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "omamori_gate.h"

#define VLAN_VID_MASK 0x0fff
#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 8
#define PPP_IPV4 0x0021
#define PPP_IPV6 0x0057
#define IPV4_FRAGMENT 0x3fff /* more-fragments bit and offset */
#define IPV4_OFFSET 0x1fff
#define IPV6_OFFSET 0xfff8
#define IPV6_MORE 0x0001
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define MULTICAST_MAC 0x01

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct omamori_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, OMAMORI_MAX_PORTS);
	__type(key, __u32);
	__type(value, struct omamori_port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, OMAMORI_MAX_BLOCK);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct omamori_block_key);
	__type(value, struct omamori_block);
} block SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OMAMORI_MAX_BLOCKED);
	__type(key, struct omamori_blocked_key);
	__type(value, struct omamori_blocked);
} blocked SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OMAMORI_MAX_TERMINALS);
	__type(key, struct omamori_terminal_key);
	__type(value, struct omamori_terminal);
} terminals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OMAMORI_MAX_FLOWS);
	__type(key, struct omamori_flow_key);
	__type(value, struct omamori_flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OMAMORI_COUNTER_COUNT);
	__type(key, __u32);
	__type(value, struct omamori_count);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OMAMORI_CONTROL_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, OMAMORI_MAX_EXEMPT);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct omamori_block_key);
	__type(value, struct omamori_exempt);
} exempt SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, OMAMORI_MAX_EXEMPT_MAC);
	__type(key, struct omamori_exempt_mac_key);
	__type(value, struct omamori_exempt_mac);
} exempt_mac SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OMAMORI_MAX_STATIONS);
	__type(key, struct omamori_station_key);
	__type(value, struct omamori_station);
} stations SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OMAMORI_UNINSPECTED_SLOTS);
	__type(key, __u32);
	__type(value, struct omamori_count);
} uninspected SEC(".maps");

enum reading {
	READ_NOTHING,	/* not IP, or not even its header could be read */
	READ_ADDRESSES, /* the addresses are known */
	READ_PORTS,	/* addresses, protocol and ports of an unfragmented TCP or UDP packet are known */
};

struct packet {
	__u8 src[16] __attribute__((aligned(8)));
	__u8 dst[16];
	__be16 sport;
	__be16 dport;
	__u16 vlan;
	__u16 inner_vlan;
	__u16 session;
	__u8 proto;
	__u8 tcp_flags;
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u8 is_ip;	   /* the frame says it carries IP */
	__u8 is_group_mac; /* sent to a multicast or broadcast MAC */
	__u8 is_complete;  /* every header up to the ports was understood, or there are none to understand */
};

struct cursor {
	struct __sk_buff *skb;
	__u32 offset;
};

struct vlan_header {
	__be16 tci;
	__be16 proto;
};

struct pppoe_header {
	__u8 version_type;
	__u8 code;
	__be16 session;
	__be16 length;
	__be16 proto;
} __attribute__((packed));

struct extension_header {
	__u8 next;
	__u8 length;
	__be16 fragment;
};

/* Copy the next `size` bytes to `to` and step over them; -1 when the packet ends before. */
static __always_inline int take(struct cursor *at, void *to, __u32 size)
{
	if (bpf_skb_load_bytes(at->skb, at->offset, to, size) < 0)
		return -1;
	at->offset += size;
	return 0;
}

static __always_inline void count(__u32 which, __u64 bytes)
{
	struct omamori_count *sum = bpf_map_lookup_elem(&counters, &which);

	if (sum) {
		sum->packets += 1;
		sum->bytes += bytes;
	}
}

/* Read the ports, and the flags of TCP. */
static __always_inline enum reading read_ports(struct cursor *at, struct packet *packet)
{
	if (packet->proto == IPPROTO_TCP) {
		__u8 header[sizeof(struct tcphdr)];

		if (take(at, header, sizeof(header)) < 0)
			return READ_ADDRESSES;
		__builtin_memcpy(&packet->sport, header, 2);
		__builtin_memcpy(&packet->dport, header + 2, 2);
		packet->tcp_flags = header[13];
		packet->is_complete = 1;
		return READ_PORTS;
	}
	if (packet->proto == IPPROTO_UDP) {
		struct udphdr header;

		if (take(at, &header, sizeof(header)) < 0)
			return READ_ADDRESSES;
		packet->sport = header.source;
		packet->dport = header.dest;
		packet->is_complete = 1;
		return READ_PORTS;
	}
	packet->is_complete = 1;
	return READ_ADDRESSES;
}

static __always_inline enum reading read_ipv4(struct cursor *at, struct packet *packet)
{
	struct iphdr header;

	if (take(at, &header, sizeof(header)) < 0 || header.version != 4 || header.ihl < 5)
		return READ_NOTHING;
	packet->src[10] = packet->src[11] = packet->dst[10] = packet->dst[11] = 0xff;
	__builtin_memcpy(&packet->src[12], &header.saddr, 4);
	__builtin_memcpy(&packet->dst[12], &header.daddr, 4);
	packet->proto = header.protocol;
	at->offset += (header.ihl - 5) * 4;

	__u16 fragment = bpf_ntohs(header.frag_off) & IPV4_FRAGMENT;

	if (fragment) {
		if (fragment & IPV4_OFFSET)
			packet->is_complete = 1;
		else
			read_ports(at, packet);
		return READ_ADDRESSES;
	}
	return read_ports(at, packet);
}

static __always_inline enum reading read_ipv6(struct cursor *at, struct packet *packet)
{
	struct ipv6hdr header;
	int is_fragment = 0;

	if (take(at, &header, sizeof(header)) < 0 || header.version != 6)
		return READ_NOTHING;
	__builtin_memcpy(packet->src, &header.saddr, 16);
	__builtin_memcpy(packet->dst, &header.daddr, 16);
	packet->proto = header.nexthdr;

	for (int i = 0; i < MAX_EXTENSION_HEADERS; i++) {
		struct extension_header extension;
		__u32 start = at->offset;

		switch (packet->proto) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_MH:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
			break;
		default:
			if (is_fragment) {
				read_ports(at, packet);
				return READ_ADDRESSES;
			}
			return read_ports(at, packet);
		}
		if (take(at, &extension, sizeof(extension)) < 0)
			return READ_ADDRESSES;
		if (packet->proto == IPPROTO_FRAGMENT) {
			is_fragment = 1;
			at->offset = start + 8;
			packet->proto = extension.next;
			if (bpf_ntohs(extension.fragment) & IPV6_OFFSET) {
				packet->is_complete = 1;
				return READ_ADDRESSES;
			}
			continue;
		}
		if (packet->proto == IPPROTO_AH)
			at->offset = start + (extension.length + 2) * 4;
		else
			at->offset = start + (extension.length + 1) * 8;
		packet->proto = extension.next;
	}
	return READ_ADDRESSES;
}

/* Read a frame from its Ethernet header on. */
static __always_inline enum reading read_packet(struct __sk_buff *skb, struct packet *packet)
{
	struct cursor at = {.skb = skb, .offset = 0};
	struct ethhdr ethernet;
	__u16 tags[MAX_VLAN_TAGS + 1] = {};
	int depth = 0;

	if (take(&at, &ethernet, sizeof(ethernet)) < 0)
		return READ_NOTHING;
	__builtin_memcpy(packet->src_mac, ethernet.h_source, ETH_ALEN);
	__builtin_memcpy(packet->dst_mac, ethernet.h_dest, ETH_ALEN);
	packet->is_group_mac = ethernet.h_dest[0] & MULTICAST_MAC;

	__be16 proto = ethernet.h_proto;

	/* The kernel keeps the outer tag beside the packet, not in it. */
	if (skb->vlan_present)
		packet->vlan = skb->vlan_tci & VLAN_VID_MASK;
	for (int i = 0; i < MAX_VLAN_TAGS; i++) {
		struct vlan_header tag;

		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		if (take(&at, &tag, sizeof(tag)) < 0)
			return READ_NOTHING;
		tags[depth++] = bpf_ntohs(tag.tci) & VLAN_VID_MASK;
		proto = tag.proto;
	}
	if (skb->vlan_present) {
		packet->inner_vlan = tags[0];
		if (depth > 1)
			return READ_NOTHING; /* three tags: not ours to understand */
	} else {
		packet->vlan = tags[0];
		packet->inner_vlan = tags[1];
	}
	if (proto == bpf_htons(ETH_P_PPP_SES)) {
		struct pppoe_header pppoe;

		if (take(&at, &pppoe, sizeof(pppoe)) < 0 || pppoe.version_type != 0x11 || pppoe.code != 0)
			return READ_NOTHING;
		packet->session = bpf_ntohs(pppoe.session);
		if (pppoe.proto == bpf_htons(PPP_IPV4))
			proto = bpf_htons(ETH_P_IP);
		else if (pppoe.proto == bpf_htons(PPP_IPV6))
			proto = bpf_htons(ETH_P_IPV6);
		else
			return READ_NOTHING;
	}
	if (proto == bpf_htons(ETH_P_IP)) {
		packet->is_ip = 1;
		return read_ipv4(&at, packet);
	}
	if (proto == bpf_htons(ETH_P_IPV6)) {
		packet->is_ip = 1;
		return read_ipv6(&at, packet);
	}
	return READ_NOTHING;
}

/* Some total order of (source) and (destination); which one does not matter, only that both directions agree. */
static __always_inline int is_source_greater(const struct packet *packet)
{
	__u64 src[2], dst[2];

	__builtin_memcpy(src, packet->src, 16);
	__builtin_memcpy(dst, packet->dst, 16);
	if (src[1] != dst[1])
		return src[1] > dst[1];
	if (src[0] != dst[0])
		return src[0] > dst[0];
	return packet->sport > packet->dport;
}

/* Both directions of a flow give the same key. */
static __always_inline void flow_key(const struct packet *packet, struct omamori_flow_key *key)
{
	int is_swapped = is_source_greater(packet);

	__builtin_memcpy(key->a, is_swapped ? packet->dst : packet->src, 16);
	__builtin_memcpy(key->b, is_swapped ? packet->src : packet->dst, 16);
	key->aport = is_swapped ? packet->dport : packet->sport;
	key->bport = is_swapped ? packet->sport : packet->dport;
	key->vlan = packet->vlan;
	key->inner_vlan = packet->inner_vlan;
	key->session = packet->session;
	key->proto = packet->proto;
}

static __always_inline const struct omamori_block *find_block(const __u8 *address)
{
	struct omamori_block_key key = {.prefixlen = 128};

	__builtin_memcpy(key.addr, address, 16);
	return bpf_map_lookup_elem(&block, &key);
}

/* Add one dropped packet to the record the agent drains. */
static __always_inline void note_blocked(const struct packet *packet, const struct omamori_block *entry, __u8 direction,
					 __u64 bytes)
{
	struct omamori_blocked_key key = {.dport = packet->dport, .proto = packet->proto, .direction = direction};
	__u64 now = bpf_ktime_get_boot_ns();

	__builtin_memcpy(key.src, packet->src, 16);
	__builtin_memcpy(key.dst, packet->dst, 16);

	struct omamori_blocked *sum = bpf_map_lookup_elem(&blocked, &key);

	if (!sum) {
		struct omamori_blocked first = {
			.packets = 1, .bytes = bytes, .first_ns = now, .last_ns = now, .sport = packet->sport,
			.list_id = entry->list_id};

		/* A terminal that has never sent a packet is known by its MAC only here. */
		if (direction == OMAMORI_DIRECTION_OUT)
			__builtin_memcpy(first.mac, packet->src_mac, 6);
		else if (!packet->is_group_mac)
			__builtin_memcpy(first.mac, packet->dst_mac, 6);
		if (bpf_map_update_elem(&blocked, &key, &first, BPF_NOEXIST) == 0)
			return;
		sum = bpf_map_lookup_elem(&blocked, &key); /* another CPU was faster */
		if (!sum)
			return;
	}
	__sync_fetch_and_add(&sum->packets, 1);
	__sync_fetch_and_add(&sum->bytes, bytes);
	sum->last_ns = now;
}

/* An address that can belong to one terminal: not unspecified, loopback, multicast or broadcast. */
static __always_inline int is_terminal_address(const __u8 *address)
{
	__u32 word[4];

	__builtin_memcpy(word, address, 16);
	if (!word[0] && !word[1] && word[2] == bpf_htonl(0xffff))
		return address[12] != 0 && address[12] != 127 && address[12] < 224;
	if (!word[0] && !word[1] && !word[2] && bpf_ntohl(word[3]) <= 1)
		return 0; /* :: and ::1 */
	return address[0] != 0xff;
}

static __always_inline int is_same_mac(const __u8 *left, const __u8 *right)
{
	for (int i = 0; i < ETH_ALEN; i++)
		if (left[i] != right[i])
			return 0;
	return 1;
}

/* Remember who uses an address behind a LAN port. */
static __always_inline void note_terminal(const struct packet *packet, __u32 ifindex, __u64 now, __u64 bytes)
{
	struct omamori_terminal_key key;

	if (!is_terminal_address(packet->src) || packet->src_mac[0] & MULTICAST_MAC)
		return;
	__builtin_memcpy(key.addr, packet->src, 16);

	struct omamori_terminal *known = bpf_map_lookup_elem(&terminals, &key);

	if (known && is_same_mac(known->mac, packet->src_mac)) {
		known->ifindex = ifindex;
		known->last_ns = now;
		__sync_fetch_and_add(&known->tx_packets, 1);
		__sync_fetch_and_add(&known->tx_bytes, bytes);
		return;
	}

	struct omamori_terminal terminal = {
		.ifindex = ifindex, .first_ns = now, .last_ns = now, .tx_packets = 1, .tx_bytes = bytes};

	__builtin_memcpy(terminal.mac, packet->src_mac, 6);
	bpf_map_update_elem(&terminals, &key, &terminal, BPF_ANY);
}

/* Say whether the engine has finished with this packet's flow, and account for it. */
static __always_inline int is_bypassed(const struct omamori_config *settings, const struct packet *packet,
				       __u8 direction, __u64 now, __u64 bytes)
{
	struct omamori_flow_key key = {};

	flow_key(packet, &key);

	struct omamori_flow *flow = bpf_map_lookup_elem(&flows, &key);

	if (!flow)
		return 0;

	__u64 idle_ns = packet->proto == IPPROTO_UDP ? settings->udp_idle_ns : settings->tcp_idle_ns;

	/* A SYN begins another connection and an RST ends this one: in both cases the engine looks again. */
	if (packet->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_RST) || (now > flow->last_ns && now - flow->last_ns > idle_ns)) {
		bpf_map_delete_elem(&flows, &key);
		count(OMAMORI_COUNTER_EXPIRED, bytes);
		return 0;
	}
	flow->last_ns = now;
	if (direction == OMAMORI_DIRECTION_IN) {
		__sync_fetch_and_add(&flow->in_packets, 1);
		__sync_fetch_and_add(&flow->in_bytes, bytes);
	} else {
		__sync_fetch_and_add(&flow->out_packets, 1);
		__sync_fetch_and_add(&flow->out_bytes, bytes);
	}
	return 1;
}

SEC("tc")
int gate_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0, ifindex = skb->ifindex, bytes = skb->len;
	const struct omamori_config *settings = bpf_map_lookup_elem(&config, &zero);
	const struct omamori_port *port = bpf_map_lookup_elem(&ports, &ifindex);
	struct packet packet = {};

	/* No one outside the box marks packets for us. */
	if (skb->mark & OMAMORI_MARK_MASK)
		skb->mark &= ~OMAMORI_MARK_MASK;
	if (!settings || !port || !(settings->flags & OMAMORI_CONFIG_ENABLED))
		return TC_ACT_UNSPEC;

	__u8 direction = port->role == OMAMORI_ROLE_WAN ? OMAMORI_DIRECTION_IN : OMAMORI_DIRECTION_OUT;
	enum reading reading = read_packet(skb, &packet);

	if (reading == READ_NOTHING) {
		if (packet.is_ip) {
			count(OMAMORI_COUNTER_UNPARSED, bytes);
			count(OMAMORI_COUNTER_INSPECTED, bytes);
		} else {
			count(OMAMORI_COUNTER_OTHER, bytes);
		}
		return TC_ACT_UNSPEC;
	}

	if (settings->flags & OMAMORI_CONFIG_BLOCK_ENABLED) {
		const struct omamori_block *entry = find_block(packet.src);

		if (!entry)
			entry = find_block(packet.dst);
		if (entry) {
			note_blocked(&packet, entry, direction, bytes);
			count(OMAMORI_COUNTER_BLOCKED, bytes);
			return TC_ACT_SHOT;
		}
	}

	__u64 now = bpf_ktime_get_boot_ns();

	if (direction == OMAMORI_DIRECTION_OUT)
		note_terminal(&packet, ifindex, now, bytes);

	if (reading == READ_PORTS && !packet.is_group_mac && settings->flags & OMAMORI_CONFIG_BYPASS_ENABLED &&
	    is_bypassed(settings, &packet, direction, now, bytes)) {
		__u32 other = direction == OMAMORI_DIRECTION_IN ? settings->lan_ifindex : settings->wan_ifindex;

		count(OMAMORI_COUNTER_BYPASSED, bytes);
		if (other && other != ifindex)
			return bpf_redirect(other, 0);
		skb->mark |= OMAMORI_MARK_SKIP; /* several LAN ports: the bridge knows which */
		return TC_ACT_UNSPEC;
	}
	if (!packet.is_complete)
		count(OMAMORI_COUNTER_UNPARSED, bytes);
	count(OMAMORI_COUNTER_INSPECTED, bytes);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int gate_egress(struct __sk_buff *skb)
{
	__u32 zero = 0, ifindex = skb->ifindex, bytes = skb->len;
	const struct omamori_config *settings = bpf_map_lookup_elem(&config, &zero);
	struct packet packet = {};

	if (!settings || !(settings->flags & OMAMORI_CONFIG_ENABLED) || !bpf_map_lookup_elem(&ports, &ifindex))
		return TC_ACT_UNSPEC;
	count(OMAMORI_COUNTER_RETURNED, bytes);
	if (!(skb->mark & OMAMORI_MARK_BYPASS) || !(settings->flags & OMAMORI_CONFIG_BYPASS_ENABLED))
		return TC_ACT_UNSPEC;
	if (read_packet(skb, &packet) != READ_PORTS || packet.tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_RST))
		return TC_ACT_UNSPEC;

	struct omamori_flow_key key = {};
	struct omamori_flow flow = {.learned_ns = bpf_ktime_get_boot_ns()};

	flow.last_ns = flow.learned_ns;
	flow_key(&packet, &key);
	if (bpf_map_update_elem(&flows, &key, &flow, BPF_NOEXIST) == 0)
		count(OMAMORI_COUNTER_LEARNED, bytes);
	return TC_ACT_UNSPEC;
}

char gate_license[] SEC("license") = "Dual BSD/GPL";
