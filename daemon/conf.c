/* SPDX-License-Identifier: Apache-2.0 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <confuse.h>

#include "lib/api.h"
#include "lib/error.h"
#include "lib/fd.h"
#include "lib/keyfile.h"

#include "daemon/conf.h"

#define CONF_LEN_MAX (1 << 20)
#define KEYS_DIR     "clients.d"

#define SOCKET_MODE_DEFAULT 0660

static const struct {
	const char *name;
	uint32_t op;
} ops[] = {
	{ "create", POLICY_CREATE },	   { "publish", POLICY_PUBLISH },
	{ "subscribe", POLICY_SUBSCRIBE }, { "inspect", POLICY_INSPECT },
	{ "admin", POLICY_ADMIN },
};

static const struct {
	const char *name;
	enum quota_kind kind;
} quotas[] = {
	{ "shm-bytes", QUOTA_BYTES },	  { "channels", QUOTA_CHANNELS },
	{ "members", QUOTA_MEMBERS },	  { "connections", QUOTA_CONNECTIONS },
	{ "half-open", QUOTA_HALF_OPEN }, { "clients", QUOTA_CLIENTS },
	{ "fd-pairs", QUOTA_FD_PAIRS },
};

/* The parser's message, with file and line, becomes this thread's sentence. */
static void __attribute__((format(printf, 2, 0)))
on_error(cfg_t *cfg, const char *format, va_list args)
{
	char text[256];

	vsnprintf(text, sizeof(text), format, args);
	shmb_fail(-EINVAL, "%s:%d: %s", cfg && cfg->filename ? cfg->filename : "configuration",
		  cfg ? cfg->line : 0, text);
}

static int bad(cfg_t *cfg, const char *what, const char *value)
{
	return shmb_fail(-EINVAL, "%s:%d: %s \"%s\"", cfg->filename ? cfg->filename : "", cfg->line,
			 what, value);
}

/* "64M" and the like; "unlimited". */
static int parse_amount(cfg_t *cfg, const char *text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	unsigned shift = 0;
	const char *unit;
	char *end;
	unsigned long long value;

	if (strcmp(text, "unlimited") == 0) {
		*ret = QUOTA_UNLIMITED;
		return 0;
	}
	errno = 0;
	value = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || errno)
		return bad(cfg, "not an amount:", text);
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (*end || value > UINT64_MAX >> shift)
		return bad(cfg, "not an amount:", text);
	*ret = value << shift;
	return 0;
}

static int parse_id(cfg_t *cfg, const char *text, bool group, uint32_t *ret)
{
	struct passwd *user;
	struct group *found;
	unsigned long value;
	char *end;

	if (text[0] >= '0' && text[0] <= '9') {
		errno = 0;
		value = strtoul(text, &end, 10);
		if (errno || *end || value >= UINT32_MAX)
			return bad(cfg, group ? "not a gid:" : "not a uid:", text);
		*ret = (uint32_t)value;
		return 0;
	}
	if (group) {
		found = getgrnam(text);
		if (!found)
			return bad(cfg, "unknown group", text);
		*ret = found->gr_gid;
		return 0;
	}
	user = getpwnam(text);
	if (!user)
		return bad(cfg, "unknown user", text);
	*ret = user->pw_uid;
	return 0;
}

static int load_ids(cfg_t *cfg, const char *option, bool group, uint32_t **ret_ids, uint32_t *ret_n)
{
	unsigned n = cfg_size(cfg, option);
	int r = 0;

	if (n == 0)
		return 0;
	*ret_ids = calloc(n, sizeof(uint32_t));
	if (!*ret_ids)
		return shmb_fail(-ENOMEM, "no memory");
	for (unsigned i = 0; r == 0 && i < n; i++)
		r = parse_id(cfg, cfg_getnstr(cfg, option, i), group, &(*ret_ids)[i]);
	*ret_n = n;
	return r;
}

