/* SPDX-License-Identifier: Apache-2.0 */

/* shmbrokerd: command line, configuration, signals and the service manager, around a broker. */

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <shmbroker/shmbroker.h>

#include "lib/clock.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/runtime.h"

#include "daemon/broker.h"
#include "daemon/conf.h"

#define LISTEN_FD	  3 /* the first fd that a service manager passes */
#define USER_IDLE_EXIT_MS 5000
#define NOFILE_WANTED	  65536
#define READY_TRIES	  1000
#define CONF_FILE	  SHMB_SYSCONFDIR "/shmbroker/shmbrokerd.conf"

enum {
	OPTION_USER = 256,
	OPTION_CONFIG,
	OPTION_ADDRESS,
	OPTION_DIRECTORY,
	OPTION_READY_FD,
	OPTION_IDLE_EXIT,
	OPTION_IO,
	OPTION_ALLOW_ROOT,
	OPTION_REPLACE,
};

static const struct argp_option options[] = {
	{ "user", OPTION_USER, NULL, 0, "Serve this user only, and end when idle", 0 },
	{ "config", OPTION_CONFIG, "FILE", 0, "Rules and quotas (" CONF_FILE ")", 0 },
	{ "address", OPTION_ADDRESS, "PATH", 0, "Path of the control socket", 0 },
	{ "directory", OPTION_DIRECTORY, "DIR", 0, "Directory of socket, keys and state", 0 },
	{ "ready-fd", OPTION_READY_FD, "N", 0, "Write \"ready\" or the error there, and close it",
	  0 },
	{ "idle-exit", OPTION_IDLE_EXIT, "SECONDS", 0, "End when idle for so long; 0: never", 0 },
	{ "io", OPTION_IO, "auto|uring|epoll", 0, "How to wait ($SHMBROKER_IO)", 0 },
	{ "allow-root", OPTION_ALLOW_ROOT, NULL, 0, "Run as root although it is not needed", 0 },
	{ "replace", OPTION_REPLACE, NULL, 0,
	  "Take the place of the broker that is there, even if it does not react", 0 },
	{ 0 },
};

/**
 * struct daemon - the process
 * @user, @allow_root, @replace, @config_file, @address, @directory, @ready_fd, @idle_exit_ms, @io: options;
 *		-1: not given
 * @conf:	system mode: the configuration in force
 * @no_file:	there was none to read
 * @policy:	user mode: the policy
 * @dir_room:	room for @directory
 * @store:	the service manager's
 * @broker_config: made of all that
 * @broker:	broker
 * @signal_fd:	SIGTERM, SIGINT, SIGHUP
 * @signals:	watches it
 * @watchdog:	feeds the service manager's watchdog
 * @watchdog_ns: how often
 */
struct daemon {
	bool user;
	bool allow_root;
	bool replace;
	const char *config_file;
	const char *address;
	const char *directory;
	int ready_fd;
	long idle_exit_ms;
	enum loop_backend io;
	struct conf conf;
	bool no_file;
	struct policy policy;
	char dir_room[PATH_MAX];
	struct store store;
	struct broker_config broker_config;
	struct broker *broker;
	int signal_fd;
	struct loop_watch *signals;
	struct loop_timer *watchdog;
	uint64_t watchdog_ns;
};

static int parse_io(const char *text, enum loop_backend *ret)
{
	if (strcmp(text, "auto") == 0)
		*ret = LOOP_AUTO;
	else if (strcmp(text, "uring") == 0)
		*ret = LOOP_URING;
	else if (strcmp(text, "epoll") == 0)
		*ret = LOOP_EPOLL;
	else
		return -EINVAL;
	return 0;
}

