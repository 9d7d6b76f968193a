/* SPDX-License-Identifier: Apache-2.0 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/registry.h"

static struct registry registry;
static uint64_t instance;

static void setup(void)
{
	instance = 0x7e57000000000000ull + (uint64_t)getpid();
	ck_assert_int_eq(registry_create(&registry, instance), 0);
}

static void teardown(void)
{
	char name[SHMB_SEGMENT_NAME_LEN_MAX];

	registry_destroy(&registry);
	registry_name(instance, name);
	ck_assert_int_eq(shm_unlink(name), -1);
}

static struct shmb_registry_entry entry_new(struct registry *r)
{
	struct shmb_registry_entry entry = { .kind = SHMB_ENTRY_CHANNEL,
					     .id = registry_next_id(r),
					     .name_len = 1,
					     .segment = "/x" };

	return entry;
}

static void reload(void)
{
	registry_release(&registry);
	ck_assert_int_eq(registry_load(&registry, instance), 0);
}

START_TEST(keeps_entries)
{
	struct shmb_registry_entry entry = entry_new(&registry), got;
	uint32_t slot, other;

	ck_assert_int_eq(registry_add(&registry, &entry, &slot), 0);
	entry = entry_new(&registry);
	ck_assert_int_eq(registry_add(&registry, &entry, &other), 0);
	registry_set_flags(&registry, other, SHMB_MEMBER_ACTIVE);
	registry_remove(&registry, slot);
	reload();
	ck_assert(!registry_get(&registry, slot, &got));
	ck_assert(registry_get(&registry, other, &got));
	ck_assert_uint_eq(got.id, entry.id);
	ck_assert_uint_eq(got.flags, SHMB_MEMBER_ACTIVE);
	ck_assert_uint_eq(registry_next_id(&registry), entry.id + 1);
}
END_TEST

START_TEST(counts_starts)
{
	registry_start(&registry, "/a");
	reload();
	registry_start(&registry, "/bc");
	ck_assert_uint_eq(registry_epoch(&registry), 2);
	ck_assert_uint_eq(registry.map->address_len, 3);
	ck_assert_uint_eq(registry.map->broker_pid, (unsigned)getpid());
}
END_TEST

START_TEST(grows_and_reuses)
{
	uint32_t n = registry.n_entries, slot, last = 0;
	struct shmb_registry_entry entry, got;

	for (uint32_t i = 0; i < 5 * n; i++) {
		entry = entry_new(&registry);
		ck_assert_int_eq(registry_add(&registry, &entry, &slot), 0);
		ck_assert_uint_eq(slot, i);
		last = slot;
	}
	ck_assert_uint_ge(registry.n_entries, 5 * n);
	reload();
	for (uint32_t i = 0; i < 5 * n; i++) {
		ck_assert(registry_get(&registry, i, &got));
		ck_assert_uint_eq(got.id, i + 1);
	}
	registry_remove(&registry, 7);
	registry_remove(&registry, last);
	entry = entry_new(&registry);
	ck_assert_int_eq(registry_add(&registry, &entry, &slot), 0);
	ck_assert_uint_eq(slot, last);
}
END_TEST

START_TEST(refuses_what_is_none)
{
	struct registry other;

	ck_assert_int_eq(registry_create(&other, instance), -EEXIST);
	ck_assert_int_eq(registry_load(&other, instance + 1), -ENOENT);
	registry.map->header.magic = 0;
	registry_release(&registry);
	ck_assert_int_eq(registry_load(&registry, instance), -EINVAL);
	registry_name(instance, registry.name);
}
END_TEST

START_TEST(drops_entries_that_make_no_sense)
{
	struct shmb_registry_entry entry, got;
	uint32_t slot[5];

	for (unsigned i = 0; i < 5; i++) {
		entry = entry_new(&registry);
		if (i == 0)
			entry.kind = 9;
		if (i == 1)
			entry.id = 1u << 30;
		if (i == 2)
			entry.name_len = 129;
		if (i == 3)
			memset(entry.segment, 'a', sizeof(entry.segment));
		ck_assert_int_eq(registry_add(&registry, &entry, &slot[i]), 0);
	}
	reload();
	for (unsigned i = 0; i < 4; i++)
		ck_assert(!registry_get(&registry, slot[i], &got));
	ck_assert(registry_get(&registry, slot[4], &got));
}
END_TEST

START_TEST(ignores_use_after_release)
{
	struct shmb_registry_entry entry = entry_new(&registry), got;
	uint32_t slot;

	ck_assert_int_eq(registry_add(&registry, &entry, &slot), 0);
	registry_release(&registry);
	registry_remove(&registry, slot);
	ck_assert_int_eq(registry_load(&registry, instance), 0);
	ck_assert(registry_get(&registry, slot, &got));
}
END_TEST

/* Killed at any moment while it adds and removes: what is LIVE is whole. */
START_TEST(survives_kills)
{
	struct shmb_registry_entry entry, got;
	uint32_t slot, slots[64] = { 0 };
	pid_t child;

	child = fork();
	if (child == 0) {
		/* The mapping is not inherited, on purpose. */
		if (registry_load(&registry, instance) < 0)
			_exit(1);
		for (unsigned i = 0;; i++) {
			entry = entry_new(&registry);
			memset(entry.name, (int)(entry.id & 0xff), sizeof(entry.name));
			if (i >= 64)
				registry_remove(&registry, slots[i % 64]);
			if (registry_add(&registry, &entry, &slot) < 0)
				_exit(2);
			slots[i % 64] = slot;
		}
	}
	usleep(3000 + 1700 * (unsigned)_i);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	reload();
	for (uint32_t i = 0; i < registry.n_entries; i++) {
		if (!registry_get(&registry, i, &got))
			continue;
		ck_assert_uint_lt(got.id, registry.map->next_id);
		for (size_t k = 0; k < sizeof(got.name); k++)
			ck_assert_uint_eq(got.name[k], got.id & 0xff);
	}
}
END_TEST

