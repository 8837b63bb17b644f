/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sysexits.h>

#include "io/log.h"
#include "server/server_private.h"
#include "service/memory_limit.h"
#include "service/preflight.h"

#define SPARE_DESCRIPTORS 64 /* beside connections: listeners, epoll, admin, spool */
#define HISTORY_SHARE 4      /* of MemoryMax=, at most one part: other things need memory, too */
#define BACKLOG_WANTED 1024

/* ----------------------------------------------------------------------- loading */

void server_log_notes(const struct policy *policy)
{
	size_t at = 0;
	const char *note;

	while (policy && (note = policy_next_note(policy, &at)))
		log_event(LOG_WARNING, EV_CONFIG_ODD, LOG_NO_FIELDS, "%s", note);
}

int server_read_config(const struct server *s, struct config **ret, struct config_errors *errors)
{
	struct config_source source = s->source;

	source.before = s->config;
	return config_load(&source, ret, errors);
}

static void log_errors(const struct config_errors *errors, enum log_event_id event)
{
	for (size_t i = 0; i < errors->n; i++)
		log_event(LOG_ERR, event, LOG_NO_FIELDS, "%s", errors->line[i]);
}

static int try_to_open(const struct server *s)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	const struct preflight_options o = {.is_start = true,
					    .has_sockets = incoming_has_activated(&s->incoming)};
	int r = preflight(s->policy, &o, &errors);

	log_errors(&errors, EV_NOT_OPENED);
	return r;
}

/*
 * The files that the configuration names, and whether all else that it names can be opened.
 * @files: NULL: those on the disk. Return: as config_load().
 */
static int load_policy(struct server *s, struct file_set *files, struct config_errors *errors)
{
	char why[POLICY_WHY_MAX];
	const char *key;
	int r = policy_new(s->config, NULL, files, &s->policy, &key, why);

	if (r == -EINVAL) {
		config_errors_add(errors, "%s: %s", key, why);
		return CONFIG_E_INVALID;
	}
	return r ? r : try_to_open(s);
}

static int load_own(struct server *s, struct config_errors *errors)
{
	int r = config_load(&s->source, &s->config, errors);

	return r ? r : load_policy(s, NULL, errors);
}

/*
 * Clients were handed over, and would all be closed for a slip of the pen: this process then
 * goes on as the one before it, as if it had been asked to reload and had refused.
 */
static int load_from_before(struct server *s)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	struct file_set files = {0};
	int r = incoming_find_config(&s->incoming, &s->config, &files);

	if (r)
		return r;
	r = load_policy(s, &files, &errors);
	file_set_fini(&files); /* what was not taken */
	log_errors(&errors, EV_CONFIG_ERROR);
	if (r)
		return r;
	log_event(LOG_ERR, EV_CONFIG_KEPT, LOG_NO_FIELDS,
		  "going on with the settings of the process before, whose connections would all "
		  "be closed else; mend the configuration, then reload");
	s->config_is_kept = true;
	return 0;
}

int server_load(struct server *s)
{
	WB_CLEANUP(config_errors_fini) struct config_errors errors = {0};
	int r = load_own(s, &errors);

	server_log_notes(s->policy);
	if (r == 0)
		return 0;
	/* All of them at once: an administrator mends a file in one go. */
	log_errors(&errors, EV_CONFIG_ERROR);
	s->policy = policy_unref(s->policy);
	s->config = config_unref(s->config);
	if (load_from_before(s) == 0)
		return 0;
	log_line(LOG_ERR, "not started: %s",
		 r == CONFIG_E_INVALID ? "the configuration has errors" : strerror(-r));
	return r;
}

int server_log_failure(const struct server *s, const char *what, const char *name, int error)
{
	const struct config_key *key = name ? config_key_find(name, strlen(name)) : NULL;
	WB_CLEANUP(ptr_freep) char *value = NULL;

	/* With the value in force, which may come from a default, a drop-in or an option. */
	if (key && config_format(s->config, key, &value) == 0)
		log_event(LOG_ERR, EV_NOT_OPENED,
			  LOG_FIELDS(LOG_TEXT("SETTING", name), LOG_ERRNO(error)),
			  "not started: %s: %s; change %s = %s", what, strerror(-error), name,
			  value);
	else
		log_line(LOG_ERR, "not started: %s: %s", what, strerror(-error));
	/* What a setting is to blame for stays so; an address may still come with its network. */
	return key && error != -EADDRNOTAVAIL ? EX_CONFIG : EXIT_FAILURE;
}

/* ------------------------------------------------------------- what the machine can do */

unsigned server_count_workers(const struct config *config)
{
	cpu_set_t set;
	int n;

	if (config->worker_threads)
		return (unsigned)config->worker_threads;
	/* The processors that this process may use, not those of the machine: CPUAffinity=. */
	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return 1;
	n = CPU_COUNT(&set);
	return (unsigned)MIN(MAX(n, 1), DIRECTORY_MAX_WORKERS);
}

