/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A broker, publishers and subscribers, callers and servers, and a seeded hand that kills, stops, starves and restarts
 * any of them at any time. In the end everybody may finish in peace, and the history of what each
 * publisher was acknowledged and what each subscriber got must keep every promise.
 *
 *	soak [--seed N] [--seconds N] [--strict] [--plan]
 *
 * For root every third seed is one with a broker of the system and workers of three users. Where a keeper
 * may not get to run for seconds, what it has is given up; --strict is for machines that have the time.
 *
 * The same seed and length plan the same actions, --plan prints them. What the processes do between
 * two actions is the kernel's choice. Exit status 1: a promise was broken.
 */

#include "soak.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/runtime.h"

#include "daemon/keeper.h"
#include "daemon/registry.h"

#define DRAIN_SECONDS  60
#define KEEPER_LOOKS   20 /* ms in a row in which a new keeper has to have everything */
#define START_TRIES    50
#define START_PAUSE_US 100000
#define SHM_LEN	       "64m"
#define FILL_FILE      "/dev/shm/soak-fill"
#define UID_BROKER     991u
#define UID_WORKER     1001u /* and the two behind it */
#define N_UIDS	       3u

enum action {
	KILL,
	STOP,
	CONT,
	LEAVE,
	JOIN,
	KILL_BROKER,
	STOP_BROKER,
	CONT_BROKER,
	KILL_KEEPER,
	FILL,
	FREE,
	STARVE,
	FEED,
	N_ACTIONS,
};

static const char *const names[] = {
	"kill",		  "stop",	   "continue",	      "leave",	     "join",
	"kill broker",	  "stop broker",   "continue broker", "kill keeper", "fill /dev/shm",
	"empty /dev/shm", "take fds from", "give fds to"
};
/* Of 100: joins are frequent, for only they undo deaths. */
static const unsigned char weights[] = { 16, 8, 14, 8, 28, 6, 3, 5, 2, 1, 3, 2, 4 };

struct planned {
	enum action action;
	unsigned worker; /* N_WORKERS: the broker, where an action is for either */
	unsigned pause_ms;
};

static struct history *history;
static pid_t workers[N_WORKERS], broker_pid;
static char dir[32] = "/tmp/shmb-soak.XXXXXX";
static char program[512], conf[sizeof(dir) + 5];
static uint64_t seed, worker_random;
static unsigned counts[N_ACTIONS];
static unsigned refusals; /* brokers that would not start */
static bool broker_hampered; /* it is stopped, or short of fds */
static bool own_shm, own_time, users, strict;
static struct rlimit usual_fds;

static void die(const char *what)
{
	fprintf(stderr, "soak: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void nap(unsigned ms)
{
	struct timespec left = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

/* The plan depends on nothing but the seed. */
static struct planned plan_next(uint64_t *random)
{
	struct planned planned = { 0 };
	unsigned at = (unsigned)(soak_random(random) % 100);

	while (at >= weights[planned.action])
		at -= weights[planned.action++];
	planned.worker = (unsigned)(soak_random(random) % (N_WORKERS + (planned.action >= STARVE)));
	/* One reliable subscriber of each channel lives through it all, to bear witness. */
	if ((planned.action == KILL || planned.action == LEAVE) && planned.worker >= N_PUBLISHERS &&
	    planned.worker < N_PUBLISHERS + N_CHANNELS)
		planned.worker += N_CHANNELS;
	planned.pause_ms = (unsigned)(soak_random(random) % 30);
	return planned;
}

/* ---- processes ---------------------------------------------------------------------------------- */

/* A clock of its own, days away from everybody else's, for every fourth worker. */
static void step_clock(unsigned number)
{
	char line[64];
	int fd, len;

	if (!own_time || worker_random % 4 || unshare(CLONE_NEWTIME) < 0)
		return;
	len = snprintf(line, sizeof(line), "monotonic %u 0\n", 100000 * (number + 1));
	fd = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, line, (size_t)len) != len)
		_exit(4);
	close(fd);
	/* It would hold from the next fork on. A process with threads, a sanitizer's, cannot enter. */
	fd = open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		setns(fd, CLONE_NEWTIME);
	close(fd);
}

/* Only root can be several. */
static void become(uint32_t uid)
{
	if (!users)
		return;
	if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)
		_exit(5);
	/* Has closed /proc/self to ourselves. */
	prctl(PR_SET_DUMPABLE, 1);
}

