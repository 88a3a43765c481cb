/* SPDX-License-Identifier: Apache-2.0 */
/* The board's button. Part of omamori_watch.c. */
#ifndef WATCH_BUTTON_H
#define WATCH_BUTTON_H

static bool is_button(int fd, const char *wanted)
{
	unsigned long keys[KEY_MAX / (8 * sizeof(unsigned long)) + 1] = {0};
	char name[128] = "";

	if (ioctl(fd, EVIOCGNAME(sizeof(name) - 1), name) < 0 || strcmp(name, wanted) != 0)
		return false;
	if (ioctl(fd, EVIOCGBIT(EV_KEY, sizeof(keys)), keys) < 0)
		return false;
	return keys[KEY_POWER / (8 * sizeof(unsigned long))] >> (KEY_POWER % (8 * sizeof(unsigned long))) & 1;
}

/* Look for the button among the input devices; drivers may be loaded later than we are. */
static void find_button(struct watch *watch, __u64 now)
{
	if (!watch->button_name || watch->button_fd >= 0)
		return;
	if (watch->scanned_ns && now - watch->scanned_ns < BUTTON_SCAN_NS)
		return;
	watch->scanned_ns = now;
	for (int i = 0; i < MAX_INPUTS; i++) {
		char path[64];

		snprintf(path, sizeof(path), "/dev/input/event%d", i);

		int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

		if (fd < 0)
			continue;
		if (is_button(fd, watch->button_name)) {
			watch->button_fd = fd;
			say("button: %s", path);
			write_state(watch);
			return;
		}
		close(fd);
	}
}

static void press(struct watch *watch, __u64 now)
{
	__u64 until = watch->button_until_ns > now ? 0 : now + watch->button_ns;

	if (watch->acted_ns && now - watch->acted_ns < BUTTON_QUIET_NS)
		return;
	watch->acted_ns = now;
	watch->counts.presses++;
	if (write_control(watch, OMAMORI_CONTROL_BUTTON_UNTIL_NS, until, now) == 0) {
		watch->button_until_ns = until;
		if (until)
			say("button: everything passes for %" PRIu64 " minutes", (uint64_t)(watch->button_ns / MINUTE_NS));
		else
			say("button: inspecting again");
	}
	write_state(watch);
}

static void read_button(struct watch *watch, __u64 now)
{
	struct input_event event;
	ssize_t length;

	while ((length = read(watch->button_fd, &event, sizeof(event))) == (ssize_t)sizeof(event)) {
		if (event.type != EV_KEY || event.code != KEY_POWER)
			continue;
		if (event.value == 1)
			watch->pressed_ns = now;
		if (event.value == (watch->hold_ns ? 0 : 1) && watch->pressed_ns &&
		    now - watch->pressed_ns >= watch->hold_ns)
			press(watch, now);
		if (event.value == 0)
			watch->pressed_ns = 0;
	}
	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	say("button: gone");
	close(watch->button_fd);
	watch->button_fd = -1;
}

static void end_button(struct watch *watch, __u64 now)
{
	if (watch->button_until_ns && watch->button_until_ns <= now) {
		watch->button_until_ns = 0;
		say("button: time is over, inspecting again");
		write_state(watch);
	}
}

#endif
