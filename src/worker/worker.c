/* SPDX-License-Identifier: MIT */
#include "worker/worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "io/log.h"
#include "worker/protocol.h"
#include "worker/worker_private.h"

#define CONNS_PER_CHUNK 1024

static enum conn_refusal admit_conn(struct conn *c, const struct upgrade *u)
{
	enum conn_refusal r = protocol_admit(c, u);

	/* What waits for an echo is never skipped: it may as well wait in the kernel. */
	if (r == CONN_ADMITTED && c->is_echo)
		sock_set_notsent_lowat(c->transport.fd, UINT32_MAX);
	return r;
}

/* Which modules of this floor a connection speaks to, without knowing any of them. */
static const struct conn_ops conn_ops = {
	.admit = admit_conn,
	.move = worker_conn_move,
	.opened = protocol_opened,
	.message = protocol_message,
	.work = protocol_work,
	.free_work = protocol_free_work,
	.throttled = protocol_throttled,
	.catch_up = channel_catch_up,
	.check_limits = slow_consumer_check,
	.check_acks = hub_check_acks,
	.path_channel = protocol_path_channel,
	.left = protocol_left,
	.dead = worker_conn_dead,
};

void worker_task_spool_room(struct worker *w, struct worker_task *t)
{
	transfers_hand_over_waiting(&w->hub.transfers);
	worker_task_answer(w, t);
}

/* ------------------------------------------------------------------------- loop */

static void tick_due(struct wheel_timer *t)
{
	struct worker *w = CONTAINER_OF(t, struct worker, tick);
	uint64_t bytes = 0, messages = 0;

	/* Once a second is often enough for a gauge; only those that lag cost anything. */
	LIST_FOREACH (node, &w->hub.env.unsent) {
		uint64_t b, n;

		channel_backlog(CONTAINER_OF(node, struct conn, unsent_node), &b, &n);
		bytes += b;
		messages += n;
	}
	atomic_store_explicit(&w->metrics.queue_bytes, bytes, memory_order_relaxed);
	atomic_store_explicit(&w->metrics.queue_messages, messages, memory_order_relaxed);
	connection_log_tick(&w->hub.log, w->reactor.now_ns);
	wheel_add(&w->reactor.wheel, t, w->reactor.now_ns + NS_PER_S);
}

static bool worker_has_work(struct reactor *r)
{
	struct worker *w = CONTAINER_OF(r, struct worker, reactor);

	return worker_tasks_wait(&w->inbox) || hub_has_work(&w->hub);
}

static void worker_begin(struct reactor *r)
{
	struct worker *w = CONTAINER_OF(r, struct worker, reactor);

	if (r->turns > 1)
		metrics_hist_add(&w->metrics.loop_turn, r->worked_ns);
	turn_begin(&w->hub.env.turn, r->now_ns);
}

static bool worker_is_behind(struct reactor *r)
{
	return hub_has_line(&CONTAINER_OF(r, struct worker, reactor)->hub);
}

static void worker_work(struct reactor *r)
{
	struct worker *w = CONTAINER_OF(r, struct worker, reactor);

	/*
	 * What main wants comes before the hub's turn, so that it has its effect in this one; and
	 * what stopping waits for is looked at behind it, when the turn has done what it could.
	 */
	worker_run_tasks(w);
	hub_work(&w->hub);
	if (w->phase != WORKER_SERVING)
		worker_stop_work(w);
	atomic_store_explicit(&w->metrics.loop_turns, r->turns, memory_order_relaxed);
	atomic_store_explicit(&w->metrics.loop_busy_ns, r->busy_ns, memory_order_relaxed);
}

static const struct reactor_ops worker_ops = {
	.has_work = worker_has_work,
	.begin = worker_begin,
	.is_behind = worker_is_behind,
	.work = worker_work,
};

int worker_turn(struct worker *w, uint64_t longest_ns)
{
	return reactor_turn(&w->reactor, longest_ns);
}

void *worker_main(void *arg)
{
	struct worker *w = arg;
	char name[16];

	snprintf(name, sizeof(name), "worker %u", w->hub.index);
	(void)pthread_setname_np(pthread_self(), name); /* only for whoever looks with top or gdb */
	log_set_worker((int)w->hub.index);
	reactor_own(&w->reactor);
	while (w->phase != WORKER_ENDED) {
		int error = worker_turn(w, UINT64_MAX);

		/* A loop that gets no events serves nobody; systemd starts another process. */
		if (error) {
			log_line(LOG_ERR, "worker %u: epoll_wait: %s", w->hub.index,
				 strerror(-error));
			abort();
		}
	}
	return NULL;
}

void worker_configure(struct worker *w, struct policy *policy)
{
	struct policy *old = w->hub.env.policy;

	w->hub.env.policy = policy;
	w->hub.env.config = policy->config;
	hub_configure(&w->hub);
	policy_unref(old);
	/*
	 * Deadlines may be nearer now, and the timers were set for the old ones: every connection
	 * looks at its own once.
	 */
	LIST_FOREACH (node, &w->hub.env.all) {
		struct conn *c = CONTAINER_OF(node, struct conn, node);

		if (c->state == CONN_OPEN)
			conn_arm(c, w->reactor.now_ns);
	}
}

/* ---------------------------------------------------------------- beginning and end */

void worker_free(struct worker *w)
{
	if (!w)
		return;
	for (unsigned i = 0; i < w->n_listeners; i++)
		fd_closep(&w->listeners[i].fd);
	hub_fini(&w->hub);
	slab_fini(&w->conns);
	reactor_fini(&w->reactor);
	policy_unref(w->hub.env.policy);
	free(w);
}

int worker_new(struct worker_pool *p, struct policy *policy, unsigned index, struct worker **ret)
{
	struct worker *w = aligned_alloc(alignof(struct worker), sizeof(*w));
	int error;

	if (!w)
		return -ENOMEM;
	memset(w, 0, sizeof(*w));
	/* What the hub takes for granted is set before it; from there on all of it can be freed. */
	w->pool = p;
	w->hub.env.policy = policy_ref(policy);
	w->hub.env.config = policy->config;
	w->hub.env.reactor = &w->reactor;
	w->hub.env.metrics = &w->metrics;
	w->hub.env.ops = &conn_ops;
	slab_init(&w->conns, sizeof(struct conn), CONNS_PER_CHUNK);
	error = reactor_init(&w->reactor, &worker_ops);
	if (!error)
		error = hub_init(&w->hub, &p->shared, index);
	if (error) {
		worker_free(w);
		return error;
	}
	wheel_timer_init(&w->tick, tick_due);
	wheel_timer_init(&w->accept_again, worker_listen_again);
	wheel_timer_init(&w->stop.goodbye, worker_goodbye_due);
	wheel_add(&w->reactor.wheel, &w->tick, w->reactor.now_ns + NS_PER_S);
	*ret = w;
	return 0;
}
