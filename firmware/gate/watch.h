/* SPDX-License-Identifier: Apache-2.0 */
/* What the watch is told and knows. Part of omamori_watch.c. */
#ifndef WATCH_H
#define WATCH_H

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

/* The gate's clock: goes on while the machine sleeps, never jumps. */
static __u64 now_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_BOOTTIME, &at);
	return (__u64)at.tv_sec * SECOND_NS + (__u64)at.tv_nsec;
}

#endif
