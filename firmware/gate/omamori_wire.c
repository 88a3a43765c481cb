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

#include "wire.h"
#include "wire_ports.h"
#include "wire_pins.h"
#include "wire_maps.h"
#include "wire_rights.h"

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
