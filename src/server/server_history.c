/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "io/log.h"
#include "server/server_private.h"
#include "server/store.h"
#include "service/systemd.h"

#define FILE_NAME "history"

/* ------------------------------------------------------------------ where it lies */

/* On a disk every message would be written there, at some time. */
static bool is_in_memory(int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) == 0 &&
	       (fs.f_type == TMPFS_MAGIC || fs.f_type == (__typeof__(fs.f_type))RAMFS_MAGIC);
}

static int check_file(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 077)
		return -EPERM;
	if (!is_in_memory(fd))
		return -EMEDIUMTYPE;
	/* Held for as long as anybody has this descriptor, across an execution of the program. */
	return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

/* Without a manager that keeps descriptors: a file with a name. Return: -1: there is none. */
static int open_file(struct server_history *h)
{
	int fd, r;

	if (!getenv("RUNTIME_DIRECTORY") || config_path_runtime(FILE_NAME, &h->path))
		return -1;
	fd = open(h->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	r = fd < 0 ? -errno : check_file(fd);
	if (r == 0)
		return fd;
	log_line(LOG_WARNING, "%s: %s; what channels keep does not outlive this process", h->path,
		 r == -EWOULDBLOCK   ? "another daemon has it"
		 : r == -EMEDIUMTYPE ? "it would lie on a disk"
				     : strerror(-r));
	fd_closep(&fd);
	free(h->path);
	h->path = NULL;
	return -1;
}

/* One that was inherited may have a name all the same. */
static void find_name(struct server_history *h)
{
	struct stat here, there;

	if (systemd_is_there() || !getenv("RUNTIME_DIRECTORY") ||
	    config_path_runtime(FILE_NAME, &h->path))
		return;
	if (fstat(h->fd, &here) == 0 && stat(h->path, &there) == 0 && here.st_dev == there.st_dev &&
	    here.st_ino == there.st_ino)
		return;
	free(h->path);
	h->path = NULL;
}

int server_history_open(struct server *s)
{
	struct server_history *h = &s->history;

	h->fd = TAKE_FD(s->incoming.history_fd);
	h->is_stored = h->fd >= 0 && systemd_is_there();
	if (h->fd >= 0)
		find_name(h);
	if (h->fd < 0 && !systemd_is_there())
		h->fd = open_file(h);
	if (h->fd < 0)
		h->fd = memfd_create(STORE_HISTORY, MFD_CLOEXEC);
	/* Its whole length is asked for here, where a limit of file sizes is known by its name. */
	return h->fd < 0 || ftruncate(h->fd, (off_t)SHM_BYTES) < 0 ? -errno : 0;
}

void server_history_keep(struct server *s)
{
	struct server_history *h = &s->history;
	int r;

	if (!systemd_is_there())
		return;
	/* A hand-over brings it in any case. */
	if (h->is_stored && !config_keeps_history(s->config)) {
		store_drop_history();
		h->is_stored = false;
	}
	if (h->is_stored || !config_keeps_history(s->config))
		return;
	r = store_put(STORE_HISTORY, &h->fd, 1);
	h->is_stored = r == 0;
	if (r)
		log_line(LOG_WARNING,
			 "systemd does not keep what channels keep (%s): it does not outlive a "
			 "crash",
			 strerror(-r));
}

void server_history_take_back(struct server *s)
{
	worker_pool_serve(s->pool);
	if (!s->history.is_stored)
		store_drop_history();
}

/* ----------------------------------------------------------------- what was there before */

static bool limits_of(void *ctx, const char *name, struct history_limits *ret)
{
	return hub_history_limits(ctx, name, ret);
}

static void log_recovered(const struct history_recovery *r, uint64_t took_ns)
{
	log_event(LOG_NOTICE, EV_HISTORY_RECOVERED,
		  LOG_FIELDS(LOG_NUM("CHANNELS", r->channels), LOG_NUM("MESSAGES", r->messages),
			     LOG_NUM("LOST", r->lost), LOG_NUM("USEC", took_ns / 1000)),
		  "the process before ended without handing over: %" PRIu32
		  " channels keep their %" PRIu64 " messages, %" PRIu32
		  " of them without some older ones, %" PRIu32 " begin anew (%.1f ms)",
		  r->channels, r->messages, r->torn, r->lost, (double)took_ns / NS_PER_MS);
}

static void log_past(enum history_past past, const struct history_recovery *r, uint64_t took_ns)
{
	switch (past) {
	case HISTORY_PAST_CRASHED:
		if (r->channels + r->lost > 0)
			log_recovered(r, took_ns);
		break;
	case HISTORY_PAST_SET_ASIDE:
		log_event(LOG_WARNING, EV_HISTORY_LOST, LOG_NO_FIELDS,
			  "%d processes have ended within a minute of taking over what channels "
			  "keep: it is given up, all channels begin anew",
			  HISTORY_CRASHES);
		break;
	case HISTORY_PAST_FOREIGN:
		log_event(LOG_WARNING, EV_HISTORY_LOST, LOG_NO_FIELDS,
			  "what channels keep was left for another program, which has served "
			  "since: all channels begin anew");
		break;
	case HISTORY_PAST_NONE:
		break;
	}
}

int server_history_take_over(struct server *s)
{
	struct metrics *m = &s->pool->workers[0]->metrics;
	struct history_recovery recovery = s->incoming.report.recovery;
	enum history_past past = s->incoming.report.past;
	uint64_t began_ns = clock_now_ns(), took_ns;

	/* Nobody has left records: if there is anything, somebody has died with it. */
	if (past == HISTORY_PAST_NONE)
		past = history_take_over(&s->pool->shared.history, false, began_ns, limits_of,
					 s->config, &recovery);
	took_ns = clock_now_ns() - began_ns;
	log_past(past, &recovery, took_ns);
	if (past == HISTORY_PAST_CRASHED && recovery.channels + recovery.lost > 0) {
		METRIC_INC(m, history_recoveries);
		METRIC_ADD(m, history_recovered_channels, recovery.channels - recovery.torn);
		METRIC_ADD(m, history_torn_channels, recovery.torn);
		METRIC_ADD(m, history_lost_channels, recovery.lost);
	}
	return recovery.error;
}

void server_history_fini(struct server *s)
{
	struct server_history *h = &s->history;

	/* A stop is a stop; systemd forgets what it has kept, too. A start that fails is none. */
	if (h->path && s->phase == SERVER_STOPPED)
		(void)unlink(h->path);
	free(h->path);
	h->path = NULL;
	fd_closep(&h->fd);
}
