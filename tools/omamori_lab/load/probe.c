/*
 * Paced probes: when each was sent and when it arrived, for measuring interruptions.
 *
 *   probe send udp|tcp ADDRESS PORT RATE SECONDS SIZE FILE [FROM]
 *   probe receive udp|tcp ADDRESS PORT SECONDS FILE [answer]
 *
 * Both write records of two 64-bit numbers: the probe's number and CLOCK_REALTIME nanoseconds. Over UDP the receiver
 * takes the kernel's time of arrival, so that its own scheduling does not count; with `answer` it sends the first bytes
 * back, which makes the flow an established one. Over TCP a probe is SIZE bytes of the stream (the receiver learns SIZE
 * from the first bytes) and has arrived when its last byte can be read.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>

#include "load.h"

#define MAX_SIZE 65000

struct record {
	uint64_t number, at_ns;
};

/* The first bytes say nothing to a protocol detector: zeros would be taken for one protocol or another. */
#define MAGIC "omamori!"

struct head {
	char magic[sizeof(MAGIC)];
	uint64_t number;
	uint32_t size;
} __attribute__((packed));

static volatile sig_atomic_t is_ended;

static void on_end(int signal_number)
{
	(void)signal_number;
	is_ended = 1;
}

static void note(FILE *out, uint64_t number, uint64_t at_ns)
{
	struct record made = { number, at_ns };

	if (fwrite(&made, sizeof(made), 1, out) != 1)
		fail("cannot write");
}

static int send_all(int handle, const char *data, size_t size)
{
	while (size > 0 && !is_ended) {
		ssize_t done = send(handle, data, size, MSG_NOSIGNAL);

		if (done < 0) {
			if (errno == EINTR)
				continue;
			return -1;
		}
		data += done;
		size -= (size_t)done;
	}
	return 0;
}

