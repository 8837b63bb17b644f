/* SPDX-License-Identifier: MIT */
#include "worker/resume.h"

#include <errno.h>
#include <string.h>

#include "worker/worker.h"

typedef void arrived_fn(struct conn *c, const char *channel, const struct history_since *since);

/* On its way to other workers and back; in its worker's list while its connection is there. */
struct takeover {
	struct worker_task task;
	struct list node;
	struct conn *conn; /* for its own worker alone; NULL: it has ended */
	struct worker *home;
	unsigned holder; /* worker of the connection that has to end */
	struct resume_token token;
	uint32_t attempt;
	arrived_fn *arrived; /* NULL: its connection is not open yet */
	struct history_since since;
	char channel[];
};

static struct worker *worker_of(struct hub *h)
{
	return CONTAINER_OF(h, struct worker, hub);
}

static struct takeover *takeover_of(const struct conn *c)
{
	LIST_FOREACH (node, &hub_of_const(c)->takeovers) {
		struct takeover *t = CONTAINER_OF(node, struct takeover, node);

		if (t->conn == c)
			return t;
	}
	return NULL;
}

/* The connection that has the id ends, if it is one of this worker. */
static void end_holder(struct hub *h, const struct resume_token *token, uint32_t attempt)
{
	struct conn *c = registry_conn_for(&h->shared->registry, token, attempt, h->index);

	if (c)
		conn_close(c, WS_CODE_RESUMED, NULL);
}

/* Takes it, ending what this worker has to end. Return: TAKEN | BUSY on another | SUPERSEDED. */
static enum registry_taking take_identity(struct hub *h, struct conn *c,
					  const struct resume_token *token, uint32_t attempt,
					  unsigned *ret_holder)
{
	for (;;) {
		enum registry_taking r = registry_take(&h->shared->registry, token, attempt,
						       c->serial, c, h->index, ret_holder);

		if (r != REGISTRY_BUSY || *ret_holder != h->index)
			return r;
		end_holder(h, token, attempt);
	}
}

/* -------------------------------------------------------------------------- coming */

static bool is_same_user(const struct conn *c, const struct resume_token *token)
{
	if (!c->grant)
		return !token->is_subject;
	return token->is_subject && strcmp(c->grant->user_id, token->user_id) == 0;
}

/* What it brings is good, and it has the names of that client. */
static bool claim_identity(struct hub *h, struct conn *c, const struct resume_asked *asked,
			   struct resume_token *token)
{
	uint64_t serial;

	if (asked->token.n == 0 ||
	    !resume_token_read(&h->shared->registry.key, asked->token.p, asked->token.n, token) ||
	    !is_same_user(c, token) ||
	    !registry_claim(&h->shared->registry, token, asked->attempt, h->env.reactor->now_ns,
			    &serial) ||
	    (!c->grant && !conn_set_user_id(c, token->user_id)))
		return false;
	memcpy(c->id, token->id, sizeof(c->id));
	/* What it said before goes by this number: it is left out of what it gets now. */
	conn_take_serial(c);
	if (serial)
		c->serial = serial;
	return true;
}

enum resume_coming resume_begin(struct hub *h, struct conn *c, const struct resume_asked *asked)
{
	struct hub_coming *coming = &h->coming;

	coming->wants_token = asked->wants_token;
	coming->is_resumed = coming->waits = false;
	if (WB_LIKELY(!asked->wants_token))
		return RESUME_NEWCOMER;
	if (!claim_identity(h, c, asked, &coming->token)) {
		if (asked->token.n > 0)
			METRIC_INC(h->env.metrics, resumes_refused);
		return RESUME_NEWCOMER;
	}
	METRIC_INC(h->env.metrics, resumes);
	coming->attempt = asked->attempt;
	coming->is_resumed = true;
	/* Superseded just now: it learns that as one that waited does. */
	coming->waits = take_identity(h, c, &coming->token, coming->attempt, &coming->holder) !=
			REGISTRY_TAKEN;
	c->may_resume = !coming->waits;
	return coming->waits ? RESUME_WAITS : RESUME_AT_ONCE;
}

int resume_wait(struct hub *h, struct conn *c, const char *channel,
		const struct history_since *since)
{
	size_t n = strlen(channel) + 1;
	struct takeover *t = calloc(1, sizeof(*t) + n);

	if (!t)
		return -ENOMEM;
	t->conn = c;
	t->home = worker_of(h);
	t->holder = h->coming.holder;
	t->token = h->coming.token;
	t->attempt = h->coming.attempt;
	t->since = *since;
	memcpy(t->channel, channel, n);
	list_add_tail(&h->takeovers, &t->node);
	conn_pause(c, CONN_PAUSE_RESUMING);
	return 0;
}

/* ------------------------------------------------------------------------ taking over */

static void run_home(struct worker *w, struct worker_task *task);

/* On the worker of the connection that has to end. */
static void run_end_holder(struct worker *w, struct worker_task *task)
{
	struct takeover *t = CONTAINER_OF(task, struct takeover, task);

	end_holder(&w->hub, &t->token, t->attempt);
	t->task.run = run_home;
	worker_post(t->home, &t->task);
}

/* It has ended, or another one has come before. */
static void go_on(struct takeover *t)
{
	struct conn *c = t->conn;
	struct hub *h = hub_of(c);
	enum registry_taking r = take_identity(h, c, &t->token, t->attempt, &t->holder);

	if (r == REGISTRY_BUSY) {
		t->task.run = run_end_holder;
		worker_post(t->home->pool->workers[t->holder], &t->task);
		return;
	}
	list_del(&t->node);
	conn_resume(c, CONN_PAUSE_RESUMING);
	if (r == REGISTRY_TAKEN) {
		c->may_resume = true;
		t->arrived(c, t->channel, &t->since);
	} else {
		conn_close(c, WS_CODE_RESUMED, NULL);
	}
	free(t);
}

static void run_home(struct worker *w, struct worker_task *task)
{
	struct takeover *t = CONTAINER_OF(task, struct takeover, task);

	(void)w;
	if (t->conn)
		go_on(t);
	else
		free(t);
}

void resume_take_over(struct conn *c, arrived_fn *fn)
{
	struct takeover *t = takeover_of(c);

	t->arrived = fn;
	go_on(t);
}

/* ---------------------------------------------------------------------- tokens, ends */

size_t resume_issue(struct conn *c, char *out)
{
	struct hub *h = hub_of(c);
	char user[CONN_USER_MAX];

	conn_format_user(user, c);
	if (!c->may_resume &&
	    registry_enter(&h->shared->registry, c->id, c->serial, c, h->index, user, c->grant))
		return 0;
	c->may_resume = true;
	c->has_positions = true;
	return registry_issue(&h->shared->registry, c->id, out);
}

void resume_left(struct conn *c)
{
	struct hub *h = hub_of(c);
	struct takeover *t = c->pauses & CONN_PAUSE_RESUMING ? takeover_of(c) : NULL;

	if (t) {
		list_del(&t->node);
		/*
		 * It is on its way, unless it never left; who gets it back sees that nobody is
		 * here.
		 */
		t->conn = NULL;
		if (!t->arrived)
			free(t);
	}
	if (c->may_resume)
		registry_leave(&h->shared->registry, c->id, c, h->env.reactor->now_ns);
	c->may_resume = false;
}
