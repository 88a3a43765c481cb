/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Reading a frame: Ethernet, up to two VLAN tags, PPPoE, IPv4 or IPv6 with extension headers, one IP packet inside
 * another, TCP and UDP. Part of gate.bpf.c.
 *
 * Headers are read with bpf_skb_load_bytes through a cursor: it checks every access against the packet's length and
 * works on paged packets without moving their data.
 */
#ifndef GATE_PACKET_H
#define GATE_PACKET_H

#define VLAN_VID_MASK 0x0fff
#define MAX_VLAN_TAGS 2
#define MAX_EXTENSION_HEADERS 8
#define MAX_IP_HEADERS 2
#define PPP_IPV4 0x0021
#define PPP_IPV6 0x0057
#define IPV4_FRAGMENT 0x3fff /* more-fragments bit and offset */
#define IPV4_OFFSET 0x1fff
#define IPV6_OFFSET 0xfff8
#define TCP_HEADER_BYTES 20
#define TCP_FLAGS_AT 13
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_RST 0x04
#define MULTICAST_MAC 0x01

enum reading {
	READ_NOTHING,	/* not IP, or not even its header could be read */
	READ_ADDRESSES, /* the addresses are known */
	READ_PORTS,	/* addresses, protocol and ports of an unfragmented TCP or UDP packet are known */
};

/* The two ends of an IP packet, 16 bytes each. */
struct ends {
	__u8 src[16];
	__u8 dst[16];
} __attribute__((aligned(8)));

struct packet {
	struct ends outer;    /* of the first IP header */
	struct ends inner;    /* of the IP packet inside it, if is_tunnelled */
	__u32 payload_at;     /* where the payload of UDP begins */
	__be16 sport;	      /* ports and protocol are those of the innermost packet */
	__be16 dport;
	__u16 vlan;
	__u16 inner_vlan;
	__u16 session;
	__u8 proto;
	__u8 tcp_flags;
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u8 is_ip;	      /* the frame says it carries IP */
	__u8 is_group_mac;    /* sent to a multicast or broadcast MAC */
	__u8 is_complete;     /* every header up to the ports was understood, or there are none to understand */
	__u8 is_tunnelled;    /* IP in IP, and the inner addresses are known */
	__u8 is_fragment;     /* the innermost packet, or one around it, is a part */
	__u8 outer_proto;     /* what the first IP header carries */
	__u8 pad[2];
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

/* Read the ports, and the flags of TCP. The cursor stands behind the last IP header. */
static __always_inline enum reading read_ports(struct cursor *at, struct packet *packet)
{
	if (packet->proto == IPPROTO_TCP) {
		__u8 header[TCP_HEADER_BYTES];

		if (take(at, header, sizeof(header)) < 0)
			return READ_ADDRESSES;
		__builtin_memcpy(&packet->sport, header, 2);
		__builtin_memcpy(&packet->dport, header + 2, 2);
		packet->tcp_flags = header[TCP_FLAGS_AT];
	} else if (packet->proto == IPPROTO_UDP) {
		struct udphdr header;

		if (take(at, &header, sizeof(header)) < 0)
			return READ_ADDRESSES;
		packet->sport = header.source;
		packet->dport = header.dest;
		packet->payload_at = at->offset;
	} else {
		packet->is_complete = 1;
		return READ_ADDRESSES;
	}
	packet->is_complete = 1;
	return packet->is_fragment ? READ_ADDRESSES : READ_PORTS;
}

/*
 * Read one IPv4 header. -1: it cannot be read; 0: the addresses are all that can be known; 1: the cursor stands at
 * what it carries.
 */
static __always_inline int read_ipv4(struct cursor *at, struct packet *packet, struct ends *ends)
{
	struct iphdr header;

	if (take(at, &header, sizeof(header)) < 0 || header.version != 4 || header.ihl < 5)
		return -1;
	ends->src[10] = ends->src[11] = ends->dst[10] = ends->dst[11] = 0xff;
	__builtin_memcpy(&ends->src[12], &header.saddr, 4);
	__builtin_memcpy(&ends->dst[12], &header.daddr, 4);
	packet->proto = header.protocol;
	at->offset += (header.ihl - 5) * 4;
	if (header.frag_off & bpf_htons(IPV4_FRAGMENT)) {
		packet->is_fragment = 1;
		if (header.frag_off & bpf_htons(IPV4_OFFSET)) {
			packet->is_complete = 1;
			return 0;
		}
	}
	return 1;
}

/* The same for IPv6 and its extension headers. */
static __always_inline int read_ipv6(struct cursor *at, struct packet *packet, struct ends *ends)
{
	struct ipv6hdr header;

	if (take(at, &header, sizeof(header)) < 0 || header.version != 6)
		return -1;
	__builtin_memcpy(ends->src, &header.saddr, 16);
	__builtin_memcpy(ends->dst, &header.daddr, 16);
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
			return 1;
		}
		if (take(at, &extension, sizeof(extension)) < 0)
			return 0;
		if (packet->proto == IPPROTO_FRAGMENT) {
			packet->is_fragment = 1;
			at->offset = start + 8;
			packet->proto = extension.next;
			if (extension.fragment & bpf_htons(IPV6_OFFSET)) {
				packet->is_complete = 1;
				return 0;
			}
			continue;
		}
		if (packet->proto == IPPROTO_AH)
			at->offset = start + (extension.length + 2) * 4;
		else
			at->offset = start + (extension.length + 1) * 8;
		packet->proto = extension.next;
	}
	return 0;
}

