/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's firmware's variables, and the order of its entries. Part of omamori_slots.c. */
#ifndef SLOTS_VARIABLES_H
#define SLOTS_VARIABLES_H

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

#endif
