/* SPDX-License-Identifier: Apache-2.0 */
/*
 * omamori-watch: nobody in the office waits for an engine that does not answer.
 *
 * It looks at the kernel's queues 40 times a second or more. Packets that wait while no verdict comes mean that the
 * engine hangs. Then, in this order: a lease in the gate's map `control` lets every new packet pass the queue by; and
 * when the engine still gives no sign, it is killed, and the service manager starts another. It also reads the button
 * of the board, which lets everything pass for some minutes, and back.
 *
 * Rules:
 *  - It trusts nothing that the engine or the agent say: only queues, processes and clocks of the kernel.
 *  - The lease is cheap and comes early; the kill costs the time of loading all rules and needs evidence. A worker
 *    that is ready to run but gets no processor or no disk is starved, not hung: that time counts for the lease, not
 *    for the kill. The same holds for the moments in which this program itself was not run.
 *  - An engine that has never answered is starting. It is given long.
 *  - Leases end by themselves: if this program dies, inspection comes back.
 *
 * Linked statically, no library but the C library; what it allocates, it allocates at start.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <linux/input.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "omamori_gate.h"
#define PROGRAM "omamori-watch"
#include "omamori_service.h"

#define MS_NS 1000000ull
#define SECOND_NS 1000000000ull
#define MINUTE_NS (60 * SECOND_NS)

#define IDLE_POLL_MS 25	 /* nothing waits */
#define ALERT_POLL_MS 20 /* something waits */
#define LEASE_AFTER_NS (150 * MS_NS)
#define KILL_AFTER_MS 2000		  /* of evidence, see above */
#define KILL_STARTING_NS (30 * SECOND_NS) /* the same for an engine that has not answered yet */
#define LEASE_NS SECOND_NS		  /* renewed while needed */
#define PAUSE_NS (3 * SECOND_NS)	  /* at most, for a planned stop of the engine */
#define KILL_AGAIN_NS SECOND_NS
#define PINNED_PACKETS 256 /* see `is_progress` */
#define BUTTON_SCAN_NS (2 * SECOND_NS)
#define BUTTON_QUIET_NS (250 * MS_NS) /* a bouncing contact is one press */
#define NOTIFY_NS (500 * MS_NS)
#define COMPLAIN_NS (60 * SECOND_NS)

#define MAX_QUEUES 16
#define MAX_PROCESSES 64
#define MAX_PID (1 << 22) /* of the kernel */
#define MAX_INPUTS 32
#define TABLE_BYTES 16384
#define PATH_BYTES 320
#define TASK_BYTES 64

struct queue {
	bool is_open;
	bool has_answered; /* this listener has given a verdict */
	__u32 listener;
	__u32 waiting;
	__u32 done;	   /* verdicts so far, wraps */
	__u64 stall_ns;	   /* since the last verdict, as far as we were there to see it */
	__u64 evidence_ns; /* the part of it in which the worker ran, or did not want to */
	__u64 ran_ns;	   /* processor time of its worker at the last look */
};

struct counts {
	__u64 hangs;
	__u64 kills;
	__u64 recoveries; /* hangs that ended without a kill */
	__u64 pauses;
	__u64 presses;
	__u64 last_stall_ms;
	__u64 longest_stall_ms;
};

struct watch {
	/* What we are told. */
	const char *table_path;
	const char *control_path;
	const char *processes_path;
	const char *state_path;
	const char *button_name;
	__u64 button_ns;
	__u64 hold_ns;
	__u64 kill_ns;
	unsigned int first_queue;
	unsigned int queue_count;
	__u32 queue_length;

	/* What we know. */
	struct queue queues[MAX_QUEUES];
	struct counts counts;
	bool is_hung;
	bool has_lease; /* a lease of ours is in the gate */
	__u64 last_ns;
	__u64 pause_until_ns;
	__u64 lease_written_ns;
	__u64 killed_ns;
	__u64 hung_since_ns;
	bool was_killed;
	__u64 button_until_ns;
	__u64 pressed_ns;
	__u64 acted_ns;
	__u64 complained_ns;
	__u64 notified_ns;
	__u64 scanned_ns;
	int table_fd;
	int button_fd;
	struct notifier notifier;
};

static volatile sig_atomic_t must_stop;
static volatile sig_atomic_t must_pause;

static void on_signal(int number)
{
	if (number == SIGUSR1)
		must_pause = 1;
	else
		must_stop = 1;
}

