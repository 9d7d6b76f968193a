/* SPDX-License-Identifier: Apache-2.0 */

/* The broker: is one there, may we use it, does it answer; and what dead ones have left behind. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/command.h"
#include "tools/doctor.h"
#include "tools/inspect.h"
#include "tools/look.h"
#include "tools/place.h"

#define INSTANCES_MAX 64
#define PING_NS	      2000000000

/* All objects of one broker directory in /dev/shm. */
struct instance {
	uint64_t id;
	uint32_t n_objects;
	uint64_t len;
};

/* As the library does it: never start a broker only to look at it. */
static void check_answer(struct doctor *doctor, const struct place *place)
{
	struct shmb_client_options options = {
		.options_len = sizeof(options),
		.flags = SHMB_CLIENT_NO_START,
		.address = place->address,
		.address_len = strlen(place->address),
		.label = "shmctl doctor",
		.label_len = strlen("shmctl doctor"),
		.connect_timeout_ns = PING_NS,
	};
	struct shmb_client *client = NULL;
	int32_t r = shmb_client_open(&options, &client);
	char why[200] = "";

	if (r >= 0)
		r = shmb_client_ping(client, PING_NS);
	if (r >= 0) {
		doctor_add(doctor, DOCTOR_OK, "broker", NULL, "answers at %.200s", place->address);
	} else {
		if (shmb_last_error(why, sizeof(why)) <= 0)
			snprintf(why, sizeof(why), "%s", shmb_strerror(r));
		doctor_add(doctor, DOCTOR_UNUSABLE, "broker", "nothing can connect to it", "%s",
			   why);
	}
	shmb_client_close(client);
}

/* The program that a client would start: the library looks in the same places. */
static const char *find_program(char path[PATH_MAX])
{
	const char *chosen = getenv("SHMBROKER_DAEMON");
	const char *search = getenv("PATH");

	snprintf(path, PATH_MAX, "%s", chosen ? chosen : SHMB_SBINDIR "/shmbrokerd");
	if (access(path, X_OK) == 0)
		return path;
	while (!chosen && search && *search) {
		size_t len = strcspn(search, ":");

		snprintf(path, PATH_MAX, "%.*s/shmbrokerd", (int)len, search);
		if (*search == '/' && access(path, X_OK) == 0)
			return path;
		search += len;
		search += *search == ':';
	}
	return NULL;
}

static void check_no_broker(struct doctor *doctor, const struct place *place, int why)
{
	char path[PATH_MAX];
	const char *program = find_program(path);
	bool is_given = common.address || getenv("SHMBROKER_ADDRESS");

	if (why == -EACCES || why == -EPERM)
		doctor_add(doctor, DOCTOR_UNUSABLE, "broker", "its socket is not for this user",
			   "may not connect to %.200s", place->address);
	else if (is_given)
		doctor_add(doctor, DOCTOR_UNUSABLE, "broker",
			   "an address that is given is never started by itself: start shmbrokerd, "
			   "or leave the address out",
			   "none at %.200s: %s", place->address, strerror(-why));
	else if (program)
		doctor_add(doctor, DOCTOR_OK, "broker", NULL,
			   "none runs; the first client starts %.200s", program);
	else
		doctor_add(doctor, DOCTOR_UNUSABLE, "broker",
			   "no client can start one: install shmbrokerd, or start it",
			   "none runs at %.200s, and shmbrokerd is not to be found",
			   place->address);
}

static void check_directory(struct doctor *doctor, const struct place *place)
{
	char path[PATH_MAX + 16], key[8];
	struct stat st;
	int n;

	if (stat(place->dir, &st) < 0) {
		if (errno != ENOENT)
			doctor_add(doctor, DOCTOR_UNUSABLE, "directory",
				   "clients cannot reach the socket", "%.200s: %s", place->dir,
				   strerror(errno));
		return;
	}
	if (st.st_uid != 0 && st.st_uid != getuid() && st.st_mode & 022)
		doctor_add(doctor, DOCTOR_UNUSABLE, "directory",
			   "somebody else could stand in for the broker: clients refuse it",
			   "%.200s: mode %04o, owner %u", place->dir, (unsigned)st.st_mode & 07777,
			   (unsigned)st.st_uid);
	else if (st.st_mode & 022)
		doctor_add(doctor, DOCTOR_UNUSABLE, "directory",
			   "others could replace the socket: clients refuse it (chmod go-w)",
			   "%.200s: mode %04o", place->dir, (unsigned)st.st_mode & 07777);
	else
		doctor_add(doctor, DOCTOR_OK, "directory", NULL, "%.200s: mode %04o", place->dir,
			   (unsigned)st.st_mode & 07777);
	snprintf(path, sizeof(path), "%s/broker.pub", place->dir);
	n = place_read_file(path, key, 7);
	if (n == 7 && memcmp(key, "x25519:", 7) == 0)
		doctor_add(doctor, DOCTOR_OK, "broker's key", NULL, "%.200s", path);
	else
		doctor_add(doctor, DOCTOR_UNUSABLE, "broker's key",
			   "clients cannot check that it is the broker", "%.200s: %s", path,
			   n < 0 ? strerror(-n) : "not a public key");
}

