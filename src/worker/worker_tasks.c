/* SPDX-License-Identifier: MIT */
#include "worker/worker_private.h"

static void tasks_push(struct worker_tasks *q, struct worker_task *t)
{
	/* Any thread pushes. If one was faster, the exchange is tried with its head. */
	t->next = atomic_load_explicit(&q->head, memory_order_relaxed);
	/* Pairs with the exchange in worker_tasks_take(). */
	while (!atomic_compare_exchange_weak_explicit(&q->head, &t->next, t, memory_order_release,
						      memory_order_relaxed))
		;
}

bool worker_tasks_wait(struct worker_tasks *q)
{
	return atomic_load_explicit(&q->head, memory_order_relaxed) != NULL;
}

/* All that wait, oldest first. */
struct worker_task *worker_tasks_take(struct worker_tasks *q)
{
	struct worker_task *newest = atomic_exchange_explicit(&q->head, NULL, memory_order_acquire);
	struct worker_task *oldest = NULL;

	/* They hang newest first, as they were pushed. Turned round they run in their order. */
	while (newest) {
		struct worker_task *next = newest->next;

		newest->next = oldest;
		oldest = newest;
		newest = next;
	}
	return oldest;
}

void worker_post(struct worker *w, struct worker_task *t)
{
	tasks_push(&w->inbox, t);
	reactor_wake(&w->reactor);
}

void worker_task_answer(struct worker *w, struct worker_task *t)
{
	/* Without done() it was freed by whoever ran it, or is on the stack of who waits. */
	if (!t->done)
		return;
	tasks_push(&w->pool->done, t);
	reactor_wake(w->pool->main_reactor);
}

void worker_task_ping(struct worker *w, struct worker_task *t)
{
	worker_task_answer(w, t);
}

void worker_run_tasks(struct worker *w)
{
	struct worker_task *t = worker_tasks_take(&w->inbox);

	while (t) {
		struct worker_task *next = t->next;

		/* It may be freed when this returns, so the next one is read before. */
		t->run(w, t);
		t = next;
	}
}

bool worker_pool_has_done(struct worker_pool *p)
{
	return worker_tasks_wait(&p->done);
}

void worker_pool_run_done(struct worker_pool *p)
{
	struct worker_task *t = worker_tasks_take(&p->done);

	while (t) {
		struct worker_task *next = t->next;

		/* It is its maker's again, who may free it or post it anew. */
		t->done(t);
		t = next;
	}
}
