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

#define REOPEN_MS 1000
#define LEASE_MIN_MS 50
#define LEASE_MAX_MS 2000
#define LEARNED_MS 600000 /* a longer lease is forgotten after so long without a reason */
#define LOOK_MS 200	  /* at bridge and queues; at the processors with every report */
#define REPORT_MS 100 /* at least so often, and three times within a lease */
#define HELLO_MS 500
#define HELLO_LATER_MS 10000 /* where nobody has answered for a while */
#define HELLO_PATIENCE_MS 300000
#define RESEND_MS 200
#define ANSWER_MS 3000
#define STATUS_MS 2000
#define TELEMETRY_MS 10000
#define SILENT_MS 5000
#define FILES_MS 500
#define STALL_MS 1000 /* omamori-watch helps after 150; by then it has not */
#define PROCESSOR_MS 25
#define FAREWELL_MS 1000
#define NOTIFY_MS 500
#define RESULT_S 600

#define MAX_QUEUES 16
#define MAX_PROCESSORS 64
#define STACK_BYTES 16384
#define PATH_BYTES 320
#define TEXT_BYTES 4096

/* What the box says of itself. */
enum said { SAYS_NOTHING = 0, SAYS_STARTING = 1, SAYS_FORWARDING = 2 };

/* Fields of a status that mean something to us, and one of the causes. */
enum { THROUGH = 1, CAUSE = 2, MOVES = 3, CAUSE_SILENCE = 2 };

/* Kinds of events that change what a WELCOME says of the power. */
enum { EVENT_POWER_BACK = 7, EVENT_BROWN_OUT = 8 };

enum reason { REASON_REBOOT = 1, REASON_UPDATE = 2 };

struct queue {
	uint32_t waiting;
	uint32_t done;
	uint64_t since_ms; /* of the last verdict; 0 while nothing waits */
};

struct processor {
	unsigned int number;
	_Atomic uint64_t ran_ms;
};

/* A request is repeated until it is answered, and only one is on its way at a time. */
struct request {
	uint8_t body[LINE_MAX_BODY];
	size_t length;
	unsigned int answer;
	uint32_t number; /* of a request with an answer; a query has none */
	uint64_t next_ms;
	uint64_t end_ms;
};

struct herald {
	/* What we are told. */
	const char *device;
	const char *version;
	const char *boot_path;
	const char *net_path;
	const char *bridge;
	const char *table_path;
	const char *watch_path;
	const char *state_path;
	const char *code_path;
	const char *result_path;
	const char *update_path;
	uint32_t lease_ms;
	uint32_t boot_s;
	uint32_t silence_s;
	uint32_t resets;
	uint32_t detect_s; /* a driver may come late; a line that is not there then is not there */
	uint32_t processor_ms; /* a processor that has not run for so long stands still; 0: not looked at */

	/* What we know. */
	int line_fd;
	uint32_t boot;
	uint16_t sequence;
	uint32_t number;
	struct line_decoder decoder;
	struct queue queues[MAX_QUEUES];
	struct processor processors[MAX_PROCESSORS];
	unsigned int processor_count;
	enum said said;
	bool is_well; /* at the last look at bridge and queues */
	uint32_t learned_ms; /* a lease that this machine needs; 0: the board's own */
	uint64_t learned_at_ms;
	uint64_t quiet_at_ms; /* we last kept silent on purpose */
	bool must_unbar; /* an earlier one of us announced an end that did not come */
	bool has_request;
	struct request request;
	bool has_settled; /* the supervisor has our settings */
	uint32_t code;
	uint32_t code_told;
	struct timespec result_at;

	/* What the supervisor said. */
	bool is_welcome;
	bool was_complained;
	char chip[LINE_MAX_TEXT + 1];
	uint32_t restarts;
	uint32_t power_serial;
	uint32_t power_kind;
	uint32_t outage_ms;
	bool has_status;
	uint32_t status[LINE_MAX_FIELDS];
	bool has_celsius, has_millivolts, has_past;
	int64_t celsius, millivolts, past_s;
	uint64_t unknown;

