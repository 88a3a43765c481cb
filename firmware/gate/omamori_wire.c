/* SPDX-License-Identifier: Apache-2.0 */
/*
 * omamori-wire: put the gate on every port of the bridge, and say whether the wire is as planned.
 *
 * It runs once, very early, on a box without a shell, and in the same way in a namespace of the lab. It needs nothing
 * but the kernel (linked statically) and never touches the bridge itself: whatever fails here, frames go on.
 *
 * `install` may be repeated: pinned maps are kept when their layout is still this program's, programs are replaced in
 * place. `refresh` puts the gate that is there on ports that joined the bridge since (a radio, say) and forgets those
 * that left. `check` only reads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/magic.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "omamori_gate.h"

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

/* The role is in the name that the initrd gave the port: wan, wan2 ... ; everything else in the bridge is inside. */
static __u32 role_of(const char *name)
{
	return strncmp(name, "wan", 3) == 0 ? OMAMORI_ROLE_WAN : OMAMORI_ROLE_LAN;
}

static int compare_ports(const void *left, const void *right)
{
	return strcmp(((const struct port *)left)->name, ((const struct port *)right)->name);
}

/* Take one link out of the kernel's answer; note it when it is a port of the bridge or the bridge itself. */
static void note_link(struct wire *wire, struct nlmsghdr *message, __u32 bridge_ifindex)
{
	struct ifinfomsg *link = NLMSG_DATA(message);
	int left = IFLA_PAYLOAD(message);
	const char *name = NULL;
	const __u8 *mac = NULL;
	__u32 master = 0;

	for (struct rtattr *at = IFLA_RTA(link); RTA_OK(at, left); at = RTA_NEXT(at, left)) {
		if (at->rta_type == IFLA_MASTER && RTA_PAYLOAD(at) == sizeof(master))
			memcpy(&master, RTA_DATA(at), sizeof(master));
		if (at->rta_type == IFLA_IFNAME)
			name = RTA_DATA(at);
		if (at->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(at) == sizeof(wire->bridge_mac))
			mac = RTA_DATA(at);
	}
	if ((__u32)link->ifi_index == bridge_ifindex && mac)
		memcpy(wire->bridge_mac, mac, sizeof(wire->bridge_mac));
	if (master != bridge_ifindex || !name)
		return;
	if (wire->port_count == OMAMORI_MAX_PORTS) {
		fprintf(stderr, "omamori-wire: warning: more than %d ports, %s stays without a gate\n", OMAMORI_MAX_PORTS,
			name);
		return;
	}

	struct port *port = &wire->ports[wire->port_count++];

	port->ifindex = link->ifi_index;
	snprintf(port->name, sizeof(port->name), "%s", name);
	port->value.role = role_of(name);
}

/* Ask the kernel which ports the bridge has, in the order of their names. */
static int find_ports(struct wire *wire)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg link;
	} request = {
		.header = {.nlmsg_len = sizeof(request),
			   .nlmsg_type = RTM_GETLINK,
			   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		.link = {.ifi_family = AF_UNSPEC},
	};
	static char buffer[NETLINK_BUFFER_BYTES] __attribute__((aligned(NLMSG_ALIGNTO)));
	__u32 bridge_ifindex = if_nametoindex(wire->bridge);
	__u32 next_index[3] = {0};
	bool is_done = false;

	if (!bridge_ifindex)
		return complain("no bridge", wire->bridge, errno);

	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0 || send(fd, &request, sizeof(request), 0) < 0) {
		complain("cannot ask for the links of", wire->bridge, errno);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	while (!is_done) {
		ssize_t got = recv(fd, buffer, sizeof(buffer), 0);

		if (got <= 0) {
			complain("no answer about the links of", wire->bridge, got < 0 ? errno : EIO);
			close(fd);
			return -1;
		}

		unsigned int left = got;

		for (struct nlmsghdr *at = (void *)buffer; NLMSG_OK(at, left); at = NLMSG_NEXT(at, left)) {
			if (at->nlmsg_type == RTM_NEWLINK)
				note_link(wire, at, bridge_ifindex);
			else
				is_done = true;
		}
	}
	close(fd);
	qsort(wire->ports, wire->port_count, sizeof(wire->ports[0]), compare_ports);
	for (unsigned int i = 0; i < wire->port_count; i++)
		wire->ports[i].value.index = next_index[wire->ports[i].value.role]++;
	if (wire->port_count == 0)
		return complain("no ports in", wire->bridge, ENODEV);
	return 0;
}

