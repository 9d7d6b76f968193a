/* SPDX-License-Identifier: Apache-2.0 */

/* The broker as a thread of somebody else's process: silent, and without a trace when it stops. */

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "lib/api.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/options.h"

#include "daemon/broker.h"

#define ERROR_LEN 512

/**
 * struct shmb_broker - an embedded broker
 * @thread:    runs it
 * @lock:      protects @state
 * @changed:   @state changed
 * @state:     1: not yet decided; 0: running; negative errno value: it did not start
 * @error:     why it did not start
 * @stop_fd:   eventfd: written to stop it
 * @directory: of the broker
 * @temporary: @directory was made for it alone
 * @address:   of its socket
 * @policy:    this user only
 */
struct shmb_broker {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int state;
	char error[ERROR_LEN];
	int stop_fd;
	char directory[PATH_MAX];
	bool temporary;
	char address[128];
	struct policy policy;
};

static enum loop_backend backend_wanted(void)
{
	const char *io = secure_getenv("SHMBROKER_IO");

	if (io && strcmp(io, "epoll") == 0)
		return LOOP_EPOLL;
	return io && strcmp(io, "uring") == 0 ? LOOP_URING : LOOP_AUTO;
}

static void report(struct shmb_broker *embedded, int state)
{
	pthread_mutex_lock(&embedded->lock);
	embedded->state = state;
	if (state < 0)
		shmb_last_error(embedded->error, sizeof(embedded->error));
	pthread_cond_broadcast(&embedded->changed);
	pthread_mutex_unlock(&embedded->lock);
}

static void on_stop(void *data)
{
	struct broker *broker = data;

	loop_stop(broker->loop, 0);
}

static int serve(struct broker **broker, int stop_fd)
{
	struct loop_watch *watch;
	int r;

	for (;;) {
		r = loop_watch((*broker)->loop, stop_fd, true, on_stop, *broker, &watch);
		if (r < 0)
			return r;
		r = broker_run(*broker);
		loop_unwatch(watch);
		if (r != -EPERM && r != -ENOSYS)
			return r;
		r = broker_fall_back(broker);
		if (r < 0)
			return r;
	}
}

static void *embedded_main(void *data)
{
	struct shmb_broker *embedded = data;
	struct broker_config config = {
		.directory = embedded->directory,
		.socket_mode = 0600,
		.listen_fd = -1,
		.backend = backend_wanted(),
		.remove_all = true,
		.policy = &embedded->policy,
		.log = { .fd = -1 },
	};
	struct broker *broker = NULL;
	int r;

	quota_limits_user(&config.limits);
	r = broker_new(&config, &broker);
	if (r == 0)
		snprintf(embedded->address, sizeof(embedded->address), "%s", broker->address);
	report(embedded, r);
	if (r == 0)
		serve(&broker, embedded->stop_fd);
	broker_free(broker);
	return NULL;
}

static int choose_directory(struct shmb_broker *embedded, const struct shmb_broker_options *options)
{
	const char *base = secure_getenv("XDG_RUNTIME_DIR");
	int n;

	if (options->directory) {
		n = snprintf(embedded->directory, sizeof(embedded->directory), "%s",
			     options->directory);
		if (n < 0 || (size_t)n >= sizeof(embedded->directory))
			return shmb_fail(-EINVAL, "the directory's name is too long");
		return 0;
	}
	if (!base || base[0] != '/' || access(base, W_OK) < 0)
		base = "/tmp";
	n = snprintf(embedded->directory, sizeof(embedded->directory), "%s/shmbroker-XXXXXX", base);
	if (n < 0 || (size_t)n >= sizeof(embedded->directory))
		return shmb_fail(-EINVAL, "XDG_RUNTIME_DIR is too long");
	if (!mkdtemp(embedded->directory))
		return shmb_fail(-errno, "%s: %s", base, strerrordesc_np(errno));
	embedded->temporary = true;
	return 0;
}

static int start_thread(struct shmb_broker *embedded)
{
	sigset_t all, before;
	int r;

	/* Signals are for the threads of the program that we are embedded in. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&embedded->thread, NULL, embedded_main, embedded);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r != 0)
		return shmb_fail(-r, "no thread: %s", strerrordesc_np(r));
	pthread_mutex_lock(&embedded->lock);
	while (embedded->state > 0)
		pthread_cond_wait(&embedded->changed, &embedded->lock);
	r = embedded->state;
	pthread_mutex_unlock(&embedded->lock);
	if (r < 0)
		pthread_join(embedded->thread, NULL);
	return r < 0 ? shmb_fail(r, "%s", embedded->error) : 0;
}

static void embedded_free(struct shmb_broker *embedded)
{
	if (embedded->temporary)
		rmdir(embedded->directory);
	shmb_fd_close(embedded->stop_fd);
	pthread_cond_destroy(&embedded->changed);
	pthread_mutex_destroy(&embedded->lock);
	free(embedded);
}

SHMB_API int32_t shmb_broker_start(const struct shmb_broker_options *given,
				   struct shmb_broker **ret_broker)
{
	struct shmb_broker_options options;
	struct shmb_broker *embedded;
	int r;

	if (!ret_broker)
		return shmb_fail(-EINVAL, "ret_broker is NULL");
	r = shmb_options_take(&options, sizeof(options), given, "broker");
	if (r < 0)
		return r;
	if (options.flags)
		return shmb_fail(-EINVAL, "unknown broker flags 0x%x", options.flags);
	embedded = calloc(1, sizeof(*embedded));
	if (!embedded)
		return shmb_fail(-ENOMEM, "no memory");
	pthread_mutex_init(&embedded->lock, NULL);
	pthread_cond_init(&embedded->changed, NULL);
	embedded->state = 1;
	embedded->policy = (struct policy){ .single_user = true, .uid = geteuid() };
	embedded->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r = embedded->stop_fd < 0 ? shmb_fail(-errno, "no eventfd: %s", strerrordesc_np(errno))
				  : choose_directory(embedded, &options);
	if (r == 0)
		r = start_thread(embedded);
	if (r < 0) {
		embedded_free(embedded);
		return r;
	}
	*ret_broker = embedded;
	return 0;
}

SHMB_API const char *shmb_broker_address(struct shmb_broker *broker)
{
	return broker ? broker->address : NULL;
}

SHMB_API int32_t shmb_broker_stop(struct shmb_broker *broker)
{
	if (!broker)
		return 0;
	eventfd_write(broker->stop_fd, 1);
	pthread_join(broker->thread, NULL);
	embedded_free(broker);
	return 0;
}
