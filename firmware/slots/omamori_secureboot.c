/* SPDX-License-Identifier: Apache-2.0 */
/*
 * omamori-secureboot: takes the changes of Secure Boot's keys that this image carries.
 *
 *   /usr/lib/omamori/secureboot/db-append.auth    certificates whose kernels shall start too
 *   /usr/lib/omamori/secureboot/dbx-append.auth   certificates whose kernels shall not start any more
 *
 * Each file is what the machine's firmware takes as it is: time, signature by the owner's KEK, list of certificates
 * (UEFI 2.10, 8.2.2 and 32.4.1). The firmware judges the signature; this program judges whether it is time.
 *
 * Rules:
 *  - It only adds. Each change is one write, which the firmware does wholly or not at all, and is read back. What has
 *    been added already is not written again, so a power cut costs nothing but another look at the next start.
 *  - Nothing is revoked with which a slot of this box is signed: the signer's certificate lies in the kernel image,
 *    and a slot that cannot be read counts as one that needs it. It waits for the release that replaces that slot.
 *  - Everything read is bounded, and lists of anything but certificates are refused.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define EFIVARFS 0xde5e81e4
#define SECURITY "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
/* Survives, for firmware and for us, signed with a time, added to what is there. */
#define ATTRIBUTES (0x07 | 0x20 | 0x40)
#define MAX_BYTES (64 * 1024)
#define MAX_SLOT (256ULL << 20)
#define PIECE (1 << 20)

static const char *root = "";
static uint8_t update[MAX_BYTES + 4], present[MAX_BYTES + 4], piece[MAX_BYTES + PIECE];
/* EFI_CERT_X509_GUID */
static const uint8_t certificate_type[16] = {0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a,
					     0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72};

struct bytes {
	const uint8_t *data;
	size_t length;
};

static void place(char path[PATH_MAX], const char *directory, const char *name, const char *more)
{
	snprintf(path, PATH_MAX, "%s%s/%s%s", root, directory, name, more);
}

/* Read at most `size` bytes; -1 when it cannot be read or is larger. */
static ssize_t read_file(const char *path, uint8_t *data, size_t size)
{
	uint8_t more;
	size_t length = 0;
	ssize_t got;
	int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (file < 0)
		return -1;
	while ((got = read(file, data + length, size - length)) > 0)
		length += got;
	if (got == 0 && length == size && read(file, &more, 1) > 0)
		got = -1;
	close(file);
	return got < 0 ? -1 : (ssize_t)length;
}

static uint32_t number(const uint8_t *data)
{
	return data[0] | data[1] << 8 | data[2] << 16 | (uint32_t)data[3] << 24;
}

/* ---- lists of certificates -------------------------------------------------------------------------------------- */

/* Take the next certificate off `lists`; 1: here it is, 0: none is left, -1: this is no list of certificates. */
static int next_certificate(struct bytes *lists, size_t *within, struct bytes *certificate)
{
	uint32_t list, head, entry;

	for (;;) {
		if (!lists->length)
			return 0;
		if (lists->length < 28 || memcmp(lists->data, certificate_type, 16))
			return -1;
		list = number(lists->data + 16);
		head = number(lists->data + 20);
		entry = number(lists->data + 24);
		if (list > lists->length || list < 28 || head > list - 28 || entry <= 16 || entry > list - 28 - head ||
		    (list - 28 - head) % entry)
			return -1;
		if (!*within)
			*within = 28 + head;
		if (*within < list)
			break;
		lists->data += list;
		lists->length -= list;
		*within = 0;
	}
	certificate->data = lists->data + *within + 16; /* behind the owner's identifier */
	certificate->length = entry - 16;
	*within += entry;
	return 1;
}

/* Whether these bytes are lists of certificates from the first to the last. */
static bool is_sound(struct bytes lists)
{
	struct bytes certificate;
	size_t within = 0;
	int more;

	if (!lists.length)
		return false;
	while ((more = next_certificate(&lists, &within, &certificate)) > 0)
		;
	return !more;
}

/* Whether a certificate is in a variable, which may hold lists of other kinds too. */
static bool is_in(struct bytes lists, struct bytes certificate)
{
	while (lists.length >= 28) {
		uint32_t list = number(lists.data + 16);
		struct bytes one = {lists.data, list}, found;
		size_t within = 0;

		if (list < 28 || list > lists.length)
			return false;
		while (next_certificate(&one, &within, &found) > 0)
			if (found.length == certificate.length && !memcmp(found.data, certificate.data, found.length))
				return true;
		lists.data += list;
		lists.length -= list;
	}
	return false;
}

static bool has_all(struct bytes variable, struct bytes wanted)
{
	struct bytes certificate;
	size_t within = 0;

	while (next_certificate(&wanted, &within, &certificate) > 0)
		if (!is_in(variable, certificate))
			return false;
	return true;
}

/* ---- slots ------------------------------------------------------------------------------------------------------ */

/* How much of a boot partition its file system has: behind it there may be rests of a larger one. */
static unsigned long long extent(const uint8_t *sector)
{
	unsigned long long size = (sector[11] | sector[12] << 8) * (unsigned long long)number(sector + 32);

	return sector[510] == 0x55 && sector[511] == 0xaa && size && size < MAX_SLOT ? size : MAX_SLOT;
}

