/* SPDX-License-Identifier: Apache-2.0 */
/* What is remembered on the data partition and told under /run. Part of omamori_slots.c. */
#ifndef SLOTS_FILES_H
#define SLOTS_FILES_H

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

#endif
