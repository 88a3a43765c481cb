/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Flows the engine has finished with: their keys, how they are learned and how that ends. Part of gate.bpf.c. */
#ifndef GATE_FLOW_H
#define GATE_FLOW_H

#define QUIC_LONG_HEADER 0xc0 /* form bit and fixed bit */
#define QUIC_TYPE 0x30
#define QUIC_V2_INITIAL 0x10
#define QUIC_V1 0x00000001u
#define QUIC_V2 0x6b3343cfu
#define QUIC_DRAFTS 0xff000000u
#define QUIC_DRAFTS_MASK 0xffffff00u
#define QUIC_HEAD_BYTES 5

/* Some total order of (source) and (destination); which one does not matter, only that both directions agree. */
static __always_inline int is_source_greater(const struct ends *ends, const struct packet *packet)
{
	__u64 src[2], dst[2];

	__builtin_memcpy(src, ends->src, 16);
	__builtin_memcpy(dst, ends->dst, 16);
	if (src[1] != dst[1])
		return src[1] > dst[1];
	if (src[0] != dst[0])
		return src[0] > dst[0];
	return packet->sport > packet->dport;
}

static __always_inline __u32 mixed(const __u8 *address, __u32 seed)
{
	__u64 word[2], mix;

	__builtin_memcpy(word, address, 16);
	mix = (word[0] ^ seed) * 0x9e3779b97f4a7c15ull;
	mix = (mix ^ mix >> 29 ^ word[1]) * 0xbf58476d1ce4e5b9ull;
	return mix ^ mix >> 32;
}

/* Tell apart the same addresses and ports in two tunnels; never 0. */
static __always_inline __u32 tunnel_number(const struct packet *packet, int is_swapped)
{
	__u32 first = mixed(is_swapped ? packet->outer.dst : packet->outer.src, 1);
	__u32 number = mixed(is_swapped ? packet->outer.src : packet->outer.dst, first);

	return number ? number : 1;
}

/* Both directions of a flow give the same key. */
static __always_inline void flow_key(const struct packet *packet, struct omamori_flow_key *key)
{
	const struct ends *ends = innermost(packet);
	int is_swapped = is_source_greater(ends, packet);

	__builtin_memcpy(key->a, is_swapped ? ends->dst : ends->src, 16);
	__builtin_memcpy(key->b, is_swapped ? ends->src : ends->dst, 16);
	key->aport = is_swapped ? packet->dport : packet->sport;
	key->bport = is_swapped ? packet->sport : packet->dport;
	key->vlan = packet->vlan;
	key->inner_vlan = packet->inner_vlan;
	key->session = packet->session;
	key->proto = packet->proto;
	if (packet->is_tunnelled)
		key->tunnel = tunnel_number(packet, is_swapped);
}

/* Say whether a UDP packet begins a QUIC connection. */
static __always_inline int is_quic_initial(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 head[QUIC_HEAD_BYTES];

	if (bpf_skb_load_bytes(skb, packet->payload_at, head, sizeof(head)) < 0 ||
	    (head[0] & QUIC_LONG_HEADER) != QUIC_LONG_HEADER)
		return 0;

	__u32 version = (__u32)head[1] << 24 | (__u32)head[2] << 16 | (__u32)head[3] << 8 | head[4];

	if (version == QUIC_V1 || (version & QUIC_DRAFTS_MASK) == QUIC_DRAFTS)
		return (head[0] & QUIC_TYPE) == 0;
	return version == QUIC_V2 && (head[0] & QUIC_TYPE) == QUIC_V2_INITIAL;
}

/* A SYN or a QUIC Initial begins another connection, an RST ends this one: the engine looks again. */
static __always_inline int is_turning_point(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->proto == IPPROTO_TCP)
		return packet->tcp_flags & (TCP_FLAG_SYN | TCP_FLAG_RST);
	return is_quic_initial(skb, packet);
}

/* End the bypass of a packet's flow, if it has one. */
static __always_inline void forget_flow(const struct packet *packet, struct size size)
{
	struct omamori_flow_key key = {};

	flow_key(packet, &key);
	/* Looking first costs no lock, and mostly there is nothing. */
	if (bpf_map_lookup_elem(&flows, &key) && bpf_map_delete_elem(&flows, &key) == 0)
		count(OMAMORI_COUNTER_EXPIRED, size);
}

/* Say whether the engine has finished with this packet's flow, and account for it. */
static __always_inline int is_bypassed(const struct omamori_config *settings, struct __sk_buff *skb,
				       const struct packet *packet, __u8 direction, __u64 now, struct size size)
{
	struct omamori_flow_key key = {};

	flow_key(packet, &key);

	struct omamori_flow *flow = bpf_map_lookup_elem(&flows, &key);

	if (!flow)
		return 0;

	__u64 idle_ns = packet->proto == IPPROTO_UDP ? settings->udp_idle_ns : settings->tcp_idle_ns;

	if ((now > flow->last_ns && now - flow->last_ns > idle_ns) ||
	    flow->epoch != control_slot(OMAMORI_CONTROL_EPOCH) || is_turning_point(skb, packet)) {
		bpf_map_delete_elem(&flows, &key);
		count(OMAMORI_COUNTER_EXPIRED, size);
		return 0;
	}
	flow->last_ns = now;
	if (direction == OMAMORI_DIRECTION_IN) {
		__sync_fetch_and_add(&flow->in_packets, size.packets);
		__sync_fetch_and_add(&flow->in_bytes, size.bytes);
	} else {
		__sync_fetch_and_add(&flow->out_packets, size.packets);
		__sync_fetch_and_add(&flow->out_bytes, size.bytes);
	}
	return 1;
}

/* Note that the engine has finished with a packet's flow. */
static __always_inline void learn_flow(const struct packet *packet, __u64 now, struct size size)
{
	struct omamori_flow_key key = {};
	struct omamori_flow flow = {
		.learned_ns = now, .last_ns = now, .epoch = control_slot(OMAMORI_CONTROL_EPOCH)};

	flow_key(packet, &key);

	const struct omamori_flow *known = bpf_map_lookup_elem(&flows, &key);

	if (known && known->epoch == flow.epoch)
		return;
	if (bpf_map_update_elem(&flows, &key, &flow, BPF_ANY) == 0)
		count(OMAMORI_COUNTER_LEARNED, size);
}

#endif
