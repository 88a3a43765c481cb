/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The block list, the exemptions and the leases. Part of gate.bpf.c. */
#ifndef GATE_LISTS_H
#define GATE_LISTS_H

#define NO_LEASE -1

/* Say for which reason (enum omamori_uninspected) packets pass the queue by just now, or NO_LEASE. */
static __always_inline int lease_reason(__u64 now)
{
	if (control_slot(OMAMORI_CONTROL_BYPASS_UNTIL_NS) > now || control_slot(OMAMORI_CONTROL_BUTTON_UNTIL_NS) > now)
		return OMAMORI_UNINSPECTED_COMMAND;
	/* Who wants a closed door rather than an unguarded one does not want it opened by an engine that hangs. */
	if (control_slot(OMAMORI_CONTROL_FAIL_CLOSED) == 1)
		return NO_LEASE;
	if (control_slot(OMAMORI_CONTROL_PAUSED_UNTIL_NS) > now)
		return OMAMORI_UNINSPECTED_PAUSED;
	if (control_slot(OMAMORI_CONTROL_HUNG_UNTIL_NS) > now)
		return OMAMORI_UNINSPECTED_HUNG;
	return NO_LEASE;
}

static __always_inline __u32 exempt_kinds(const __u8 *address)
{
	struct omamori_block_key key = {.prefixlen = 128};

	__builtin_memcpy(key.addr, address, 16);

	const struct omamori_exempt *entry = bpf_map_lookup_elem(&exempt, &key);

	return entry ? entry->kind : 0;
}

/*
 * What came from inside is exempt by its sender as terminal and by its receiver as destination, or as terminal if it
 * stays inside; what came from outside by its receiver as terminal and by its sender as destination. So nobody outside
 * becomes exempt by using a terminal's address.
 */
static __always_inline int is_exempt_between(const struct ends *ends, __u8 direction)
{
	__u32 src = exempt_kinds(ends->src), dst = exempt_kinds(ends->dst);

	if (direction == OMAMORI_DIRECTION_OUT)
		return (src & OMAMORI_EXEMPT_TERMINAL) || dst;
	return (src & OMAMORI_EXEMPT_DESTINATION) || (dst & OMAMORI_EXEMPT_TERMINAL);
}

static __always_inline int is_exempt_mac(const __u8 *mac)
{
	struct omamori_exempt_mac_key key = {};

	__builtin_memcpy(key.mac, mac, ETH_ALEN);
	return bpf_map_lookup_elem(&exempt_mac, &key) != NULL;
}

/* Exempt MACs are on the LAN side; from outside only the receiver's counts. */
static __always_inline int is_exempt_device(const struct packet *packet, __u8 direction)
{
	return is_exempt_mac(packet->dst_mac) ||
	       (direction == OMAMORI_DIRECTION_OUT && is_exempt_mac(packet->src_mac));
}

static __always_inline const struct omamori_block *find_block(const __u8 *address)
{
	struct omamori_block_key key = {.prefixlen = 128};

	__builtin_memcpy(key.addr, address, 16);
	return bpf_map_lookup_elem(&block, &key);
}

static __always_inline const struct omamori_block *find_block_between(const struct ends *ends)
{
	const struct omamori_block *entry = find_block(ends->src);

	return entry ? entry : find_block(ends->dst);
}

/* Add one dropped packet to the record the agent drains. `ends` are those of the header that names the address. */
static __always_inline void note_blocked(const struct packet *packet, const struct ends *ends, __u32 list_id,
					 __u8 direction, __u64 now, struct size size)
{
	int has_ports = ends == innermost(packet);
	struct omamori_blocked_key key = {.dport = has_ports ? packet->dport : 0,
					  .proto = has_ports ? packet->proto : packet->outer_proto,
					  .direction = direction};

	__builtin_memcpy(key.src, ends->src, 16);
	__builtin_memcpy(key.dst, ends->dst, 16);

	struct omamori_blocked *sum = bpf_map_lookup_elem(&blocked, &key);

	if (!sum) {
		struct omamori_blocked first = {.packets = size.packets,
						.bytes = size.bytes,
						.first_ns = now,
						.last_ns = now,
						.sport = has_ports ? packet->sport : 0,
						.list_id = list_id};

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
	__sync_fetch_and_add(&sum->packets, size.packets);
	__sync_fetch_and_add(&sum->bytes, size.bytes);
	sum->last_ns = now;
}

#endif
