/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line to the supervisor, as docs/supervisor.md has it: frames (COBS between zeros, sequence, CRC-32) and messages
 * (one CBOR map in its only accepted spelling). Bounded everywhere, allocates nothing, knows no device.
 */
#ifndef OMAMORI_LINE_H
#define OMAMORI_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LINE_PROTOCOL 1
#define LINE_MAX_BODY 240
#define LINE_MAX_CONTENT (LINE_MAX_BODY + 6)
#define LINE_MAX_STUFFED (LINE_MAX_CONTENT + 1)
#define LINE_MAX_FRAME (LINE_MAX_STUFFED + 2)
#define LINE_MAX_TEXT 64
#define LINE_MAX_FIELDS 13

enum line_kind {
	LINE_HELLO = 1,
	LINE_REPORT = 2,
	LINE_ANNOUNCE = 3,
	LINE_SHOW = 5,
	LINE_CODE = 6,
	LINE_QUERY = 7,
	LINE_SETTINGS = 9,
	LINE_WELCOME = 16,
	LINE_STATUS = 17,
	LINE_TELEMETRY = 18,
	LINE_ANSWER = 19,
	LINE_EVENT = 20,
};

/* What the fields of a kind may be: numbers up to a limit, or text or bytes. */
#define LINE_TEXT UINT64_C(0x100000000)
#define LINE_BYTES UINT64_C(0x200000000)

struct line_field {
	uint32_t number;
	const uint8_t *bytes; /* of text and bytes; into the body */
	size_t length;
};

struct line_message {
	unsigned int kind;
	unsigned int count;
	struct line_field fields[LINE_MAX_FIELDS];
};

struct line_decoder {
	uint8_t piece[LINE_MAX_STUFFED];
	size_t length;
	bool is_too_long;
	int32_t sequence; /* of the frame before; -1: none yet */
	uint64_t good;
	uint64_t damaged;
};

/* ---- frames --------------------------------------------------------------------------------------------------- */

static inline uint32_t line_crc32(const uint8_t *data, size_t length)
{
	uint32_t crc = 0xFFFFFFFF;

	for (size_t i = 0; i < length; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
	}
	return ~crc;
}

/* Write the frame of a body of 1 to 240 bytes; its length. A piece is shorter than 254, so COBS needs no full runs. */
static inline size_t line_frame(uint16_t sequence, const uint8_t *body, size_t length, uint8_t *frame)
{
	uint8_t content[LINE_MAX_CONTENT];
	size_t size = 0, at = 0, run = 1;
	uint32_t crc;

	content[size++] = (uint8_t)(sequence >> 8);
	content[size++] = (uint8_t)sequence;
	memcpy(content + size, body, length);
	size += length;
	crc = line_crc32(content, size);
	for (int shift = 24; shift >= 0; shift -= 8)
		content[size++] = (uint8_t)(crc >> shift);

	frame[at++] = 0;
	at++;
	for (size_t i = 0; i < size; i++) {
		if (content[i]) {
			frame[at++] = content[i];
			run++;
		} else {
			frame[at - run] = (uint8_t)run;
			at++;
			run = 1;
		}
	}
	frame[at - run] = (uint8_t)run;
	frame[at++] = 0;
	return at;
}

/* Undo COBS and check; the length of the body that stands at the begin of `body` afterwards, or 0. */
static inline size_t line_unframe(struct line_decoder *decoder, uint8_t *body)
{
	uint8_t content[LINE_MAX_STUFFED];
	size_t at = 0, size = 0;
	uint32_t crc = 0;
	int32_t sequence;

	while (at < decoder->length) {
		size_t code = decoder->piece[at];

		if (!code || at + code > decoder->length)
			return 0;
		if (at)
			content[size++] = 0;
		memcpy(content + size, decoder->piece + at + 1, code - 1);
		size += code - 1;
		at += code;
	}
	if (size <= 6 || size > LINE_MAX_CONTENT)
		return 0;
	for (size_t i = size - 4; i < size; i++)
		crc = crc << 8 | content[i];
	if (crc != line_crc32(content, size - 4))
		return 0;
	sequence = content[0] << 8 | content[1];
	decoder->good++;
	if (sequence == decoder->sequence)
		return 0; /* a repeat; whole, but to be dropped */
	decoder->sequence = sequence;
	memcpy(body, content + 2, size - 6);
	return size - 6;
}

