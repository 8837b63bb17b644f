/* SPDX-License-Identifier: MIT */
#include "worker/spool_replies.h"

#include <stdio.h>

#include "worker/transfer.h"

/* How one transfer ended; frees itself. */
struct end_reply {
	struct worker_task task;
	struct spool_result result;
	char name[SPOOL_NAME_MAX];
};

/*
 * The spool thread may not wait, and what it has to say may not get lost for want of memory.
 * So what needs none is said by these, and stands for any number of the same.
 */
static void standing_post(struct worker *w, struct spool_standing_reply *r, worker_task_fn *run)
{
	/* One that is on its way does for this, too: what it is for is looked up when it runs. */
	if (atomic_exchange(&r->is_posted, true))
		return;
	r->task = (struct worker_task){.run = run};
	worker_post(w, &r->task);
}

/* Before the work itself: what changes meanwhile is worth another post. */
static void standing_begin(struct worker_task *t)
{
	atomic_store(&CONTAINER_OF(t, struct spool_standing_reply, task)->is_posted, false);
}

static void run_has_room(struct worker *w, struct worker_task *t)
{
	standing_begin(t);
	transfers_hand_over_waiting(&w->hub.transfers);
}

static void run_end_is_unknown(struct worker *w, struct worker_task *t)
{
	standing_begin(t);
	transfers_close_all(&w->hub.transfers);
}

static void run_end(struct worker *w, struct worker_task *t)
{
	struct end_reply *r = CONTAINER_OF(t, struct end_reply, task);

	r->result.name = r->name;
	transfer_answer(&w->hub.transfers, &r->result);
	free(r);
}

static void reply_end(void *ctx, const struct spool_result *result)
{
	struct spool_replies *all = ctx;
	struct worker *w = all->pool->workers[result->owner.worker];
	struct end_reply *r = calloc(1, sizeof(*r));

	if (!r) {
		standing_post(w, &all->standing[result->owner.worker].end_is_unknown,
			      run_end_is_unknown);
		return;
	}
	r->task.run = run_end;
	r->result = *result;
	/* The spool's own name lasts no longer than this call. */
	snprintf(r->name, sizeof(r->name), "%s", result->name);
	worker_post(w, &r->task);
}

static void reply_has_room(void *ctx, unsigned worker)
{
	struct spool_replies *all = ctx;

	standing_post(all->pool->workers[worker], &all->standing[worker].has_room, run_has_room);
}

const struct spool_ops spool_replies_ops = {.done = reply_end, .room = reply_has_room};