/* The gate's clock: goes on while the machine sleeps, never jumps. */
static __u64 now_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_BOOTTIME, &at);
	return (__u64)at.tv_sec * SECOND_NS + (__u64)at.tv_nsec;
}

/* ---- the gate ------------------------------------------------------------------------------------------------- */

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

/* ---- the engine's processes ----------------------------------------------------------------------------------- */

static unsigned int read_processes(const struct watch *watch, pid_t *pids)
{
	char text[4096];
	unsigned int count = 0;

	if (read_file(watch->processes_path, text, sizeof(text)) < 0)
		return 0;
	for (char *at = strtok(text, "\n"); at && count < MAX_PROCESSES; at = strtok(NULL, "\n")) {
		long pid = strtol(at, NULL, 10);

		if (pid > 1 && pid <= MAX_PID)
			pids[count++] = (pid_t)pid;
	}
	return count;
}

static bool is_listed(const struct watch *watch, pid_t wanted)
{
	pid_t pids[MAX_PROCESSES];
	unsigned int count = read_processes(watch, pids);

	for (unsigned int i = 0; i < count; i++)
		if (pids[i] == wanted)
			return true;
	return false;
}

/* Kill every process of the engine. A number that was handed to another process meanwhile is not killed. */
static unsigned int kill_engine(const struct watch *watch)
{
	pid_t pids[MAX_PROCESSES];
	unsigned int count = read_processes(watch, pids), killed = 0;

	for (unsigned int i = 0; i < count; i++) {
		int fd = (int)syscall(SYS_pidfd_open, pids[i], 0);

		if (fd < 0)
			continue;
		if (is_listed(watch, pids[i]) && syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0)
			killed++;
		else
			say("warning: cannot kill process %d: %s", (int)pids[i], strerror(errno));
		close(fd);
	}
	return killed;
}

/* What the worker of a queue has run so far, and what it is doing. */
struct worker {
	bool is_found;
	char state; /* as in proc(5) */
	__u64 ran_ns;
};

static char state_of(const char *task)
{
	char path[PATH_BYTES], text[1024];

	snprintf(path, sizeof(path), "%s/stat", task);
	if (read_file(path, text, sizeof(text)) < 0)
		return '?';

	const char *state = strrchr(text, ')');

	return state && state[1] == ' ' ? state[2] : '?';
}

static __u64 processor_time(const char *task)
{
	char path[PATH_BYTES], text[256];

	snprintf(path, sizeof(path), "%s/schedstat", task);
	if (read_file(path, text, sizeof(text)) < 0)
		return 0;
	return strtoull(text, NULL, 10);
}

/* The engine names its workers after their queues. Without such a name its main thread stands for all. */
static struct worker find_worker(const struct watch *watch, unsigned int queue)
{
	pid_t pids[MAX_PROCESSES];
	unsigned int count = read_processes(watch, pids);
	struct worker worker = {0};
	char wanted[32];

	snprintf(wanted, sizeof(wanted), "W-NFQ#%u\n", queue);
	for (unsigned int i = 0; i < count; i++) {
		char path[PATH_BYTES], task[TASK_BYTES], name[64];
		struct dirent *entry;
		DIR *tasks;

		snprintf(path, sizeof(path), "/proc/%d/task", (int)pids[i]);
		tasks = opendir(path);
		while (tasks && (entry = readdir(tasks))) {
			long number = strtol(entry->d_name, NULL, 10);

			if (number <= 0)
				continue;
			snprintf(task, sizeof(task), "/proc/%d/task/%ld", (int)pids[i], number);
			snprintf(path, sizeof(path), "%s/comm", task);
			if (read_file(path, name, sizeof(name)) < 0)
				continue;

			bool is_worker = strcmp(name, wanted) == 0;

			if (!is_worker && (worker.is_found || number != (long)pids[i]))
				continue;
			worker.is_found = true;
			worker.state = state_of(task);
			worker.ran_ns = processor_time(task);
			if (is_worker) {
				closedir(tasks);
				return worker;
			}
		}
		if (tasks)
			closedir(tasks);
	}
	return worker;
}

/* ---- the queues ----------------------------------------------------------------------------------------------- */

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

/* ---- what others are told ------------------------------------------------------------------------------------- */

