/*
 * Closed-loop HTTP and HTTPS load.
 *
 *   web ADDRESS PORT http|https PATH CONNECTIONS REQUESTS SECONDS FROM COUNT
 *
 * CONNECTIONS run at a time, from COUNT addresses beginning with FROM in turn; each makes REQUESTS requests and is then
 * closed and replaced by a new one. Every TLS connection does a full handshake. What is not finished when the time is
 * over does not count; bytes count as they come. Prints one line of JSON.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/epoll.h>

#include "load.h"

#define MAX_CONNECTIONS 1024
#define MAX_SAMPLES 2000000
#define HEAD_ROOM 4096
#define GIVE_UP_NS (10 * NS_PER_S)

enum stage { CONNECTING, SHAKING, ASKING, READING };

struct connection {
	int handle;
	SSL *tls;
	enum stage stage;
	long requests_left;
	uint64_t begin_ns; /* of the connection for its first request, then of the request */
	size_t asked, head_size;
	int64_t body_left; /* -1 while the head is incomplete */
	char head[HEAD_ROOM];
};

static struct connection connections[MAX_CONNECTIONS];
static uint64_t taken[MAX_SAMPLES];
static size_t sample_count;
static uint64_t opened, requests, failures, bytes;
static char question[1024];
static size_t question_size;
static const char *from_first;
static long from_count, requests_each;
static struct sockaddr_in to;
static SSL_CTX *context;
static int poller;

static void open_connection(struct connection *it)
{
	static long turn;
	struct sockaddr_in from = address_at(from_first, turn++ % from_count, 0);
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = it };
	int one = 1;

	it->handle = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (it->handle < 0)
		fail("socket");
	setsockopt(it->handle, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	setsockopt(it->handle, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (bind(it->handle, (struct sockaddr *)&from, sizeof(from)))
		fail("bind");
	it->begin_ns = now_ns(CLOCK_MONOTONIC);
	if (connect(it->handle, (struct sockaddr *)&to, sizeof(to)) && errno != EINPROGRESS)
		fail("connect");
	it->stage = CONNECTING;
	it->requests_left = requests_each;
	it->asked = it->head_size = 0;
	it->body_left = -1;
	if (context) {
		it->tls = SSL_new(context);
		if (!it->tls || !SSL_set_fd(it->tls, it->handle) || !SSL_set_tlsext_host_name(it->tls, "bench.example"))
			fail("TLS");
		SSL_set_connect_state(it->tls);
	}
	if (epoll_ctl(poller, EPOLL_CTL_ADD, it->handle, &event))
		fail("epoll");
}

static void close_connection(struct connection *it)
{
	if (it->tls) {
		SSL_set_quiet_shutdown(it->tls, 1);
		SSL_free(it->tls);
		it->tls = NULL;
	}
	close(it->handle);
	it->handle = -1;
}

/* Like send and recv, for both kinds: > 0 done, 0 closed, -1 broken, -2 would wait. */
static ssize_t transfer(struct connection *it, char *data, size_t size, int is_write)
{
	ssize_t done;

	if (it->tls) {
		int code;

		ERR_clear_error();
		done = is_write ? SSL_write(it->tls, data, (int)size) : SSL_read(it->tls, data, (int)size);
		if (done > 0)
			return done;
		code = SSL_get_error(it->tls, (int)done);
		if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE)
			return -2;
		return code == SSL_ERROR_ZERO_RETURN ? 0 : -1;
	}
	done = is_write ? send(it->handle, data, size, MSG_NOSIGNAL) : recv(it->handle, data, size, 0);
	if (done < 0)
		return errno == EAGAIN ? -2 : -1;
	return done;
}

/* Return the size of the body that the head announces, or -1. */
static int64_t announced(const char *head)
{
	const char *field = strcasestr(head, "\r\nContent-Length:");

	if (strncmp(head, "HTTP/1.1 200", 12) != 0 || !field)
		return -1;
	return strtoll(field + 17, NULL, 10);
}

/* Take bytes of an answer; return 1 when it is complete, 0 when more is needed, -1 when it is not as expected. */
static int take(struct connection *it, const char *data, size_t size)
{
	if (it->body_left < 0) {
		size_t room = HEAD_ROOM - 1 - it->head_size, part = size < room ? size : room;
		char *end;

		memcpy(it->head + it->head_size, data, part);
		it->head_size += part;
		it->head[it->head_size] = '\0';
		end = strstr(it->head, "\r\n\r\n");
		if (!end)
			return it->head_size < HEAD_ROOM - 1 ? 0 : -1;
		it->body_left = announced(it->head);
		if (it->body_left < 0)
			return -1;
		/* Bytes of the body came with the head, some of them perhaps beyond the room for the head. */
		it->body_left -= (int64_t)(it->head_size - (size_t)(end + 4 - it->head)) + (int64_t)(size - part);
	} else {
		it->body_left -= (int64_t)size;
	}
	return it->body_left < 0 ? -1 : it->body_left == 0;
}

