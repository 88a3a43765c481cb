/* Preloaded into a process: notes every change it makes to files below OMAMORI_WRITE_LOG_ROOT, in order.
 *
 * One record is a header line "<op> <offset> <length> <path>\n" and <length> bytes; rename has the new path as its bytes.
 * Records go to the descriptor OMAMORI_WRITE_LOG_FD; the process may add records of its own there.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int log_fd = -1;
static char root[PATH_MAX];
static ssize_t (*real_write)(int, const void *, size_t);

__attribute__((constructor)) static void begin(void)
{
	const char *fd = getenv("OMAMORI_WRITE_LOG_FD"), *path = getenv("OMAMORI_WRITE_LOG_ROOT");

	real_write = dlsym(RTLD_NEXT, "write");
	if (fd && path && strlen(path) < sizeof(root)) {
		strcpy(root, path);
		log_fd = atoi(fd);
	}
}

static void note(const char *op, long long offset, const void *data, size_t length, const char *path)
{
	char header[PATH_MAX + 64];
	int n;

	if (log_fd < 0 || strncmp(path, root, strlen(root)) != 0)
		return;
	n = snprintf(header, sizeof(header), "%s %lld %zu %s\n", op, offset, length, path);
	if (real_write(log_fd, header, n) != n || real_write(log_fd, data, length) != (ssize_t)length)
		abort();
}

static void note_fd(const char *op, long long offset, const void *data, size_t length, int fd)
{
	char link[64], path[PATH_MAX];
	ssize_t n;

	if (log_fd < 0 || fd == log_fd)
		return;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0)
		return;
	path[n] = 0;
	note(op, offset, data, length, path);
}

#define REAL(name, ...) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

ssize_t write(int fd, const void *data, size_t length)
{
	off_t offset = fd == log_fd ? 0 : lseek(fd, 0, SEEK_CUR);
	ssize_t done = real_write ? real_write(fd, data, length) : REAL(write, fd, data, length);

	if (done > 0 && offset >= 0)
		note_fd("write", offset, data, done, fd);
	return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
	ssize_t done = REAL(pwrite64, fd, data, length, offset);

	if (done > 0)
		note_fd("write", offset, data, done, fd);
	return done;
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
	return pwrite64(fd, data, length, offset);
}

int ftruncate64(int fd, off64_t length)
{
	int rc = REAL(ftruncate64, fd, length);

	if (rc == 0)
		note_fd("truncate", length, "", 0, fd);
	return rc;
}

int ftruncate(int fd, off_t length)
{
	return ftruncate64(fd, length);
}

int fsync(int fd)
{
	int rc = REAL(fsync, fd);

	if (rc == 0)
		note_fd("sync", 0, "", 0, fd);
	return rc;
}

int fdatasync(int fd)
{
	int rc = REAL(fdatasync, fd);

	if (rc == 0)
		note_fd("sync", 0, "", 0, fd);
	return rc;
}

int unlink(const char *path)
{
	int rc = REAL(unlink, path);

	if (rc == 0)
		note("unlink", 0, "", 0, path);
	return rc;
}

int rename(const char *from, const char *to)
{
	int rc = REAL(rename, from, to);

	if (rc == 0)
		note("rename", 0, to, strlen(to), from);
	return rc;
}
