/* SPDX-License-Identifier: Apache-2.0 */
/*
 * omamori-slots: which slot the machine's firmware starts, and whether the one that runs is on trial.
 *
 * The truth is in the firmware's own variables: BootOrder's first entry of ours is the committed slot, BootNext is one
 * trial. This program keeps an entry for each slot there (some machines forget theirs), is RAUC's boot chooser
 * ("custom backend"), and ends a trial that comes to nothing.
 *
 *   boot                          at every start: entries, boot.json, and the files by which units know a trial from a
 *                                 version that is kept
 *   get-current | get-primary     RAUC asks for a slot
 *   get-state SLOT                good: in BootOrder; bad: not
 *   set-primary SLOT              one trial at the next start; of the committed slot: none after all
 *   set-state SLOT good|bad       commit; or take out of BootOrder
 *   deadline                      fails unless the running slot is committed
 *   strike                        fails the fifth time in one trial: something does not stop failing
 *   migration                     fails in a trial: the data could not be carried over
 * A failure of the last three makes the service manager restart the machine, which then starts the committed slot.
 *   starting                      the initrd says: a trial has begun; or the committed slot starts, which fails when it
 *                                 got nowhere three times and the other, which was good once, is to be started, once
 *   settled                       this start got somewhere
 *   rescue                        the initrd cannot open this slot's root: the other one, once, if there is one
 *
 * Rules:
 *  - Each change of a variable is one write, which the firmware does wholly or not at all, and is read back.
 *  - What is intended is on the data partition before the variable is written, so that whatever runs after a power
 *    cut can tell how the last attempt ended.
 *  - BootOrder never loses the last slot of ours, and nothing but our slots comes before them.
 *  - Everything read is bounded. A machine without variables still starts; it only cannot change slots.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

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

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* Read at most `size` bytes; -1 when it cannot be read or is larger. */
static ssize_t read_file(const char *path, void *data, size_t size)
{
	uint8_t more;
	size_t length = 0;
	ssize_t got;
	int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (file < 0)
		return -1;
	while ((got = read(file, (uint8_t *)data + length, size - length)) > 0)
		length += got;
	if (got == 0 && length == size && size && read(file, &more, 1) > 0)
		got = -1;
	close(file);
	return got < 0 ? -1 : (ssize_t)length;
}

static bool read_text(char text[TEXT], const char *path)
{
	ssize_t length = read_file(path, text, TEXT - 1);

	text[length < 0 ? 0 : length] = 0;
	if (length > 0 && text[length - 1] == '\n')
		text[length - 1] = 0;
	return length >= 0;
}

static bool read_number(unsigned long long *number, const char *path)
{
	char text[TEXT], *end;

	if (!read_text(text, path) || !*text)
		return false;
	*number = strtoull(text, &end, 10);
	return !*end;
}

/* Replace a file of ours, all or nothing; on the data partition also after a power cut. */
static bool write_file(const char *directory, const char *name, const char *text, bool is_durable)
{
	char path[PATH_MAX], fresh[PATH_MAX];
	bool ok;
	int file, folder;

	place(path, "%s", directory);
	if (mkdir(path, 0755) && errno != EEXIST) {
		complain("%s: %s", path, strerror(errno));
		return false;
	}
	place(fresh, "%s/.%s.tmp", directory, name);
	place(path, "%s/%s", directory, name);
	unlink(fresh);
	file = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	ok = file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text) && (!is_durable || !fsync(file));
	if (file >= 0)
		close(file);
	ok = ok && !rename(fresh, path);
	if (!ok) {
		complain("%s: %s", path, strerror(errno));
		return false;
	}
	if (is_durable) {
		place(path, "%s", directory);
		folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ok = folder >= 0 && !fsync(folder);
		if (folder >= 0)
			close(folder);
	}
	return ok;
}

#define STATE "/var/lib/omamori/boot"
#define RUN "/run/omamori/boot"

static bool exists(const char *directory, const char *name)
{
	char path[PATH_MAX];

	place(path, "%s/%s", directory, name);
	return !access(path, F_OK);
}

static void forget(const char *directory, const char *name)
{
	char path[PATH_MAX];

	place(path, "%s/%s", directory, name);
	unlink(path);
}