static void join(unsigned number)
{
	uint64_t random = soak_random(&worker_random);
	pid_t parent = getpid();

	if (workers[number])
		return;
	history->leave[number] = 0;
	workers[number] = fork();
	if (workers[number] < 0)
		die("fork");
	if (workers[number] > 0)
		return;
	step_clock(number);
	become(UID_WORKER + number % N_UIDS);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
	soak_worker(history, number, random);
}

static _Noreturn void exec_broker(int ready)
{
	int null = open("/dev/null", O_WRONLY);
	char number[16];

	become(UID_BROKER);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!getenv("SHMB_TEST_LOG"))
		dup2(null, 2);
	snprintf(number, sizeof(number), "%d", ready);
	if (users)
		execl(program, program, "--config", conf, "--directory", dir, "--ready-fd", number,
		      NULL);
	else
		execl(program, program, "--user", "--idle-exit=0", "--directory", dir, "--ready-fd",
		      number, NULL);
	_exit(127);
}

/* Returns whether it runs; if not, @ret_line is what it says. */
static bool broker_try(char *ret_line, size_t cap)
{
	size_t len = 0;
	int ready[2];
	ssize_t n;

	if (pipe(ready) < 0)
		die("pipe");
	broker_pid = fork();
	if (broker_pid == 0) {
		close(ready[0]);
		exec_broker(ready[1]);
	}
	close(ready[1]);
	while (len < cap - 1 && (n = read(ready[0], ret_line + len, cap - 1 - len)) > 0)
		len += (size_t)n;
	ret_line[len] = '\0';
	close(ready[0]);
	if (strcmp(ret_line, "ready\n") == 0)
		return true;
	waitpid(broker_pid, NULL, 0);
	return false;
}

/* As a service manager does: one that refuses to start has changed nothing, and is started again. */
static void broker_start(void)
{
	char line[512];

	broker_hampered = false;
	for (int i = 0; i < START_TRIES; i++) {
		if (broker_try(line, sizeof(line)))
			return;
		refusals++;
		usleep(START_PAUSE_US);
		/* It may say that it needs memory to go on. */
		if (i == START_TRIES / 5)
			unlink(FILL_FILE);
	}
	fprintf(stderr, "soak: %s does not start: %s\n", program, line);
	exit(2);
}

