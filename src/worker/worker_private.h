/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of worker/worker share: worker.c (one worker: tasks, accepting,
 * stopping, its loop), worker_pool.c (all of them together) and worker_listen.c
 * (which sockets they listen on). Beside them only a hand-over includes it.
 */

#include "worker/worker.h"

/* A worker that doesn't run yet. Return: 0 | -ENOMEM | -errno of epoll. */
int worker_new(struct worker_pool *p, struct policy *policy, unsigned index, struct worker **ret)
	WB_NODISCARD;

/* Its thread has ended, or never was. NULL is fine. */
void worker_free(struct worker *w);

/* Takes every connection that waits at a listener which will not be used any more. */
void worker_drain_listener(struct worker *w, int fd, enum worker_listener_kind kind);

/* The task that ends the loop and touches nothing; and what makes a worker go on after it. */
void worker_task_freeze(struct worker *w, struct worker_task *t);
int worker_resume(struct worker *w) WB_NODISCARD;

/* The worker accepts on @fd from worker_listen() on. True: it is its own; false: no room. */
bool worker_add_listener(struct worker *w, int fd, enum worker_listener_kind kind) WB_NODISCARD;
int worker_listen(struct worker *w) WB_NODISCARD;

/* All that the configuration and systemd say; as worker_pool_new(). Used ones of @given are -1. */
int worker_pool_listen(struct worker_pool *p, const struct config *config,
		       struct worker_socket *given, unsigned n_given, const char **ret_key)
	WB_NODISCARD;

/* What its thread runs; @arg: the worker. */
void *worker_main(void *arg);

/* Whether tasks wait; takes them all, oldest first; runs those of a worker. */
bool worker_tasks_wait(struct worker_tasks *q);
struct worker_task *worker_tasks_take(struct worker_tasks *q);
void worker_run_tasks(struct worker *w);
