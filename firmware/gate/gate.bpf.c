// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The gate: two classifiers on every port of the bridge.
 *
 * Ingress drops what the block list names, notes stations and terminals, and sends flows that the engine has finished
 * with straight to the receiver's port. Egress learns which flows those are from the mark of the engine's verdict, and
 * counts (or, fail-closed, refuses) what leaves without one. Everything else goes the ordinary way: bridge, queue,
 * engine.
 *
 * Rules:
 *  - What the gate cannot read it neither drops nor bypasses.
 *  - The block list comes before every bypass, so a new entry acts on running flows at once. Only an exemption and the
 *    owner's command come before it.
 *  - A fragment is never bypassed: its ports may be missing.
 *  - Nothing is learned from a packet that begins or ends a connection. Such a packet also ends the bypass when it
 *    leaves: packets of one flow leave in the order they came, so a late verdict about the old connection can not
 *    outlive it.
 *  - A packet goes uninspected for one reason only, and is counted for it once: here when the gate lets it pass the
 *    queue by, at egress when it comes without any mark.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "omamori_gate.h"

#include "gate_maps.h"
#include "gate_packet.h"

#include "gate_account.h"
#include "gate_flow.h"
#include "gate_lists.h"

/* A frame with two VLAN tags. What is longer is left to the bridge, which knows what each port can send. */
#define MAX_REDIRECTED_BYTES 1522

static __always_inline int is_for_the_box(const struct omamori_config *settings, const struct packet *packet)
{
	return is_same_mac(packet->dst_mac, settings->own_mac);
}

/* Let a packet pass the queue by. */
static __always_inline int skip(struct __sk_buff *skb)
{
	skb->mark |= OMAMORI_MARK_SKIP;
	return TC_ACT_UNSPEC;
}

/* Drop a packet that the block list names; -1 if it does not. */
static __always_inline int drop_listed(const struct packet *packet, const struct ends *ends, __u8 direction,
				       enum reading reading, __u64 now, struct size size)
{
	const struct omamori_block *entry = find_block_between(ends);

	if (!entry)
		return -1;
	note_blocked(packet, ends, entry->list_id, direction, now, size);
	count(OMAMORI_COUNTER_BLOCKED, size);
	if (reading == READ_PORTS)
		forget_flow(packet, size); /* when the entry is gone, the engine looks first */
	return TC_ACT_SHOT;
}

