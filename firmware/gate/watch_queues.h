/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's queues: whether they move, and for how long they have not. Part of omamori_watch.c. */
#ifndef WATCH_QUEUES_H
#define WATCH_QUEUES_H

static int open_table(struct watch *watch)
{
	if (watch->table_fd < 0)
		watch->table_fd = open(watch->table_path, O_RDONLY | O_CLOEXEC);
	return watch->table_fd;
}

/*
 * Say whether verdicts came between two looks. The number of the newest packet also grows with packets that find no
 * room in the listener's socket; then the number of those waiting stays the same, packet for packet, which it never
 * does for long while verdicts come, unless the queue is full to its last place.
 */
static bool is_progress(const struct queue *queue, __u32 waiting, __u32 done, __u32 queue_length)
{
	if (!waiting)
		return true;
	if (waiting == queue->waiting && waiting >= PINNED_PACKETS && waiting != queue_length)
		return false;
	return done != queue->done;
}

/* Take one look at one queue. */
static void judge(struct watch *watch, unsigned int index, __u32 listener, __u32 waiting, __u32 newest, __u64 step_ns)
{
	struct queue *queue = &watch->queues[index];
	__u32 done = newest - waiting;

	if (!queue->is_open || queue->listener != listener) {
		*queue = (struct queue){.is_open = true, .listener = listener, .waiting = waiting, .done = done};
		queue->has_answered = done != 0;
		return;
	}
	if (is_progress(queue, waiting, done, watch->queue_length)) {
		if (queue->stall_ns >= LEASE_AFTER_NS)
			watch->counts.last_stall_ms = queue->stall_ns / MS_NS;
		queue->has_answered |= done != queue->done;
		queue->stall_ns = queue->evidence_ns = 0;
	} else {
		struct worker worker = find_worker(watch, watch->first_queue + index);
		__u64 ran_ns = worker.ran_ns > queue->ran_ns ? worker.ran_ns - queue->ran_ns : 0;

		/*
		 * Nobody there, or there and not wanting to run: it will not answer. One that wants to run is judged
		 * by what it ran, also one that waits for the disk, where another engine would have to wait as well.
		 */
		if (!worker.is_found || (worker.state != 'R' && worker.state != 'D') || ran_ns > step_ns)
			ran_ns = step_ns;
		/* When it came since the last look nobody knows: time counts from this one. */
		if (queue->stall_ns)
			queue->evidence_ns += ran_ns;
		queue->stall_ns += queue->stall_ns ? step_ns : 1;
		queue->ran_ns = worker.ran_ns;
	}
	queue->waiting = waiting;
	queue->done = done;
}

/* Look at all queues; whether anything waits. */
static bool look(struct watch *watch, __u64 step_ns)
{
	char table[TABLE_BYTES];
	bool is_seen[MAX_QUEUES] = {false};
	bool is_waiting = false;
	ssize_t length = -1;

	if (open_table(watch) >= 0)
		length = pread(watch->table_fd, table, sizeof(table) - 1, 0);
	if (length < 0 && watch->table_fd >= 0) {
		close(watch->table_fd);
		watch->table_fd = -1;
	}
	table[length > 0 ? length : 0] = '\0';

	char *rest = NULL;

	for (char *line = strtok_r(table, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		/* queue, listener, waiting, copy mode, copy range, dropped, dropped, number of the newest packet */
		unsigned int queue, listener, waiting, newest;

		if (sscanf(line, "%u %u %u %*u %*u %*u %*u %u", &queue, &listener, &waiting, &newest) != 4)
			continue;
		if (queue < watch->first_queue || queue - watch->first_queue >= watch->queue_count)
			continue;
		is_seen[queue - watch->first_queue] = true;
		is_waiting |= waiting != 0;
		judge(watch, queue - watch->first_queue, listener, waiting, newest, step_ns);
	}
	for (unsigned int i = 0; i < watch->queue_count; i++)
		if (!is_seen[i])
			watch->queues[i] = (struct queue){0};
	return is_waiting;
}

#endif
