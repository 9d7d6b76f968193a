/* SPDX-License-Identifier: Apache-2.0 */

/* What a sealed segment does not let anybody do, and how its writer is known to have gone. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/segment.h"

#include "tests/unit/fixture.h"

#define LEN 8192u

static const struct segment_maker maker = { .instance = 7 };

static struct segment_spec spec_of(uint32_t kind)
{
	return (struct segment_spec){ .kind = kind,
				      .backing = SHMB_MEMORY_SEALED,
				      .id = 3,
				      .owner_id = 2,
				      .len = LEN,
				      .flags = SEGMENT_ALLOCATE };
}

static void *map(int fd, int protection)
{
	return mmap(NULL, LEN, protection, MAP_SHARED, fd, 0);
}

START_TEST(keeps_its_length_and_its_one_writer)
{
	struct segment_spec spec = spec_of((uint32_t)_i);
	struct segment segment;
	void *writer, *reader;
	int fd, read_fd;

	ck_assert_int_eq(segment_create(&maker, &spec, &segment), 0);
	fd = segment_open_write(&maker, &segment);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_lt(ftruncate(fd, 0), 0);
	ck_assert_int_lt(ftruncate(fd, 2 * LEN), 0);
	ck_assert_int_lt(fallocate(fd, 0, LEN, LEN), 0);
	ck_assert_int_eq(segment_check_allocated(&segment), 0);
	writer = map(fd, PROT_READ | PROT_WRITE);
	ck_assert_ptr_ne(writer, MAP_FAILED);
	ck_assert_int_eq(segment_restrict(&segment), 0);
	ck_assert_ptr_eq(map(fd, PROT_READ | PROT_WRITE), MAP_FAILED);
	ck_assert_int_lt(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
	ck_assert_int_lt(pwrite(fd, "x", 1, 4096), 0);
	read_fd = segment_open_read(&segment);
	ck_assert_int_ge(read_fd, 0);
	reader = map(read_fd, PROT_READ);
	ck_assert_ptr_ne(reader, MAP_FAILED);
	ck_assert_int_lt(mprotect(reader, LEN, PROT_READ | PROT_WRITE), 0);
	/* The writer goes on as before. */
	((char *)writer)[4096] = 'w';
	ck_assert_int_eq(((char *)reader)[4096], 'w');
	munmap(writer, LEN);
	munmap(reader, LEN);
	close(fd);
	close(read_fd);
	segment_destroy(&segment);
}
END_TEST

START_TEST(is_final_when_nobody_can_write_it)
{
	struct segment_spec spec = spec_of(SHMB_SEGMENT_LANE);
	struct segment segment;
	void *writer;
	int fd;

	ck_assert_int_eq(segment_create(&maker, &spec, &segment), 0);
	fd = segment_open_write(&maker, &segment);
	writer = map(fd, PROT_READ | PROT_WRITE);
	ck_assert_int_eq(segment_restrict(&segment), 0);
	ck_assert_int_eq(segment_fence(&segment), -EBUSY);
	munmap(writer, LEN);
	ck_assert_int_eq(segment_fence(&segment), 0);
	ck_assert_int_eq(segment_fence(&segment), 0);
	close(fd);
	segment_destroy(&segment);
}
END_TEST

START_TEST(a_writer_that_seals_the_seals_is_found_out)
{
	struct segment_spec spec = spec_of(SHMB_SEGMENT_LANE);
	struct segment segment;
	int fd;

	ck_assert_int_eq(segment_create(&maker, &spec, &segment), 0);
	fd = segment_open_write(&maker, &segment);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), 0);
	ck_assert_int_eq(segment_restrict(&segment), -EPERM);
	ck_assert_int_eq(segment_fence(&segment), -EPERM);
	close(fd);
	segment_destroy(&segment);
}
END_TEST

START_TEST(only_the_very_one_is_taken_out_of_the_store)
{
	struct store store = { .notify = NULL };
	struct segment_maker with_store = { .instance = 7, .store = &store };
	struct segment_spec spec = spec_of(SHMB_SEGMENT_LANE);
	struct segment segment, again;
	char name[] = "shmb-0000000000000007-3";

	ck_assert_int_eq(segment_create(&with_store, &spec, &segment), 0);
	ck_assert_int_eq(segment_adopt(&with_store, segment.name, &spec, &again), -ENOENT);
	ck_assert_int_eq(store_note(&store, name, dup(segment.fd)), 0);
	ck_assert_int_eq(segment_adopt(&with_store, "memfd:1", &spec, &again), -EINVAL);
	ck_assert_int_eq(store_note(&store, name, memfd_create("x", MFD_CLOEXEC)), 0);
	ck_assert_int_eq(segment_adopt(&with_store, segment.name, &spec, &again), -EINVAL);
	ck_assert_int_eq(store_note(&store, name, dup(segment.fd)), 0);
	ck_assert_int_eq(segment_adopt(&with_store, segment.name, &spec, &again), 0);
	ck_assert_str_eq(again.name, segment.name);
	segment_destroy(&again);
	segment_destroy(&segment);
	store_deinit(&store);
}
END_TEST

int main(void)
{
	TCase *cases[] = { tcase_create("segment") };

	tcase_add_loop_test(cases[0], keeps_its_length_and_its_one_writer, SHMB_SEGMENT_LANE,
			    SHMB_SEGMENT_CURSOR + 1);
	tcase_add_test(cases[0], is_final_when_nobody_can_write_it);
	tcase_add_test(cases[0], a_writer_that_seals_the_seals_is_found_out);
	tcase_add_test(cases[0], only_the_very_one_is_taken_out_of_the_store);
	return run_suite("segment", cases, 1);
}
