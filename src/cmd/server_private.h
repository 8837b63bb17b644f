/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The daemon's state on the main thread, shared by server.c (life),
 * server_admin.c (what the HTTP endpoints do) and server_reload.c.
 */

#include "core/spool_mail.h"
#include "core/worker.h"
#include "io/reactor.h"
#include "model/config.h"
#include "service/admin.h"

struct server;

/* One ping to each worker at a time: for the watchdog and /healthz. */
struct WB_OWNER(main) server_ping {
	struct worker_task task;
	struct server *server;
	bool is_out;       /* the worker has not answered yet */
	uint64_t since_ns; /* when it went out */
};

/* A task that goes to all workers; @then runs when all have answered. */
struct WB_OWNER(main) server_round {
	struct server *server;
	void (*then)(struct server *s);
	unsigned open;
	struct server_round_task {
		struct worker_task task;
		struct server_round *round;
	} tasks[DIRECTORY_MAX_WORKERS];
};

struct WB_OWNER(main) server {
	struct reactor reactor;
	struct config_source source; /* borrowed texts of argv */
	struct config *config;
	struct access *access; /* that goes with it */
	struct worker_pool *pool;
	struct spool *spool;
	struct spool_mail mail;
	struct admin *admin;
	char *control_path; /* NULL: none */
	struct reactor_source signal_source;
	struct reactor_source admin_source;
	int signal_fd;
	struct wheel_timer tick; /* once a second */
	struct wheel_timer admin_timer;
	struct wheel_timer stop_timer;
	struct server_ping pings[DIRECTORY_MAX_WORKERS];
	struct server_round round;  /* of stopping */
	uint64_t watchdog_ns;       /* 0: none */
	uint64_t started_ms;        /* wall clock */
	uint64_t last_in, last_out; /* messages, at the last tick */
	unsigned reloads;           /* under way: one at a time */
	bool reload_again;          /* SIGHUP came meanwhile */
	bool is_stopping;
	bool is_done; /* the loop ends */
};

extern const struct admin_ops server_admin_ops;

/**
 * server_reload() - read the configuration again and give it to the workers
 * @req:    answered when the reload is done; NULL: nobody waits
 */
void server_reload(struct server *s, struct admin_request *req);

/*
 * Raises the limit of open files as far as it goes; where that is too low, a warning, and
 * max_connections of @config, which nobody else has yet, becomes what fits.
 */
void server_fit_descriptors(struct config *config);

/* The worker that main gives its own publications to; any would do. */
static inline struct worker *server_first(struct server *s)
{
	return s->pool->workers[0];
}

/* Runs after anything that may have changed when the admin wants to run again. */
void server_arm_admin(struct server *s);

/* Sums of the counters that status lines show. */
uint64_t server_sum(const struct server *s, size_t offset);
#define SERVER_SUM(s, field) server_sum((s), offsetof(struct metrics, field))
