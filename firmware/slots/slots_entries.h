/* SPDX-License-Identifier: Apache-2.0 */
/* One entry of the firmware for each slot: what it should be, and that it is so. Part of omamori_slots.c. */
#ifndef SLOTS_ENTRIES_H
#define SLOTS_ENTRIES_H

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

#endif
