/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The daemon on the main thread: what its sources share. Each business has a struct of its own,
 * with functions of its own (pool_task, watchdog, incoming, outgoing, exec_plan, program_check);
 * here is what joins them, as a ladder, each source above those that it calls:
 *
 *   server_config.c    what the configuration says, and whether this machine can do it
 *   server_spool.c     the thread that writes files
 *   server_history.c   the file that outlives the process
 *   server_stop.c      the end, with a goodbye
 *   server_reload.c    a new configuration for those who are there
 *   server_handover.c  everything to the next process
 *   server_channels.c  the answer to GET /channels
 *   server_admin.c     what the HTTP endpoints do
 *   server_start.c     from nothing to serving
 *   server.c           the loop, signals, and the order of all that
 */

#include "io/reactor.h"
#include "model/config.h"
#include "server/exec_plan.h"
#include "server/incoming.h"
#include "server/outgoing.h"
#include "server/pool_task.h"
#include "server/program_check.h"
#include "server/watchdog.h"
#include "service/admin.h"
#include "worker/spool_replies.h"
#include "worker/worker.h"

/*
 * Where the daemon is in its life. Serving becomes either of the two others; a hand-over that
 * fails goes back to serving, or on to stopping. The loop ends in HANDED_OVER and STOPPED.
 */
enum server_phase {
	SERVER_SERVING, /* or about to begin */
	SERVER_HANDING_OVER,
	SERVER_HANDED_OVER, /* everything stays as it is, for the next process */
	SERVER_STOPPING,    /* clients are told */
	SERVER_STOPPED,
};

/* Who takes over. */
enum server_successor {
	SERVER_TO_MANAGER, /* systemd keeps it until it starts the next process */
	SERVER_TO_ITSELF,  /* by execve(2) */
};

/* What is known of a SIGTERM before it comes. */
enum server_notice {
	SERVER_NOT_TOLD,
	SERVER_TOLD_EARLY, /* nobody could say: systemd runs no ExecStop= at this time */
	SERVER_TOLD_RESTART,
};

struct WB_OWNER(main) server_handover {
	enum server_successor successor;
	struct wheel_timer spool_timer; /* looks whether files are written */
	uint64_t spool_deadline_ns;
	struct pool_task pausing; /* steps of all workers, one after the other */
	enum server_notice notice;
	unsigned store_room; /* of SERVER_TOLD_RESTART: so many descriptors systemd keeps */
	int pending_signal;  /* came meanwhile: for the program that is executed; 0: none */
};

struct WB_OWNER(main) server_stop {
	struct wheel_timer timer; /* shutdown_timeout */
	struct pool_task leaving; /* steps of all workers, one after the other */
};

/* One reload at a time. */
enum server_reload {
	SERVER_NO_RELOAD,
	SERVER_RELOADING,
	SERVER_RELOADING_AGAIN, /* and SIGHUP came meanwhile: once more behind it */
};

struct WB_OWNER(main) server_admin {
	struct admin *http; /* NULL: none */
	char *control_path; /* NULL: none */
	struct reactor_source source;
	struct wheel_timer timer;
};

/* The file with what channels keep. */
struct WB_OWNER(main) server_history {
	int fd;         /* -1: none yet */
	char *path;     /* NULL: it has no name, systemd keeps it */
	bool is_stored; /* systemd has it */
};

/* What the status line shows, as of its last time. */
struct WB_OWNER(main) server_status {
	struct wheel_timer tick;
	uint64_t n_in, n_out; /* messages */
};

struct WB_OWNER(main) server {
	struct reactor reactor;
	struct config_source source; /* borrowed texts of argv */
	struct config *config;
	struct policy *policy; /* that goes with it */
	struct worker_pool *pool;
	struct spool *spool;
	struct spool_replies spool_replies;
	struct reactor_source signal_source;
	int signal_fd;
	uint64_t started_ms; /* wall clock */
	enum server_phase phase;
	int exit_status;
	enum server_reload reload;
	bool config_is_kept; /* it is that of the process before, for its own cannot be used */
	struct server_status status;
	struct watchdog watchdog;
	struct server_admin admin;
	struct server_stop stop;
	struct server_handover handover;
	struct incoming incoming;
	struct server_history history;
	struct outgoing outgoing;
	struct exec_plan exec_plan;
	struct program_check program_check;
};

/* It will not serve again: clients are told, or were told. */
static inline bool server_is_ending(const struct server *s)
{
	return s->phase >= SERVER_STOPPING;
}

/* --------------------------------------------------------------- server_config.c */

/* Reads the configuration, and the files that it names. Return: 0, or it has been logged. */
int server_load(struct server *s) WB_NODISCARD;

