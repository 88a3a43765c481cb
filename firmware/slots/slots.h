/* SPDX-License-Identifier: Apache-2.0 */
/* What a slot is, and how this program speaks and finds its files. Part of omamori_slots.c. */
#ifndef SLOTS_H
#define SLOTS_H

#define EFIVARFS 0xde5e81e4
#define GLOBAL "8be4df61-93ca-11d2-aa0d-00e098032b8c"
#define ATTRIBUTES 7 /* survives, for firmware and for us */
#define LOADER "\\EFI\\BOOT\\" BOOT_FILE /* the compiler is told which processor's */
#define EROFS_MAGIC 0xe0f5e1e2u
#define EROFS_OFFSET 1024

#define MAX_VARIABLE 4096
#define MAX_ORDER 128 /* entries in BootOrder that we look at and keep */
#define MAX_STRIKES 5
#define MAX_STARTS 3
#define TEXT 128

enum { A, B, SLOTS };
static const char letters[SLOTS] = {'A', 'B'};
/* "set", "started" and "committing" are stages of an attempt; the others say how it ended. */
static const char *const endings[] = {"set",	     "started",	 "committing", "never-started",
				      "interrupted", "deadline", "crash-loop", "migration"};

static const char *root = "";

struct slot {
	uint8_t option[MAX_VARIABLE]; /* the entry that the firmware should have */
	size_t length;
	bool is_known; /* its partition is there */
	int number;    /* of its entry; -1: none */
	bool is_right; /* the entry is as it should be */
};

struct order {
	uint16_t numbers[MAX_ORDER];
	int count;
};

static void complain(const char *format, ...)
{
	va_list values;

	fputs("omamori-slots: ", stderr);
	va_start(values, format);
	vfprintf(stderr, format, values);
	va_end(values);
	fputc('\n', stderr);
}

static void place(char path[PATH_MAX], const char *format, ...)
{
	va_list values;
	int start = snprintf(path, PATH_MAX, "%s", root);

	va_start(values, format);
	vsnprintf(path + start, PATH_MAX - start, format, values);
	va_end(values);
}

#endif
