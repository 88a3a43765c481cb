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

#include "watch.h"
#include "watch_gate.h"
#include "watch_engine.h"
#include "watch_queues.h"
#include "watch_state.h"
#include "watch_button.h"

static volatile sig_atomic_t must_stop;
static volatile sig_atomic_t must_pause;

static void on_signal(int number)
{
	if (number == SIGUSR1)
		must_pause = 1;
	else
		must_stop = 1;
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