static long parse_number(struct argp_state *state, const char *text, double scale)
{
	char *end;
	double value = strtod(text, &end);

	if (text[0] < '0' || text[0] > '9' || *end || value * scale > INT_MAX)
		argp_error(state, "not a number: %s", text);
	return (long)(value * scale);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct daemon *d = state->input;

	switch (key) {
	case OPTION_USER:
		d->user = true;
		break;
	case OPTION_REPLACE:
		d->replace = true;
		break;
	case OPTION_ALLOW_ROOT:
		d->allow_root = true;
		break;
	case OPTION_CONFIG:
		d->config_file = arg;
		break;
	case OPTION_ADDRESS:
		d->address = arg;
		break;
	case OPTION_DIRECTORY:
		d->directory = arg;
		break;
	case OPTION_READY_FD:
		d->ready_fd = (int)parse_number(state, arg, 1);
		break;
	case OPTION_IDLE_EXIT:
		d->idle_exit_ms = parse_number(state, arg, 1000);
		break;
	case OPTION_IO:
		if (parse_io(arg, &d->io) < 0)
			argp_error(state, "--io is auto, uring or epoll, not %s", arg);
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	fprintf(stream, "shmbrokerd %s\n", SHMB_VERSION_STRING);
}

static void notify(struct daemon *d, const char *text)
{
	store_notify(d->store.notify, text, -1);
}

/* One line to whoever has started us, in one write: it fits into a pipe. */
static int say_ready(struct daemon *d, const char *error)
{
	struct timespec pause = { .tv_nsec = 1000000 };
	char line[512 + 16];
	ssize_t n;
	int len, r = 0;

	if (d->ready_fd < 0)
		return 0;
	len = error ? snprintf(line, sizeof(line), "error: %s\n", error)
		    : snprintf(line, sizeof(line), "ready\n");
	for (int i = 0; i < READY_TRIES; i++) {
		n = write(d->ready_fd, line, (size_t)len);
		r = n < 0 ? -errno : 0;
		if (r != -EINTR && r != -EAGAIN)
			break;
		nanosleep(&pause, NULL);
	}
	d->ready_fd = shmb_fd_close(d->ready_fd);
	/* Nobody waits for it any more, but others may come. */
	return r == -EPIPE ? 0 : r;
}

static int fail(struct daemon *d, int result)
{
	char text[512];

	if (shmb_last_error(text, sizeof(text)) == 0)
		snprintf(text, sizeof(text), "%s", shmb_strerror(result));
	fprintf(stderr, "shmbrokerd: %s\n", text);
	say_ready(d, text);
	return EXIT_FAILURE;
}

static void raise_limits(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < NOFILE_WANTED)
		limit.rlim_cur = limit.rlim_max;
	else if (limit.rlim_cur < NOFILE_WANTED)
		limit.rlim_cur = NOFILE_WANTED;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* The next of the names that are separated by colons; "" if there are no more. */
static void next_name(const char **names, char *name, size_t cap)
{
	size_t len = *names ? strcspn(*names, ":") : 0;

	snprintf(name, cap, "%.*s", (int)len, *names ? *names : "");
	if (*names)
		*names = (*names)[len] ? *names + len + 1 : NULL;
}

/* Socket activation, and what the service manager has kept for us. Sets -1 if there is no socket. */
static int inherited_fds(struct daemon *d, int *ret_fd)
{
	const char *pid = getenv("LISTEN_PID"), *n = getenv("LISTEN_FDS");
	const char *names = getenv("LISTEN_FDNAMES");
	int r = 0, n_sockets = 0;
	char name[64];

	*ret_fd = -1;
	d->store.notify = getenv("NOTIFY_SOCKET");
	if (!pid || !n || strtol(pid, NULL, 10) != getpid())
		return 0;
	for (int fd = LISTEN_FD; r == 0 && fd < LISTEN_FD + atoi(n); fd++) {
		next_name(&names, name, sizeof(name));
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		if (store_is_ours(name))
			r = store_note(&d->store, name, fd);
		else if (n_sockets++ == 0)
			*ret_fd = fd;
	}
	if (r == 0 && n_sockets > 1)
		return shmb_fail(-EINVAL, "one socket is wanted, %d were passed", n_sockets);
	return r;
}

/* Where the inherited socket is bound, so that we can say where we listen. */
static int inherited_address(struct daemon *d, int fd)
{
	static struct sockaddr_un address;
	socklen_t len = sizeof(address) - 1;

	if (fd < 0)
		return 0;
	if (getsockname(fd, (struct sockaddr *)&address, &len) < 0 ||
	    address.sun_family != AF_UNIX || address.sun_path[0] != '/')
		return shmb_fail(-EINVAL, "fd %d has no path", fd);
	if (d->address && strcmp(d->address, address.sun_path) != 0)
		return shmb_fail(-EINVAL, "%s was asked for, but fd %d is bound to %s", d->address,
				 fd, address.sun_path);
	d->address = address.sun_path;
	return 0;
}

static int choose_directory(struct daemon *d)
{
	char *slash;

	if (d->directory)
		return 0;
	d->directory = d->dir_room;
	if (d->address) {
		if (d->address[0] != '/' || strlen(d->address) >= sizeof(d->dir_room))
			return shmb_fail(-EINVAL, "%s: not an absolute path", d->address);
		strcpy(d->dir_room, d->address);
		slash = strrchr(d->dir_room, '/');
		slash[slash == d->dir_room] = '\0';
		return 0;
	}
	if (d->user)
		return shmb_runtime_user_dir(d->dir_room, sizeof(d->dir_room));
	snprintf(d->dir_room, sizeof(d->dir_room), "%s",
		 d->conf.directory ? d->conf.directory : SHMB_SYSTEM_DIR);
	return 0;
}

/* A key that the service manager keeps for us, else the one in the configuration. */
static const char *choose_key(struct daemon *d)
{
	static char path[PATH_MAX];
	const char *credentials = getenv("CREDENTIALS_DIRECTORY");

	if (d->user)
		return NULL;
	if (credentials &&
	    shmb_runtime_join(path, sizeof(path), credentials, SHMB_PRIVATE_FILE) == 0 &&
	    access(path, R_OK) == 0)
		return path;
	return d->conf.key_file;
}

static void use_conf(struct daemon *d)
{
	struct broker_config *config = &d->broker_config;

	config->policy = &d->conf.policy;
	config->limits = d->conf.limits;
	config->quota_rules = d->conf.quota_rules;
	config->n_quota_rules = d->conf.n_quota_rules;
}

/*
 * A file that was named must be there. Without the default one nobody has any right: a safe thing
 * to be, and what an empty file says.
 */
static int load_conf(struct daemon *d)
{
	int r = conf_load(d->config_file ? d->config_file : CONF_FILE, &d->conf);

	if (r != -ENOENT || d->config_file)
		return r;
	d->no_file = true;
	conf_default(&d->conf);
	return 0;
}

static int configure(struct daemon *d)
{
	struct broker_config *config = &d->broker_config;
	int r = 0, listen_fd = -1;

	if (geteuid() == 0 && !d->user && !d->allow_root)
		return shmb_fail(-EPERM, "needs no root; --allow-root if you insist");
	if (!d->user)
		r = load_conf(d);
	if (r == 0)
		r = inherited_fds(d, &listen_fd);
	if (r == 0)
		r = inherited_address(d, listen_fd);
	if (r == 0)
		r = choose_directory(d);
	if (r < 0)
		return r;
	if (d->idle_exit_ms < 0)
		d->idle_exit_ms = d->user ? USER_IDLE_EXIT_MS : 1000l * d->conf.idle_exit_s;
	*config = (struct broker_config){
		.directory = d->directory,
		.socket_path = d->address,
		.key_path = choose_key(d),
		.socket_mode = d->user ? 0600 : d->conf.socket_mode,
		.listen_fd = listen_fd,
		.store = &d->store,
		.keeper = "/proc/self/exe",
		.replace = d->replace,
		.backend = d->io,
		.idle_exit_ns = (uint64_t)d->idle_exit_ms * 1000000,
		.log = { .fd = STDERR_FILENO, .priorities = getenv("JOURNAL_STREAM") != NULL },
	};
	if (d->user) {
		d->policy = (struct policy){ .single_user = true, .uid = geteuid() };
		config->policy = &d->policy;
		quota_limits_user(&config->limits);
	} else {
		use_conf(d);
	}
	return 0;
}

/* A file that does not parse changes nothing. */
static void reload(struct daemon *d)
{
	struct conf conf;
	char text[512];

	if (d->user)
		return;
	if (conf_load(d->config_file ? d->config_file : CONF_FILE, &conf) < 0) {
		shmb_last_error(text, sizeof(text));
		log_line(&d->broker->log, LOG_ERROR, "reload-failed", "error=\"%s\"", text);
		return;
	}
	conf_free(&d->conf);
	d->conf = conf;
	use_conf(d);
	broker_reload(d->broker, &d->conf.policy, &d->conf.limits, d->conf.quota_rules,
		      d->conf.n_quota_rules);
	log_line(&d->broker->log, LOG_NOTICE, "reloaded", "rules=%u", d->conf.policy.n_rules);
}

static void on_signal(void *data)
{
	struct daemon *d = data;
	struct signalfd_siginfo info;

	while (read(d->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP) {
			reload(d);
			continue;
		}
		notify(d, "STOPPING=1");
		loop_stop(d->broker->loop, 0);
	}
}

static void on_watchdog(void *data)
{
	struct daemon *d = data;

	notify(d, "WATCHDOG=1");
	loop_timer_move(d->watchdog, shmb_clock_now_ns() + d->watchdog_ns);
}

static int open_signals(struct daemon *d)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	/* A segment above RLIMIT_FSIZE is one client's mistake, not our end. */
	signal(SIGXFSZ, SIG_IGN);
	/* Nor is it that whoever has started us has gone meanwhile. */
	signal(SIGPIPE, SIG_IGN);
	/* A keeper that dies is noticed by its pidfd, and nobody waits for it. */
	signal(SIGCHLD, SIG_IGN);
	d->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return d->signal_fd < 0 ? shmb_fail(-errno, "no signalfd") : 0;
}