/* Take one byte from the line; the length of the body that it completed, or 0. */
static inline size_t line_take(struct line_decoder *decoder, uint8_t byte, uint8_t *body)
{
	uint64_t good = decoder->good;
	size_t length = 0;

	if (byte) {
		if (decoder->length == sizeof(decoder->piece))
			decoder->is_too_long = true;
		else
			decoder->piece[decoder->length++] = byte;
		return 0;
	}
	if (decoder->length) {
		if (!decoder->is_too_long)
			length = line_unframe(decoder, body);
		if (decoder->good == good)
			decoder->damaged++;
	}
	decoder->length = 0;
	decoder->is_too_long = false;
	return length;
}

/* ---- CBOR ----------------------------------------------------------------------------------------------------- */

struct line_reader {
	const uint8_t *at;
	const uint8_t *end;
};

/* Read a head in its shortest spelling; false for everything longer than 32 bits, and for what is unfinished. */
static inline bool line_head(struct line_reader *reader, unsigned int *major, uint32_t *argument)
{
	unsigned int extra;

	if (reader->at == reader->end)
		return false;
	*major = *reader->at >> 5;
	*argument = *reader->at++ & 31;
	if (*argument < 24)
		return true;
	if (*argument > 26)
		return false;
	extra = 1u << (*argument - 24);
	if ((size_t)(reader->end - reader->at) < extra)
		return false;
	*argument = 0;
	for (unsigned int i = 0; i < extra; i++)
		*argument = *argument << 8 | *reader->at++;
	return *argument >= (extra == 1 ? 24u : extra == 2 ? 256u : 65536u);
}

static inline bool line_string(struct line_reader *reader, uint32_t length, struct line_field *field)
{
	if ((size_t)(reader->end - reader->at) < length)
		return false;
	field->bytes = reader->at;
	field->length = length;
	reader->at += length;
	return true;
}

static inline bool line_is_printable(const struct line_field *text)
{
	if (text->length > LINE_MAX_TEXT)
		return false;
	for (size_t i = 0; i < text->length; i++)
		if (text->bytes[i] < ' ' || text->bytes[i] > '~')
			return false;
	return true;
}

/* The limits of the fields of what a supervisor sends; NULL for everything else. */
static inline const uint64_t *line_limits(unsigned int kind, unsigned int *count)
{
	static const uint64_t u32 = 0xFFFFFFFF;
	static const uint64_t welcome[] = {255, LINE_TEXT, 3, 65535, 65535, 5, u32};
	static const uint64_t status[] = {6, 1, 9, u32, 255, 9999, u32, u32, u32, u32, u32, u32, 65535};
	static const uint64_t telemetry[] = {LINE_BYTES};
	static const uint64_t answer[] = {65535, 3};
	static const uint64_t event[] = {9, u32};

	switch (kind) {
	case LINE_WELCOME:
		*count = sizeof(welcome) / sizeof(*welcome);
		return welcome;
	case LINE_STATUS:
		*count = sizeof(status) / sizeof(*status);
		return status;
	case LINE_TELEMETRY:
		*count = sizeof(telemetry) / sizeof(*telemetry);
		return telemetry;
	case LINE_ANSWER:
		*count = sizeof(answer) / sizeof(*answer);
		return answer;
	case LINE_EVENT:
		*count = sizeof(event) / sizeof(*event);
		return event;
	default:
		return NULL;
	}
}