static __always_inline int read_ip(struct cursor *at, struct packet *packet, struct ends *ends, __be16 version)
{
	return version == bpf_htons(ETH_P_IP) ? read_ipv4(at, packet, ends) : read_ipv6(at, packet, ends);
}

/* Which IP an IP protocol number stands for; 0 if it does not. */
static __always_inline __be16 carried_ip(__u8 proto)
{
	if (proto == IPPROTO_IPIP)
		return bpf_htons(ETH_P_IP);
	return proto == IPPROTO_IPV6 ? bpf_htons(ETH_P_IPV6) : 0;
}

/* Read from the first IP header on. */
static __always_inline enum reading read_ip_packet(struct cursor *at, struct packet *packet, __be16 version)
{
	int has_more = read_ip(at, packet, &packet->outer, version);

	if (has_more < 0)
		return READ_NOTHING;
	packet->outer_proto = packet->proto;
	if (!has_more)
		return READ_ADDRESSES;
	version = carried_ip(packet->proto);
	if (!version)
		return read_ports(at, packet);

	has_more = read_ip(at, packet, &packet->inner, version);
	if (has_more < 0)
		return READ_ADDRESSES;
	packet->is_tunnelled = 1;
	/* Something inside the inside is left to the engine. */
	if (!has_more || carried_ip(packet->proto))
		return READ_ADDRESSES;
	return read_ports(at, packet);
}

/*
 * Read a frame from its Ethernet header on. `packet` comes zeroed. A function of its own, so that the kernel's verifier
 * looks at it once and not at every place that calls it.
 */
__noinline int read_packet(struct __sk_buff *skb, struct packet *packet)
{
	struct cursor at = {.skb = skb, .offset = 0};
	struct ethhdr ethernet;
	__u16 tags[MAX_VLAN_TAGS + 1] = {};
	int depth = 0;

	if (!packet || take(&at, &ethernet, sizeof(ethernet)) < 0)
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
	if (proto != bpf_htons(ETH_P_IP) && proto != bpf_htons(ETH_P_IPV6))
		return READ_NOTHING;
	packet->is_ip = 1;
	return read_ip_packet(&at, packet, proto);
}

static __always_inline int is_same_mac(const __u8 *left, const __u8 *right)
{
	for (int i = 0; i < ETH_ALEN; i++)
		if (left[i] != right[i])
			return 0;
	return 1;
}

/* The ends between which ports and protocol mean something. */
static __always_inline const struct ends *innermost(const struct packet *packet)
{
	return packet->is_tunnelled ? &packet->inner : &packet->outer;
}

#endif