static void write_state(const struct watch *watch)
{
	char temporary[PATH_BYTES], text[768];
	const struct counts *counts = &watch->counts;
	int fd, length;

	if (!watch->state_path)
		return;
	length = snprintf(text, sizeof(text),
			  "{\"version\": 1, \"is_hung\": %s, \"is_paused\": %s, \"hangs\": %" PRIu64 ", \"kills\": %" PRIu64
			  ", \"recoveries\": %" PRIu64 ", \"pauses\": %" PRIu64 ", \"last_stall_ms\": %" PRIu64
			  ", \"longest_stall_ms\": %" PRIu64 ", \"button\": %s, \"presses\": %" PRIu64
			  ", \"button_until_ns\": %" PRIu64 "}\n",
			  watch->is_hung ? "true" : "false", watch->pause_until_ns ? "true" : "false",
			  (uint64_t)counts->hangs, (uint64_t)counts->kills, (uint64_t)counts->recoveries,
			  (uint64_t)counts->pauses, (uint64_t)counts->last_stall_ms,
			  (uint64_t)counts->longest_stall_ms, watch->button_fd >= 0 ? "true" : "false",
			  (uint64_t)counts->presses, (uint64_t)watch->button_until_ns);
	snprintf(temporary, sizeof(temporary), "%s.new", watch->state_path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0)
		return;

	bool is_written = write(fd, text, (size_t)length) == length;

	close(fd);
	if (is_written)
		rename(temporary, watch->state_path);
}

/* ---- decisions ------------------------------------------------------------------------------------------------ */

static const struct queue *worst_queue(const struct watch *watch)
{
	const struct queue *worst = &watch->queues[0];

	for (unsigned int i = 1; i < watch->queue_count; i++)
		if (watch->queues[i].stall_ns > worst->stall_ns)
			worst = &watch->queues[i];
	return worst;
}

static bool is_any_open(const struct watch *watch)
{
	for (unsigned int i = 0; i < watch->queue_count; i++)
		if (watch->queues[i].is_open)
			return true;
	return false;
}

static bool must_kill(const struct watch *watch)
{
	for (unsigned int i = 0; i < watch->queue_count; i++) {
		const struct queue *queue = &watch->queues[i];

		if (queue->evidence_ns >= (queue->has_answered ? watch->kill_ns : KILL_STARTING_NS))
			return true;
	}
	return false;
}

static void begin_hang(struct watch *watch, const struct queue *worst, __u64 now)
{
	watch->is_hung = true;
	watch->was_killed = false;
	watch->hung_since_ns = now;
	watch->counts.hangs++;
	say("engine %s: %u packets wait in queue %u, no verdict for %" PRIu64 " ms; traffic passes it by",
	    worst->has_answered ? "does not answer" : "is not ready", worst->waiting,
	    watch->first_queue + (unsigned int)(worst - watch->queues), (uint64_t)(worst->stall_ns / MS_NS));
}

static void end_hang(struct watch *watch, __u64 now)
{
	__u64 stall_ms = (now - watch->hung_since_ns + LEASE_AFTER_NS) / MS_NS;

	watch->is_hung = false;
	watch->counts.last_stall_ms = stall_ms;
	if (stall_ms > watch->counts.longest_stall_ms)
		watch->counts.longest_stall_ms = stall_ms;
	if (watch->was_killed) {
		say("engine gone after %" PRIu64 " ms", (uint64_t)stall_ms);
	} else {
		watch->counts.recoveries++;
		say("engine answers again after %" PRIu64 " ms", (uint64_t)stall_ms);
	}
}

static void decide(struct watch *watch, __u64 now)
{
	const struct queue *worst = worst_queue(watch);
	bool was_hung = watch->is_hung, was_paused = watch->pause_until_ns;

	if (must_pause) {
		must_pause = 0;
		watch->pause_until_ns = now + PAUSE_NS;
		watch->counts.pauses++;
		write_control(watch, OMAMORI_CONTROL_PAUSED_UNTIL_NS, watch->pause_until_ns, now);
		say("the engine is about to stop; traffic passes it by");
	}
	if (watch->pause_until_ns && (now >= watch->pause_until_ns || !is_any_open(watch))) {
		watch->pause_until_ns = 0;
		write_control(watch, OMAMORI_CONTROL_PAUSED_UNTIL_NS, 0, now);
	}

	if (!watch->is_hung && worst->stall_ns >= LEASE_AFTER_NS)
		begin_hang(watch, worst, now);
	else if (watch->is_hung && !worst->stall_ns)
		end_hang(watch, now);

	keep_lease(watch, watch->is_hung, now);

	if (watch->is_hung && must_kill(watch) && now - watch->killed_ns >= KILL_AGAIN_NS) {
		watch->killed_ns = now;
		if (kill_engine(watch)) {
			watch->was_killed = true;
			watch->counts.kills++;
			say("killed the engine");
			write_state(watch);
		}
	}
	if (was_hung != watch->is_hung || was_paused != (watch->pause_until_ns != 0))
		write_state(watch);
}

