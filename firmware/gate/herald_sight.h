/* SPDX-License-Identifier: Apache-2.0 */
/* Whether this box forwards, as the herald sees it itself. Part of omamori_herald.c. */
#ifndef HERALD_SIGHT_H
#define HERALD_SIGHT_H

static bool read_port(const struct herald *herald, const char *port, const char *name, unsigned long *value)
{
	char path[PATH_BYTES], text[32], *end;

	snprintf(path, sizeof(path), "%s/%s/%s", herald->net_path, port, name);
	if (read_file(path, text, sizeof(text)) <= 0)
		return false;
	*value = strtoul(text, &end, 0);
	return end != text;
}

static bool is_up(const struct herald *herald, const char *port)
{
	unsigned long flags;

	return read_port(herald, port, "flags", &flags) && (flags & 1);
}

/*
 * A port forwards when it is up and the bridge says so. Without a cable the bridge keeps it back; that is no failure of
 * the box, and with the wire past the box the ports have none.
 */
static bool is_forwarding_port(const struct herald *herald, const char *port)
{
	unsigned long carrier, state;

	if (!is_up(herald, port))
		return false;
	if (!read_port(herald, port, "brport/state", &state))
		return false;
	return state == 3 || !read_port(herald, port, "carrier", &carrier) || !carrier;
}

/* The bridge is up and has a way in and a way out: the first port, and one of the others. */
static bool is_bridged(const struct herald *herald)
{
	char path[PATH_BYTES];
	struct dirent *entry;
	bool has_wan = false, has_lan = false;
	DIR *ports;

	if (!is_up(herald, herald->bridge))
		return false;
	snprintf(path, sizeof(path), "%s/%s/brif", herald->net_path, herald->bridge);
	ports = opendir(path);
	while (ports && (entry = readdir(ports))) {
		if (strncmp(entry->d_name, "wan", 3) == 0)
			has_wan |= is_forwarding_port(herald, entry->d_name);
		else if (strncmp(entry->d_name, "lan", 3) == 0)
			has_lan |= is_forwarding_port(herald, entry->d_name);
	}
	if (ports)
		closedir(ports);
	return has_wan && has_lan;
}

static bool watch_helps(const struct herald *herald)
{
	char text[TEXT_BYTES];

	if (read_file(herald->watch_path, text, sizeof(text)) <= 0)
		return false;
	return strstr(text, "\"is_hung\": true") || strstr(text, "\"is_paused\": true");
}

/* Packets that wait for a verdict that does not come, while nobody lets the next ones pass. */
static bool is_stuck(struct herald *herald, uint64_t now)
{
	char text[TEXT_BYTES], *rest = NULL;
	bool is_seen[MAX_QUEUES] = {false};
	bool is_late = false;

	if (read_file(herald->table_path, text, sizeof(text)) < 0)
		text[0] = '\0'; /* no queues, nothing waits */
	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		/* queue, listener, waiting, copy mode, copy range, dropped, dropped, number of the newest packet */
		unsigned int index, waiting, newest;
		struct queue *queue;

		if (sscanf(line, "%u %*u %u %*u %*u %*u %*u %u", &index, &waiting, &newest) != 3 || index >= MAX_QUEUES)
			continue;
		queue = &herald->queues[index];
		is_seen[index] = true;
		if (!waiting)
			queue->since_ms = 0;
		else if (!queue->since_ms || newest - waiting != queue->done)
			queue->since_ms = now;
		queue->waiting = waiting;
		queue->done = newest - waiting;
		is_late |= queue->since_ms && now - queue->since_ms >= STALL_MS;
	}
	for (unsigned int i = 0; i < MAX_QUEUES; i++)
		if (!is_seen[i])
			herald->queues[i] = (struct queue){0};
	return is_late && !watch_helps(herald);
}

static void *run_processor(void *argument)
{
	struct processor *processor = argument;
	const struct timespec pause = {.tv_nsec = PROCESSOR_MS * 1000000};

	for (;;) {
		atomic_store(&processor->ran_ms, now_ms());
		nanosleep(&pause, NULL);
	}
	return NULL;
}

/* One thread on each processor, which does nothing but run: one that no longer does holds up packets, too. */
static void start_processors(struct herald *herald)
{
	pthread_attr_t attributes;
	pthread_t thread;
	cpu_set_t all;

	if (!herald->processor_ms || sched_getaffinity(0, sizeof(all), &all) != 0)
		return;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	for (unsigned int cpu = 0; cpu < CPU_SETSIZE && herald->processor_count < MAX_PROCESSORS; cpu++) {
		struct processor *processor = &herald->processors[herald->processor_count];
		cpu_set_t one;

		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		processor->number = cpu;
		atomic_store(&processor->ran_ms, now_ms());
		if (pthread_attr_setaffinity_np(&attributes, sizeof(one), &one) == 0 &&
		    pthread_create(&thread, &attributes, run_processor, processor) == 0)
			herald->processor_count++;
		else
			say("warning: processor %u is not looked at", cpu);
	}
	pthread_attr_destroy(&attributes);
}

/* For how long the one that has not run for longest has not. */
static uint64_t processors_late_ms(const struct herald *herald, uint64_t now)
{
	uint64_t late_ms = 0;

	for (unsigned int i = 0; i < herald->processor_count; i++) {
		uint64_t ran = atomic_load(&herald->processors[i].ran_ms);

		if (now > ran && now - ran > late_ms)
			late_ms = now - ran;
	}
	return late_ms;
}

static enum said look(struct herald *herald, uint64_t late_ms, uint64_t now)
{
	if (herald->processor_ms && late_ms >= herald->processor_ms) {
		herald->quiet_at_ms = now;
		return SAYS_NOTHING;
	}
	if (now >= herald->look_at_ms) {
		herald->look_at_ms = now + LOOK_MS;
		herald->is_well = is_bridged(herald) && !is_stuck(herald, now);
	}
	return herald->is_well ? SAYS_FORWARDING : SAYS_STARTING;
}

#endif
