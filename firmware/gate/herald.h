/* SPDX-License-Identifier: Apache-2.0 */
/* What the herald is told, knows and has heard. Part of omamori_herald.c. */
#ifndef HERALD_H
#define HERALD_H

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

	struct notifier notifier;
	uint64_t notified_ms;
};

static uint64_t now_ms(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000 + (uint64_t)at.tv_nsec / 1000000;
}

#endif