/* ---- the button ----------------------------------------------------------------------------------------------- */

static bool is_button(int fd, const char *wanted)
{
	unsigned long keys[KEY_MAX / (8 * sizeof(unsigned long)) + 1] = {0};
	char name[128] = "";

	if (ioctl(fd, EVIOCGNAME(sizeof(name) - 1), name) < 0 || strcmp(name, wanted) != 0)
		return false;
	if (ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) < 0)
		return false;
	return keys[KEY_POWER / (8 * sizeof(unsigned long))] >> (KEY_POWER % (8 * sizeof(unsigned long))) & 1;
}

/* Look for the button among the input devices; drivers may be loaded later than we are. */
static void find_button(struct watch *watch, __u64 now)
{
	if (!watch->button_name || watch->button_fd >= 0)
		return;
	if (watch->scanned_ns && now - watch->scanned_ns < BUTTON_SCAN_NS)
		return;
	watch->scanned_ns = now;
	for (int i = 0; i < MAX_INPUTS; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/dev/input/event%d", i);

		int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

		if (fd < 0)
			continue;
		if (is_button(fd, watch->button_name)) {
			watch->button_fd = fd;
			say("button: %s", path);
			write_state(watch);
			return;
		}
		close(fd);
	}
}

static void press(struct watch *watch, __u64 now)
{
	__u64 until = watch->button_until_ns > now ? 0 : now + watch->button_ns;

	if (watch->acted_ns && now - watch->acted_ns < BUTTON_QUIET_NS)
		return;
	watch->acted_ns = now;
	watch->counts.presses++;
	if (write_control(watch, OMAMORI_CONTROL_BUTTON_UNTIL_NS, until, now) == 0) {
		watch->button_until_ns = until;
		if (until)
			say("button: everything passes for %" PRIu64 " minutes", (uint64_t)(watch->button_ns / MINUTE_NS));
		else
			say("button: inspecting again");
	}
	write_state(watch);
}

static void read_button(struct watch *watch, __u64 now)
{
	struct input_event event;
	ssize_t length;

	while ((length = read(watch->button_fd, &event, sizeof(event))) == (ssize_t)sizeof(event)) {
		if (event.type != EV_KEY || event.code != KEY_POWER)
			continue;
		if (event.value == 1)
			watch->pressed_ns = now;
		if (event.value == (watch->hold_ns ? 0 : 1) && watch->pressed_ns &&
		    now - watch->pressed_ns >= watch->hold_ns)
			press(watch, now);
		if (event.value == 0)
			watch->pressed_ns = 0;
	}
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	say("button: gone");
	close(watch->button_fd);
	watch->button_fd = -1;
}

static void end_button(struct watch *watch, __u64 now)
{
	if (watch->button_until_ns && watch->button_until_ns <= now) {
		watch->button_until_ns = 0;
		say("button: time is over, inspecting again");
		write_state(watch);
	}
}

/* ---- program -------------------------------------------------------------------------------------------------- */

static void run(struct watch *watch)
{
	bool is_waiting = false;

	watch->last_ns = now_ns();
	while (!must_stop) {
		int pause_ms = is_waiting || watch->is_hung ? ALERT_POLL_MS : IDLE_POLL_MS;
		struct pollfd wake = {.fd = watch->button_fd, .events = POLLIN};
		bool is_pressed = poll(&wake, 1, pause_ms) > 0;
		__u64 now = now_ns();
		__u64 step_ns = now - watch->last_ns;

		/* What we were not there to see proves nothing. */
		if (step_ns > (__u64)pause_ms * 2 * MS_NS)
			step_ns = (__u64)pause_ms * MS_NS;
		watch->last_ns = now;
		is_waiting = look(watch, step_ns);
		decide(watch, now);
		if (is_pressed)
			read_button(watch, now);
		end_button(watch, now);
		find_button(watch, now);
		if (watch->notifier.must_feed && now - watch->notified_ns >= NOTIFY_NS) {
			watch->notified_ns = now;
			notify(&watch->notifier, "WATCHDOG=1");
		}
	}
	keep_lease(watch, false, now_ns());
}

/* Take over what an earlier one of us left in the gate. */
static void take_over(struct watch *watch)
{
	__u64 until = 0, now = now_ns();

	if (use_control(watch, BPF_MAP_LOOKUP_ELEM, OMAMORI_CONTROL_BUTTON_UNTIL_NS, &until) == 0 && until > now)
		watch->button_until_ns = until;
}

