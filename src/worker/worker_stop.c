/* SPDX-License-Identifier: MIT */
#include "io/tls.h"
#include "worker/protocol.h"
#include "worker/worker_private.h"

#define TLS_GOODBYE_NS (2 * NS_PER_S) /* at most, for those that cannot be handed over */

/* ------------------------------------------------------------------ no more reading */

void worker_task_stand_still(struct worker *w, struct worker_task *t)
{
	w->phase = WORKER_STANDING_STILL;
	conn_env_pause(&w->hub.env, CONN_PAUSE_STANDING_STILL);
	worker_listen_off(w);
	w->stop.when_posted = t;
}

int worker_resume(struct worker *w)
{
	w->phase = WORKER_SERVING;
	conn_env_resume(&w->hub.env, CONN_PAUSE_STANDING_STILL);
	w->has_no_tls = false;
	/* Edges that were reported meanwhile are not reported again: everyone is looked at once. */
	LIST_FOREACH (node, &w->hub.env.all)
		conn_want_read(CONTAINER_OF(node, struct conn, node));
	return worker_listen(w);
}

void worker_task_freeze(struct worker *w, struct worker_task *t)
{
	(void)t;
	w->phase = WORKER_ENDED;
}

void worker_task_stop_reading(struct worker *w, struct worker_task *t)
{
	w->phase = WORKER_NOT_READING;
	conn_env_pause(&w->hub.env, CONN_PAUSE_STOPPING);
	/* Closed, not only off: whoever still comes is to be refused by the kernel at once. */
	worker_listen_off(w);
	for (unsigned i = 0; i < w->n_listeners; i++)
		fd_closep(&w->listeners[i].fd);
	w->stop.when_posted = t;
}

/* ------------------------------------------------------------------------ goodbyes */

/* Whom a goodbye is for: everybody, or, before a hand-over, those that can't be handed over. */
static bool goodbye_is_for(const struct worker *w, const struct conn *c)
{
	return w->phase == WORKER_SAYING_GOODBYE || transport_is_tls(&c->transport);
}

/*
 * Says goodbye to those for whom nothing waits any more, and, without @patience, to the others.
 * Who hasn't come as far as to be greeted is not told goodbye either. Return: how many are
 * still there.
 */
static size_t say_goodbye(struct worker *w, bool patience)
{
	size_t n = 0;

	LIST_FOREACH_SAFE (node, next, &w->hub.env.all) {
		struct conn *c = CONTAINER_OF(node, struct conn, node);

		if (!goodbye_is_for(w, c))
			continue;
		/* Counted also when it goes just now: the next look will not find it. */
		n++;
		if (c->state == CONN_HANDSHAKE)
			conn_abort(c);
		if (c->state != CONN_OPEN || (patience && (c->n_lagging > 0 || c->out->transit)))
			continue;
		protocol_say_goodbye(c);
		if (w->phase != WORKER_SAYING_GOODBYE)
			METRIC_INC(&w->metrics, handover_tls);
	}
	return n;
}

static void abort_those_left(struct worker *w)
{
	LIST_FOREACH_SAFE (node, next, &w->hub.env.all) {
		struct conn *c = CONTAINER_OF(node, struct conn, node);

		if (w->phase == WORKER_ENDED || goodbye_is_for(w, c))
			conn_abort(c);
	}
}

/* The rest keeps being served meanwhile, so this looks at them now and then. */
static void tls_goodbye_step(struct worker *w)
{
	uint64_t now = w->reactor.now_ns;
	size_t n = say_goodbye(w, now < w->stop.patience_ns);

	if (n > 0 && now < w->stop.deadline_ns) {
		wheel_add(&w->reactor.wheel, &w->stop.goodbye, now + REACTOR_TICK_NS);
		return;
	}
	abort_those_left(w);
	worker_task_answer(w, w->stop.when_tls_gone);
	w->stop.when_tls_gone = NULL;
}

/* Two deadlines: the first for what waits, the last for the closing handshakes. */
void worker_goodbye_due(struct wheel_timer *t)
{
	struct worker *w = CONTAINER_OF(t, struct worker, stop.goodbye);

	if (w->stop.when_tls_gone) {
		tls_goodbye_step(w);
		return;
	}
	/* Whoever hasn't answered the Close by now is not waited for. */
	if (w->reactor.now_ns >= w->stop.deadline_ns) {
		abort_those_left(w);
		return;
	}
	(void)say_goodbye(w, false);
	wheel_add(&w->reactor.wheel, t, w->stop.deadline_ns);
}

void worker_task_say_goodbye_tls(struct worker *w, struct worker_task *t)
{
	uint64_t timeout = MIN(w->hub.env.config->shutdown_timeout, TLS_GOODBYE_NS);

	/* Nobody new with TLS from here on, or this would never be done. */
	w->has_no_tls = true;
	worker_listen_off(w);
	if (worker_listen(w)) /* the others are on again */
		worker_listen_later(w);
	w->stop.when_tls_gone = t;
	w->stop.patience_ns = w->reactor.now_ns + timeout / 2;
	w->stop.deadline_ns = w->reactor.now_ns + timeout;
	tls_goodbye_step(w);
}

void worker_task_say_goodbye(struct worker *w, struct worker_task *t)
{
	uint64_t timeout = w->hub.env.config->shutdown_timeout;

	/* The last tenth is left to main, for the ends of the threads and of the spool's files. */
	w->phase = WORKER_SAYING_GOODBYE;
	w->stop.when_gone = t;
	w->stop.deadline_ns = w->reactor.now_ns + timeout - timeout / 10;
	wheel_add(&w->reactor.wheel, &w->stop.goodbye, w->reactor.now_ns + timeout / 2);
}

void worker_task_end_loop(struct worker *w, struct worker_task *t)
{
	(void)t;
	conn_env_pause(&w->hub.env, CONN_PAUSE_STOPPING); /* no notices: everybody goes */
	w->phase = WORKER_ENDED;
	abort_those_left(w);
}

void worker_stop_work(struct worker *w)
{
	struct worker_stop *s = &w->stop;

	/* Not congested: what clients said is with all workers, or in logs here. */
	if (s->when_posted && !conn_env_is_paused(&w->hub.env, CONN_PAUSE_CONGESTED)) {
		worker_task_answer(w, s->when_posted);
		s->when_posted = NULL;
	}
	if (!s->when_gone)
		return;
	/* While a channel has something to flush, nobody is known to have got everything. */
	if (!hub_has_output(&w->hub))
		(void)say_goodbye(w, true);
	if (w->hub.env.n_all == 0) {
		worker_task_answer(w, s->when_gone);
		s->when_gone = NULL;
	}
}