static void pin_path(const struct wire *wire, const char *name, char *path, size_t size)
{
	snprintf(path, size, "%s/%s", wire->pin_dir, name);
}

/* Remove the pins of another version of the gate. */
static void drop_pins(const struct wire *wire)
{
	char path[512];

	for (size_t i = 0; i < MAP_COUNT; i++) {
		pin_path(wire, pinned_maps[i].name, path, sizeof(path));
		unlink(path);
	}
}

static int open_pin(const struct wire *wire, const char *name)
{
	char path[512];

	pin_path(wire, name, path, sizeof(path));

	int fd = bpf_obj_get(path);

	if (fd < 0)
		complain("cannot open", path, errno);
	return fd;
}

/* Say whether the pinned maps were made by this version of the gate. */
static bool is_pinned_abi_ours(const struct wire *wire, struct omamori_config *config)
{
	char path[512];
	__u32 zero = 0;

	pin_path(wire, OMAMORI_MAP_CONFIG, path, sizeof(path));

	int fd = bpf_obj_get(path);

	if (fd < 0)
		return false;

	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);
	bool is_ours = bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.value_size == sizeof(*config) &&
		       bpf_map_lookup_elem(fd, &zero, config) == 0 && config->abi == OMAMORI_GATE_ABI;

	close(fd);
	return is_ours;
}

static struct bpf_object *load_object(const struct wire *wire)
{
	struct bpf_object *object = bpf_object__open_file(wire->object_path, NULL);
	struct bpf_map *map;
	char path[512];

	if (!object) {
		complain("cannot read", wire->object_path, errno);
		return NULL;
	}
	for (size_t i = 0; i < MAP_COUNT; i++) {
		map = bpf_object__find_map_by_name(object, pinned_maps[i].name);
		if (!map)
			continue; /* the kernel's refusal of the first use of the pin will say so */
		pin_path(wire, pinned_maps[i].name, path, sizeof(path));
		bpf_map__set_pin_path(map, path);
	}

	int error = bpf_object__load(object);

	if (error) {
		bpf_object__close(object);
		errno = -error;
		return NULL;
	}
	return object;
}

/* Pin the programs too, for `refresh`; those of an older version go. */
static int pin_programs(const struct wire *wire, struct bpf_object *object)
{
	char path[512];
	int error = 0;

	for (unsigned int point = 0; point < POINT_COUNT; point++) {
		struct bpf_program *program = bpf_object__find_program_by_name(object, program_names[point]);

		pin_path(wire, program_names[point], path, sizeof(path));
		unlink(path);
		if (!program || bpf_obj_pin(bpf_program__fd(program), path) < 0)
			error = complain("cannot pin", path, program ? errno : ENOENT);
	}
	return error;
}

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

/* Find a group's number without the name service, which a static program does not have. */
static int group_number(const char *name, gid_t *number)
{
	FILE *file = fopen("/etc/group", "re");
	char line[GROUP_LINE_BYTES];
	size_t length = strlen(name);
	int found = -1;

	if (!file)
		return complain("cannot read", "/etc/group", errno);
	while (found < 0 && fgets(line, sizeof(line), file)) {
		char *password = line + length;

		if (strncmp(line, name, length) != 0 || *password != ':')
			continue;

		char *digits = strchr(password + 1, ':');

		if (digits) {
			*number = strtoul(digits + 1, NULL, 10);
			found = 0;
		}
	}
	fclose(file);
	return found < 0 ? complain("no group", name, ENOENT) : 0;
}