static void usage(FILE *to)
{
	fputs("usage: omamori-watch --control FILE --processes FILE --queues FIRST-LAST [options]\n"
	      "\n"
	      "Look at the engine's queues; when no verdict comes, let traffic pass them by and end the engine.\n"
	      "SIGUSR1: the engine is about to be stopped; let traffic pass by until its queues are closed.\n"
	      "\n"
	      "  --control FILE       the gate's pinned map `control`\n"
	      "  --processes FILE     lists the engine's processes, one number a line (cgroup.procs)\n"
	      "  --queues FIRST-LAST  numbers of its queues\n"
	      "  --queue-length N     packets that one queue holds (4096)\n"
	      "  --kill-ms N          how long a hung engine is given before it is ended (2000)\n"
	      "  --state FILE         where to write what happened, as JSON\n"
	      "  --button NAME        input device whose power key lets everything pass, and back\n"
	      "  --button-minutes N   for how long (10)\n"
	      "  --hold-ms N          how long the button has to be held (0)\n"
	      "  --table FILE         the kernel's table of queues (/proc/self/net/netfilter/nfnetlink_queue)\n",
	      to);
}

static bool read_number(const char *text, unsigned long maximum, unsigned long *number)
{
	char *end;

	errno = 0;
	*number = strtoul(text, &end, 10);
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno && *number <= maximum;
}

static bool read_queues(struct watch *watch, const char *text)
{
	unsigned int first, last;
	char more;

	if (sscanf(text, "%u-%u%c", &first, &last, &more) != 2 || last < first || last > 65535 ||
	    last - first >= MAX_QUEUES)
		return false;
	watch->first_queue = first;
	watch->queue_count = last - first + 1;
	return true;
}

static bool read_options(struct watch *watch, int argc, char **argv)
{
	static const struct option options[] = {
		{"control", required_argument, NULL, 'c'}, {"processes", required_argument, NULL, 'p'},
		{"queues", required_argument, NULL, 'q'},  {"queue-length", required_argument, NULL, 'l'},
		{"state", required_argument, NULL, 's'},   {"button", required_argument, NULL, 'b'},
		{"table", required_argument, NULL, 't'},   {"button-minutes", required_argument, NULL, 'm'},
		{"hold-ms", required_argument, NULL, 'o'}, {"kill-ms", required_argument, NULL, 'k'},
		{"help", no_argument, NULL, 'h'},	   {NULL, 0, NULL, 0},
	};
	unsigned long number;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			watch->control_path = optarg;
			break;
		case 'p':
			watch->processes_path = optarg;
			break;
		case 'q':
			if (!read_queues(watch, optarg))
				return false;
			break;
		case 'l':
			if (!read_number(optarg, 1u << 20, &number))
				return false;
			watch->queue_length = (__u32)number;
			break;
		case 'k':
			if (!read_number(optarg, 3600000, &number))
				return false;
			watch->kill_ns = number * MS_NS;
			break;
		case 's':
			watch->state_path = optarg;
			break;
		case 'b':
			watch->button_name = optarg[0] ? optarg : NULL;
			break;
		case 'm':
			if (!read_number(optarg, 1440, &number))
				return false;
			watch->button_ns = number * MINUTE_NS;
			break;
		case 'o':
			if (!read_number(optarg, 60000, &number))
				return false;
			watch->hold_ns = number * MS_NS;
			break;
		case 't':
			watch->table_path = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			return false;
		}
	}
	return optind == argc && watch->control_path && watch->processes_path && watch->queue_count;
}

int main(int argc, char **argv)
{
	static struct watch watch = {
		.table_path = "/proc/self/net/netfilter/nfnetlink_queue",
		.queue_length = 4096,
		.kill_ns = KILL_AFTER_MS * MS_NS,
		.button_ns = 10 * MINUTE_NS,
		.table_fd = -1,
		.button_fd = -1,
	};
	struct sigaction action = {.sa_handler = on_signal};

	if (!read_options(&watch, argc, argv)) {
		usage(stderr);
		return 2;
	}
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	/* A machine short of memory must not have to fetch us from disk first; without the permission, so be it. */
	mlockall(MCL_CURRENT | MCL_FUTURE);
	watch.notifier = open_notifier();
	take_over(&watch);
	find_button(&watch, now_ns());
	write_state(&watch);
	notify(&watch.notifier, "READY=1");
	run(&watch);
	notify(&watch.notifier, "STOPPING=1");
	return 0;
}