/* Joins again whoever has ended by itself; its exit status must be good. The broker does not end. */
static unsigned reap(void)
{
	unsigned bad = 0;
	siginfo_t info = { 0 };

	if (waitid(P_PID, (id_t)broker_pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	    info.si_pid == broker_pid) {
		printf("the broker ended by itself, code %d, status %d\n", info.si_code,
		       info.si_status);
		bad++;
	}

	for (unsigned i = 0; i < N_WORKERS; i++) {
		int status;

		if (!workers[i] || waitpid(workers[i], &status, WNOHANG) != workers[i])
			continue;
		workers[i] = 0;
		if (status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
			continue;
		printf("worker %u ended with status 0x%x\n", i, (unsigned)status);
		bad++;
	}
	return bad;
}

/* ---- what is kept ------------------------------------------------------------------------------- */

/* Sealed segments have no name: who keeps them has them open. */
static unsigned memfds(pid_t pid)
{
	char path[300], target[32];
	struct dirent *entry;
	unsigned n = 0;
	DIR *fds;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	fds = opendir(path);
	while (fds && (entry = readdir(fds))) {
		ssize_t len;

		snprintf(path, sizeof(path), "/proc/%d/fd/%s", pid, entry->d_name);
		len = readlink(path, target, sizeof(target));
		n += len > 7 && strncmp(target, "/memfd:", 7) == 0;
	}
	if (fds)
		closedir(fds);
	return n;
}

/* The instance is the same all the time. */
static char registry[SHMB_SEGMENT_NAME_LEN_MAX];

static bool is_keeper(const char *number)
{
	char path[300], line[128] = "";
	ssize_t n = 0;
	int fd;

	snprintf(path, sizeof(path), "/proc/%s/cmdline", number);
	fd = atoi(number) > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		n = read(fd, line, sizeof(line) - 1);
		close(fd);
	}
	return n > 0 && memmem(line, (size_t)n, registry, strlen(registry)) &&
	       memmem(line, (size_t)n, KEEPER_OPTION, strlen(KEEPER_OPTION));
}

/* The process that keeps what is sealed; 0: there is none. */
static pid_t keeper_find(void)
{
	struct dirent *entry;
	DIR *proc = opendir("/proc");
	pid_t pid = 0;

	if (!proc)
		die("/proc");
	while (pid == 0 && (entry = readdir(proc)))
		if (is_keeper(entry->d_name))
			pid = atoi(entry->d_name);
	closedir(proc);
	return pid;
}

/* ---- actions ------------------------------------------------------------------------------------ */

static void fds_limit(pid_t pid, bool none)
{
	struct rlimit limit = usual_fds;

	/* What is open stays open, nothing more can be. */
	if (none)
		limit.rlim_cur = 3;
	if (pid > 0)
		prlimit(pid, RLIMIT_NOFILE, &limit, NULL);
}

static void shm_fill(void)
{
	static char page[65536];
	int fd = own_shm ? open(FILL_FILE, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;

	while (fd >= 0 && write(fd, page, sizeof(page)) > 0)
		;
	close(fd);
}

/*
 * Its broker gives another one all there is. Only who has that may lose the broker; if both are killed at
 * once what nobody else has is lost.
 */
static void keeper_kill(void)
{
	pid_t before = broker_hampered ? 0 : keeper_find(), now = before;

	if (!before)
		return;
	kill(before, SIGKILL);
	for (unsigned ms = 0, n = 0; ms < DRAIN_SECONDS * 1000; ms++) {
		now = keeper_find();
		/* What it has just been given it has twice for a moment. */
		n = now && now != before && memfds(now) >= memfds(broker_pid) ? n + 1 : 0;
		if (n == KEEPER_LOOKS)
			return;
		nap(1);
	}
	printf("nobody takes the place of a killed keeper\n");
	history->unkept++;
}

static void broker_kill(void)
{
	pid_t keeper = keeper_find();

	history->unkept += !keeper;
	kill(broker_pid, SIGKILL);
#ifdef SOAK_MUTANT_KEEPER
	/* What is kept is lost, and nobody says so. */
	if (keeper)
		kill(keeper, SIGKILL);
#endif
	waitpid(broker_pid, NULL, 0);
	broker_start();
}

static void act(const struct planned *planned)
{
	pid_t pid = planned->worker == N_WORKERS ? broker_pid : workers[planned->worker];
	unsigned signals[] = { [KILL] = SIGKILL, [STOP] = SIGSTOP, [CONT] = SIGCONT };

	counts[planned->action]++;
	switch (planned->action) {
	case KILL:
	case STOP:
	case CONT:
		if (pid)
			kill(pid, (int)signals[planned->action]);
		break;
	case LEAVE:
		__atomic_store_n(&history->leave[planned->worker], 1, __ATOMIC_RELEASE);
		break;
	case JOIN:
		join(planned->worker);
		break;
	case KILL_BROKER:
		broker_kill();
		break;
	case STOP_BROKER:
		broker_hampered = true;
		kill(broker_pid, SIGSTOP);
		break;
	case CONT_BROKER:
		kill(broker_pid, SIGCONT);
		break;
	case KILL_KEEPER:
		keeper_kill();
		break;
	case FILL:
		shm_fill();
		break;
	case FREE:
		unlink(FILL_FILE);
		break;
	case STARVE:
	case FEED:
		broker_hampered |= pid == broker_pid;
		fds_limit(pid, planned->action == STARVE);
		break;
	case N_ACTIONS:
		break;
	}
}

/* ---- the end ------------------------------------------------------------------------------------ */

/* Of the broker's segments; those of others are theirs. */
static unsigned objects(void)
{
	struct dirent *entry;
	uint64_t instance = 0;
	char prefix[32];
	unsigned n = 0;
	DIR *shm = opendir("/dev/shm");

	if (!shm || shmb_runtime_instance(dir, &instance) < 0)
		die("/dev/shm");
	snprintf(prefix, sizeof(prefix), "shmb.%016llx.", (unsigned long long)instance);
	while ((entry = readdir(shm)))
		n += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
	closedir(shm);
	return n;
}

static bool wait_all(unsigned first, unsigned end)
{
	for (unsigned ms = 0; ms < DRAIN_SECONDS * 1000; ms += 10) {
		unsigned left = 0;

		for (unsigned i = first; i < end; i++)
			left += workers[i] != 0;
		if (left == 0)
			return true;
		nap(10);
		if (reap())
			return false;
	}
	return false;
}

/* Everybody may finish: publishers first, then subscribers when they have everything. */
static unsigned finish(void)
{
	unlink(FILL_FILE);
	kill(broker_pid, SIGCONT);
	fds_limit(broker_pid, false);
	for (unsigned i = 0; i < N_WORKERS; i++) {
		fds_limit(workers[i], false);
		if (workers[i])
			kill(workers[i], SIGCONT);
	}
	/* Somebody has to do what is left. */
	for (unsigned i = FIRST_HAND; i < N_WORKERS; i++)
		join(i);
	nap(200);
	__atomic_store_n(&history->stop, 1, __ATOMIC_RELEASE);
	if (!wait_all(0, N_PUBLISHERS) || !wait_all(FIRST_SUBMITTER, FIRST_HAND)) {
		printf("a publisher does not end\n");
		return 1;
	}
	if (!wait_all(FIRST_CALLER, FIRST_SERVER)) {
		printf("a call does not end\n");
		return 1;
	}
	__atomic_store_n(&history->drain, 1, __ATOMIC_RELEASE);
	if (!wait_all(N_PUBLISHERS, N_WORKERS)) {
		printf("a subscriber does not end\n");
		return 1;
	}
	return 0;
}

static unsigned leak_gate(void)
{
	static const char *const files[] = { SHMB_PRIVATE_FILE, SHMB_PUBLIC_FILE };
	unsigned left, bad = 0;
	char path[64];
	int status;

	for (unsigned ms = 0; ms < 5000 && objects() + memfds(broker_pid) > 1; ms += 10)
		nap(10);
	left = objects() + memfds(broker_pid);
	if (left != 1)
		printf("with nobody there the broker has %u segments, not its registry alone\n",
		       left);
	bad += left != 1;
	kill(broker_pid, SIGTERM);
	waitpid(broker_pid, &status, 0);
	if (status)
		printf("the broker ended with status 0x%x\n", (unsigned)status);
	bad += status != 0;
	for (unsigned ms = 0; ms < 5000 && keeper_find(); ms += 10)
		nap(10);
	if (keeper_find()) {
		printf("the keeper outlives its broker\n");
		bad++;
	}
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
		unlink(path);
	}
	if (users)
		unlink(conf);
	if (rmdir(dir) < 0) {
		printf("the broker leaves files in %s\n", dir);
		bad++;
	}
	return bad;
}

static void report(void)
{
	uint64_t acked = 0, received = 0, lost = 0, backstops = 0, jobs = 0, finished = 0;
	uint64_t calls = 0, answered = 0, resets = 0;
	unsigned lived = 0;

	for (uint32_t i = 0; i < history->n_publications; i++)
		acked += history->publications[i].acked;
	for (uint32_t i = 0; i < history->n_sessions; i++) {
		received += history->sessions[i].records;
		lost += history->sessions[i].lost;
		backstops += history->sessions[i].backstops;
		lived += history->sessions[i].state == 2;
	}
	for (uint32_t i = 0; i < history->n_batches; i++) {
		finished += history->batches[i].finished;
		for (unsigned k = 0; k < N_JOBS; k++)
			jobs += history->batches[i].done[k];
	}
	for (uint32_t i = 0; i < history->n_dialogues; i++) {
		calls += history->dialogues[i].tried;
		answered += history->dialogues[i].answered;
		resets += history->dialogues[i].resets;
	}
	for (unsigned i = 0; i < N_ACTIONS; i++)
		printf("%s%u %s", i ? ", " : "", counts[i], names[i]);
	if (refusals)
		printf(", %u brokers that refused to start", refusals);
	printf("\n%u publishers were acknowledged %llu records; %u subscribers, of whom %u lived to "
	       "the end, got %llu, lossy ones lost %llu; %llu late wake-ups\n",
	       history->n_publications, (unsigned long long)acked, history->n_sessions, lived,
	       (unsigned long long)received, (unsigned long long)lost,
	       (unsigned long long)backstops);
	printf("%u publishers of queues: %llu jobs were done, %llu of publishers who waited for it\n",
	       history->n_batches, (unsigned long long)jobs, (unsigned long long)finished);
	printf("%u callers: %llu calls, of which %llu were answered, and %llu ended at once when their "
	       "server went\n",
	       history->n_dialogues, (unsigned long long)calls, (unsigned long long)answered,
	       (unsigned long long)resets);
}

/* ---- the beginning ------------------------------------------------------------------------------ */

/* A /dev/shm of our own can be filled without harm to anybody. */
static void isolate(void)
{
	own_shm = unshare(CLONE_NEWNS) == 0 &&
		  mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
		  mount("soak", "/dev/shm", "tmpfs", 0, "mode=1777,size=" SHM_LEN) == 0;
	own_time = own_shm && access("/proc/self/timens_offsets", W_OK) == 0;
	if (!own_shm)
		printf("without the right to mount: /dev/shm is not filled\n");
	if (!own_time)
		printf("without time namespaces: clocks agree\n");
}

/* A broker of the system that lets every user do everything. */
static void open_to_all(void)
{
	static const char rules[] =
		"socket-mode = '0666'\n"
		"rule \"all\" { channel = { 'soak/**' } allow = { 'create', 'publish', 'subscribe' }\n"
		"	evict-after = 'unlimited' }\n"
		"quota \"default\" { handshakes = '1000' }\n";
	FILE *file;

	snprintf(conf, sizeof(conf), "%s.conf", dir);
	file = fopen(conf, "we");
	if (!file || fputs(rules, file) < 0 || fclose(file) || chmod(conf, 0644) < 0 ||
	    chmod(dir, 0755) < 0 || chown(dir, UID_BROKER, UID_BROKER) < 0)
		die(conf);
}

static void begin(void)
{
	const char *build = getenv("top_builddir");
	uint64_t instance = 0;

	history = mmap(NULL, sizeof(*history), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (history == MAP_FAILED || !mkdtemp(dir))
		die("memory and a directory");
	getrlimit(RLIMIT_NOFILE, &usual_fds);
	snprintf(program, sizeof(program), "%s/shmbrokerd", build ? build : ".");
	snprintf(history->address, sizeof(history->address), "%s/" SHMB_SOCKET_FILE, dir);
	history->seed = worker_random = seed;
	history->users = users;
	history->strict = strict;
	if (users)
		open_to_all();
	broker_start();
	if (shmb_runtime_instance(dir, &instance) < 0)
		die(dir);
	registry_name(instance, registry);
	for (unsigned i = N_WORKERS; i-- > 0;)
		join(i);
	nap(300);
}

static void print_plan(unsigned seconds)
{
	uint64_t random = seed;

	for (uint64_t ms = 0; ms < seconds * 1000ull;) {
		struct planned planned = plan_next(&random);

		printf("%llu %s %u\n", (unsigned long long)ms, names[planned.action],
		       planned.worker);
		ms += planned.pause_ms;
	}
}

static unsigned run(unsigned seconds)
{
	uint64_t random = seed;
	unsigned bad = 0;

	begin();
	for (uint64_t ms = 0; ms < seconds * 1000ull && !bad;) {
		struct planned planned = plan_next(&random);

		act(&planned);
		nap(planned.pause_ms);
		ms += planned.pause_ms;
		bad += reap();
	}
	bad += finish();
	bad += soak_check(history);
	bad += leak_gate();
	report();
	return bad;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", required_argument, NULL, 's' },
						 { "seconds", required_argument, NULL, 't' },
						 { "strict", no_argument, NULL, 'x' },
						 { "plan", no_argument, NULL, 'p' },
						 { 0 } };
	unsigned seconds = 5, bad;
	bool plan_only = false;
	struct timespec now;
	int option;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = (uint64_t)now.tv_sec << 20 ^ (uint64_t)now.tv_nsec;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (option == 't')
			seconds = (unsigned)strtoul(optarg, NULL, 0);
		else if (option == 'x')
			strict = true;
		else if (option == 'p')
			plan_only = true;
		else
			return 2;
	}
	if (plan_only) {
		print_plan(seconds);
		return 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("soak --seed %llu --seconds %u\n", (unsigned long long)seed, seconds);
	users = seed % 3 == 2 && geteuid() == 0;
	isolate();
	bad = run(seconds);
	if (bad)
		printf("%u promises were broken; again with --seed %llu --seconds %u%s\n", bad,
		       (unsigned long long)seed, seconds, strict ? " --strict" : "");
	else
		printf("every promise was kept\n");
	return bad != 0;
}