static int slot_of(char letter)
{
	return letter == 'A' ? A : letter == 'B' ? B : -1;
}

/* The slot that the data partition remembers as committed; -1: none. */
static int remembered(void)
{
	char path[PATH_MAX], text[TEXT];

	place(path, STATE "/committed");
	return read_text(text, path) && strlen(text) == 1 ? slot_of(*text) : -1;
}

static bool remember(int slot)
{
	char text[3] = {letters[slot], '\n', 0};

	return remembered() == slot || write_file(STATE, "committed", text, true);
}

/* How the last attempt stands; the slot, or -1 when there was none. */
static int read_attempt(const char **end)
{
	char path[PATH_MAX], text[TEXT];

	*end = "";
	place(path, STATE "/attempt");
	if (!read_text(text, path) || strlen(text) < 3 || text[1] != ' ')
		return -1;
	for (size_t at = 0; at < sizeof(endings) / sizeof(*endings); at++)
		if (!strcmp(text + 2, endings[at])) {
			*end = endings[at];
			return slot_of(*text);
		}
	return -1;
}

static bool write_attempt(int slot, const char *end)
{
	char text[TEXT];

	snprintf(text, sizeof(text), "%c %s\n", letters[slot], end);
	return write_file(STATE, "attempt", text, true);
}

static int booted(void)
{
	char path[PATH_MAX], text[TEXT];

	place(path, "/run/omamori/slot");
	return read_text(text, path) && strlen(text) == 1 ? slot_of(*text) : -1;
}

/* ---- variables -------------------------------------------------------------------------------------------------- */

static void variable_path(char path[PATH_MAX], const char *name)
{
	place(path, "/sys/firmware/efi/efivars/%s-" GLOBAL, name);
}

/* The bytes of a variable without its attributes; -1: there is none. */
static ssize_t read_variable(const char *name, uint8_t data[MAX_VARIABLE])
{
	uint8_t raw[MAX_VARIABLE + 4];
	char path[PATH_MAX];
	ssize_t length;

	variable_path(path, name);
	length = read_file(path, raw, sizeof(raw));
	if (length < 4)
		return -1;
	memcpy(data, raw + 4, length - 4);
	return length - 4;
}

static bool write_variable(const char *name, const uint8_t *data, size_t length)
{
	uint8_t raw[MAX_VARIABLE + 4] = {ATTRIBUTES}, back[MAX_VARIABLE];
	char path[PATH_MAX];
	struct statfs kind;
	ssize_t done = -1;
	int file;

	memcpy(raw + 4, data, length);
	variable_path(path, name);
	file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (file >= 0) {
		done = write(file, raw, length + 4);
		/* A variable has always the length of the last write; tests use a directory of files. */
		if (done >= 0 && !fstatfs(file, &kind) && (uint32_t)kind.f_type != EFIVARFS && ftruncate(file, done))
			done = -1;
		close(file);
	}
	if (done != (ssize_t)length + 4) {
		complain("%s cannot be written: %s", name, strerror(errno));
		return false;
	}
	if (read_variable(name, back) != (ssize_t)length || memcmp(back, data, length)) {
		complain("%s does not keep what is written", name);
		return false;
	}
	return true;
}

static bool delete_variable(const char *name)
{
	char path[PATH_MAX];

	variable_path(path, name);
	if (!unlink(path) || errno == ENOENT)
		return true;
	complain("%s cannot be deleted: %s", name, strerror(errno));
	return false;
}

static bool has_variables(void)
{
	char path[PATH_MAX];
	struct statfs kind;

	place(path, "/sys/firmware/efi/efivars");
	/* Without the file system there is only an empty directory. */
	return !statfs(path, &kind) && ((uint32_t)kind.f_type == EFIVARFS || *root);
}

static void read_order(struct order *order)
{
	uint8_t data[MAX_VARIABLE];
	ssize_t length = read_variable("BootOrder", data);

	order->count = 0;
	for (ssize_t at = 0; at + 1 < length && order->count < MAX_ORDER; at += 2)
		order->numbers[order->count++] = data[at] | data[at + 1] << 8;
}

