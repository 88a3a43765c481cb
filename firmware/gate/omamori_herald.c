/* SPDX-License-Identifier: Apache-2.0 */
/*
 * omamori-herald: tells the supervisor that this box forwards, and tells this box what the supervisor has seen.
 *
 * The supervisor holds the wire (docs/supervisor.md). It leads it through the box only while it hears, again and again,
 * that the box forwards; each report is a lease of some milliseconds.
 *
 * Rules:
 *  - It reports what it sees itself: the bridge and its ports, the queues, and that every processor still runs what
 *    is to run. It is never asked and never believes the agent.
 *  - What forwards without inspecting is still forwarding; the gate counts that. What neither forwards nor is helped by
 *    omamori-watch is not.
 *  - A lease that ends although it was renewed was too short for this machine or this line, and so is one of which we
 *    ourselves use up half: the next one is twice as long. Some minutes without that, and it is the board's own again.
 *  - A lease counts from when every processor was last seen to run: one that stands still holds up packets from then on.
 *  - A processor that stands still is told by silence, so that the supervisor resets the box; anything else in words.
 *  - It says nothing but HELLO on a line on which no supervisor has answered, and ends where there is no such line.
 *
 * Linked statically, no library but the C library; what it allocates, it allocates at start.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "omamori_line.h"
#define PROGRAM "omamori-herald"
#include "omamori_service.h"

#include "herald.h"
#include "herald_sight.h"
#include "herald_speech.h"
#include "herald_files.h"
#include "herald_hearing.h"

static volatile sig_atomic_t must_stop;

static void on_signal(int number)
{
	(void)number;
	must_stop = 1;
}

/* Choose what to ask next; reports go their own way beside it. */
static void choose_request(struct herald *herald, uint64_t now)
{
	if (!herald->has_settled) {
		herald->has_settled = true;
		ask(herald, LINE_SETTINGS, 4, (uint32_t[]){0, herald->boot_s, herald->silence_s, herald->resets}, LINE_ANSWER,
		    now);
		return;
	}
	if (now >= herald->files_at_ms) {
		uint32_t result = read_result(herald);

		if (result) {
			ask(herald, LINE_SHOW, 3, (uint32_t[]){0, result, RESULT_S}, LINE_ANSWER, now);
			return;
		}
		herald->files_at_ms = now + FILES_MS;
		herald->code = read_code(herald);
	}
	if (herald->code != herald->code_told) {
		herald->code_told = herald->code;
		ask(herald, LINE_CODE, 2, (uint32_t[]){0, herald->code}, LINE_ANSWER, now);
	} else if (now >= herald->telemetry_at_ms) {
		herald->telemetry_at_ms = now + TELEMETRY_MS;
		ask(herald, LINE_QUERY, 1, (uint32_t[]){2}, LINE_TELEMETRY, now);
	} else if (now >= herald->status_at_ms) {
		herald->status_at_ms = now + STATUS_MS;
		ask(herald, LINE_QUERY, 1, (uint32_t[]){1}, LINE_STATUS, now);
	}
}

static void resend(struct herald *herald, uint64_t now)
{
	struct request *request = &herald->request;

	if (herald->has_request && now >= request->end_ms)
		herald->has_request = false;
	if (!herald->has_request || now < request->next_ms)
		return;
	request->next_ms = now + RESEND_MS;
	send_body(herald, request->body, request->length, now);
}

static void speak(struct herald *herald, uint64_t now)
{
	bool is_up_now = herald->is_welcome && now - herald->heard_ms < SILENT_MS;

	if (now >= herald->report_at_ms) {
		uint64_t late_ms = processors_late_ms(herald, now);
		enum said said = look(herald, late_ms, now);

		herald->report_at_ms = now + (lease(herald) < 3 * REPORT_MS ? lease(herald) / 3 : REPORT_MS);
		if (said != herald->said)
			herald->is_changed = true;
		herald->said = said;
		if (herald->is_welcome && herald->must_unbar) {
			report(herald, SAYS_STARTING, lease(herald), now);
			herald->must_unbar = false;
			mark(herald, "announced", false);
		}
		if (herald->is_welcome && said != SAYS_NOTHING && late_ms + LEASE_MIN_MS <= lease(herald)) {
			notice_lateness(herald, now);
			report(herald, said, lease(herald) - (uint32_t)late_ms, now);
		}
	}
	if ((!is_up_now || herald->must_greet) && now >= herald->hello_at_ms) {
		bool is_late = !herald->is_welcome && now - herald->began_ms > HELLO_PATIENCE_MS;

		herald->hello_at_ms = now + (is_late ? HELLO_LATER_MS : HELLO_MS);
		hello(herald, now);
	}
	if (herald->is_welcome && !herald->has_request)
		choose_request(herald, now);
	resend(herald, now);
	if (is_up_now != herald->was_up) {
		say(is_up_now ? "the supervisor answers" : "the supervisor is silent");
		herald->was_up = is_up_now;
		if (is_up_now) {
			herald->has_settled = false; /* what was said last may not have been heard */
			herald->code_told = UINT32_MAX;
		}
		herald->is_changed = true;
	}
	if (herald->is_changed) {
		herald->is_changed = false;
		write_state(herald, is_up_now);
	}
}

