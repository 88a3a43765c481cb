/* What the load programs share: time, errors, addresses. They are for benches only and never on a box. */
#ifndef OMAMORI_LOAD_H
#define OMAMORI_LOAD_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull

static inline uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline void sleep_until_ns(uint64_t when)
{
	struct timespec t = { .tv_sec = (time_t)(when / NS_PER_S), .tv_nsec = (long)(when % NS_PER_S) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static inline void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline long number(const char *text, long low, long high)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*text == '\0' || *end != '\0' || value < low || value > high) {
		fprintf(stderr, "not a number from %ld to %ld: %s\n", low, high, text);
		exit(2);
	}
	return value;
}

/* The `offset`-th address after a dotted one. */
static inline struct sockaddr_in address_at(const char *text, long offset, long port)
{
	struct sockaddr_in made = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };

	if (inet_pton(AF_INET, text, &made.sin_addr) != 1) {
		fprintf(stderr, "not an IPv4 address: %s\n", text);
		exit(2);
	}
	made.sin_addr.s_addr = htonl(ntohl(made.sin_addr.s_addr) + (uint32_t)offset);
	return made;
}

static inline int compare_u64(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

/* The value below which `permille` of 1000 sorted values lie, in microseconds. */
static inline double quantile_us(const uint64_t *sorted, size_t count, unsigned int permille)
{
	size_t place = count * permille / 1000;

	return count ? (double)sorted[place < count ? place : count - 1] / 1000.0 : 0.0;
}

#endif