START_TEST(notes_nothing_once_it_was_replaced)
{
	struct shmb_registry_entry entry = entry_new(&registry), got;
	struct registry next, late;
	uint32_t slot, other;

	registry_start(&registry, "/a");
	ck_assert_int_eq(registry_add(&registry, &entry, &slot), 0);
	ck_assert_int_eq(registry_load(&next, instance), 0);
	ck_assert_int_eq(registry_load(&late, instance), 0);
	ck_assert(!registry_is_superseded(&registry));
	registry_start(&next, "/a");
	ck_assert(registry_is_superseded(&registry));
	ck_assert(!registry_is_superseded(&next));
	/* Stopped while it left an object of its own, for one. */
	ck_assert_int_eq(registry_supersede(&registry), -ESTALE);
	ck_assert_int_eq(registry_supersede(&next), 0);
	ck_assert_int_eq(registry_add(&registry, &entry, &other), -ESTALE);
	ck_assert(!registry_remove(&registry, slot));
	ck_assert(registry_get(&next, slot, &got));
	/* One that starts on an object that has no name any more. */
	registry_start(&late, "/a");
	ck_assert(!registry_is_superseded(&late));
	ck_assert_int_eq(registry_supersede(&late), -ESTALE);
	registry_destroy(&late);
	/* The name is the other's by now. */
	registry_destroy(&registry);
	registry = next;
	reload();
	ck_assert(registry_get(&registry, slot, &got));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("registry");
	TCase *tcase = tcase_create("registry");
	SRunner *runner = srunner_create(suite);
	int failed;

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_add_test(tcase, keeps_entries);
	tcase_add_test(tcase, counts_starts);
	tcase_add_test(tcase, grows_and_reuses);
	tcase_add_test(tcase, refuses_what_is_none);
	tcase_add_test(tcase, drops_entries_that_make_no_sense);
	tcase_add_test(tcase, ignores_use_after_release);
	tcase_add_test(tcase, notes_nothing_once_it_was_replaced);
	tcase_add_loop_test(tcase, survives_kills, 0, 20);
	suite_add_tcase(suite, tcase);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