	uint64_t began_ms;
	uint64_t heard_ms;
	uint64_t open_at_ms;
	uint64_t report_at_ms;
	uint64_t look_at_ms;
	uint64_t reported_ms;
	uint64_t hello_at_ms;
	uint64_t status_at_ms;
	uint64_t telemetry_at_ms;
	uint64_t files_at_ms;
	bool is_changed;
	bool must_greet;
	bool was_up;

	int notify_fd;
	bool must_feed;
	uint64_t notified_ms;
	struct sockaddr_un notify_address;
	socklen_t notify_length;
};

static volatile sig_atomic_t must_stop;

static void on_signal(int number)
{
	(void)number;
	must_stop = 1;
}

static __attribute__((format(printf, 1, 2))) void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("omamori-herald: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
}

static uint64_t now_ms(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000 + (uint64_t)at.tv_nsec / 1000000;
}

/* Read a small file whole; its length, or -1. */
static ssize_t read_file(const char *path, char *buffer, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t length = -1;
	size_t sum = 0;

	if (fd < 0)
		return -1;
	while (sum < size - 1 && (length = read(fd, buffer + sum, size - 1 - sum)) > 0)
		sum += (size_t)length;
	close(fd);
	if (length < 0)
		return -1;
	buffer[sum] = '\0';
	return (ssize_t)sum;
}

/* ---- the service manager -------------------------------------------------------------------------------------- */

static void notify(struct herald *herald, const char *text)
{
	if (herald->notify_fd >= 0)
		sendto(herald->notify_fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
		       (const struct sockaddr *)&herald->notify_address, herald->notify_length);
}

static void open_notify(struct herald *herald)
{
	const char *path = getenv("NOTIFY_SOCKET");

	herald->notify_fd = -1;
	herald->must_feed = getenv("WATCHDOG_USEC") != NULL;
	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(herald->notify_address.sun_path))
		return;
	herald->notify_address.sun_family = AF_UNIX;
	memcpy(herald->notify_address.sun_path, path, strlen(path));
	if (path[0] == '@')
		herald->notify_address.sun_path[0] = '\0';
	herald->notify_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	herald->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

/* ---- whether this box forwards -------------------------------------------------------------------------------- */

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

/* ---- the line ------------------------------------------------------------------------------------------------- */

static int open_terminal(const char *path)
{
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct termios mode;

	if (fd < 0)
		return -1;
	if (tcgetattr(fd, &mode) == 0) {
		cfmakeraw(&mode);
		mode.c_cflag &= (tcflag_t) ~(CSTOPB | PARENB | CRTSCTS);
		mode.c_cflag |= CLOCAL | CREAD;
		cfsetspeed(&mode, B115200);
		if (tcsetattr(fd, TCSANOW, &mode) == 0) {
			tcflush(fd, TCIOFLUSH);
			return fd;
		}
	}
	close(fd);
	errno = EIO;
	return -1;
}

