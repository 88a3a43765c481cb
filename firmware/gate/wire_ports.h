/* SPDX-License-Identifier: Apache-2.0 */
/* The bridge's ports, as the kernel tells them. Part of omamori_wire.c. */
#ifndef WIRE_PORTS_H
#define WIRE_PORTS_H

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

#endif
