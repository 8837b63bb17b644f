/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of worker/worker share. They form a ladder: worker_tasks.c (the lists
 * of tasks), worker_accept.c (who comes in, and where), worker_stop.c (the phases behind
 * serving), worker.c (one worker: its loop, its beginning and end), worker_listen.c
 * (which sockets the workers of a pool listen on), worker_pool.c (all of them together).
 */

#include "worker/worker.h"

/* ------------------------------------------------------------------- worker_tasks.c */

/* Whether tasks wait; takes them all, oldest first; runs those of a worker. */
bool worker_tasks_wait(struct worker_tasks *q);
struct worker_task *worker_tasks_take(struct worker_tasks *q);
void worker_run_tasks(struct worker *w);

/* ------------------------------------------------------------------ worker_accept.c */

/* conn_ops.move and conn_ops.dead. */
enum conn_refusal worker_conn_move(struct conn *c, const struct sock_peer *peer);
void worker_conn_dead(struct conn *c);

/* The worker accepts on @fd from worker_listen() on. True: it is its own; false: no room. */
bool worker_add_listener(struct worker *w, int fd, enum worker_listener_kind kind) WB_NODISCARD;
int worker_listen(struct worker *w) WB_NODISCARD;

/* The listeners stay open, and connections wait in the kernel. */
void worker_listen_off(struct worker *w);

/* Tries again in a while; the callback of that timer. */
void worker_listen_later(struct worker *w);
void worker_listen_again(struct wheel_timer *t);

/* Takes every connection that waits at a listener which will not be used any more. */
void worker_drain_listener(struct worker *w, int fd, enum worker_listener_kind kind);

/* -------------------------------------------------------------------- worker_stop.c */

/* The task that ends the loop and touches nothing; and what makes a worker go on after it. */
void worker_task_freeze(struct worker *w, struct worker_task *t);
int worker_resume(struct worker *w) WB_NODISCARD;

/* Looks, at the end of a turn, whether what a task waits for has come. */
void worker_stop_work(struct worker *w);

/* The callback of worker_stop.goodbye. */
void worker_goodbye_due(struct wheel_timer *t);

/* ------------------------------------------------------------------------- worker.c */

/* A worker that doesn't run yet. Return: 0 | -ENOMEM | -errno of epoll. */
int worker_new(struct worker_pool *p, struct policy *policy, unsigned index, struct worker **ret)
	WB_NODISCARD;

/* Its thread has ended, or never was. NULL is fine. */
void worker_free(struct worker *w);

/* What its thread runs; @arg: the worker. */
void *worker_main(void *arg);

/* ------------------------------------------------------------------ worker_listen.c */

/* All that the configuration and systemd say; as worker_pool_new(). Used ones are -1. */
int worker_pool_listen(struct worker_pool *p, const struct config *config,
		       struct worker_socket *inherited, unsigned n_inherited, const char **ret_key)
	WB_NODISCARD;
