/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One thing that every worker has to do before main goes on: a task is posted to each of
 * them, and a function runs on main when the last one has answered.
 *
 * The tasks lie in the caller's memory, so that posting cannot fail.
 */

#include "worker/worker.h"

struct pool_task;

typedef void pool_task_fn(struct pool_task *t);

/* All-zero until it is posted; free to be posted again once @then has been called. */
struct WB_OWNER(main) pool_task {
	pool_task_fn *then;
	unsigned n_open; /* workers that have not answered yet */
	struct pool_task_part {
		struct worker_task task;
		struct pool_task *whole;
	} parts[DIRECTORY_MAX_WORKERS];
};

/**
 * pool_task_post() - let every worker of a pool do something
 * @run:    for worker_task.run: runs on each worker, which answers when it is done
 * @then:   runs on main when all have answered; finds its owner by CONTAINER_OF
 *
 * Thread:  main.
 */
void pool_task_post(struct pool_task *t, struct worker_pool *p, worker_task_fn *run,
		    pool_task_fn *then);
