/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's processes, and what its workers do. Part of omamori_watch.c. */
#ifndef WATCH_ENGINE_H
#define WATCH_ENGINE_H

static unsigned int read_processes(const struct watch *watch, pid_t *pids)
{
	char text[4096];
	unsigned int count = 0;

	if (read_file(watch->processes_path, text, sizeof(text)) < 0)
		return 0;
	for (char *at = strtok(text, "\n"); at && count < MAX_PROCESSES; at = strtok(NULL, "\n")) {
		long pid = strtol(at, NULL, 10);

		if (pid > 1 && pid <= MAX_PID)
			pids[count++] = (pid_t)pid;
	}
	return count;
}

static bool is_listed(const struct watch *watch, pid_t wanted)
{
	pid_t pids[MAX_PROCESSES];
	unsigned int count = read_processes(watch, pids);

	for (unsigned int i = 0; i < count; i++)
		if (pids[i] == wanted)
			return true;
	return false;
}

/* Kill every process of the engine. A number that was handed to another process meanwhile is not killed. */
static unsigned int kill_engine(const struct watch *watch)
{
	pid_t pids[MAX_PROCESSES];
	unsigned int count = read_processes(watch, pids), killed = 0;

	for (unsigned int i = 0; i < count; i++) {
		int fd = (int)syscall(SYS_pidfd_open, pids[i], 0);

		if (fd < 0)
			continue;
		if (is_listed(watch, pids[i]) && syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0)
			killed++;
		else
			say("warning: cannot kill process %d: %s", (int)pids[i], strerror(errno));
		close(fd);
	}
	return killed;
}

/* What the worker of a queue has run so far, and what it is doing. */
struct worker {
	bool is_found;
	char state; /* as in proc(5) */
	__u64 ran_ns;
};

static char state_of(const char *task)
{
	char path[PATH_BYTES], text[1024];

	snprintf(path, sizeof(path), "%s/stat", task);
	if (read_file(path, text, sizeof(text)) < 0)
		return '?';

	const char *state = strrchr(text, ')');

	return state && state[1] == ' ' ? state[2] : '?';
}

static __u64 processor_time(const char *task)
{
	char path[PATH_BYTES], text[256];

	snprintf(path, sizeof(path), "%s/schedstat", task);
	if (read_file(path, text, sizeof(text)) < 0)
		return 0;
	return strtoull(text, NULL, 10);
}

/* The engine names its workers after their queues. Without such a name its main thread stands for all. */
static struct worker find_worker(const struct watch *watch, unsigned int queue)
{
	pid_t pids[MAX_PROCESSES];
	unsigned int count = read_processes(watch, pids);
	struct worker worker = {0};
	char wanted[32];

	snprintf(wanted, sizeof(wanted), "W-NFQ#%u\n", queue);
	for (unsigned int i = 0; i < count; i++) {
		char path[PATH_BYTES], task[TASK_BYTES], name[64];
		struct dirent *entry;
		DIR *tasks;

		snprintf(path, sizeof(path), "/proc/%d/task", (int)pids[i]);
		tasks = opendir(path);
		while (tasks && (entry = readdir(tasks))) {
			long number = strtol(entry->d_name, NULL, 10);

			if (number <= 0)
				continue;
			snprintf(task, sizeof(task), "/proc/%d/task/%ld", (int)pids[i], number);
			snprintf(path, sizeof(path), "%s/comm", task);
			if (read_file(path, name, sizeof(name)) < 0)
				continue;

			bool is_worker = strcmp(name, wanted) == 0;

			if (!is_worker && (worker.is_found || number != (long)pids[i]))
				continue;
			worker.is_found = true;
			worker.state = state_of(task);
			worker.ran_ns = processor_time(task);
			if (is_worker) {
				closedir(tasks);
				return worker;
			}
		}
		if (tasks)
			closedir(tasks);
	}
	return worker;
}

#endif