static void pause_until(struct herald *herald, uint64_t until, uint64_t now)
{
	struct pollfd wake = {.fd = herald->line_fd, .events = POLLIN};

	poll(&wake, 1, until > now ? (int)(until - now) : 0);
	if (wake.revents)
		hear(herald, now_ms());
}

/* Before we end, the machine may end: the supervisor is told, so that it takes the silence for no failure. */
static void say_farewell(struct herald *herald)
{
	uint64_t now = now_ms(), end = now + FAREWELL_MS;
	uint32_t reason = herald->update_path && access(herald->update_path, F_OK) == 0 ? REASON_UPDATE : REASON_REBOOT;

	if (herald->line_fd < 0 || !herald->is_welcome)
		return;
	mark(herald, "announced", true);
	ask(herald, LINE_ANNOUNCE, 3, (uint32_t[]){0, reason, herald->boot_s < 900 ? herald->boot_s : 900}, LINE_ANSWER,
	    now);
	while (herald->has_request && herald->line_fd >= 0 && now < end) {
		resend(herald, now);
		pause_until(herald, now + RESEND_MS / 4, now);
		now = now_ms();
	}
}

/* Returns the exit status. */
static int run(struct herald *herald)
{
	uint64_t now = now_ms();

	herald->began_ms = now;
	while (!must_stop) {
		now = now_ms();
		if (herald->line_fd < 0 && !herald->is_welcome && now - herald->began_ms >= herald->detect_s * UINT64_C(1000)) {
			say("%s is no line: this machine has no supervisor", herald->device);
			return 0;
		}
		if (herald->line_fd < 0 && now >= herald->open_at_ms) {
			herald->line_fd = open_line(herald->device);
			herald->open_at_ms = now + REOPEN_MS;
			herald->hello_at_ms = now;
		}
		speak(herald, now);
		if (herald->notifier.must_feed && now - herald->notified_ms >= NOTIFY_MS) {
			herald->notified_ms = now;
			notify(&herald->notifier, "WATCHDOG=1");
		}

		uint64_t next = herald->report_at_ms;

		if (herald->has_request && herald->request.next_ms < next)
			next = herald->request.next_ms;
		pause_until(herald, next, now_ms());
	}
	say_farewell(herald);
	return 0;
}

static void usage(FILE *to)
{
	fputs("usage: omamori-herald --device LINE [options]\n"
	      "\n"
	      "Tell the supervisor on a serial line that this box forwards, as long as it does.\n"
	      "\n"
	      "  --device LINE        serial line, or a unix socket; empty: this board has no supervisor\n"
	      "  --version TEXT       firmware version of the box\n"
	      "  --lease-ms N         how long a report counts (150)\n"
	      "  --boot-s N           how long the box may take to forward after a start (600)\n"
	      "  --silence-s N        how long it may be silent before it is reset (60)\n"
	      "  --resets N           how many resets are tried (3)\n"
	      "  --processor-ms N     a processor that has not run for so long stands still; 0: not looked at (400)\n"
	      "  --detect-s N         how long a line may take to appear; then there is none (30)\n"
	      "  --bridge NAME        the bridge (br0)\n"
	      "  --state FILE         where to write what the supervisor says, as JSON\n"
	      "  --watch FILE         what omamori-watch writes (/run/omamori/watch/state.json)\n"
	      "  --code FILE          four digits to show while all is well with the wire\n"
	      "  --result FILE        what became of an update: `done` or `taken-back`\n"
	      "  --update FILE        is there when a restart is for an update\n"
	      "  --table FILE         the kernel's table of queues (/proc/self/net/netfilter/nfnetlink_queue)\n"
	      "  --net DIR            the kernel's directory of ports (/sys/class/net)\n"
	      "  --boot-id FILE       the kernel's name of this boot (/proc/sys/kernel/random/boot_id)\n",
	      to);
}

