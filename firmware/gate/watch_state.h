/* SPDX-License-Identifier: Apache-2.0 */
/* What others are told. Part of omamori_watch.c. */
#ifndef WATCH_STATE_H
#define WATCH_STATE_H

static void write_state(const struct watch *watch)
{
	char temporary[PATH_BYTES], text[768];
	const struct counts *counts = &watch->counts;
	int fd, length;

	if (!watch->state_path)
		return;
	length = snprintf(text, sizeof(text),
			  "{\"version\": 1, \"is_hung\": %s, \"is_paused\": %s, \"hangs\": %" PRIu64 ", \"kills\": %" PRIu64
			  ", \"recoveries\": %" PRIu64 ", \"pauses\": %" PRIu64 ", \"last_stall_ms\": %" PRIu64
			  ", \"longest_stall_ms\": %" PRIu64 ", \"button\": %s, \"presses\": %" PRIu64
			  ", \"button_until_ns\": %" PRIu64 "}\n",
			  watch->is_hung ? "true" : "false", watch->pause_until_ns ? "true" : "false",
			  (uint64_t)counts->hangs, (uint64_t)counts->kills, (uint64_t)counts->recoveries,
			  (uint64_t)counts->pauses, (uint64_t)counts->last_stall_ms,
			  (uint64_t)counts->longest_stall_ms, watch->button_fd >= 0 ? "true" : "false",
			  (uint64_t)counts->presses, (uint64_t)watch->button_until_ns);
	snprintf(temporary, sizeof(temporary), "%s.new", watch->state_path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0)
		return;

	bool is_written = write(fd, text, (size_t)length) == length;

	close(fd);
	if (is_written)
		rename(temporary, watch->state_path);
}

#endif