static int load_ops(cfg_t *cfg, const char *option, uint32_t *ret_ops)
{
	for (unsigned i = 0; i < cfg_size(cfg, option); i++) {
		const char *name = cfg_getnstr(cfg, option, i);
		size_t k = 0;

		while (k < SHMB_ARRAY_LEN(ops) && strcmp(ops[k].name, name) != 0)
			k++;
		if (k == SHMB_ARRAY_LEN(ops))
			return bad(cfg, "unknown operation", name);
		*ret_ops |= ops[k].op;
	}
	return 0;
}

static int load_keys(cfg_t *cfg, struct policy_rule *rule)
{
	unsigned n = cfg_size(cfg, "key");
	char path[PATH_MAX];
	const char *name, *slash;
	int r;

	if (n == 0)
		return 0;
	rule->keys = calloc(n, SHMB_KEY_LEN);
	if (!rule->keys)
		return shmb_fail(-ENOMEM, "no memory");
	slash = cfg->filename ? strrchr(cfg->filename, '/') : NULL;
	for (unsigned i = 0; i < n; i++) {
		name = cfg_getnstr(cfg, "key", i);
		if (name[0] == '\0' || strchr(name, '/'))
			return bad(cfg, "not the name of a key:", name);
		r = snprintf(path, sizeof(path), "%.*s" KEYS_DIR "/%s.pub",
			     slash ? (int)(slash - cfg->filename + 1) : 0, cfg->filename, name);
		if (r < 0 || (size_t)r >= sizeof(path) ||
		    shmb_keyfile_load_public(path, rule->keys[i]) < 0)
			return bad(cfg, "no usable public key", path);
	}
	rule->n_keys = n;
	return 0;
}

/* A '*' in the middle of "**" would surprise, and so would bytes that no name can have. */
static bool glob_valid(const char *glob)
{
	size_t len = strlen(glob);

	if (len == 0 || len > SHMB_NAME_LEN_MAX)
		return false;
	if (glob[strspn(glob, "abcdefghijklmnopqrstuvwxyz0123456789._-/*")] != '\0')
		return false;
	for (const char *p = strstr(glob, "**"); p; p = strstr(p + 1, "**"))
		if (p[2] != '\0' || (p != glob && p[-1] != '/'))
			return false;
	return true;
}

static int load_backing(cfg_t *cfg, struct policy_rule *rule)
{
	static const char *const names[] = { "auto", "posix", "sealed" };
	const char *name = cfg_getstr(cfg, "backing");

	if (!name)
		return 0;
	for (uint32_t i = 0; i < SHMB_ARRAY_LEN(names); i++) {
		if (strcmp(names[i], name) != 0)
			continue;
		rule->backing = i + 1;
		return 0;
	}
	return bad(cfg, "not a backing:", name);
}

static int load_evict_after(cfg_t *cfg, struct policy_rule *rule)
{
	const char *text = cfg_getstr(cfg, "evict-after");
	uint64_t ms;
	int r;

	if (!text)
		return 0;
	r = parse_amount(cfg, text, &ms);
	if (r < 0)
		return r;
	if (ms != QUOTA_UNLIMITED && ms >= POLICY_EVICT_NEVER)
		return bad(cfg, "too many milliseconds:", text);
	rule->has_evict_after = true;
	rule->evict_after_ms = ms == QUOTA_UNLIMITED ? POLICY_EVICT_NEVER : (uint32_t)ms;
	return 0;
}

/* A number of at most @max: @what it is not if it is more. */
static int load_limit(cfg_t *cfg, const char *option, uint32_t max, const char *what, bool *ret_has,
		      uint32_t *ret_limit)
{
	const char *text = cfg_getstr(cfg, option);
	uint64_t limit;
	int r;

	if (!text)
		return 0;
	r = parse_amount(cfg, text, &limit);
	if (r < 0)
		return r;
	if (limit > max)
		return bad(cfg, what, text);
	*ret_has = true;
	*ret_limit = (uint32_t)limit;
	return 0;
}

static int load_priority(cfg_t *cfg, struct policy_rule *rule)
{
	return load_limit(cfg, "priority", SHMB_MEMBER_PRIORITY_MASK >> SHMB_MEMBER_PRIORITY_SHIFT,
			  "not a priority:", &rule->has_priority, &rule->priority_max);
}