/* A line for each thing that is odd about files. NULL is fine. */
void server_log_notes(const struct policy *policy);

/* Reads the configuration again, beside the one in force. As config_load(). */
int server_read_config(const struct server *s, struct config **ret, struct config_errors *errors)
	WB_NODISCARD;

/*
 * Says why it does not start: @what failed with -errno. @key: of the configuration, that is to
 * blame, or NULL. Return: the exit status.
 */
int server_log_failure(const struct server *s, const char *what, const char *key, int error);

/*
 * Raises the limit of open files as far as it goes; where that is too low, a warning, and
 * max_connections of @config, which nobody else has yet, becomes what fits. The kernel's table gets
 * its size at once, too.
 */
void server_fit_descriptors(struct config *config);

/*
 * Where the unit's memory is limited, history_memory of @config, which nobody else has yet, becomes
 * a quarter of that, with a warning: what is killed for want of memory takes none of it along.
 */
void server_fit_history(struct config *config);

/* How many workers the configuration and the processors make. */
unsigned server_count_workers(const struct config *config);

/* Warns of what an administrator may not have meant. */
void server_warn(const struct server *s);

/* ---------------------------------------------------------------- server_spool.c */

/* Puts the limits of spool_* into force, where files are written at all. */
void server_spool_configure(struct server *s, const struct config *config);

/* Starts the thread that writes files, if spool_dir is set. Return: 0, or it has been logged. */
int server_spool_start(struct server *s, bool keep) WB_NODISCARD;

/* Stops it, and leaves unfinished files to whoever comes next. The workers stand still. */
void server_spool_hand_over(struct server *s);

/* Nobody came: takes up what was left. Return: 0 | -errno | what server_spool_start() returns. */
int server_spool_resume(struct server *s) WB_NODISCARD;

/* -------------------------------------------------------------- server_history.c */

/* The file with what channels keep: the one that was left, or a new one. Return: 0 | -errno. */
int server_history_open(struct server *s) WB_NODISCARD;

/* Has systemd keep it for the process after a crash, if channels keep anything; else not. */
void server_history_keep(struct server *s);

/* Nothing came of a hand-over: systemd keeps it if it did before. */
void server_history_take_back(struct server *s);

/*
 * Decides what becomes of what is in it, and says so. Behind incoming_restore(). Return: 0 |
 * -errno: nothing can be kept.
 */
int server_history_take_over(struct server *s) WB_NODISCARD;

/* The end of all that it was for. */
void server_history_fini(struct server *s);

/* ----------------------------------------------------------------- server_stop.c */

/* Before the loop begins. */
void server_stop_init(struct server *s);

/*
 * Says goodbye to everybody, and ends; told again, ends at once. During a hand-over there is
 * nobody to stop: the signal is passed on to the program that is executed.
 */
void server_stop(struct server *s, const char *why);

/* --------------------------------------------------------------- server_reload.c */

/**
 * server_reload() - read the configuration again and give it to the workers
 * @req:    answered when the reload is done; NULL: nobody waits
 */
void server_reload(struct server *s, struct admin_request *req);

/* ------------------------------------------------------------- server_handover.c */

/* Before the loop begins. */
void server_handover_init(struct server *s);

/* A restart comes, for which systemd keeps @room descriptors. */
void server_restart_announced(struct server *s, int room);

/* SIGTERM: hands over where a restart is meant, else stops. */
void server_terminate(struct server *s, const char *why);

/* SIGUSR2: executes the program again, once it has found its configuration right. */
void server_reexecute(struct server *s);

/* ------------------------------------------------------------- server_channels.c */

/* Answers the request, when all workers have said what they have. */
void server_list_channels(struct server *s, struct admin_request *req);

/* ---------------------------------------------------------------- server_admin.c */

/* Opens the endpoints that the configuration wants. Return: 0, or it has been logged. */
int server_admin_start(struct server *s) WB_NODISCARD;

/* At the end of each turn, and whenever the endpoints' next deadline may have changed. */
void server_admin_work(struct server *s);

/* Answers whoever still waits, and closes them. */
void server_admin_stop(struct server *s);

/* ---------------------------------------------------------------- server_start.c */

/* From a configuration to workers that serve. Return: 0, or it has been logged. */
int server_start(struct server *s) WB_NODISCARD;

/* Sums of the counters that status lines show. */
static inline uint64_t server_sum(const struct server *s, size_t offset)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < s->pool->n; i++) {
		const char *shard = (const char *)&s->pool->workers[i]->metrics;

		sum += atomic_load_explicit(
			(const _Atomic uint64_t *)(const void *)(shard + offset),
			memory_order_relaxed);
	}
	return sum;
}
#define SERVER_SUM(s, field) server_sum((s), offsetof(struct metrics, field))
