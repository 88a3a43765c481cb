/* SPDX-License-Identifier: Apache-2.0 */
/* What the supervisor says. Part of omamori_herald.c. */
#ifndef HERALD_HEARING_H
#define HERALD_HEARING_H

static void take_welcome(struct herald *herald, const struct line_message *message)
{
	const struct line_field *fields = message->fields;

	if (fields[0].number != LINE_PROTOCOL && !herald->was_complained) {
		say("warning: the supervisor speaks protocol %" PRIu32 ", not %d", fields[0].number, LINE_PROTOCOL);
		herald->was_complained = true;
	}
	memcpy(herald->chip, fields[1].bytes, fields[1].length);
	herald->chip[fields[1].length] = '\0';
	if (!herald->is_welcome || fields[3].number != herald->restarts)
		say("supervisor %s%s, power event %" PRIu32, herald->chip, fields[2].number ? ", restarted itself" : "",
		    fields[4].number);
	herald->restarts = fields[3].number;
	herald->power_serial = fields[4].number;
	herald->power_kind = fields[5].number;
	herald->outage_ms = fields[6].number;
	herald->is_welcome = true;
	herald->must_greet = false;
	herald->has_settled = false; /* one that began anew has forgotten them */
	herald->code_told = UINT32_MAX;
	herald->is_changed = true;
}

static void take_event(struct herald *herald, const struct line_message *message)
{
	static const char *const names[] = {
		"", "silence noticed", "reset the box", "gave up", "button: code", "button: state",
		"supply lost", "supply back", "supply low", "wire",
	};
	uint32_t kind = message->fields[0].number, value = message->fields[1].number;

	if (kind && kind < sizeof(names) / sizeof(*names))
		say("supervisor: %s %" PRIu32, names[kind], value);
	if (kind == EVENT_POWER_BACK || kind == EVENT_BROWN_OUT)
		herald->must_greet = true; /* what it was, and its number, stand in the answer to a greeting */
	herald->status_at_ms = 0; /* look at what came of it */
	herald->telemetry_at_ms = 0;
}

static void take_message(struct herald *herald, const struct line_message *message, uint64_t now)
{
	struct request *request = &herald->request;
	const struct line_field *fields = message->fields;

	if (message->kind == LINE_WELCOME) {
		take_welcome(herald, message);
	} else if (message->kind == LINE_EVENT) {
		take_event(herald, message);
	} else if (message->kind == LINE_STATUS) {
		learn(herald, fields, now);
		for (unsigned int i = 0; i < message->count; i++)
			herald->status[i] = fields[i].number;
		herald->has_status = herald->is_changed = true;
	} else if (message->kind == LINE_TELEMETRY) {
		herald->has_celsius = line_measured(&fields[0], "temp", &herald->celsius);
		herald->has_millivolts = line_measured(&fields[0], "rail", &herald->millivolts);
		herald->has_past = line_measured(&fields[0], "past", &herald->past_s);
		herald->is_changed = true;
	} else if (fields[1].number) {
		say("the supervisor refused request %" PRIu32 ": %" PRIu32, fields[0].number, fields[1].number);
	}
	if (herald->has_request && request->answer == message->kind &&
	    (message->kind != LINE_ANSWER || fields[0].number == request->number))
		herald->has_request = false;
}

static void hear(struct herald *herald, uint64_t now)
{
	uint8_t data[512], body[LINE_MAX_STUFFED];
	struct line_message message;
	ssize_t length;

	while (herald->line_fd >= 0) {
		length = read(herald->line_fd, data, sizeof(data));
		if (length < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (length <= 0) {
			lose_line(herald, length ? strerror(errno) : "closed", now);
			return;
		}
		for (ssize_t i = 0; i < length; i++) {
			size_t size = line_take(&herald->decoder, data[i], body);

			if (!size)
				continue;
			if (!line_parse(body, size, &message)) {
				herald->unknown++;
				continue;
			}
			herald->heard_ms = now;
			take_message(herald, &message, now);
		}
		if (length < (ssize_t)sizeof(data))
			return;
	}
}

#endif
