/* SPDX-License-Identifier: Apache-2.0 */
/* What the loader knows of the wire. Part of omamori_wire.c. */
#ifndef WIRE_H
#define WIRE_H

#define FILTER_HANDLE 1
#define FILTER_PRIORITY 1
#define NETLINK_BUFFER_BYTES 32768
#define GROUP_LINE_BYTES 4096
#define SECOND_NS 1000000000ull

struct port {
	__u32 ifindex;
	char name[IF_NAMESIZE];
	struct omamori_port value;
};

struct wire {
	const char *object_path;
	const char *pin_dir;
	const char *bridge;
	const char *group;
	struct port ports[OMAMORI_MAX_PORTS];
	unsigned int port_count;
	__u8 bridge_mac[6];
};

/* The agent's group may read all maps, and write those that are its own business. */
static const struct {
	const char *name;
	bool is_group_writable;
} pinned_maps[] = {
	{OMAMORI_MAP_CONFIG, false},   {OMAMORI_MAP_PORTS, false},	{OMAMORI_MAP_BLOCK, true},
	{OMAMORI_MAP_BLOCKED, true},   {OMAMORI_MAP_TERMINALS, false},	{OMAMORI_MAP_FLOWS, false},
	{OMAMORI_MAP_COUNTERS, false}, {OMAMORI_MAP_CONTROL, true},	{OMAMORI_MAP_EXEMPT, true},
	{OMAMORI_MAP_EXEMPT_MAC, true}, {OMAMORI_MAP_STATIONS, false}, {OMAMORI_MAP_UNINSPECTED, false},
};
#define MAP_COUNT (sizeof(pinned_maps) / sizeof(pinned_maps[0]))

/* Without these the queue rule never sees a bridged packet, and nothing complains. */
static const char *const bridge_settings[] = {
	"bridge-nf-call-iptables",
	"bridge-nf-call-ip6tables",
	"bridge-nf-filter-vlan-tagged",
	"bridge-nf-filter-pppoe-tagged",
};
#define SETTING_COUNT (sizeof(bridge_settings) / sizeof(bridge_settings[0]))

static const enum bpf_tc_attach_point attach_points[] = {BPF_TC_INGRESS, BPF_TC_EGRESS};
static const char *const program_names[] = {"gate_ingress", "gate_egress"};
#define POINT_COUNT 2

static int complain(const char *what, const char *about, int error)
{
	fprintf(stderr, "omamori-wire: error: %s %s: %s\n", what, about, strerror(error < 0 ? -error : error));
	return -1;
}

#endif
