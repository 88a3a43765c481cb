/* SPDX-License-Identifier: Apache-2.0 */
/* Maps and programs that outlive this program. Part of omamori_wire.c. */
#ifndef WIRE_PINS_H
#define WIRE_PINS_H

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

#endif