/* Go on as far as possible without waiting; return 0, 1 when the connection did its work, -1 when it broke. */
static int advance(struct connection *it)
{
	static char block[1 << 18];

	for (;;) {
		ssize_t done;

		switch (it->stage) {
		case CONNECTING: {
			int code = 0;
			socklen_t size = sizeof(code);
			struct sockaddr_in peer;
			socklen_t peer_size = sizeof(peer);

			getsockopt(it->handle, SOL_SOCKET, SO_ERROR, &code, &size);
			if (code)
				return -1;
			if (getpeername(it->handle, (struct sockaddr *)&peer, &peer_size))
				return 0;
			it->stage = it->tls ? SHAKING : ASKING;
			break;
		}
		case SHAKING: {
			int code = SSL_do_handshake(it->tls);

			if (code != 1) {
				code = SSL_get_error(it->tls, code);
				return code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE ? 0 : -1;
			}
			it->stage = ASKING;
			break;
		}
		case ASKING:
			done = transfer(it, question + it->asked, question_size - it->asked, 1);
			if (done == -2)
				return 0;
			if (done <= 0)
				return -1;
			it->asked += (size_t)done;
			if (it->asked == question_size)
				it->stage = READING;
			break;
		case READING:
			done = transfer(it, block, sizeof(block), 0);
			if (done == -2)
				return 0;
			if (done <= 0)
				return -1;
			bytes += (uint64_t)done;
			switch (take(it, block, (size_t)done)) {
			case -1:
				return -1;
			case 0:
				break;
			default: {
				uint64_t now = now_ns(CLOCK_MONOTONIC);

				if (sample_count < MAX_SAMPLES)
					taken[sample_count++] = now - it->begin_ns;
				requests++;
				if (--it->requests_left == 0)
					return 1;
				it->begin_ns = now;
				it->asked = it->head_size = 0;
				it->body_left = -1;
				it->stage = ASKING;
			}
			}
		}
	}
}

static void replace(struct connection *it, int outcome)
{
	if (outcome > 0)
		opened++;
	else
		failures++;
	close_connection(it);
	open_connection(it);
}

int main(int argc, char **argv)
{
	struct epoll_event events[64];
	uint64_t begin, end, looked;
	long count, each;

	if (argc != 10) {
		fprintf(stderr, "usage: web ADDRESS PORT http|https PATH CONNECTIONS REQUESTS SECONDS FROM COUNT\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN); /* OpenSSL writes with write() */
	to = address_at(argv[1], 0, number(argv[2], 1, 65535));
	if (strcmp(argv[3], "https") == 0) {
		context = SSL_CTX_new(TLS_client_method());
		if (!context)
			fail("TLS");
		SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
		SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	}
	question_size = (size_t)snprintf(question, sizeof(question),
					 "GET %s HTTP/1.1\r\nHost: bench.example\r\nUser-Agent: Mozilla/5.0 (bench)\r\n"
					 "Accept: */*\r\n\r\n", argv[4]);
	count = number(argv[5], 1, MAX_CONNECTIONS);
	requests_each = number(argv[6], 1, 1000000);
	from_first = argv[8];
	from_count = number(argv[9], 1, 250);
	poller = epoll_create1(0);
	begin = looked = now_ns(CLOCK_MONOTONIC);
	end = begin + (uint64_t)number(argv[7], 1, 10000) * NS_PER_S;
	for (each = 0; each < count; each++)
		open_connection(&connections[each]);
	while (now_ns(CLOCK_MONOTONIC) < end) {
		int ready = epoll_wait(poller, events, 64, 50);

		for (each = 0; each < ready; each++) {
			struct connection *it = events[each].data.ptr;
			int outcome = advance(it);

			if (outcome)
				replace(it, outcome);
		}
		if (now_ns(CLOCK_MONOTONIC) - looked > NS_PER_S) {
			looked = now_ns(CLOCK_MONOTONIC);
			for (each = 0; each < count; each++)
				if (looked - connections[each].begin_ns > GIVE_UP_NS)
					replace(&connections[each], -1);
		}
	}
	end = now_ns(CLOCK_MONOTONIC);
	qsort(taken, sample_count, sizeof(*taken), compare_u64);
	printf("{\"connections\": %llu, \"requests\": %llu, \"failures\": %llu, \"bytes\": %llu, \"seconds\": %.6f, "
	       "\"p50_us\": %.1f, \"p99_us\": %.1f}\n",
	       (unsigned long long)opened, (unsigned long long)requests, (unsigned long long)failures,
	       (unsigned long long)bytes, (double)(end - begin) / 1e9, quantile_us(taken, sample_count, 500),
	       quantile_us(taken, sample_count, 990));
	return 0;
}
