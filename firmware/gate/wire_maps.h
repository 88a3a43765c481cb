/* SPDX-License-Identifier: Apache-2.0 */
/* What the gate is told, and on which ports it is. Part of omamori_wire.c. */
#ifndef WIRE_MAPS_H
#define WIRE_MAPS_H

static bool is_port(const struct wire *wire, __u32 ifindex)
{
	for (unsigned int i = 0; i < wire->port_count; i++)
		if (wire->ports[i].ifindex == ifindex)
			return true;
	return false;
}

/* Tell the gate which interface has which role; forget ports that are gone. */
static int write_ports(const struct wire *wire)
{
	int fd = open_pin(wire, OMAMORI_MAP_PORTS);
	__u32 stale[OMAMORI_MAX_PORTS], key;
	unsigned int stale_count = 0;
	int error = 0;

	if (fd < 0)
		return -1;
	for (int more = bpf_map_get_next_key(fd, NULL, &key) == 0; more && stale_count < OMAMORI_MAX_PORTS;
	     more = bpf_map_get_next_key(fd, &key, &key) == 0)
		if (!is_port(wire, key))
			stale[stale_count++] = key;
	while (stale_count)
		bpf_map_delete_elem(fd, &stale[--stale_count]);
	for (unsigned int i = 0; i < wire->port_count; i++) {
		const struct port *port = &wire->ports[i];

		if (bpf_map_update_elem(fd, &port->ifindex, &port->value, BPF_ANY) < 0)
			error = complain("cannot note the port", port->name, errno);
	}
	close(fd);
	return error;
}

/* Forget the stations behind ports that are gone, so that nothing is sent there. */
static int forget_stations(const struct wire *wire)
{
	int fd = open_pin(wire, OMAMORI_MAP_STATIONS);
	struct omamori_station_key key, next;
	struct omamori_station station;
	unsigned int left = OMAMORI_MAX_STATIONS;

	if (fd < 0)
		return -1;
	for (int more = bpf_map_get_next_key(fd, NULL, &key) == 0; more && left; left--) {
		more = bpf_map_get_next_key(fd, &key, &next) == 0;
		if (bpf_map_lookup_elem(fd, &key, &station) == 0 && !is_port(wire, station.ifindex))
			bpf_map_delete_elem(fd, &key);
		key = next;
	}
	close(fd);
	return 0;
}

/* The configuration that fits the ports. */
static struct omamori_config wanted_config(const struct wire *wire)
{
	struct omamori_config config = {
		.abi = OMAMORI_GATE_ABI,
		.flags = OMAMORI_CONFIG_ENABLED | OMAMORI_CONFIG_BLOCK_ENABLED | OMAMORI_CONFIG_BYPASS_ENABLED,
		.udp_idle_ns = OMAMORI_UDP_IDLE_S * SECOND_NS,
		.tcp_idle_ns = OMAMORI_TCP_IDLE_S * SECOND_NS,
		.station_idle_ns = OMAMORI_STATION_IDLE_S * SECOND_NS,
	};
	__u32 wan = 0, lan = 0, wans = 0, lans = 0;

	memcpy(config.own_mac, wire->bridge_mac, sizeof(config.own_mac));
	for (unsigned int i = 0; i < wire->port_count; i++) {
		if (wire->ports[i].value.role == OMAMORI_ROLE_WAN) {
			wan = wire->ports[i].ifindex;
			wans++;
		} else {
			lan = wire->ports[i].ifindex;
			lans++;
		}
	}
	if (wans == 1 && lans == 1) {
		config.wan_ifindex = wan;
		config.lan_ifindex = lan;
	}
	return config;
}

static int write_config(const struct wire *wire)
{
	struct omamori_config config = wanted_config(wire);
	int fd = open_pin(wire, OMAMORI_MAP_CONFIG);
	__u32 zero = 0;
	int error = 0;

	if (fd < 0)
		return -1;
	if (bpf_map_update_elem(fd, &zero, &config, BPF_ANY) < 0)
		error = complain("cannot write the map", OMAMORI_MAP_CONFIG, errno);
	close(fd);
	return error;
}

/* Put one of the pinned programs on every port, in place of what this program put there before. */
static int attach_point(const struct wire *wire, unsigned int point)
{
	int program = open_pin(wire, program_names[point]);
	int error = 0;

	if (program < 0)
		return -1;
	for (unsigned int i = 0; i < wire->port_count; i++) {
		const struct port *port = &wire->ports[i];
		DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)port->ifindex,
				    .attach_point = attach_points[point]);
		DECLARE_LIBBPF_OPTS(bpf_tc_opts, filter, .prog_fd = program, .flags = BPF_TC_F_REPLACE,
				    .handle = FILTER_HANDLE, .priority = FILTER_PRIORITY);
		/* "Exists already" is the usual answer and not worth the library's warning. */
		libbpf_print_fn_t print = libbpf_set_print(NULL);
		int failed = bpf_tc_hook_create(&hook);

		libbpf_set_print(print);
		if (!failed || failed == -EEXIST)
			failed = bpf_tc_attach(&hook, &filter);
		if (failed)
			error = complain("cannot attach the gate to", port->name, failed);
	}
	close(program);
	return error;
}

/* Fill the maps, then attach: the gate never runs on a port that it does not know. */
static int connect_ports(const struct wire *wire)
{
	int error = 0;

	if (write_ports(wire) < 0)
		error = -1;
	if (forget_stations(wire) < 0)
		error = -1;
	if (write_config(wire) < 0)
		error = -1;
	for (unsigned int point = 0; point < POINT_COUNT; point++)
		if (attach_point(wire, point) < 0)
			error = -1;
	return error;
}

#endif
