/*
 * Small-packet load: UDP as fast as it goes, and TCP request-response one byte at a time.
 *
 *   flood send ADDRESS PORT SIZE SECONDS FROM COUNT   prints {"sent": …}
 *   flood receive PORT SECONDS                        prints {"received": …, "seconds": …}
 *   flood serve PORT                                  answers every byte of one connection after the other
 *   flood ask ADDRESS PORT SECONDS                    prints {"count": …, "p50_us": …, "p99_us": …}
 *
 * The flood comes from COUNT addresses beginning with FROM in turn, one flow each.
 */
#define _GNU_SOURCE
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>

#include "load.h"

#define BATCH 32
#define MAX_FLOWS 64
#define MAX_SAMPLES 2000000

static volatile sig_atomic_t is_ended;

static void on_end(int signal_number)
{
	(void)signal_number;
	is_ended = 1;
}

static int send_flood(char **argv)
{
	static char data[65536];
	struct sockaddr_in to = address_at(argv[0], 0, number(argv[1], 1, 65535));
	long size = number(argv[2], 1, 65000), count = number(argv[5], 1, MAX_FLOWS), each;
	uint64_t end = now_ns(CLOCK_MONOTONIC) + (uint64_t)number(argv[3], 1, 1000) * NS_PER_S, sent = 0;
	struct iovec part = { data, (size_t)size };
	struct mmsghdr messages[BATCH] = { 0 };
	int handles[MAX_FLOWS];

	for (each = 0; each < BATCH; each++) {
		messages[each].msg_hdr.msg_iov = &part;
		messages[each].msg_hdr.msg_iovlen = 1;
	}
	for (each = 0; each < count; each++) {
		struct sockaddr_in from = address_at(argv[4], each, 0);

		handles[each] = socket(AF_INET, SOCK_DGRAM, 0);
		if (handles[each] < 0 || bind(handles[each], (struct sockaddr *)&from, sizeof(from)) ||
		    connect(handles[each], (struct sockaddr *)&to, sizeof(to)))
			fail("flood");
	}
	for (each = 0; !is_ended && now_ns(CLOCK_MONOTONIC) < end; each = (each + 1) % count) {
		int done = sendmmsg(handles[each], messages, BATCH, 0);

		if (done > 0)
			sent += (uint64_t)done;
	}
	printf("{\"sent\": %llu}\n", (unsigned long long)sent);
	return 0;
}

static int receive_flood(char **argv)
{
	static char data[BATCH][2048];
	struct sockaddr_in here = address_at("0.0.0.0", 0, number(argv[0], 1, 65535));
	uint64_t end = now_ns(CLOCK_MONOTONIC) + (uint64_t)number(argv[1], 1, 1000) * NS_PER_S;
	uint64_t received = 0, first = 0, last = 0;
	int handle = socket(AF_INET, SOCK_DGRAM, 0), room = 8 << 20, each;
	struct mmsghdr messages[BATCH] = { 0 };
	struct iovec parts[BATCH];

	setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (handle < 0 || bind(handle, (struct sockaddr *)&here, sizeof(here)))
		fail("bind");
	for (each = 0; each < BATCH; each++) {
		parts[each].iov_base = data[each];
		parts[each].iov_len = sizeof(data[each]);
		messages[each].msg_hdr.msg_iov = &parts[each];
		messages[each].msg_hdr.msg_iovlen = 1;
	}
	while (!is_ended && now_ns(CLOCK_MONOTONIC) < end) {
		struct pollfd wait = { .fd = handle, .events = POLLIN };
		int got;

		if (poll(&wait, 1, 100) <= 0)
			continue;
		got = recvmmsg(handle, messages, BATCH, MSG_DONTWAIT, NULL);
		if (got <= 0)
			continue;
		last = now_ns(CLOCK_MONOTONIC);
		if (!first)
			first = last;
		received += (uint64_t)got;
	}
	printf("{\"received\": %llu, \"seconds\": %.6f}\n", (unsigned long long)received, (double)(last - first) / 1e9);
	return 0;
}

static int serve(char **argv)
{
	struct sockaddr_in here = address_at("0.0.0.0", 0, number(argv[0], 1, 65535));
	int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	char byte;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (listener < 0 || bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, 8))
		fail("bind");
	while (!is_ended) {
		int handle = accept(listener, NULL, NULL);

		if (handle < 0)
			continue;
		setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		while (recv(handle, &byte, 1, 0) == 1 && send(handle, &byte, 1, MSG_NOSIGNAL) == 1)
			;
		close(handle);
	}
	return 0;
}

static int ask(char **argv)
{
	static uint64_t taken[MAX_SAMPLES];
	struct sockaddr_in to = address_at(argv[0], 0, number(argv[1], 1, 65535));
	uint64_t end = now_ns(CLOCK_MONOTONIC) + (uint64_t)number(argv[2], 1, 1000) * NS_PER_S;
	int handle = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	size_t count = 0;
	char byte = 'o';

	if (handle < 0 || connect(handle, (struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	while (!is_ended && count < MAX_SAMPLES) {
		uint64_t begin = now_ns(CLOCK_MONOTONIC);

		if (begin >= end)
			break;
		if (send(handle, &byte, 1, MSG_NOSIGNAL) != 1 || recv(handle, &byte, 1, 0) != 1)
			fail("connection");
		taken[count++] = now_ns(CLOCK_MONOTONIC) - begin;
	}
	qsort(taken, count, sizeof(*taken), compare_u64);
	printf("{\"count\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f}\n", count, quantile_us(taken, count, 500),
	       quantile_us(taken, count, 990));
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_end };

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	if (argc == 8 && strcmp(argv[1], "send") == 0)
		return send_flood(argv + 2);
	if (argc == 4 && strcmp(argv[1], "receive") == 0)
		return receive_flood(argv + 2);
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		return serve(argv + 2);
	if (argc == 5 && strcmp(argv[1], "ask") == 0)
		return ask(argv + 2);
	fprintf(stderr, "usage: flood send|receive|serve|ask …\n");
	return 2;
}