static bool write_order(const struct order *order)
{
	uint8_t data[2 * MAX_ORDER];

	for (int at = 0; at < order->count; at++) {
		data[2 * at] = order->numbers[at] & 0xff;
		data[2 * at + 1] = order->numbers[at] >> 8;
	}
	return write_variable("BootOrder", data, 2 * order->count);
}

static int position(const struct order *order, int number)
{
	for (int at = 0; at < order->count; at++)
		if (order->numbers[at] == number)
			return at;
	return -1;
}

static void take_out(struct order *order, int number)
{
	int kept = 0;

	for (int at = 0; at < order->count; at++)
		if (order->numbers[at] != number)
			order->numbers[kept++] = order->numbers[at];
	order->count = kept;
}

static void put_in(struct order *order, int where, int number)
{
	take_out(order, number);
	if (order->count == MAX_ORDER)
		order->count--;
	if (where > order->count)
		where = order->count;
	memmove(order->numbers + where + 1, order->numbers + where, (order->count - where) * sizeof(*order->numbers));
	order->numbers[where] = number;
	order->count++;
}

static int next_number(void)
{
	uint8_t data[MAX_VARIABLE];

	return read_variable("BootNext", data) == 2 ? data[0] | data[1] << 8 : -1;
}

/* ---- entries ---------------------------------------------------------------------------------------------------- */

static size_t put(uint8_t *target, size_t at, unsigned long long value, int bytes)
{
	for (int byte = 0; byte < bytes; byte++)
		target[at + byte] = value >> (8 * byte);
	return at + bytes;
}

static size_t put_text(uint8_t *target, size_t at, const char *text)
{
	do
		at = put(target, at, (uint8_t)*text, 2);
	while (*text++);
	return at;
}

/* The identifier of a slot's boot partition, in the order of bytes that the firmware wants. */
static bool partition_identifier(int slot, uint8_t identifier[16])
{
	static const int order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
	char path[PATH_MAX], text[512], wanted[TEXT];
	const char *line;
	ssize_t length;
	int digits = 0;

	place(path, "/usr/lib/omamori/slots/partitions");
	length = read_file(path, text, sizeof(text) - 1);
	if (length < 0)
		return false;
	text[length] = 0;
	snprintf(wanted, sizeof(wanted), "SLOT_%c_GUID=", letters[slot]);
	line = strstr(text, wanted);
	if (!line)
		return false;
	memset(identifier, 0, 16);
	for (line += strlen(wanted); *line && *line != '\n' && digits < 32; line++) {
		static const char hex[] = "0123456789ABCDEF";
		const char *digit = strchr(hex, *line);

		if (*line == '-')
			continue;
		if (!digit)
			return false;
		identifier[order[digits / 2]] |= (digit - hex) << (digits % 2 ? 0 : 4);
		digits++;
	}
	return digits == 32;
}

/* EFI_LOAD_OPTION: attributes, length of the path, name, path (partition, file, end). */
static bool describe(int slot, struct slot *entry)
{
	unsigned long long number, start, size, sector = 512;
	char link[PATH_MAX], device[PATH_MAX], path[PATH_MAX], label[TEXT];
	uint8_t identifier[16];
	size_t at, path_at;
	ssize_t length;

	place(link, "/dev/omamori/slot_%c", letters[slot] | 0x20);
	length = readlink(link, device, sizeof(device) - 1);
	if (length <= 0 || !partition_identifier(slot, identifier))
		return false;
	device[length] = 0;
	const char *name = strrchr(device, '/') ? strrchr(device, '/') + 1 : device;

	place(path, "/sys/class/block/%s/partition", name);
	if (!read_number(&number, path))
		return false;
	place(path, "/sys/class/block/%s/start", name);
	if (!read_number(&start, path))
		return false;
	place(path, "/sys/class/block/%s/size", name);
	if (!read_number(&size, path))
		return false;
	place(path, "/sys/class/block/%s/../queue/logical_block_size", name);
	if (read_number(&sector, path) && (sector < 512 || sector > 65536 || sector & (sector - 1)))
		return false;

	at = put(entry->option, 0, 1, 4); /* active */
	at = put(entry->option, at, 0, 2);
	snprintf(label, sizeof(label), "omamori-%c", letters[slot]);
	at = path_at = put_text(entry->option, at, label);
	at = put(entry->option, at, 4 | 1 << 8 | 42 << 16, 4); /* a partition */
	at = put(entry->option, at, number, 4);
	at = put(entry->option, at, start * 512 / sector, 8); /* the kernel always counts in 512 bytes */
	at = put(entry->option, at, size * 512 / sector, 8);
	memcpy(entry->option + at, identifier, 16);
	at = put(entry->option, at + 16, 2 | 2 << 8, 2); /* GPT, by identifier */
	at = put(entry->option, at, 4 | 4 << 8 | (4 + 2 * sizeof(LOADER)) << 16, 4);
	at = put_text(entry->option, at, LOADER);
	at = put(entry->option, at, 0x7f | 0xff << 8 | 4 << 16, 4);
	put(entry->option, 4, at - path_at, 2);
	entry->length = at;
	return true;
}

