/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The gate's maps; what they mean is said in omamori_gate.h. Part of gate.bpf.c. */
#ifndef GATE_MAPS_H
#define GATE_MAPS_H

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct omamori_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OMAMORI_CONTROL_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} control SEC(".maps");

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
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OMAMORI_UNINSPECTED_SLOTS);
	__type(key, __u32);
	__type(value, struct omamori_count);
} uninspected SEC(".maps");

/* The gate's own memory, not pinned: the last packet without a verdict, to tell the copies of a flooded frame. */
struct flooded {
	__u64 at_ns;
	__u32 hash;
	__u32 bytes;
	__u32 from_ifindex;
	__u32 to_ifindex;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct flooded);
} flooding SEC(".maps");

static __always_inline __u64 control_slot(__u32 slot)
{
	const __u64 *number = bpf_map_lookup_elem(&control, &slot);

	return number ? *number : 0;
}

#endif