static int load_fds(cfg_t *cfg, struct policy_rule *rule)
{
	return load_limit(cfg, "fds", SHMB_FDS_MAX,
			  "not a number of file descriptors:", &rule->has_fds, &rule->fds_max);
}

static int load_rule(cfg_t *cfg, struct policy_rule *rule)
{
	unsigned n = cfg_size(cfg, "channel");
	int r = 0;

	rule->name = strdup(cfg_title(cfg));
	rule->channels = calloc(n ? n : 1, sizeof(char *));
	if (!rule->name || !rule->channels)
		return shmb_fail(-ENOMEM, "no memory");
	if (n == 0)
		return bad(cfg, "no channel in rule", rule->name);
	for (unsigned i = 0; i < n; i++) {
		const char *glob = cfg_getnstr(cfg, "channel", i);

		if (!glob_valid(glob))
			return bad(cfg, "not a pattern for channels:", glob);
		rule->channels[i] = strdup(glob);
		if (!rule->channels[i])
			return shmb_fail(-ENOMEM, "no memory");
		rule->n_channels++;
	}
	r = load_ids(cfg, "uid", false, &rule->uids, &rule->n_uids);
	if (r == 0)
		r = load_ids(cfg, "gid", true, &rule->gids, &rule->n_gids);
	if (r == 0)
		r = load_keys(cfg, rule);
	if (r == 0)
		r = load_ops(cfg, "allow", &rule->allow);
	if (r == 0)
		r = load_ops(cfg, "deny", &rule->deny);
	if (r == 0)
		r = load_backing(cfg, rule);
	if (r == 0)
		r = load_evict_after(cfg, rule);
	if (r == 0)
		r = load_priority(cfg, rule);
	if (r == 0)
		r = load_fds(cfg, rule);
	if (r == 0 && !(rule->allow | rule->deny | rule->backing | rule->has_evict_after |
			rule->has_priority | rule->has_fds))
		r = bad(cfg, "nothing allowed or denied in rule", rule->name);
	return r;
}

static int load_limits(cfg_t *cfg, struct quota_limits *limits)
{
	uint64_t amount;
	char *text;
	int r;

	for (size_t i = 0; i < SHMB_ARRAY_LEN(quotas); i++) {
		text = cfg_getstr(cfg, quotas[i].name);
		if (!text)
			continue;
		r = parse_amount(cfg, text, &amount);
		if (r < 0)
			return r;
		limits->max[quotas[i].kind] = amount;
	}
	text = cfg_getstr(cfg, "handshakes");
	if (!text)
		return 0;
	r = parse_amount(cfg, text, &amount);
	if (r < 0)
		return r;
	/* "unlimited" is 0 inside. */
	limits->handshakes_per_s = amount > 100000 ? 0 : (uint32_t)amount;
	limits->handshake_burst = 2 * limits->handshakes_per_s;
	return 0;
}

static int load_quotas(cfg_t *cfg, struct conf *conf)
{
	unsigned n = cfg_size(cfg, "quota");
	int r = 0;

	conf->quota_rules = calloc(n ? n : 1, sizeof(struct quota_rule));
	if (!conf->quota_rules)
		return shmb_fail(-ENOMEM, "no memory");
	/* The default first, wherever it stands: the others begin with it. */
	for (unsigned i = 0; r == 0 && i < n; i++)
		if (strcmp(cfg_title(cfg_getnsec(cfg, "quota", i)), "default") == 0)
			r = load_limits(cfg_getnsec(cfg, "quota", i), &conf->limits);
	for (unsigned i = 0; r == 0 && i < n; i++) {
		cfg_t *section = cfg_getnsec(cfg, "quota", i);
		struct quota_rule *rule = &conf->quota_rules[conf->n_quota_rules];

		if (strcmp(cfg_title(section), "default") == 0)
			continue;
		rule->limits = conf->limits;
		r = parse_id(section, cfg_title(section), false, &rule->uid);
		if (r == 0)
			r = load_limits(section, &rule->limits);
		conf->n_quota_rules++;
	}
	return r;
}