/* Which slot an entry of the firmware says to be, by its name; -1: none of ours. */
static int entry_slot(const uint8_t *data, ssize_t length)
{
	uint8_t name[64];

	for (int slot = A; slot < SLOTS; slot++) {
		char label[TEXT];

		snprintf(label, sizeof(label), "omamori-%c", letters[slot]);
		size_t bytes = put_text(name, 0, label);

		if (length >= (ssize_t)(6 + bytes) && !memcmp(data + 6, name, bytes))
			return slot;
	}
	return -1;
}

static void name_of(char name[TEXT], int number)
{
	snprintf(name, TEXT, "Boot%04X", number);
}

static int entry_number(const char *file)
{
	char *end, digits[5] = {0};

	if (strlen(file) != 9 + strlen(GLOBAL) || strncmp(file, "Boot", 4) || strcmp(file + 9, GLOBAL))
		return -1;
	memcpy(digits, file + 4, 4);
	for (int at = 0; at < 4; at++)
		if (!strchr("0123456789ABCDEF", digits[at]))
			return -1;
	return strtol(digits, &end, 16);
}

/* Find our entries. Of several with the same name the one that is right, else the lowest, counts. */
static void find_entries(struct slot slots[SLOTS], struct order *stale)
{
	uint8_t data[MAX_VARIABLE];
	char path[PATH_MAX], name[TEXT];
	struct dirent *file;
	DIR *directory;

	stale->count = 0;
	for (int slot = A; slot < SLOTS; slot++) {
		slots[slot] = (struct slot){.number = -1};
		slots[slot].is_known = describe(slot, &slots[slot]);
	}
	place(path, "/sys/firmware/efi/efivars");
	directory = opendir(path);
	while (directory && (file = readdir(directory))) {
		int number = entry_number(file->d_name), slot, other;
		bool is_right;
		ssize_t length;

		if (number < 0)
			continue;
		name_of(name, number);
		length = read_variable(name, data);
		slot = entry_slot(data, length);
		if (slot < 0)
			continue;
		struct slot *found = &slots[slot];

		is_right = found->is_known && length == (ssize_t)found->length && !memcmp(data, found->option, length);
		other = found->number;
		if (other >= 0 && (found->is_right > is_right || (found->is_right == is_right && other < number))) {
			other = number;
		} else {
			found->number = number;
			found->is_right = is_right;
		}
		if (other >= 0 && stale->count < MAX_ORDER)
			stale->numbers[stale->count++] = other;
	}
	if (directory)
		closedir(directory);
}

/* Make the entry of a slot what it should be; say whether it is. */
static bool ensure_entry(struct slot *slot)
{
	uint8_t data[MAX_VARIABLE];
	char name[TEXT];

	if (slot->number >= 0 && (slot->is_right || !slot->is_known))
		return true;
	if (!slot->is_known)
		return false;
	for (int number = slot->number < 0 ? 0 : slot->number; number < 0x1000; number++) {
		name_of(name, number);
		if (number != slot->number && read_variable(name, data) >= 0)
			continue;
		if (!write_variable(name, slot->option, slot->length))
			return false;
		slot->number = number;
		slot->is_right = true;
		return true;
	}
	return false;
}