/* Let the agent's group use the maps. The file system's root is closed to it by systemd; passing through is enough. */
static int open_to_group(const struct wire *wire)
{
	char path[512];
	gid_t group = 0;
	int error = 0;

	if (group_number(wire->group, &group) < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/..", wire->pin_dir);
	if (chmod(path, 0711) < 0)
		error = complain("cannot open", path, errno);
	if (chown(wire->pin_dir, 0, group) < 0 || chmod(wire->pin_dir, 0750) < 0)
		error = complain("cannot open", wire->pin_dir, errno);
	for (size_t i = 0; i < MAP_COUNT; i++) {
		pin_path(wire, pinned_maps[i].name, path, sizeof(path));
		if (chown(path, 0, group) < 0 || chmod(path, pinned_maps[i].is_group_writable ? 0660 : 0640) < 0)
			error = complain("cannot open", path, errno);
	}
	return error;
}

static int make_pin_dir(const struct wire *wire)
{
	struct statfs where;

	if (mkdir(wire->pin_dir, 0700) < 0 && errno != EEXIST)
		return complain("cannot make", wire->pin_dir, errno);
	if (statfs(wire->pin_dir, &where) < 0)
		return complain("cannot look at", wire->pin_dir, errno);
	if (where.f_type != BPF_FS_MAGIC)
		return complain("not in a BPF file system:", wire->pin_dir, EINVAL);
	return 0;
}

static int install(struct wire *wire)
{
	struct omamori_config pinned;
	struct bpf_object *object;
	int error = 0;

	if (find_ports(wire) < 0 || make_pin_dir(wire) < 0)
		return -1;
	if (!is_pinned_abi_ours(wire, &pinned))
		drop_pins(wire);
	object = load_object(wire);
	if (!object) {
		drop_pins(wire); /* the same ABI number, yet not reusable: start anew */
		object = load_object(wire);
	}
	if (!object)
		return complain("the kernel refused", wire->object_path, errno);
	if (pin_programs(wire, object) < 0)
		error = -1;
	if (connect_ports(wire) < 0)
		error = -1;
	if (wire->group && open_to_group(wire) < 0)
		error = -1;
	bpf_object__close(object);
	return error;
}

static int refresh(struct wire *wire)
{
	struct omamori_config pinned;

	if (!is_pinned_abi_ours(wire, &pinned)) {
		fprintf(stderr, "omamori-wire: error: no gate of this version in %s; install comes first\n", wire->pin_dir);
		return -1;
	}
	if (find_ports(wire) < 0)
		return -1;
	return connect_ports(wire);
}

/* Read one setting of the bridge; only "1" is right. */
static int check_setting(const char *name)
{
	char path[128], value[8] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/sys/net/bridge/%s", name);
	file = fopen(path, "re");
	if (!file)
		return complain("cannot read", path, errno);
	if (!fgets(value, sizeof(value), file))
		value[0] = '\0';
	fclose(file);
	if (strcmp(value, "1\n") == 0)
		return 0;
	fprintf(stderr, "omamori-wire: error: %s is not 1\n", path);
	return -1;
}

static int check_port(const struct port *port)
{
	int error = 0;

	for (unsigned int point = 0; point < POINT_COUNT; point++) {
		DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)port->ifindex,
				    .attach_point = attach_points[point]);
		DECLARE_LIBBPF_OPTS(bpf_tc_opts, filter, .handle = FILTER_HANDLE, .priority = FILTER_PRIORITY);
		struct bpf_prog_info info = {0};
		__u32 size = sizeof(info);
		int failed = bpf_tc_query(&hook, &filter);

		if (!failed) {
			int fd = bpf_prog_get_fd_by_id(filter.prog_id);

			if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0 ||
			    strcmp(info.name, program_names[point]) != 0)
				failed = -ENOENT;
			if (fd >= 0)
				close(fd);
		}
		if (failed) {
			fprintf(stderr, "omamori-wire: error: no %s on port %s\n", program_names[point], port->name);
			error = -1;
		}
	}
	return error;
}