static struct instance *find_instance(struct instance *instances, size_t *n, uint64_t id)
{
	for (size_t i = 0; i < *n; i++) {
		if (instances[i].id == id)
			return &instances[i];
	}
	if (*n == INSTANCES_MAX)
		return NULL;
	instances[*n] = (struct instance){ .id = id };
	return &instances[(*n)++];
}

/* This user's objects (root: everybody's), by instance. */
static size_t list_instances(struct instance *instances)
{
	DIR *dir = opendir(PLACE_SHM_DIR);
	struct instance *instance;
	struct dirent *entry;
	struct stat st;
	uint64_t id;
	size_t n = 0;
	int len;

	while (dir && (entry = readdir(dir))) {
		len = 0;
		if (sscanf(entry->d_name, "shmb.%16" SCNx64 ".%n", &id, &len) != 1 || len != 22)
			continue;
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode) || (getuid() != 0 && st.st_uid != getuid()))
			continue;
		instance = find_instance(instances, &n, id);
		if (instance) {
			instance->n_objects++;
			instance->len += (uint64_t)st.st_blocks * 512;
		}
	}
	if (dir)
		closedir(dir);
	return n;
}

/* Nobody listens where its broker did, and all its clients have gone. */
static bool is_dead(uint64_t id)
{
	const struct inspect_item *client = NULL;
	char path[64], address[sizeof(((struct shmb_registry_segment *)0)->address) + 1] = "";
	struct inspect inspect;
	bool is_dead = true;
	int r;

	snprintf(path, sizeof(path), PLACE_SHM_DIR "/shmb.%016" PRIx64 ".registry", id);
	r = inspect_open(&inspect, path, PLACE_SHM_DIR, id);
	if (r < 0)
		return r == -ENOENT;
	memcpy(address, inspect.head.address, inspect.head.address_len);
	if (place_is_listening(address) == 1)
		is_dead = false;
	while (is_dead && (client = inspect_next(&inspect, client, SHMB_ENTRY_CLIENT, 0)))
		is_dead = !look_is_alive(&client->entry);
	inspect_close(&inspect);
	return is_dead;
}

static void check_leftovers(struct doctor *doctor, uint64_t own)
{
	struct instance instances[INSTANCES_MAX];
	size_t n = list_instances(instances);
	uint32_t n_dead = 0, n_objects = 0;
	uint64_t len = 0, example = 0;

	for (size_t i = 0; i < n; i++) {
		/* A broker that starts in this directory again takes its own objects back. */
		if (instances[i].id == own || !is_dead(instances[i].id))
			continue;
		n_dead++;
		n_objects += instances[i].n_objects;
		len += instances[i].len;
		example = instances[i].id;
	}
	if (n_dead == 0)
		doctor_add(doctor, DOCTOR_OK, "leftovers", NULL, "none in " PLACE_SHM_DIR);
	else
		doctor_add(doctor, DOCTOR_WARNING, "leftovers",
			   "memory that nobody uses: remove the objects of each dead instance",
			   "%" PRIu32 " objects, %" PRIu64 " bytes, of %" PRIu32
			   " dead brokers: rm " PLACE_SHM_DIR "/shmb.%016" PRIx64 ".*%s",
			   n_objects, len, n_dead, example, n_dead > 1 ? " and others" : "");
}

void doctor_broker(struct doctor *doctor)
{
	char why[INSPECT_WHY_LEN + PATH_MAX];
	struct place place;
	int r;

	place_find(&place, why, sizeof(why));
	r = place_is_listening(place.address);
	if (r == 1) {
		check_directory(doctor, &place);
		check_answer(doctor, &place);
	} else {
		check_no_broker(doctor, &place, r);
	}
	check_leftovers(doctor, place.instance);
}
