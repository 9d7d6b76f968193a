/* SPDX-License-Identifier: Apache-2.0 */

/* A hostile key file: both kinds of loader; a key that was loaded can be written and loaded again. */

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "lib/keyfile.h"

#include "tests/fuzz/fuzz.h"

static char path[40], again[48];

static void cleanup(void)
{
	unlink(path);
	unlink(again);
}

static void prepare(void)
{
	snprintf(path, sizeof(path), "/tmp/shmb-fuzz-key-%d", (int)getpid());
	snprintf(again, sizeof(again), "%s.2", path);
	atexit(cleanup);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct shmb_noise_keypair pair, pair_again;
	uint8_t public[SHMB_NOISE_KEY_LEN];
	int fd, r, before = fuzz_free_fd();

	if (!path[0])
		prepare();
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	close(fd);
	r = shmb_keyfile_load_private(path, &pair);
	FUZZ_CHECK(r == 0 || r == -EINVAL);
	if (r == 0) {
		unlink(again);
		FUZZ_CHECK(shmb_keyfile_write_private(again, &pair) == 0);
		FUZZ_CHECK(shmb_keyfile_load_private(again, &pair_again) == 0);
		FUZZ_CHECK(memcmp(&pair, &pair_again, sizeof(pair)) == 0);
		/* One key has one text: what else stands in the file was not looked at. */
		FUZZ_CHECK(size == strlen("shmbroker-private-key-v1\nx25519:") + 43 + 1);
	}
	r = shmb_keyfile_load_public(path, public);
	FUZZ_CHECK(r == 0 || r == -EINVAL);
	if (r == 0) {
		FUZZ_CHECK(size >= strlen("x25519:") + 43);
		FUZZ_CHECK(shmb_keyfile_write_public(again, public, "again") == 0);
		FUZZ_CHECK(shmb_keyfile_load_public(again, pair.public) == 0);
		FUZZ_CHECK(memcmp(public, pair.public, sizeof(public)) == 0);
	}
	FUZZ_CHECK(fuzz_free_fd() == before);
	return 0;
}