static int open_socket(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int open_line(const char *path)
{
	struct stat facts;

	if (stat(path, &facts) != 0)
		return -1;
	return S_ISSOCK(facts.st_mode) ? open_socket(path) : open_terminal(path);
}

static void lose_line(struct herald *herald, const char *why, uint64_t now)
{
	if (herald->line_fd >= 0)
		close(herald->line_fd);
	herald->line_fd = -1;
	herald->open_at_ms = now + REOPEN_MS;
	herald->has_request = false;
	if (herald->is_welcome)
		say("the line broke: %s", why);
}

static void send_body(struct herald *herald, const uint8_t *body, size_t length, uint64_t now)
{
	uint8_t frame[LINE_MAX_FRAME];
	size_t size = line_frame(herald->sequence++, body, length, frame);
	ssize_t written;

	if (herald->line_fd < 0)
		return;
	written = write(herald->line_fd, frame, size);
	/* What finds no room is lost, as on any line: the next report comes in some milliseconds. */
	if (written < 0 && errno != EAGAIN && errno != EINTR)
		lose_line(herald, strerror(errno), now);
}

static void send_numbers(struct herald *herald, unsigned int kind, unsigned int count, const uint32_t *numbers,
			 uint64_t now)
{
	uint8_t body[LINE_MAX_BODY];

	send_body(herald, body, line_build(body, kind, count, numbers, NULL), now);
}

static uint32_t lease(const struct herald *herald)
{
	return herald->learned_ms > herald->lease_ms ? herald->learned_ms : herald->lease_ms;
}

static void report(struct herald *herald, uint32_t said, uint32_t lease_ms, uint64_t now)
{
	send_numbers(herald, LINE_REPORT, 2, (uint32_t[]){said, lease_ms}, now);
}

static void lengthen(struct herald *herald, uint64_t wanted_ms, uint64_t now)
{
	herald->learned_ms = wanted_ms < LEASE_MAX_MS ? (uint32_t)wanted_ms : LEASE_MAX_MS;
	herald->learned_at_ms = now;
}

/* Notice how late we are ourselves. */
static void notice_lateness(struct herald *herald, uint64_t now)
{
	uint64_t gap = now - herald->reported_ms;

	if (herald->reported_ms && now - herald->quiet_at_ms > SILENT_MS && 2 * gap > lease(herald))
		lengthen(herald, 2 * gap, now);
	if (herald->learned_ms && now - herald->learned_at_ms > LEARNED_MS)
		herald->learned_ms = 0;
	herald->reported_ms = now;
}

/* Notice a lease that ended without our will: the relay has moved, and not only back. */
static void learn(struct herald *herald, const struct line_field *status, uint64_t now)
{
	uint32_t moves = status[MOVES].number - herald->status[MOVES];
	bool has_closed = herald->has_status && moves >= (status[THROUGH].number ? 2u : 1u) && moves < UINT32_MAX / 2;

	if (has_closed && status[CAUSE].number == CAUSE_SILENCE && now - herald->quiet_at_ms > SILENT_MS) {
		lengthen(herald, 2 * (uint64_t)lease(herald), now);
		say("a lease ended although it was renewed; the next is %" PRIu32 " ms", herald->learned_ms);
	}
}

static void hello(struct herald *herald, uint64_t now)
{
	uint8_t body[LINE_MAX_BODY];

	send_body(herald, body, line_build(body, LINE_HELLO, 2, (uint32_t[]){LINE_PROTOCOL, herald->boot}, herald->version),
		  now);
}

/* Put a request on its way. The first number of one that is answered is its own; of a query it is what is asked. */
static void ask(struct herald *herald, unsigned int kind, unsigned int count, uint32_t *numbers, unsigned int answer,
		uint64_t now)
{
	struct request *request = &herald->request;

	if (answer == LINE_ANSWER)
		numbers[0] = herald->number = (herald->number + 1) & 0xFFFF;
	request->length = line_build(request->body, kind, count, numbers, NULL);
	request->answer = answer;
	request->number = numbers[0];
	request->next_ms = now;
	request->end_ms = now + ANSWER_MS;
	herald->has_request = true;
}

/* ---- what the supervisor says --------------------------------------------------------------------------------- */

static void take_welcome(struct herald *herald, const struct line_message *message)
{
	const struct line_field *fields = message->fields;

	if (fields[0].number != LINE_PROTOCOL && !herald->was_complained) {
		say("warning: the supervisor speaks protocol %" PRIu32 ", not %d", fields[0].number, LINE_PROTOCOL);
		herald->was_complained = true;
	}
	memcpy(herald->chip, fields[1].bytes, fields[1].length);
	herald->chip[fields[1].length] = '\0';
	if (!herald->is_welcome || fields[3].number != herald->restarts)
		say("supervisor %s%s, power event %" PRIu32, herald->chip, fields[2].number ? ", restarted itself" : "",
		    fields[4].number);
	herald->restarts = fields[3].number;
	herald->power_serial = fields[4].number;
	herald->power_kind = fields[5].number;
	herald->outage_ms = fields[6].number;
	herald->is_welcome = true;
	herald->must_greet = false;
	herald->has_settled = false; /* one that began anew has forgotten them */
	herald->code_told = UINT32_MAX;
	herald->is_changed = true;
}

static void take_event(struct herald *herald, const struct line_message *message)
{
	static const char *const names[] = {
		"", "silence noticed", "reset the box", "gave up", "button: code", "button: state",
		"supply lost", "supply back", "supply low", "wire",
	};
	uint32_t kind = message->fields[0].number, value = message->fields[1].number;

	if (kind && kind < sizeof(names) / sizeof(*names))
		say("supervisor: %s %" PRIu32, names[kind], value);
	if (kind == EVENT_POWER_BACK || kind == EVENT_BROWN_OUT)
		herald->must_greet = true; /* what it was, and its number, stand in the answer to a greeting */
	herald->status_at_ms = 0; /* look at what came of it */
	herald->telemetry_at_ms = 0;
}

static void take_message(struct herald *herald, const struct line_message *message, uint64_t now)
{
	struct request *request = &herald->request;
	const struct line_field *fields = message->fields;

	if (message->kind == LINE_WELCOME) {
		take_welcome(herald, message);
	} else if (message->kind == LINE_EVENT) {
		take_event(herald, message);
	} else if (message->kind == LINE_STATUS) {
		learn(herald, fields, now);
		for (unsigned int i = 0; i < message->count; i++)
			herald->status[i] = fields[i].number;
		herald->has_status = herald->is_changed = true;
	} else if (message->kind == LINE_TELEMETRY) {
		herald->has_celsius = line_measured(&fields[0], "temp", &herald->celsius);
		herald->has_millivolts = line_measured(&fields[0], "rail", &herald->millivolts);
		herald->has_past = line_measured(&fields[0], "past", &herald->past_s);
		herald->is_changed = true;
	} else if (fields[1].number) {
		say("the supervisor refused request %" PRIu32 ": %" PRIu32, fields[0].number, fields[1].number);
	}
	if (herald->has_request && request->answer == message->kind &&
	    (message->kind != LINE_ANSWER || fields[0].number == request->number))
		herald->has_request = false;
}

static void hear(struct herald *herald, uint64_t now)
{
	uint8_t data[512], body[LINE_MAX_STUFFED];
	struct line_message message;
	ssize_t length;

	while (herald->line_fd >= 0) {
		length = read(herald->line_fd, data, sizeof(data));
		if (length < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (length <= 0) {
			lose_line(herald, length ? strerror(errno) : "closed", now);
			return;
		}
		for (ssize_t i = 0; i < length; i++) {
			size_t size = line_take(&herald->decoder, data[i], body);

			if (!size)
				continue;
			if (!line_parse(body, size, &message)) {
				herald->unknown++;
				continue;
			}
			herald->heard_ms = now;
			take_message(herald, &message, now);
		}
		if (length < (ssize_t)sizeof(data))
			return;
	}
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

static void mark(const struct herald *herald, const char *name, bool is_there)
{
	char path[PATH_BYTES];
	int fd;

	if (!herald->state_path)
		return;
	snprintf(path, sizeof(path), "%s.%s", herald->state_path, name);
	if (!is_there) {
		unlink(path);
	} else {
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (fd >= 0)
			close(fd);
	}
}

static bool is_marked(const struct herald *herald, const char *name)
{
	char path[PATH_BYTES];

	if (!herald->state_path)
		return false;
	snprintf(path, sizeof(path), "%s.%s", herald->state_path, name);
	return access(path, F_OK) == 0;
}

static int add_number(char *text, size_t size, const char *name, bool is_known, int64_t value)
{
	if (is_known)
		return snprintf(text, size, ", \"%s\": %" PRId64, name, value);
	return snprintf(text, size, ", \"%s\": null", name);
}

/* Written for the agent; a few hundred bytes, renamed into place. */
static void write_state(const struct herald *herald, bool is_up_now)
{
	static const char *const said[] = {"nothing", "starting", "forwarding"};
	static const char *const power[] = {"none", "cold", "dip", "short-pull", "long-pull", "brown-out"};
	static const char *const names[LINE_MAX_FIELDS] = {
		"state", "through", "cause",  "moves",   "resets",   "code",       "good",
		"damaged", "lost",  "unknown", "uptime_s", "slowest_ms", "chip_restarts",
	};
	char temporary[PATH_BYTES], text[2048];
	int fd, length;

	if (!herald->state_path)
		return;
	length = snprintf(text, sizeof(text), "{\"version\": 1, \"is_up\": %s, \"said\": \"%s\", \"chip\": ",
			  is_up_now ? "true" : "false", said[herald->said]);
	if (herald->is_welcome) {
		/* The chip's own words are not put into a file that others parse, but for letters, digits and dots. */
		text[length++] = '"';
		for (const char *at = herald->chip; *at; at++)
			if (strchr("0123456789.-+", *at) || (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z'))
				text[length++] = *at;
		text[length++] = '"';
	} else {
		length += snprintf(text + length, sizeof(text) - (size_t)length, "null");
	}
	length += snprintf(text + length, sizeof(text) - (size_t)length,
			   ", \"lease_ms\": %" PRIu32 ", \"power\": {\"serial\": %" PRIu32 ", \"kind\": \"%s\", \"outage_ms\": %" PRIu32 "}",
			   lease(herald), herald->power_serial, power[herald->power_kind], herald->outage_ms);
	for (unsigned int i = 0; i < LINE_MAX_FIELDS; i++)
		length += add_number(text + length, sizeof(text) - (size_t)length, names[i], herald->has_status,
				     herald->status[i]);
	length += add_number(text + length, sizeof(text) - (size_t)length, "celsius", herald->has_celsius, herald->celsius);
	length += add_number(text + length, sizeof(text) - (size_t)length, "millivolts", herald->has_millivolts,
			     herald->millivolts);
	length += add_number(text + length, sizeof(text) - (size_t)length, "past_s", herald->has_past, herald->past_s);
	length += snprintf(text + length, sizeof(text) - (size_t)length,
			   ", \"line_good\": %" PRIu64 ", \"line_damaged\": %" PRIu64 ", \"line_unknown\": %" PRIu64 "}\n",
			   herald->decoder.good, herald->decoder.damaged, herald->unknown);
	snprintf(temporary, sizeof(temporary), "%s.new", herald->state_path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return;

	bool is_written = write(fd, text, (size_t)length) == length;

	close(fd);
	if (is_written)
		rename(temporary, herald->state_path);
}

/* The diagnosis of the agent: up to four digits; 0 when there is none. */
static uint32_t read_code(const struct herald *herald)
{
	char text[16], *end;
	unsigned long code;

	if (!herald->code_path || read_file(herald->code_path, text, sizeof(text)) <= 0)
		return 0;
	code = strtoul(text, &end, 10);
	return end != text && (*end == '\n' || !*end) && code <= 9999 ? (uint32_t)code : 0;
}

/* What became of an update, once for each time it is written: 1 done, 2 taken back; 0 nothing new. */
static uint32_t read_result(struct herald *herald)
{
	struct stat facts;
	char text[16];

	if (!herald->result_path || lstat(herald->result_path, &facts) != 0)
		return 0;
	if (facts.st_mtim.tv_sec == herald->result_at.tv_sec && facts.st_mtim.tv_nsec == herald->result_at.tv_nsec)
		return 0;
	herald->result_at = facts.st_mtim;
	if (read_file(herald->result_path, text, sizeof(text)) <= 0)
		return 0;
	return strcmp(text, "done\n") == 0 ? 1 : strcmp(text, "taken-back\n") == 0 ? 2 : 0;
}

/* ---- program -------------------------------------------------------------------------------------------------- */

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
		if (herald->must_feed && now - herald->notified_ms >= NOTIFY_MS) {
			herald->notified_ms = now;
			notify(herald, "WATCHDOG=1");
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
	      "  --silence-s N        how long it may be silent before it is reset (30)\n"
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
		.silence_s = 30,
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
		open_notify(&herald);
		notify(&herald, "READY=1");
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
	open_notify(&herald);
	start_processors(&herald);
	write_state(&herald, false);
	notify(&herald, "READY=1");
	return run(&herald);
}
