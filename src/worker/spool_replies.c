/* SPDX-License-Identifier: MIT */
#include "worker/spool_replies.h"

#include <stdio.h>

#include "worker/transfer.h"

/* How one transfer ended; frees itself. */
struct letter {
	struct worker_task task;
	struct spool_result result;
	char name[SPOOL_NAME_MAX];
};

static void post_once(struct worker *w, struct spool_standing_reply *t, worker_task_fn *run)
{
	if (atomic_exchange(&t->is_out, true))
		return; /* what it is for is done when it runs */
	t->task = (struct worker_task){.run = run};
	worker_post(w, &t->task);
}

/* From here on it may be posted again. */
static void take_out(struct worker_task *t)
{
	atomic_store(&CONTAINER_OF(t, struct spool_standing_reply, task)->is_out, false);
}

static void room_run(struct worker *w, struct worker_task *t)
{
	take_out(t);
	transfer_room(&w->hub);
}

static void lost_run(struct worker *w, struct worker_task *t)
{
	take_out(t);
	transfer_lost(&w->hub);
}

static void letter_run(struct worker *w, struct worker_task *t)
{
	struct letter *l = CONTAINER_OF(t, struct letter, task);

	l->result.name = l->name;
	transfer_done(&w->hub, &l->result);
	free(l);
}

static void mail_done(void *ctx, const struct spool_result *result)
{
	struct spool_replies *mail = ctx;
	struct worker *w = mail->pool->workers[result->owner.worker];
	struct letter *l = calloc(1, sizeof(*l));

	if (!l) {
		post_once(w, &mail->boxes[result->owner.worker].lost, lost_run);
		return;
	}
	l->task.run = letter_run;
	l->result = *result;
	snprintf(l->name, sizeof(l->name), "%s", result->name);
	worker_post(w, &l->task);
}

static void mail_room(void *ctx, unsigned worker)
{
	struct spool_replies *mail = ctx;

	post_once(mail->pool->workers[worker], &mail->boxes[worker].room, room_run);
}

const struct spool_ops spool_replies_ops = {.done = mail_done, .room = mail_room};
