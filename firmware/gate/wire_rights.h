/* SPDX-License-Identifier: Apache-2.0 */
/* Who may use the maps. Part of omamori_wire.c. */
#ifndef WIRE_RIGHTS_H
#define WIRE_RIGHTS_H

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

#endif