static bool read_number(const char *text, unsigned long minimum, unsigned long maximum, uint32_t *number)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	*number = (uint32_t)value;
	return text[0] >= '0' && text[0] <= '9' && !*end && !errno && value >= minimum && value <= maximum;
}

static bool read_options(struct herald *herald, int argc, char **argv)
{
	static const struct option options[] = {
		{"device", required_argument, NULL, 'd'},	{"version", required_argument, NULL, 'v'},
		{"lease-ms", required_argument, NULL, 'l'},	{"boot-s", required_argument, NULL, 'b'},
		{"silence-s", required_argument, NULL, 's'},	{"resets", required_argument, NULL, 'r'},
		{"processor-ms", required_argument, NULL, 'p'}, {"bridge", required_argument, NULL, 'i'},
		{"state", required_argument, NULL, 'S'},	{"watch", required_argument, NULL, 'w'},
		{"code", required_argument, NULL, 'c'},		{"result", required_argument, NULL, 'R'},
		{"update", required_argument, NULL, 'u'},	{"table", required_argument, NULL, 't'},
		{"net", required_argument, NULL, 'n'},		{"boot-id", required_argument, NULL, 'B'},	{"detect-s", required_argument, NULL, 'D'},
		{"help", no_argument, NULL, 'h'},		{NULL, 0, NULL, 0},
	};
	const struct {
		int option;
		const char **text;
	} texts[] = {
		{'d', &herald->device},	    {'v', &herald->version},	 {'i', &herald->bridge},
		{'S', &herald->state_path}, {'w', &herald->watch_path},	 {'c', &herald->code_path},
		{'R', &herald->result_path}, {'u', &herald->update_path}, {'t', &herald->table_path},
		{'n', &herald->net_path},   {'B', &herald->boot_path},
	};
	/* The ranges of the messages' own fields. */
	const struct {
		int option;
		unsigned long minimum, maximum;
		uint32_t *number;
	} numbers[] = {
		{'l', 50, 2000, &herald->lease_ms}, {'b', 30, 1800, &herald->boot_s},  {'s', 5, 600, &herald->silence_s},
		{'r', 1, 9, &herald->resets},	    {'p', 0, 60000, &herald->processor_ms}, {'D', 1, 3600, &herald->detect_s},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		bool is_known = false;

		if (option == 'h') {
			usage(stdout);
			exit(0);
		}
		for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
			if (texts[i].option == option) {
				*texts[i].text = optarg;
				is_known = true;
			}
		for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
			if (numbers[i].option == option)
				is_known = read_number(optarg, numbers[i].minimum, numbers[i].maximum, numbers[i].number);
		if (!is_known)
			return false;
	}
	return optind == argc && herald->device;
}

int main(int argc, char **argv)
{
	static struct herald herald = {
		.version = "",
		.boot_path = "/proc/sys/kernel/random/boot_id",
		.net_path = "/sys/class/net",
		.bridge = "br0",
		.table_path = "/proc/self/net/netfilter/nfnetlink_queue",
		.watch_path = "/run/omamori/watch/state.json",
		.lease_ms = 150,
		.boot_s = 600,
		.silence_s = 60,
		.resets = 3,
		.detect_s = 30,
		.processor_ms = 400,
		.line_fd = -1,
		.decoder = {.sequence = -1},
	};
	struct sigaction action = {.sa_handler = on_signal};
	char boot[64] = "";
	ssize_t length;

	if (!read_options(&herald, argc, argv)) {
		usage(stderr);
		return 2;
	}
	if (!herald.device[0]) {
		herald.notifier = open_notifier();
		notify(&herald.notifier, "READY=1");
		say("this board has no supervisor");
		return 0;
	}
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	action.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &action, NULL);
	/* A machine short of memory must not have to fetch us from disk first; without the permission, so be it. */
	mlockall(MCL_CURRENT | MCL_FUTURE);
	length = read_file(herald.boot_path, boot, sizeof(boot));
	if (length <= 0) {
		say("%s: %s", herald.boot_path, strerror(errno));
		return 1;
	}
	herald.boot = line_crc32((const uint8_t *)boot, (size_t)length);
	herald.sequence = (uint16_t)now_ms();
	herald.number = herald.sequence;
	herald.must_unbar = is_marked(&herald, "announced");
	herald.notifier = open_notifier();
	start_processors(&herald);
	write_state(&herald, false);
	notify(&herald.notifier, "READY=1");
	return run(&herald);
}