/* Everything that hangs on the broker's loop. */
static int hook(struct daemon *d)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	int r;

	r = loop_watch(d->broker->loop, d->signal_fd, false, on_signal, d, &d->signals);
	if (r < 0)
		return r;
	d->watchdog_ns =
		usec && (!pid || atoi(pid) == getpid()) ? strtoull(usec, NULL, 10) * 500 : 0;
	if (d->watchdog_ns == 0)
		return 0;
	return loop_timer_at(d->broker->loop, shmb_clock_now_ns() + d->watchdog_ns, on_watchdog, d,
			     &d->watchdog);
}

static int serve(struct daemon *d)
{
	bool running = false;
	int r;

	for (;;) {
		r = hook(d);
		if (r == 0) {
			notify(d, "READY=1");
			r = say_ready(d, NULL);
		}
		/* Who is told nothing takes us for dead. */
		if (r == 0) {
			running = true;
			r = broker_run(d->broker);
		}
		d->signals = loop_unwatch(d->signals);
		d->watchdog = loop_timer_cancel(d->watchdog);
		if (!running || (r != -EPERM && r != -ENOSYS))
			return r;
		r = broker_fall_back(&d->broker);
		if (r < 0)
			return r;
	}
}

int main(int argc, char **argv)
{
	static const struct argp argp = { options, parse_option, NULL, "The broker of shmbroker.",
					  NULL,	   NULL,	 NULL };
	static struct daemon d = { .ready_fd = -1, .idle_exit_ms = -1 };
	const char *io = secure_getenv("SHMBROKER_IO");
	int r;

	if (argc == 3 && strcmp(argv[1], KEEPER_OPTION) == 0)
		return keeper_main(argv[2], KEEPER_LINGER_MS);
	argp_program_version_hook = print_version;
	if (io && parse_io(io, &d.io) < 0)
		fprintf(stderr, "shmbrokerd: SHMBROKER_IO=%s is ignored\n", io);
	argp_parse(&argp, argc, argv, 0, NULL, &d);
	umask(077);
	/* Keys are in our memory: no core dumps, no debuggers of the same user. */
	prctl(PR_SET_DUMPABLE, 0);
	raise_limits();
	r = configure(&d);
	if (r == 0)
		r = open_signals(&d);
	if (r == 0)
		r = broker_new(&d.broker_config, &d.broker);
	if (r < 0)
		return fail(&d, r);
	if (d.no_file)
		log_line(&d.broker->log, LOG_WARNING, "no-configuration",
			 "file=" CONF_FILE " rules=0");
	r = serve(&d);
	if (r < 0)
		fail(&d, shmb_fail(r, "cannot serve: %s", strerrordesc_np(-r)));
	broker_free(d.broker);
	store_deinit(&d.store);
	shmb_fd_close(d.signal_fd);
	conf_free(&d.conf);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
