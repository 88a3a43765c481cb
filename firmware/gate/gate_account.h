/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counting, and remembering who is behind which port. Part of gate.bpf.c. */
#ifndef GATE_ACCOUNT_H
#define GATE_ACCOUNT_H

#define STATION_WRITE_NS 1000000000ull /* its time is not written more often: it is shared by all processors */
#define FLOODING_NS 10000000ull	       /* copies of one frame leave within this time */

/* How much a packet weighs. */
struct size {
	__u64 packets; /* on the cable: the kernel may have joined several to this one */
	__u64 bytes;
};

static __always_inline struct size size_of(const struct __sk_buff *skb)
{
	__u32 segments = skb->gso_segs;

	return (struct size){.packets = segments ? segments : 1, .bytes = skb->len};
}

static __always_inline void add(struct omamori_count *sum, struct size size)
{
	if (sum) {
		sum->packets += size.packets;
		sum->bytes += size.bytes;
	}
}

static __always_inline void count(__u32 which, struct size size)
{
	add(bpf_map_lookup_elem(&counters, &which), size);
}

static __always_inline void count_uninspected(__u32 reason, struct size size)
{
	add(bpf_map_lookup_elem(&uninspected, &reason), size);
}

/*
 * Say whether this is one more copy of a frame that the bridge sends to several ports, so that it is counted once.
 * The copies follow each other on one processor. With an engine that gives no verdict nothing can come in between.
 */
static __always_inline int is_further_copy(struct __sk_buff *skb, __u64 now)
{
	__u32 zero = 0;
	struct flooded *last = bpf_map_lookup_elem(&flooding, &zero);
	struct flooded this = {.at_ns = now,
			       .hash = bpf_get_hash_recalc(skb),
			       .bytes = skb->len,
			       .from_ifindex = skb->ingress_ifindex,
			       .to_ifindex = skb->ifindex};

	if (!last)
		return 0;
	if (last->hash == this.hash && last->bytes == this.bytes && last->from_ifindex == this.from_ifindex &&
	    last->to_ifindex != this.to_ifindex && now - last->at_ns < FLOODING_NS)
		return 1;
	*last = this;
	return 0;
}

/* Remember behind which port a MAC is, as a bridge does: the newest port is the right one. */
static __always_inline void note_station(const struct omamori_config *settings, const struct packet *packet,
					 __u32 ifindex, __u64 now)
{
	struct omamori_station_key key = {.vlan = packet->vlan};

	if (packet->src_mac[0] & MULTICAST_MAC || is_same_mac(packet->src_mac, settings->own_mac))
		return;
	__builtin_memcpy(key.mac, packet->src_mac, ETH_ALEN);

	struct omamori_station *known = bpf_map_lookup_elem(&stations, &key);

	if (known) {
		if (known->ifindex != ifindex) {
			known->ifindex = ifindex;
			known->last_ns = now;
		} else if (now - known->last_ns > STATION_WRITE_NS) {
			known->last_ns = now;
		}
		return;
	}

	struct omamori_station station = {.ifindex = ifindex, .last_ns = now};

	bpf_map_update_elem(&stations, &key, &station, BPF_ANY);
}

/*
 * Find the port behind which the receiver is; 0 when only the bridge can know, which is also right when the receiver
 * is where the frame came from.
 */
static __always_inline __u32 find_port(const struct omamori_config *settings, const struct packet *packet,
				       __u32 ifindex, __u64 now)
{
	struct omamori_station_key key = {.vlan = packet->vlan};

	if (packet->is_group_mac || is_same_mac(packet->dst_mac, settings->own_mac))
		return 0;
	__builtin_memcpy(key.mac, packet->dst_mac, ETH_ALEN);

	const struct omamori_station *station = bpf_map_lookup_elem(&stations, &key);

	if (station && (now < station->last_ns || now - station->last_ns < settings->station_idle_ns))
		return station->ifindex == ifindex ? 0 : station->ifindex;
	if (ifindex == settings->wan_ifindex)
		return settings->lan_ifindex;
	return ifindex == settings->lan_ifindex ? settings->wan_ifindex : 0;
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

static __always_inline struct omamori_terminal *find_terminal(const __u8 *address)
{
	struct omamori_terminal_key key;

	__builtin_memcpy(key.addr, address, 16);
	return bpf_map_lookup_elem(&terminals, &key);
}

/* Remember who uses an address behind a LAN port, and what it sends. */
static __always_inline struct omamori_terminal *note_sender(const struct packet *packet, const __u8 *address,
							    __u32 ifindex, __u64 now, struct size size)
{
	struct omamori_terminal *known = find_terminal(address);

	if (known && is_same_mac(known->mac, packet->src_mac)) {
		if (known->ifindex != ifindex)
			known->ifindex = ifindex;
		known->last_ns = now;
		__sync_fetch_and_add(&known->tx_packets, size.packets);
		__sync_fetch_and_add(&known->tx_bytes, size.bytes);
		return known;
	}
	if (!is_terminal_address(address) || packet->src_mac[0] & MULTICAST_MAC)
		return NULL;

	struct omamori_terminal_key key;
	struct omamori_terminal terminal = {
		.ifindex = ifindex, .first_ns = now, .last_ns = now, .tx_packets = size.packets, .tx_bytes = size.bytes};

	__builtin_memcpy(key.addr, address, 16);
	__builtin_memcpy(terminal.mac, packet->src_mac, 6);
	bpf_map_update_elem(&terminals, &key, &terminal, BPF_ANY);
	return find_terminal(address);
}

static __always_inline struct omamori_terminal *note_receiver(const __u8 *address, struct size size)
{
	struct omamori_terminal *known = find_terminal(address);

	if (known) {
		__sync_fetch_and_add(&known->rx_packets, size.packets);
		__sync_fetch_and_add(&known->rx_bytes, size.bytes);
	}
	return known;
}

/* The terminals between which a packet travels; NULL for an end that is none. */
struct travellers {
	struct omamori_terminal *sender;
	struct omamori_terminal *receiver;
};

/*
 * Add a packet to its terminals and return them. In a tunnel both the ones inside and the router that packs are
 * terminals; those inside are returned.
 */
static __always_inline struct travellers note_terminals(const struct packet *packet, __u8 direction, __u32 ifindex,
							__u64 now, struct size size)
{
	struct travellers found = {};

	if (direction == OMAMORI_DIRECTION_OUT)
		found.sender = note_sender(packet, packet->outer.src, ifindex, now, size);
	found.receiver = note_receiver(packet->outer.dst, size);
	if (packet->is_tunnelled) {
		if (direction == OMAMORI_DIRECTION_OUT)
			found.sender = note_sender(packet, packet->inner.src, ifindex, now, size);
		found.receiver = note_receiver(packet->inner.dst, size);
	}
	return found;
}

static __always_inline void note_bypassed(struct travellers between, struct size size)
{
	if (between.sender)
		__sync_fetch_and_add(&between.sender->bypassed_tx_bytes, size.bytes);
	if (between.receiver)
		__sync_fetch_and_add(&between.receiver->bypassed_rx_bytes, size.bytes);
}

#endif
