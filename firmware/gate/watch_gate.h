/* SPDX-License-Identifier: Apache-2.0 */
/* Leases in the gate's map. Part of omamori_watch.c. */
#ifndef WATCH_GATE_H
#define WATCH_GATE_H

static long bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
	return syscall(__NR_bpf, command, attributes, sizeof(*attributes));
}

/* The map is opened for each use: the wire may be installed anew, with other maps, at any time. */
static int open_control(const struct watch *watch)
{
	union bpf_attr attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.pathname = (__u64)(uintptr_t)watch->control_path;
	return (int)bpf(BPF_OBJ_GET, &attributes);
}

static int use_control(const struct watch *watch, enum bpf_cmd command, __u32 slot, __u64 *value)
{
	union bpf_attr attributes;
	int fd = open_control(watch);
	long result;

	if (fd < 0)
		return -1;
	memset(&attributes, 0, sizeof(attributes));
	attributes.map_fd = (__u32)fd;
	attributes.key = (__u64)(uintptr_t)&slot;
	attributes.value = (__u64)(uintptr_t)value;
	attributes.flags = command == BPF_MAP_UPDATE_ELEM ? BPF_ANY : 0;
	result = bpf(command, &attributes);
	close(fd);
	return result < 0 ? -1 : 0;
}

static int write_control(struct watch *watch, __u32 slot, __u64 value, __u64 now)
{
	if (use_control(watch, BPF_MAP_UPDATE_ELEM, slot, &value) == 0)
		return 0;
	if (now - watch->complained_ns > COMPLAIN_NS || !watch->complained_ns) {
		watch->complained_ns = now;
		say("warning: cannot write %s: %s; only a kill can help now", watch->control_path, strerror(errno));
	}
	return -1;
}

/* Have a lease in the gate, or none. It is renewed long before it ends. */
static void keep_lease(struct watch *watch, bool is_needed, __u64 now)
{
	if (is_needed && now - watch->lease_written_ns >= LEASE_NS / 4) {
		if (write_control(watch, OMAMORI_CONTROL_HUNG_UNTIL_NS, now + LEASE_NS, now) == 0)
			watch->lease_written_ns = now;
		watch->has_lease = true;
	} else if (!is_needed && watch->has_lease) {
		write_control(watch, OMAMORI_CONTROL_HUNG_UNTIL_NS, 0, now);
		watch->has_lease = false;
		watch->lease_written_ns = 0;
	}
}

#endif