static bool is_signed_with(char letter, struct bytes certificate)
{
	unsigned long long at = 0, end = MAX_SLOT;
	char path[PATH_MAX], name[] = {'s', 'l', 'o', 't', '_', letter, 0};
	size_t kept = 0;
	ssize_t got = 0;
	bool found = false;
	int device;

	place(path, "/dev/omamori", name, "");
	device = open(path, O_RDONLY | O_CLOEXEC);
	if (device < 0)
		return true;
	while (!found && at < end && (got = read(device, piece + kept, PIECE)) > 0) {
		size_t length;

		if (!at && got >= 512)
			end = extent(piece);
		if (at + got > end)
			got = end - at;
		length = kept + got;
		found = memmem(piece, length, certificate.data, certificate.length);
		kept = length < certificate.length ? length : certificate.length - 1;
		memmove(piece, piece + length - kept, kept);
		at += got;
	}
	close(device);
	return found || got < 0;
}

static bool is_needed(struct bytes lists)
{
	struct bytes certificate;
	size_t within = 0;

	while (next_certificate(&lists, &within, &certificate) > 0)
		for (char letter = 'a'; letter <= 'b'; letter++)
			if (is_signed_with(letter, certificate)) {
				fprintf(stderr, "omamori-secureboot: slot %c is signed with what shall be revoked\n",
					letter - 0x20);
				return true;
			}
	return false;
}

/* ---- variables -------------------------------------------------------------------------------------------------- */

static struct bytes read_variable(const char *path)
{
	ssize_t length = read_file(path, present, sizeof(present));

	return (struct bytes){present + 4, length < 4 ? 0 : length - 4};
}

/* The kernel keeps these variables from being changed by accident; returns whether it did. */
static bool protect(const char *path, bool is_wanted)
{
	int flags = 0, file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool was = false;

	if (file < 0)
		return false;
	if (!ioctl(file, FS_IOC_GETFLAGS, &flags)) {
		was = flags & FS_IMMUTABLE_FL;
		flags = is_wanted ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
		if (was != is_wanted && ioctl(file, FS_IOC_SETFLAGS, &flags))
			perror("omamori-secureboot: protection of the variable");
	}
	close(file);
	return was;
}

static bool append(const char *path, size_t length, struct bytes added)
{
	bool was_protected = protect(path, false);
	struct statfs kind;
	ssize_t done = -1;
	int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);

	if (file >= 0 && !fstatfs(file, &kind) && (uint32_t)kind.f_type != EFIVARFS) {
		/* A directory of files, in tests: what the firmware would have done with it. */
		uint8_t attributes[4] = {0x27};
		bool is_new = lseek(file, 0, SEEK_END) == 0;

		if ((!is_new || write(file, attributes, 4) == 4) && write(file, added.data, added.length) == (ssize_t)added.length)
			done = length;
	} else if (file >= 0) {
		done = write(file, update, length);
	}
	if (done != (ssize_t)length)
		fprintf(stderr, "omamori-secureboot: the firmware does not take %s: %s\n", strrchr(path, '/') + 1, strerror(errno));
	if (file >= 0)
		close(file);
	if (was_protected)
		protect(path, true);
	return done == (ssize_t)length;
}

/* Returns whether nothing is left to be done now. */
static bool take(const char *variable, bool is_revoking)
{
	char path[PATH_MAX];
	struct bytes added;
	ssize_t length;
	uint32_t head;

	place(path, "/usr/lib/omamori/secureboot", variable, "-append.auth");
	length = read_file(path, update + 4, MAX_BYTES);
	if (length < 0) {
		if (errno == ENOENT)
			return true;
		fprintf(stderr, "omamori-secureboot: %s: %s\n", path, strerror(errno));
		return false;
	}
	head = length < 40 ? 0 : number(update + 4 + 16); /* of the signature; before it is the time */
	if (head < 24 || head > length - 16) {
		fprintf(stderr, "omamori-secureboot: %s is not signed\n", path);
		return false;
	}
	added = (struct bytes){update + 4 + 16 + head, length - 16 - head};
	if (!is_sound(added)) {
		fprintf(stderr, "omamori-secureboot: %s is no list of certificates\n", path);
		return false;
	}
	place(path, "/sys/firmware/efi/efivars", variable, "-" SECURITY);
	if (has_all(read_variable(path), added))
		return true;
	if (is_revoking && is_needed(added))
		return true;
	update[0] = ATTRIBUTES;
	if (!append(path, length + 4, added))
		return false;
	if (!has_all(read_variable(path), added)) {
		fprintf(stderr, "omamori-secureboot: %s does not keep what is written\n", variable);
		return false;
	}
	printf("omamori-secureboot: %s has what this image brings\n", variable);
	return true;
}

int main(int count, char **words)
{
	char path[PATH_MAX];
	struct statfs kind;
	bool is_done;

	if (count == 3 && !strcmp(words[1], "--root"))
		root = words[2];
	else if (count != 1) {
		fputs("omamori-secureboot: usage: omamori-secureboot [--root DIR]\n", stderr);
		return 2;
	}
	place(path, "/sys/firmware/efi", "efivars", "");
	if (statfs(path, &kind) || (!*root && (uint32_t)kind.f_type != EFIVARFS)) {
		fputs("omamori-secureboot: this machine has no firmware variables\n", stderr);
		return 0;
	}
	is_done = take("db", false);
	return !(take("dbx", true) && is_done);
}
