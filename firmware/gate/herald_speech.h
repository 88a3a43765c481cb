/* SPDX-License-Identifier: Apache-2.0 */
/* The line, what is said on it, and how long that counts. Part of omamori_herald.c. */
#ifndef HERALD_SPEECH_H
#define HERALD_SPEECH_H

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

#endif
