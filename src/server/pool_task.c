/* SPDX-License-Identifier: MIT */
#include "server/pool_task.h"

static void part_done(struct worker_task *t)
{
	struct pool_task *whole = CONTAINER_OF(t, struct pool_task_part, task)->whole;

	if (--whole->n_open == 0)
		whole->then(whole);
}

void pool_task_post(struct pool_task *t, struct worker_pool *p, worker_task_fn *run,
		    pool_task_fn *then)
{
	WB_ASSERT(t->n_open == 0);
	t->then = then;
	/* The number is complete before the first one is posted: answers come back on main. */
	t->n_open = p->n;
	for (unsigned i = 0; i < p->n; i++) {
		t->parts[i].whole = t;
		t->parts[i].task = (struct worker_task){.run = run, .done = part_done};
		worker_post(p->workers[i], &t->parts[i].task);
	}
}
