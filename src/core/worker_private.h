/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the two sources of core/worker share: worker.c (one worker: tasks,
 * accepting, stopping, its loop) and worker_pool.c (all of them together).
 * Nobody else includes it.
 */

#include "core/worker.h"

/* A worker that doesn't run yet. Return: 0 | -ENOMEM | -errno of epoll. */
int worker_new(struct worker_pool *p, struct access *access, unsigned index, struct worker **ret)
	WB_NODISCARD;

/* Its thread has ended, or never was. NULL is fine. */
void worker_free(struct worker *w);

/* The worker accepts on @fd, which becomes its own, from worker_listen() on. */
void worker_add_listener(struct worker *w, int fd, bool is_tls);
int worker_listen(struct worker *w) WB_NODISCARD;

/* What its thread runs; @arg: the worker. */
void *worker_main(void *arg);

/* Whether tasks wait; takes them all, oldest first; runs those of a worker. */
bool worker_tasks_wait(struct worker_tasks *q);
struct worker_task *worker_tasks_take(struct worker_tasks *q);
void worker_run_tasks(struct worker *w);
