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

#include "slots.h"
#include "slots_files.h"
#include "slots_variables.h"
#include "slots_entries.h"

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
