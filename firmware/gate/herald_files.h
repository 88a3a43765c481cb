/* SPDX-License-Identifier: Apache-2.0 */
/* Files: what the supervisor has seen, for others, and what others have for it. Part of omamori_herald.c. */
#ifndef HERALD_FILES_H
#define HERALD_FILES_H

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

#endif
