/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each program here needs that runs as a service: words for the journal, small files, the service manager.
 * Whoever includes it has defined PROGRAM, its own name.
 */
#ifndef OMAMORI_SERVICE_H
#define OMAMORI_SERVICE_H

/* Where the service manager listens, see sd_notify(3). */
struct notifier {
	int fd; /* -1: nobody listens */
	bool must_feed; /* it waits for WATCHDOG=1 again and again */
	struct sockaddr_un address;
	socklen_t length;
};

static __attribute__((format(printf, 1, 2))) void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs(PROGRAM ": ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
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

static void notify(const struct notifier *notifier, const char *text)
{
	if (notifier->fd >= 0)
		sendto(notifier->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
		       (const struct sockaddr *)&notifier->address, notifier->length);
}

static struct notifier open_notifier(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct notifier notifier = {.fd = -1, .must_feed = getenv("WATCHDOG_USEC") != NULL};

	if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(notifier.address.sun_path))
		return notifier;
	notifier.address.sun_family = AF_UNIX;
	memcpy(notifier.address.sun_path, path, strlen(path));
	if (path[0] == '@')
		notifier.address.sun_path[0] = '\0';
	notifier.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
	notifier.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return notifier;
}

#endif