static bool is_empty(int slot)
{
	char path[PATH_MAX];
	uint8_t magic[4] = {0};
	int device;

	place(path, "/dev/omamori/root_%c", letters[slot] | 0x20);
	device = open(path, O_RDONLY | O_CLOEXEC);
	if (device < 0)
		return true;
	if (pread(device, magic, 4, EROFS_OFFSET) != 4)
		memset(magic, 0, 4);
	close(device);
	return (magic[0] | magic[1] << 8 | magic[2] << 16 | (uint32_t)magic[3] << 24) != EROFS_MAGIC;
}

static bool is_in(const struct order *order, const struct slot *slot)
{
	return slot->number >= 0 && position(order, slot->number) >= 0;
}

/* The slot that starts when nothing else is said; -1: none. */
static int committed(const struct slot slots[SLOTS], const struct order *order)
{
	for (int at = 0; at < order->count; at++)
		for (int slot = A; slot < SLOTS; slot++)
			if (slots[slot].number == order->numbers[at])
				return slot;
	return -1;
}

/* ---- commands --------------------------------------------------------------------------------------------------- */

/* Ours first, in the order they have; `first` before all. */
static bool arrange(const struct slot slots[SLOTS], struct order *order, int first, bool with_other)
{
	struct order wanted = *order;
	int other = !first;

	if (with_other || is_in(order, &slots[other]))
		put_in(&wanted, 0, slots[other].number);
	put_in(&wanted, 0, slots[first].number);
	if (wanted.count == order->count && !memcmp(wanted.numbers, order->numbers, 2 * wanted.count))
		return true;
	*order = wanted;
	return write_order(order);
}

static bool tell(int now, int first, bool is_trial, const char *reason, const struct slot slots[SLOTS],
		 const struct order *order)
{
	char attempt[TEXT] = "null", text[1024];
	const char *end, *other = is_empty(!now) ? "empty" : is_in(order, &slots[!now]) ? "good" : "bad";
	int tried = read_attempt(&end);

	if (tried >= 0)
		snprintf(attempt, sizeof(attempt), "{\"slot\":\"%c\",\"end\":\"%s\"}", letters[tried], end);
	snprintf(text, sizeof(text),
		 "{\"format\":1,\"slot\":\"%c\",\"committed\":\"%c\",\"is_trial\":%s,\"reason\":\"%s\",\"attempt\":%s,"
		 "\"other\":{\"slot\":\"%c\",\"state\":\"%s\"}}\n",
		 letters[now], letters[first], is_trial ? "true" : "false", reason, attempt, letters[!now], other);
	return write_file(RUN, "boot.json", text, false);
}

/* Note how the attempt before this start ended. */
static void judge_attempt(int now, int first, const struct slot slots[SLOTS])
{
	const char *end;
	int tried = read_attempt(&end);

	if (tried < 0)
		return;
	if (tried == first)
		forget(STATE, "attempt"); /* committed; only the note was left */
	else if (tried == now)
		write_attempt(tried, "started");
	else if (!strcmp(end, "started") || !strcmp(end, "committing"))
		write_attempt(tried, "interrupted");
	else if (!strcmp(end, "set") && (slots[tried].number < 0 || next_number() != slots[tried].number))
		write_attempt(tried, "never-started");
}

/* Data of another version than this image's have to be carried over, or back, before anybody reads them. */
static void look_at_data(void)
{
	unsigned long long wanted = 1, present = 1;
	char path[PATH_MAX];

	place(path, "/usr/lib/omamori/data-version");
	read_number(&wanted, path);
	place(path, "/var/lib/omamori/migration/version");
	read_number(&present, path);
	if (wanted != present || exists("/var/lib/omamori/migration", "journal.json"))
		write_file(RUN, "migrate", "", false);
}