static int load_rules(cfg_t *cfg, struct conf *conf)
{
	unsigned n = cfg_size(cfg, "rule");
	int r = 0;

	conf->policy.rules = calloc(n ? n : 1, sizeof(struct policy_rule));
	if (!conf->policy.rules)
		return shmb_fail(-ENOMEM, "no memory");
	for (unsigned i = 0; r == 0 && i < n; i++) {
		conf->policy.n_rules++;
		r = load_rule(cfg_getnsec(cfg, "rule", i), &conf->policy.rules[i]);
	}
	return r;
}

void conf_default(struct conf *conf)
{
	*conf = (struct conf){ .socket_mode = SOCKET_MODE_DEFAULT };
	quota_limits_system(&conf->limits);
}

static int load_globals(cfg_t *cfg, struct conf *conf)
{
	const char *directory = cfg_getstr(cfg, "directory");
	const char *key_file = cfg_getstr(cfg, "key-file");
	const char *mode = cfg_getstr(cfg, "socket-mode");
	long idle = cfg_getint(cfg, "idle-exit");
	char *end;

	if (directory)
		conf->directory = strdup(directory);
	if (key_file)
		conf->key_file = strdup(key_file);
	if ((directory && !conf->directory) || (key_file && !conf->key_file))
		return shmb_fail(-ENOMEM, "no memory");
	if (directory && directory[0] != '/')
		return bad(cfg, "not an absolute path:", directory);
	if (mode)
		conf->socket_mode = (uint32_t)strtoul(mode, &end, 8);
	if (mode && (*end || mode[0] == '\0' || (conf->socket_mode & ~0666u)))
		return bad(cfg, "not a mode of a socket:", mode);
	if (idle < 0 || idle > INT_MAX)
		return bad(cfg, "not a number of seconds:", "idle-exit");
	conf->idle_exit_s = (uint32_t)idle;
	return 0;
}

/* Skips a comment; returns its last byte but the newline that may end it, or NULL if there is none. */
static const char *skip_comment(const char *p)
{
	const char *end;

	if (p[0] == '#' || (p[0] == '/' && p[1] == '/'))
		return p + strcspn(p, "\n") - 1;
	if (p[0] != '/' || p[1] != '*')
		return NULL;
	end = strstr(p + 2, "*/");
	return end ? end + 1 : p + strlen(p) - 1;
}

/*
 * The parser replaces ${NAME} by a variable of the environment, except between single quotes. What
 * is allowed must not depend on who has started us, so that is a mistake.
 */
static int refuse_variables(const char *text, const char *name)
{
	unsigned line = 1;
	char quote = '\0';

	for (const char *p = text; *p; p++) {
		const char *end = quote ? NULL : skip_comment(p);

		for (; end && p < end; p++)
			line += *p == '\n';
		if (end)
			continue;
		if (*p == '\n')
			line++;
		else if (*p == '\\' && quote && p[1] && p[1] != '\n')
			p++;
		else if (*p == quote)
			quote = '\0';
		else if (!quote && (*p == '\'' || *p == '"'))
			quote = *p;
		else if (*p == '$' && p[1] == '{' && quote != '\'')
			return shmb_fail(-EINVAL, "%s:%u: a variable of the environment", name,
					 line);
	}
	return 0;
}

