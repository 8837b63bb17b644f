/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Whether all workers are alive: once a second each of them is sent a ping, which a loop that
 * turns answers at once. The service manager's watchdog is fed only while all have answered,
 * and /healthz asks here.
 */

#include "worker/worker.h"

#define WATCHDOG_STALLED_NS (5 * NS_PER_S) /* without an answer: worth a line */

struct watchdog;

/* One ping to each worker at a time. */
struct WB_OWNER(main) watchdog_ping {
	struct worker_task task;
	uint64_t sent_ns; /* of the one that is not answered yet; 0: it is */
};

struct WB_OWNER(main) watchdog {
	struct worker_pool *pool;
	struct watchdog_ping pings[DIRECTORY_MAX_WORKERS];
	uint64_t interval_ns; /* of the manager; 0: none */
};

/* @w: all-zero. @p: borrowed. */
void watchdog_init(struct watchdog *w, struct worker_pool *p);

/* How often watchdog_run() has to be called [ns]: a second, or more often for the manager. */
uint64_t watchdog_period_ns(const struct watchdog *w);

/* Feeds the manager when all have answered, logs who has not for long, pings again. */
void watchdog_run(struct watchdog *w, uint64_t now_ns);

/* Whether a worker has not answered for WATCHDOG_STALLED_NS. */
bool watchdog_is_stalled(const struct watchdog *w, unsigned worker, uint64_t now_ns);