static int command_boot(void)
{
	struct slot slots[SLOTS];
	struct order order, stale;
	const char *reason = "normal", *end;
	bool is_trial, was_restored;
	int now = booted(), first, memory = remembered();

	if (now < 0) {
		complain("the running slot is not known");
		return 1;
	}
	look_at_data();
	read_order(&order);
	find_entries(slots, &stale);
	if (!has_variables()) {
		complain("this machine has no firmware variables: slots cannot be changed");
		return !tell(now, memory >= 0 ? memory : now, false, "no-variables", slots, &order);
	}
	first = committed(slots, &order);
	/* An order that we did not write is the firmware's own idea, and no commit. */
	was_restored = memory >= 0 && first != memory && !(read_attempt(&end) == first && !strcmp(end, "committing"));
	for (int slot = A; slot < SLOTS; slot++)
		if (!ensure_entry(&slots[slot]))
			complain("there is no entry for slot %c", letters[slot]);
	if (was_restored)
		first = memory;
	else if (first < 0)
		first = now;
	if (slots[first].number < 0)
		first = now;
	/* What runs has proved that it can start: it is the way out when the first cannot. */
	if (slots[first].number >= 0)
		arrange(slots, &order, first, was_restored && slots[!first].number >= 0 && now != first);
	for (int at = 0; at < stale.count; at++) {
		char name[TEXT];

		name_of(name, stale.numbers[at]);
		if (position(&order, stale.numbers[at]) >= 0) {
			take_out(&order, stale.numbers[at]);
			write_order(&order);
		}
		delete_variable(name);
	}
	remember(first);
	judge_attempt(now, first, slots);
	is_trial = now != first && !was_restored && (read_attempt(&end) == now || !is_in(&order, &slots[now]));
	if (is_trial) {
		reason = "trial";
		if (read_attempt(&end) != now)
			write_attempt(now, "started");
		write_file(RUN, "trial", "", false);
	} else if (was_restored) {
		reason = "restored";
	} else if (now != first) {
		reason = "fallback";
	} else {
		write_file(RUN, "kept", "", false);
	}
	return !tell(now, first, is_trial, reason, slots, &order);
}

static int command_set_primary(struct slot slots[SLOTS], int slot)
{
	struct order order;
	uint8_t number[2];

	read_order(&order);
	if (committed(slots, &order) == slot) {
		if (!delete_variable("BootNext"))
			return 1;
		forget(STATE, "attempt");
		return 0;
	}
	if (is_empty(slot)) {
		complain("slot %c is empty", letters[slot]);
		return 1;
	}
	if (!ensure_entry(&slots[slot]) || !write_attempt(slot, "set"))
		return 1;
	put(number, 0, slots[slot].number, 2);
	return !write_variable("BootNext", number, 2);
}

static int command_set_state(struct slot slots[SLOTS], int slot, bool is_good)
{
	struct order order;
	const char *end;

	read_order(&order);
	if (is_good) {
		if (!ensure_entry(&slots[slot]) || !write_attempt(slot, "committing") ||
		    !arrange(slots, &order, slot, false) || !remember(slot))
			return 1;
		if (read_attempt(&end) == slot)
			forget(STATE, "attempt");
		forget(RUN, "trial");
		if (slot == booted())
			write_file(RUN, "kept", "", false);
		return 0;
	}
	if (slots[slot].number < 0)
		return 0;
	if (is_in(&order, &slots[slot])) {
		if (!is_in(&order, &slots[!slot])) {
			complain("slot %c is the last one", letters[slot]);
			return 1;
		}
		take_out(&order, slots[slot].number);
		if (!write_order(&order))
			return 1;
	}
	/* A slot that ran before runs again, and the committed one will be written: nobody may put it back in its place. */
	if (remembered() == slot && is_in(&order, &slots[!slot]) && !remember(!slot))
		return 1;
	return next_number() == slots[slot].number && !delete_variable("BootNext");
}

static int command_get(struct slot slots[SLOTS], const char *name, int slot)
{
	struct order order;

	read_order(&order);
	if (!strcmp(name, "get-state")) {
		puts(is_in(&order, &slots[slot]) ? "good" : "bad");
		return 0;
	}
	slot = committed(slots, &order);
	for (int other = A; other < SLOTS; other++)
		if (slots[other].number >= 0 && next_number() == slots[other].number)
			slot = other;
	if (slot < 0)
		return 1;
	printf("%c\n", letters[slot]);
	return 0;
}

/* End the trial unless there is none; whoever calls this restarts the machine when it fails. */
static int command_give_up(struct slot slots[SLOTS], const char *reason)
{
	struct order order;
	int now = booted();

	read_order(&order);
	if (!exists(RUN, "trial") || now < 0 || committed(slots, &order) == now)
		return 0;
	complain("the trial of slot %c has ended: %s", letters[now], reason);
	write_attempt(now, reason);
	return 1;
}