int conf_parse(const char *text, const char *name, struct conf *conf)
{
	cfg_opt_t rule_options[] = {
		CFG_STR_LIST("channel", NULL, CFGF_NONE),
		CFG_STR_LIST("uid", NULL, CFGF_NONE),
		CFG_STR_LIST("gid", NULL, CFGF_NONE),
		CFG_STR_LIST("key", NULL, CFGF_NONE),
		CFG_STR_LIST("allow", NULL, CFGF_NONE),
		CFG_STR_LIST("deny", NULL, CFGF_NONE),
		CFG_STR("backing", NULL, CFGF_NONE),
		CFG_STR("evict-after", NULL, CFGF_NONE),
		CFG_STR("priority", NULL, CFGF_NONE),
		CFG_STR("fds", NULL, CFGF_NONE),
		CFG_END(),
	};
	cfg_opt_t quota_options[] = {
		CFG_STR("shm-bytes", NULL, CFGF_NONE),
		CFG_STR("channels", NULL, CFGF_NONE),
		CFG_STR("members", NULL, CFGF_NONE),
		CFG_STR("connections", NULL, CFGF_NONE),
		CFG_STR("half-open", NULL, CFGF_NONE),
		CFG_STR("clients", NULL, CFGF_NONE),
		CFG_STR("fd-pairs", NULL, CFGF_NONE),
		CFG_STR("handshakes", NULL, CFGF_NONE),
		CFG_END(),
	};
	cfg_opt_t options[] = {
		CFG_STR("directory", NULL, CFGF_NONE),
		CFG_STR("key-file", NULL, CFGF_NONE),
		CFG_STR("socket-mode", NULL, CFGF_NONE),
		CFG_INT("idle-exit", 0, CFGF_NONE),
		CFG_SEC("rule", rule_options, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_SEC("quota", quota_options, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES),
		CFG_END(),
	};
	FILE *file;
	cfg_t *cfg;
	int r;

	conf_default(conf);
	r = refuse_variables(text, name);
	if (r < 0)
		return r;
	cfg = cfg_init(options, CFGF_NONE);
	if (!cfg)
		return shmb_fail(-ENOMEM, "no memory");
	cfg_set_error_function(cfg, on_error);
	free(cfg->filename);
	cfg->filename = strdup(name);
	/* Not cfg_parse_buf(), which would call the file "[buf]". */
	file = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	if (!file || !cfg->filename)
		r = shmb_fail(-ENOMEM, "no memory");
	else
		r = cfg_parse_fp(cfg, file) == CFG_SUCCESS ? 0 : -EINVAL;
	if (file)
		fclose(file);
	if (r == 0)
		r = load_globals(cfg, conf);
	if (r == 0)
		r = load_quotas(cfg, conf);
	if (r == 0)
		r = load_rules(cfg, conf);
	cfg_free(cfg);
	if (r < 0)
		conf_free(conf);
	return r;
}

static int check_file(const char *path, const struct stat *st)
{
	if (!S_ISREG(st->st_mode))
		return shmb_fail(-EACCES, "%s: not a regular file", path);
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return shmb_fail(-EACCES, "%s: belongs to uid %u", path, (unsigned)st->st_uid);
	if (st->st_mode & 022)
		return shmb_fail(-EACCES, "%s: mode 0%o lets others change the policy", path,
				 st->st_mode & 07777);
	if (st->st_size > CONF_LEN_MAX)
		return shmb_fail(-EINVAL, "%s: too long", path);
	return 0;
}

int conf_load(const char *path, struct conf *conf)
{
	struct stat st;
	char *text;
	ssize_t n;
	int fd, r;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return shmb_fail(-errno, "%s: %s", path, strerrordesc_np(errno));
	r = fstat(fd, &st) < 0 ? -errno : check_file(path, &st);
	text = r == 0 ? malloc((size_t)st.st_size + 1) : NULL;
	if (r == 0 && !text)
		r = shmb_fail(-ENOMEM, "no memory");
	if (r == 0) {
		n = read(fd, text, (size_t)st.st_size);
		text[n > 0 ? n : 0] = '\0';
		if (n < 0)
			r = shmb_fail(-errno, "%s: %s", path, strerrordesc_np(errno));
		else if (strlen(text) != (size_t)st.st_size)
			/* Half of a policy is another policy: rules that deny may be in the rest. */
			r = shmb_fail(-EINVAL, "%s: has a zero byte or changed while it was read",
				      path);
		else
			r = conf_parse(text, path, conf);
	}
	free(text);
	shmb_fd_close(fd);
	return r;
}

void conf_free(struct conf *conf)
{
	free(conf->directory);
	free(conf->key_file);
	free(conf->quota_rules);
	policy_deinit(&conf->policy);
	*conf = (struct conf){ 0 };
}