static int send_probes(int argc, char **argv)
{
	static char data[MAX_SIZE], waste[MAX_SIZE];
	int is_tcp, handle, one = 1;
	long rate, seconds, size;
	struct sockaddr_in to, from;
	uint64_t pace, begin, step;
	FILE *out;

	if (argc < 8)
		return 2;
	is_tcp = strcmp(argv[0], "tcp") == 0;
	to = address_at(argv[1], 0, number(argv[2], 1, 65535));
	rate = number(argv[3], 1, 100000);
	seconds = number(argv[4], 1, 100000);
	size = number(argv[5], (long)sizeof(struct head), MAX_SIZE);
	out = fopen(argv[6], "wb");
	handle = socket(AF_INET, is_tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
	if (!out || handle < 0)
		fail("probe");
	if (argc > 7 && argv[7]) {
		from = address_at(argv[7], 0, 0);
		if (bind(handle, (struct sockaddr *)&from, sizeof(from)))
			fail("bind");
	}
	if (is_tcp)
		setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(handle, (struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	memset(data, 'o', sizeof(data));
	pace = NS_PER_S / (uint64_t)rate;
	begin = now_ns(CLOCK_MONOTONIC);
	for (step = 0; !is_ended && step < (uint64_t)(rate * seconds); step++) {
		struct head head = { .magic = MAGIC, .number = step, .size = (uint32_t)size };

		sleep_until_ns(begin + step * pace);
		memcpy(data, &head, sizeof(head));
		note(out, step, now_ns(CLOCK_REALTIME));
		if (is_tcp) {
			if (send_all(handle, data, (size_t)size))
				break;
		} else {
			/* A refused datagram (nobody listens yet) is a lost one. */
			(void)!send(handle, data, (size_t)size, MSG_DONTWAIT);
			while (recv(handle, waste, sizeof(waste), MSG_DONTWAIT) > 0)
				;
		}
	}
	fclose(out);
	close(handle);
	return 0;
}

static uint64_t arrival_ns(struct msghdr *message)
{
	struct cmsghdr *each;
	struct timespec at;

	for (each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each)) {
		if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SO_TIMESTAMPNS) {
			memcpy(&at, CMSG_DATA(each), sizeof(at));
			return (uint64_t)at.tv_sec * NS_PER_S + (uint64_t)at.tv_nsec;
		}
	}
	return now_ns(CLOCK_REALTIME);
}

static void receive_udp(int handle, FILE *out, uint64_t end, int answers)
{
	static char data[MAX_SIZE], control[256];

	while (!is_ended && now_ns(CLOCK_MONOTONIC) < end) {
		struct pollfd wait = { .fd = handle, .events = POLLIN };
		struct sockaddr_in from;
		struct iovec part = { data, sizeof(data) };
		struct msghdr message = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &part,
					  .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
		struct head head;
		ssize_t size;

		if (poll(&wait, 1, 100) <= 0)
			continue;
		size = recvmsg(handle, &message, MSG_DONTWAIT);
		if (size < (ssize_t)sizeof(head))
			continue;
		memcpy(&head, data, sizeof(head));
		note(out, head.number, arrival_ns(&message));
		if (answers)
			(void)!sendto(handle, data, sizeof(head), MSG_DONTWAIT, (struct sockaddr *)&from, sizeof(from));
	}
}

static void receive_tcp(int listener, FILE *out, uint64_t end)
{
	static char data[MAX_SIZE];
	struct pollfd wait = { .fd = listener, .events = POLLIN };
	uint64_t total = 0, seen = 0;
	size_t size = 0;
	int handle = -1;

	while (!is_ended && now_ns(CLOCK_MONOTONIC) < end) {
		ssize_t got;

		if (poll(&wait, 1, 100) <= 0)
			continue;
		if (handle < 0) {
			handle = accept(listener, NULL, NULL);
			if (handle < 0)
				fail("accept");
			wait.fd = handle;
			continue;
		}
		got = recv(handle, data, sizeof(data), MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			break;
		if (got <= 0)
			continue;
		if (!size) {
			struct head head;

			if (got < (ssize_t)sizeof(head))
				break;
			memcpy(&head, data, sizeof(head));
			size = head.size;
			if (size < sizeof(head) || size > MAX_SIZE)
				break;
		}
		total += (uint64_t)got;
		for (; (seen + 1) * size <= total; seen++)
			note(out, seen, now_ns(CLOCK_REALTIME));
	}
	if (handle >= 0)
		close(handle);
}

static int receive_probes(int argc, char **argv)
{
	int is_tcp, handle, one = 1, room = 8 << 20;
	struct sockaddr_in here;
	uint64_t end;
	FILE *out;

	if (argc < 6)
		return 2;
	is_tcp = strcmp(argv[0], "tcp") == 0;
	/* Answers come from the address that was asked, whatever others there are. */
	here = address_at(argv[1], 0, number(argv[2], 1, 65535));
	end = now_ns(CLOCK_MONOTONIC) + (uint64_t)number(argv[3], 1, 100000) * NS_PER_S;
	out = fopen(argv[4], "wb");
	handle = socket(AF_INET, is_tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
	if (!out || handle < 0)
		fail("probe");
	setsockopt(handle, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(handle, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof(one));
	setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	if (bind(handle, (struct sockaddr *)&here, sizeof(here)) || (is_tcp && listen(handle, 1)))
		fail("bind");
	if (is_tcp)
		receive_tcp(handle, out, end);
	else
		receive_udp(handle, out, end, argv[5] && strcmp(argv[5], "answer") == 0);
	fclose(out);
	close(handle);
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_end };
	int status = 2;

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	if (argc > 2 && strcmp(argv[1], "send") == 0)
		status = send_probes(argc - 1, argv + 2);
	else if (argc > 2 && strcmp(argv[1], "receive") == 0)
		status = receive_probes(argc - 1, argv + 2);
	if (status == 2)
		fprintf(stderr, "usage: probe send udp|tcp ADDRESS PORT RATE SECONDS SIZE FILE [FROM]\n"
				"       probe receive udp|tcp ADDRESS PORT SECONDS FILE [answer]\n");
	return status;
}