static int command_strike(struct slot slots[SLOTS])
{
	char path[PATH_MAX], text[TEXT];
	unsigned long long strikes = 0;

	place(path, RUN "/strikes");
	read_number(&strikes, path);
	snprintf(text, sizeof(text), "%llu\n", strikes + 1);
	if (exists(RUN, "trial"))
		write_file(RUN, "strikes", text, false);
	return strikes + 1 < MAX_STRIKES ? 0 : command_give_up(slots, "crash-loop");
}

/* Start the other slot next time, if it was good once. */
static bool start_other(struct slot slots[SLOTS], const struct order *order, int now)
{
	uint8_t number[2];

	if (now < 0 || !is_in(order, &slots[!now]))
		return false;
	put(number, 0, slots[!now].number, 2);
	return write_variable("BootNext", number, 2);
}

static int command_starting(struct slot slots[SLOTS])
{
	char path[PATH_MAX], text[TEXT];
	unsigned long long starts = 0;
	struct order order;
	const char *end;
	int now = booted();

	read_order(&order);
	if (now < 0)
		return 0;
	if (committed(slots, &order) != now) {
		/* A trial that ends before our service runs has been a trial all the same. */
		if (read_attempt(&end) == now && !strcmp(end, "set"))
			write_attempt(now, "started");
		return 0;
	}
	place(path, STATE "/starts");
	read_number(&starts, path);
	if (starts >= MAX_STARTS && start_other(slots, &order, now)) {
		forget(STATE, "starts");
		return 1;
	}
	snprintf(text, sizeof(text), "%llu\n", starts < MAX_STARTS ? starts + 1 : MAX_STARTS);
	write_file(STATE, "starts", text, true);
	return 0;
}

static int command_rescue(struct slot slots[SLOTS])
{
	struct order order;

	read_order(&order);
	return !start_other(slots, &order, booted());
}

static int usage(void)
{
	complain("usage: omamori-slots [--root DIR] boot | get-current | get-primary | get-state SLOT | set-primary SLOT | "
		 "set-state SLOT good|bad | deadline | strike | migration | starting | settled | rescue");
	return 2;
}

int main(int count, char **words)
{
	struct slot slots[SLOTS];
	struct order stale;
	int slot;

	words++, count--;
	if (count >= 2 && !strcmp(*words, "--root"))
		root = words[1], words += 2, count -= 2;
	if (count < 1)
		return usage();
	if (count == 1 && !strcmp(*words, "boot"))
		return command_boot();
	if (count == 1 && !strcmp(*words, "get-current")) {
		slot = booted();
		if (slot >= 0)
			printf("%c\n", letters[slot]);
		return slot < 0;
	}
	if (count == 1 && !strcmp(*words, "settled")) {
		forget(STATE, "starts");
		return 0;
	}
	if (!has_variables()) {
		complain("this machine has no firmware variables");
		return !(count == 1 && !strcmp(*words, "starting"));
	}
	find_entries(slots, &stale);
	if (count == 1 && !strcmp(*words, "get-primary"))
		return command_get(slots, *words, -1);
	if (count == 1 && (!strcmp(*words, "deadline") || !strcmp(*words, "migration")))
		return command_give_up(slots, *words);
	if (count == 1 && !strcmp(*words, "starting"))
		return command_starting(slots);
	if (count == 1 && !strcmp(*words, "rescue"))
		return command_rescue(slots);
	if (count == 1 && !strcmp(*words, "strike"))
		return command_strike(slots);
	slot = count >= 2 && strlen(words[1]) == 1 ? slot_of(*words[1]) : -1;
	if (slot < 0)
		return usage();
	if (count == 2 && !strcmp(*words, "get-state"))
		return command_get(slots, *words, slot);
	if (count == 2 && !strcmp(*words, "set-primary"))
		return command_set_primary(slots, slot);
	if (count == 3 && !strcmp(*words, "set-state") && (!strcmp(words[2], "good") || !strcmp(words[2], "bad")))
		return command_set_state(slots, slot, !strcmp(words[2], "good"));
	return usage();
}