SEC("tc")
int gate_ingress(struct __sk_buff *skb)
{
	__u32 zero = 0, ifindex = skb->ifindex;
	const struct omamori_config *settings = bpf_map_lookup_elem(&config, &zero);
	const struct omamori_port *port = bpf_map_lookup_elem(&ports, &ifindex);
	struct packet packet = {};

	/* No one outside the box marks packets for us. */
	if (skb->mark & OMAMORI_MARK_OURS)
		skb->mark &= ~OMAMORI_MARK_OURS;
	if (!settings || !port || !(settings->flags & OMAMORI_CONFIG_ENABLED))
		return TC_ACT_UNSPEC;

	__u8 direction = port->role == OMAMORI_ROLE_WAN ? OMAMORI_DIRECTION_IN : OMAMORI_DIRECTION_OUT;
	enum reading reading = read_packet(skb, &packet);
	__u64 now = bpf_ktime_get_boot_ns();
	struct size size = size_of(skb);

	note_station(settings, &packet, ifindex, now);
	if (!packet.is_ip) {
		count(OMAMORI_COUNTER_OTHER, size);
		return TC_ACT_UNSPEC;
	}

	int lease = lease_reason(now);
	int is_exempt = is_exempt_device(&packet, direction);
	struct travellers between = {};

	if (reading != READ_NOTHING) {
		is_exempt = is_exempt || is_exempt_between(&packet.outer, direction);
		/* The outer addresses decide where a packet goes: no exemption inside reaches a listed one. */
		if (!is_exempt && lease != OMAMORI_UNINSPECTED_COMMAND &&
		    settings->flags & OMAMORI_CONFIG_BLOCK_ENABLED &&
		    drop_listed(&packet, &packet.outer, direction, reading, now, size) >= 0)
			return TC_ACT_SHOT;
		if (packet.is_tunnelled) {
			count(OMAMORI_COUNTER_TUNNELLED, size);
			is_exempt = is_exempt || is_exempt_between(&packet.inner, direction);
			if (!is_exempt && lease != OMAMORI_UNINSPECTED_COMMAND &&
			    settings->flags & OMAMORI_CONFIG_BLOCK_ENABLED &&
			    drop_listed(&packet, &packet.inner, direction, reading, now, size) >= 0)
				return TC_ACT_SHOT;
		}
		between = note_terminals(&packet, direction, ifindex, now, size);
	}

	if (reading == READ_PORTS && !packet.is_group_mac && settings->flags & OMAMORI_CONFIG_BYPASS_ENABLED &&
	    is_bypassed(settings, skb, &packet, direction, now, size)) {
		__u32 other = find_port(settings, &packet, ifindex, now);

		count(OMAMORI_COUNTER_BYPASSED, size);
		note_bypassed(between, size);
		skb->mark |= OMAMORI_MARK_SKIP;
		if (!other || (!skb->gso_size && skb->len > MAX_REDIRECTED_BYTES))
			return TC_ACT_UNSPEC;
		count(OMAMORI_COUNTER_REDIRECTED, size);
		return bpf_redirect(other, 0);
	}

	if (!packet.is_complete)
		count(OMAMORI_COUNTER_UNPARSED, size);
	if (is_exempt) {
		count(OMAMORI_COUNTER_EXEMPTED, size);
		if (!is_for_the_box(settings, &packet))
			count_uninspected(OMAMORI_UNINSPECTED_EXEMPT, size);
		return skip(skb);
	}
	if (lease != NO_LEASE) {
		count(OMAMORI_COUNTER_SKIPPED, size);
		if (!is_for_the_box(settings, &packet))
			count_uninspected(lease, size);
		return skip(skb);
	}
	count(OMAMORI_COUNTER_INSPECTED, size);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int gate_egress(struct __sk_buff *skb)
{
	__u32 zero = 0, ifindex = skb->ifindex, mark = skb->mark & OMAMORI_MARK_MASK;
	const struct omamori_config *settings = bpf_map_lookup_elem(&config, &zero);
	struct packet packet = {};

	if (!settings || !(settings->flags & OMAMORI_CONFIG_ENABLED) || !bpf_map_lookup_elem(&ports, &ifindex))
		return TC_ACT_UNSPEC;

	struct size size = size_of(skb);

	if (mark & OMAMORI_MARK_SKIP) { /* ingress has seen to it */
		count(OMAMORI_COUNTER_RETURNED, size);
		return TC_ACT_UNSPEC;
	}

	enum reading reading = read_packet(skb, &packet);
	__u64 now = bpf_ktime_get_boot_ns();
	int is_turn = reading == READ_PORTS && is_turning_point(skb, &packet);

	if (is_turn)
		forget_flow(&packet, size);
	if (packet.is_ip && !mark && skb->ingress_ifindex) { /* forwarded, and nothing has seen it */
		if (control_slot(OMAMORI_CONTROL_FAIL_CLOSED) == 1) {
			count(OMAMORI_COUNTER_REFUSED, size);
			return TC_ACT_SHOT;
		}
		if (!is_further_copy(skb, now))
			count_uninspected(OMAMORI_UNINSPECTED_NO_VERDICT, size);
	}
	count(OMAMORI_COUNTER_RETURNED, size);
	if (mark & OMAMORI_MARK_BYPASS && settings->flags & OMAMORI_CONFIG_BYPASS_ENABLED && reading == READ_PORTS &&
	    !is_turn && !packet.is_group_mac && lease_reason(now) == NO_LEASE)
		learn_flow(&packet, now, size);
	return TC_ACT_UNSPEC;
}

char gate_license[] SEC("license") = "Dual BSD/GPL";