/*
 * The kernel's table of descriptors doubles when it is full, and with several threads each time
 * waits for all processors (a grace period of RCU): a worker that accepts would stand still for
 * tens of milliseconds. The highest number that is used makes it as large as it gets, at once.
 */
static void make_room_for_descriptors(uint64_t n)
{
	WB_CLEANUP(fd_closep) int fd = eventfd(0, EFD_CLOEXEC);
	WB_CLEANUP(fd_closep) int highest = -1;

	if (fd >= 0)
		highest = fcntl(fd, F_DUPFD_CLOEXEC, (int)MIN(n, (uint64_t)INT32_MAX) - 1);
}

void server_fit_descriptors(struct config *config)
{
	uint64_t wanted = config->max_connections + SPARE_DESCRIPTORS;
	uint64_t usable;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	/* Systemd's soft limit is 1024 for the sake of select(2), which nobody calls here. */
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	/* Asked again: what counts is what we were given. */
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	make_room_for_descriptors(MIN((uint64_t)limit.rlim_cur, wanted));
	if (limit.rlim_cur >= wanted)
		return;
	usable = limit.rlim_cur > SPARE_DESCRIPTORS ? limit.rlim_cur - SPARE_DESCRIPTORS : 1;
	log_event(LOG_WARNING, EV_LIMITS_LOW,
		  LOG_FIELDS(LOG_TEXT("SETTING", "LimitNOFILE"), LOG_NUM("LIMIT", limit.rlim_cur)),
		  "at most %" PRIu64 " files may be open, max_connections = %" PRIu64
		  " needs %" PRIu64 "; continuing with max_connections = %" PRIu64
		  ", set LimitNOFILE=%" PRIu64 " in the unit (or ulimit -n)",
		  (uint64_t)limit.rlim_cur, config->max_connections, wanted, usable, wanted);
	config->max_connections = usable;
}

void server_fit_history(struct config *config)
{
	uint64_t limit = memory_limit(NULL, NULL), fits = limit / HISTORY_SHARE;

	if (!config_keeps_history(config) || config->history_memory <= fits)
		return;
	log_event(LOG_WARNING, EV_LIMITS_LOW,
		  LOG_FIELDS(LOG_TEXT("SETTING", "MemoryMax"), LOG_NUM("LIMIT", limit)),
		  "the unit may have %" PRIu64 " MiB of memory, history_memory = %" PRIu64
		  " MiB; continuing with history_memory = %" PRIu64
		  " MiB, a quarter of it, set MemoryMax=%" PRIu64 "M in the unit",
		  limit >> 20, config->history_memory >> 20, fits >> 20,
		  HISTORY_SHARE * config->history_memory >> 20);
	config->history_memory = fits;
}

static void warn_of_backlog(void)
{
	WB_CLEANUP(ptr_freep) char *line = NULL;
	FILE *f = fopen("/proc/sys/net/core/somaxconn", "re");
	size_t cap = 0;

	if (!f)
		return; /* hidden by ProcSubset=pid: cannot be told */
	if (getline(&line, &cap, f) > 0 && atoi(line) < BACKLOG_WANTED)
		log_event(
			LOG_WARNING, EV_LIMITS_LOW,
			LOG_FIELDS(LOG_TEXT("SETTING", "net.core.somaxconn")),
			"net.core.somaxconn is %d: many clients that connect at once are dropped; "
			"continuing, set it with: sysctl -w net.core.somaxconn=4096",
			atoi(line));
	(void)fclose(f);
}

/* --------------------------------------------------------------- who may come in */

static bool listens_on_every_address(const struct config *config)
{
	return strcmp(config->host, "0.0.0.0") == 0 || strcmp(config->host, "::") == 0;
}

static void warn_of_open_doors(const struct server *s)
{
	const struct config *config = s->config;
	/* Clients come without TLS by port, or by a socket of the service manager's. */
	bool is_plain = config->port != CONFIG_PORT_OFF || incoming_has_activated(&s->incoming);
	bool asks_for_certificate = config->tls_client_ca[0];

	if (config->auth != AUTH_NONE)
		return;
	if (asks_for_certificate && is_plain)
		log_event(LOG_WARNING, EV_NO_CERTIFICATE_NEEDED,
			  LOG_FIELDS(LOG_TEXT("SETTING", "tls_client_ca")),
			  "tls_client_ca asks for certificates on tls_port alone: clients of port "
			  "need none and may send with any user_id; set port = off or auth = jwt");
	/* Any one of these keeps somebody out. */
	if (!listens_on_every_address(config) || (asks_for_certificate && !is_plain) ||
	    config->proxy_protocol || strcmp(config->allowed_origins, "*") != 0)
		return;
	log_event(
		LOG_WARNING, EV_OPEN_TO_ALL, LOG_FIELDS(LOG_TEXT("SETTING", "host")),
		"open to everyone: listening on every address (host = %s), without authentication "
		"(auth = none), for pages of any origin (allowed_origins = *)",
		config->host);
}

void server_warn(const struct server *s)
{
	warn_of_backlog();
	warn_of_open_doors(s);
}