/* Say whether the gate knows the ports and the bridge as they are now. */
static int check_maps(const struct wire *wire, const struct omamori_config *pinned)
{
	struct omamori_config wanted = wanted_config(wire);
	int error = 0;

	if (memcmp(pinned, &wanted, sizeof(wanted)) != 0) {
		fprintf(stderr, "omamori-wire: error: the gate's configuration is not that of these ports\n");
		error = -1;
	}
	for (size_t i = 0; i < MAP_COUNT; i++) {
		int fd = open_pin(wire, pinned_maps[i].name);

		if (fd < 0) {
			error = -1;
			continue;
		}
		for (unsigned int j = 0; strcmp(pinned_maps[i].name, OMAMORI_MAP_PORTS) == 0 && j < wire->port_count;
		     j++) {
			const struct port *port = &wire->ports[j];
			struct omamori_port known = {0};

			if (bpf_map_lookup_elem(fd, &port->ifindex, &known) == 0 && known.role == port->value.role)
				continue;
			fprintf(stderr, "omamori-wire: error: the gate does not know port %s\n", port->name);
			error = -1;
		}
		close(fd);
	}
	return error;
}

static int check(struct wire *wire)
{
	struct omamori_config pinned;
	int error = 0;

	for (size_t i = 0; i < SETTING_COUNT; i++)
		if (check_setting(bridge_settings[i]) < 0)
			error = -1;

	bool has_ports = find_ports(wire) == 0;

	if (!is_pinned_abi_ours(wire, &pinned)) {
		fprintf(stderr, "omamori-wire: error: no maps of this version in %s\n", wire->pin_dir);
		error = -1;
	} else if (has_ports && check_maps(wire, &pinned) < 0) {
		error = -1;
	}
	if (!has_ports)
		return -1;
	for (unsigned int i = 0; i < wire->port_count; i++)
		if (check_port(&wire->ports[i]) < 0)
			error = -1;
	return error;
}

static void usage(FILE *to)
{
	fprintf(to, "usage: omamori-wire install --object FILE --pins DIR --bridge NAME [--group NAME]\n"
		    "       omamori-wire refresh --pins DIR --bridge NAME\n"
		    "       omamori-wire check --pins DIR --bridge NAME\n"
		    "\n"
		    "install  put the gate on every port of the bridge (names wan* face the internet, all\n"
		    "         others the office), pin its maps in DIR and fill them; may be repeated\n"
		    "refresh  after ports joined or left the bridge: put the installed gate on those that are there\n"
		    "check    exit 0 only if gate, maps and bridge settings are as planned\n"
		    "\n"
		    "  --object FILE  the compiled gate (gate.bpf.o)\n"
		    "  --pins DIR     directory for the maps, directly below the root of a BPF file system\n"
		    "  --bridge NAME  the bridge\n"
		    "  --group NAME   group that may use the maps\n");
}

static int quiet(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, arguments) : 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"object", required_argument, NULL, 'o'}, {"pins", required_argument, NULL, 'p'},
		{"bridge", required_argument, NULL, 'b'}, {"group", required_argument, NULL, 'g'},
		{"help", no_argument, NULL, 'h'},	  {NULL, 0, NULL, 0},
	};
	struct wire wire = {0};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'o':
			wire.object_path = optarg;
			break;
		case 'p':
			wire.pin_dir = optarg;
			break;
		case 'b':
			wire.bridge = optarg;
			break;
		case 'g':
			wire.group = optarg;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind != argc - 1 || !wire.pin_dir || !wire.bridge) {
		usage(stderr);
		return 2;
	}
	libbpf_set_print(quiet);
	if (strcmp(argv[optind], "install") == 0 && wire.object_path)
		return install(&wire) < 0;
	if (strcmp(argv[optind], "refresh") == 0)
		return refresh(&wire) < 0;
	if (strcmp(argv[optind], "check") == 0)
		return check(&wire) < 0;
	usage(stderr);
	return 2;
}