/* Read a body; false for what is no message of a supervisor. */
static inline bool line_parse(const uint8_t *body, size_t length, struct line_message *message)
{
	struct line_reader reader = {.at = body, .end = body + length};
	unsigned int major, count = 0;
	const uint64_t *limits;
	uint32_t entries, value;

	if (!line_head(&reader, &major, &entries) || major != 5)
		return false;
	if (!line_head(&reader, &major, &value) || major != 0 || value != 0)
		return false;
	if (!line_head(&reader, &major, &message->kind) || major != 0)
		return false;
	limits = line_limits(message->kind, &count);
	if (!limits || entries != count + 1)
		return false;
	message->count = count;
	for (unsigned int i = 0; i < count; i++) {
		struct line_field *field = &message->fields[i];

		if (!line_head(&reader, &major, &value) || major != 0 || value != i + 1)
			return false;
		if (!line_head(&reader, &major, &value))
			return false;
		if (limits[i] == LINE_TEXT) {
			if (major != 3 || !line_string(&reader, value, field) || !line_is_printable(field))
				return false;
		} else if (limits[i] == LINE_BYTES) {
			if (major != 2 || !line_string(&reader, value, field))
				return false;
		} else {
			if (major != 0 || value > limits[i])
				return false;
			field->number = value;
		}
	}
	return reader.at == reader.end;
}

static inline size_t line_put(uint8_t *at, unsigned int major, uint32_t value)
{
	unsigned int extra = value < 24 ? 0 : value < 256 ? 1 : value < 65536 ? 2 : 4;
	size_t size = 0;

	at[size++] = (uint8_t)(major << 5 | (extra == 0 ? value : extra == 1 ? 24u : extra == 2 ? 25u : 26u));
	for (unsigned int i = extra; i > 0; i--)
		at[size++] = (uint8_t)(value >> (8 * (i - 1)));
	return size;
}

/* Write a message of numbers, at most eight of them, and a text behind them if there is one; its length. */
static inline size_t line_build(uint8_t *body, unsigned int kind, unsigned int count, const uint32_t *numbers,
				const char *text)
{
	size_t size = line_put(body, 5, count + 1 + (text != NULL));

	size += line_put(body + size, 0, 0);
	size += line_put(body + size, 0, kind);
	for (unsigned int i = 0; i < count; i++) {
		size += line_put(body + size, 0, i + 1);
		size += line_put(body + size, 0, numbers[i]);
	}
	if (text) {
		size_t length = strnlen(text, LINE_MAX_TEXT);

		size += line_put(body + size, 0, count + 1);
		size += line_put(body + size, 3, (uint32_t)length);
		memcpy(body + size, text, length);
		size += length;
	}
	return size;
}

/*
 * Find a number of a SenML pack (RFC 8428) by its name; false when it is not there or the pack is none. Base names and
 * units are passed over: the supervisor gives each value its own.
 */
static inline bool line_measured(const struct line_field *pack, const char *wanted, int64_t *number)
{
	struct line_reader reader = {.at = pack->bytes, .end = pack->bytes + pack->length};
	unsigned int major;
	uint32_t records, entries, value;

	if (!line_head(&reader, &major, &records) || major != 4)
		return false;
	while (records--) {
		bool is_wanted = false, has_number = false;
		int64_t found = 0;

		if (!line_head(&reader, &major, &entries) || major != 5)
			return false;
		while (entries--) {
			struct line_field text;
			unsigned int label_major;
			uint32_t label;

			if (!line_head(&reader, &label_major, &label) || label_major > 1)
				return false;
			if (!line_head(&reader, &major, &value))
				return false;
			if (major == 2 || major == 3) {
				if (!line_string(&reader, value, &text))
					return false;
				if (!label_major && label == 0)
					is_wanted = text.length == strlen(wanted) &&
						    memcmp(text.bytes, wanted, text.length) == 0;
			} else if (major == 0 || major == 1) {
				if (!label_major && label == 2) {
					has_number = true;
					found = major ? -1 - (int64_t)value : (int64_t)value;
				}
			} else if (major != 7) {
				return false;
			}
		}
		if (is_wanted && has_number) {
			*number = found;
			return true;
		}
	}
	return false;
}

#endif
