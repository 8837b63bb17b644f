/* SPDX-License-Identifier: MIT */
#include "worker/worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "io/log.h"
#include "worker/protocol.h"
#include "worker/slow_consumer.h"
#include "worker/transfer.h"
#include "worker/worker_private.h"

#define ACCEPTS_PER_TURN 64
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define CONNS_PER_CHUNK 1024
#define TLS_FAREWELL_NS (2 * NS_PER_S)
#define SERIAL_BITS 56 /* of a connection's serial; above them the worker's index */

/* ------------------------------------------------------------------------ tasks */

static void tasks_push(struct worker_tasks *q, struct worker_task *t)
{
	t->next = atomic_load_explicit(&q->head, memory_order_relaxed);
	/* Pairs with the exchange in tasks_take(). */
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

		t->run(w, t);
		t = next;
	}
}

/* ------------------------------------------------------------------ connections */

static void leave(struct worker *w, const struct sock_peer *peer, bool was_refused)
{
	if (was_refused)
		admission_leave_refused(&w->pool->shared.admission);
	else
		admission_leave(&w->pool->shared.admission, peer);
}

static void conn_free(struct conn *c)
{
	struct worker *w = CONTAINER_OF(c->env, struct worker, hub.env);

	leave(w, &c->peer, c->refusal != CONN_ADMITTED);
	slab_put(&w->conns, c);
}

static enum conn_refusal conn_move(struct conn *c, const struct sock_peer *peer)
{
	struct worker *w = CONTAINER_OF(c->env, struct worker, hub.env);

	if (admission_move(&w->pool->shared.admission, &c->peer, peer,
			   c->env->config->max_connections_per_ip))
		return CONN_E_ADDRESS_FULL;
	c->peer = *peer;
	return CONN_ADMITTED;
}

static enum conn_refusal conn_admit(struct conn *c, const struct upgrade *u)
{
	enum conn_refusal r = protocol_admit(c, u);

	/* What waits for an echo is never skipped: it may as well wait in the kernel. */
	if (r == CONN_ADMITTED && c->is_echo)
		sock_set_notsent_lowat(c->transport.fd, UINT32_MAX);
	return r;
}

static const struct conn_ops conn_ops = {
	.admit = conn_admit,
	.move = conn_move,
	.opened = protocol_opened,
	.message = protocol_message,
	.catch_up = channel_catch_up,
	.check_limits = slow_consumer_check,
	.path_channel = protocol_path_channel,
	.left = protocol_left,
	.dead = conn_free,
};

/* Refused by one too many to answer them all, or there is no memory for it (CONN_ADMITTED). */
static void drop_unanswered(struct worker *w, enum conn_refusal refusal)
{
	const struct conn_refusal_row *row = &conn_refusals[refusal];
	struct metrics *m = &w->metrics;

	METRIC_INC(m, connection_errors);
	if (refusal == CONN_ADMITTED) {
		METRIC_INC(m, accept_errors);
		log_event_limited(LOG_WARNING, EV_ACCEPT_FAILED, LOG_FIELDS(LOG_ERRNO(-ENOMEM)),
				  "no memory for another connection; it is dropped");
		return;
	}
	metric_add(metrics_counter(m, row->counter), 1);
	log_event_limited(LOG_NOTICE, EV_REFUSED, LOG_FIELDS(LOG_TEXT("SETTING", row->setting)),
			  "connections past %s are dropped without an answer", row->setting);
}

/* Of a proxy that may be believed: what it brings counts for whom it speaks for. */
static bool is_proxy(const struct worker *w, const struct sock_peer *peer)
{
	return peer->is_unix || policy_trusts(w->hub.env.policy, peer->ip);
}

struct conn *worker_accept_conn(struct worker *w, const struct transport *transport,
				const struct sock_peer *peer)
{
	const struct config *config = w->hub.env.config;
	struct admission *admission = &w->pool->shared.admission;
	enum conn_refusal refusal = CONN_ADMITTED;
	struct conn *c = NULL;
	bool has_entered;

	switch (admission_enter(admission, peer, config->max_connections,
				is_proxy(w, peer) ? 0 : config->max_connections_per_ip)) {
	case ADMISSION_E_FULL:
		refusal = CONN_E_FULL;
		break;
	case ADMISSION_E_PER_IP:
		refusal = CONN_E_ADDRESS_FULL;
		break;
	default:
		break;
	}
	has_entered = refusal == CONN_ADMITTED || admission_enter_refused(admission);
	if (has_entered)
		c = slab_get(&w->conns);
	if (!c) {
		if (has_entered)
			leave(w, peer, refusal != CONN_ADMITTED);
		drop_unanswered(w, refusal);
		return NULL;
	}
	c->transport = *transport;
	conn_init(c, &w->hub.env, peer, (uint64_t)w->hub.index << SERIAL_BITS | ++w->next_serial,
		  refusal);
	return c;
}

struct conn *worker_restore_conn(struct worker *w, const struct transport *transport,
				 const struct sock_peer *peer, bool was_refused)
{
	struct admission *admission = &w->pool->shared.admission;
	struct conn *c;

	if (was_refused ? !admission_enter_refused(admission)
			: admission_enter(admission, peer, UINT64_MAX, 0) != 0)
		return NULL;
	c = slab_get(&w->conns);
	if (c)
		c->transport = *transport;
	else
		leave(w, peer, was_refused);
	return c;
}

int worker_attach(struct worker *w, struct conn *c)
{
	return reactor_add(&w->reactor, &c->source, c->transport.fd,
			   EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, conn_event);
}

/* Only proxies may come where the PROXY protocol is spoken. */
static bool drop_stranger(struct worker *w, const struct sock_peer *peer)
{
	char address[SOCK_ADDRESS_MAX];

	if (!w->hub.env.config->proxy_protocol || is_proxy(w, peer))
		return false;
	METRIC_INC(&w->metrics, refused_proxy);
	METRIC_INC(&w->metrics, connection_errors);
	sock_format_peer(address, peer);
	log_event_limited(
		LOG_NOTICE, EV_REFUSED,
		LOG_FIELDS(LOG_TEXT("PEER", address), LOG_TEXT("SETTING", "trusted_proxies")),
		"%s is not in trusted_proxies, and proxy_protocol is on; dropped", address);
	return true;
}

static int init_transport(struct worker *w, struct transport *t, int fd, bool is_tls)
{
	if (is_tls)
		return transport_init_tls(t, fd, w->hub.env.policy->tls);
	transport_init_plain(t, fd);
	return 0;
}

static void adopt_socket(struct worker *w, int fd, const struct sock_peer *peer, bool is_tls)
{
	const struct config *config = w->hub.env.config;
	bool awaits_proxy = config->proxy_protocol;
	const struct sock_options options = {
		.nodelay = config->tcp_nodelay,
		.keepalive_s = (unsigned)((config->tcp_keepalive + NS_PER_S - 1) / NS_PER_S),
		.notsent_lowat = (unsigned)config->tcp_notsent_lowat,
	};
	struct transport transport;
	struct conn *c;

	/* One of the process before, which had TLS: nothing can be said to it. */
	if ((is_tls && !w->hub.env.policy->tls) || drop_stranger(w, peer)) {
		fd_closep(&fd);
		return;
	}
	sock_set_options(fd, &options);
	if (init_transport(w, &transport, fd, is_tls && !awaits_proxy)) {
		drop_unanswered(w, CONN_ADMITTED);
		fd_closep(&fd);
		return;
	}
	c = worker_accept_conn(w, &transport, peer);
	if (!c) {
		transport_close(&transport, true);
		return;
	}
	c->awaits_proxy = awaits_proxy;
	c->awaits_tls = is_tls && awaits_proxy;
	if (worker_attach(w, c)) {
		METRIC_INC(&w->metrics, accept_errors);
		conn_abort(c);
	}
}

/* -------------------------------------------------------------------- listening */

static void listen_off(struct worker *w)
{
	for (unsigned i = 0; i < w->n_listeners; i++) {
		struct worker_listener *l = &w->listeners[i];

		if (l->is_on)
			reactor_del(&w->reactor, &l->source, l->fd);
		l->is_on = false;
	}
}

/* Out of descriptors or memory: waiting connections stay in the kernel for a while. */
static void accept_failed(struct worker *w, int error)
{
	METRIC_INC(&w->metrics, accept_errors);
	if (!w->is_starved)
		log_event_limited(LOG_WARNING, EV_ACCEPT_FAILED,
				  LOG_FIELDS(LOG_ERRNO(error), LOG_TEXT("SETTING", "LimitNOFILE")),
				  "cannot accept connections: %s; those that come wait, trying "
				  "again every 100 ms, see LimitNOFILE and max_connections",
				  strerror(-error));
	w->is_starved = true;
	listen_off(w);
	wheel_add(&w->reactor.wheel, &w->accept_again, w->reactor.now_ns + ACCEPT_PAUSE_NS);
}

static void accept_works(struct worker *w)
{
	if (!w->is_starved)
		return;
	w->is_starved = false;
	log_event_limited(LOG_NOTICE, EV_ACCEPT_FAILED, LOG_NO_FIELDS,
			  "connections are accepted again");
}

static void accept_ready(struct reactor_source *s, uint32_t events)
{
	struct worker_listener *l = CONTAINER_OF(s, struct worker_listener, source);
	struct sock_peer peer;
	int fd, r;

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		r = sock_accept(l->fd, &fd, &peer);
		if (r == 0 || r == -EAGAIN)
			accept_works(l->worker);
		if (r == -EAGAIN)
			return;
		if (r == 0) {
			adopt_socket(l->worker, fd, &peer, l->kind == LISTENER_TLS);
			continue;
		}
		if (r == -EMFILE || r == -ENFILE || r == -ENOBUFS || r == -ENOMEM) {
			accept_failed(l->worker, r);
			return;
		}
		/* That one was gone before it was taken. */
		METRIC_INC(&l->worker->metrics, accept_errors);
	}
}

int worker_listen(struct worker *w)
{
	/* A listener that several workers share wakes one of them. */
	for (unsigned i = 0; i < w->n_listeners; i++) {
		struct worker_listener *l = &w->listeners[i];
		int error;

		if (l->is_on || (w->has_no_tls && l->kind == LISTENER_TLS))
			continue;
		error = reactor_add(&w->reactor, &l->source, l->fd, EPOLLIN | EPOLLEXCLUSIVE,
				    accept_ready);
		if (error)
			return error;
		l->is_on = true;
	}
	return 0;
}

static void listen_again(struct wheel_timer *t)
{
	struct worker *w = CONTAINER_OF(t, struct worker, accept_again);

	if (w->phase != WORKER_SERVING)
		return;
	if (worker_listen(w))
		wheel_add(&w->reactor.wheel, &w->accept_again, w->reactor.now_ns + ACCEPT_PAUSE_NS);
}

/* ------------------------------------------------------------------------- stop */

void worker_task_pause(struct worker *w, struct worker_task *t)
{
	w->phase = WORKER_PAUSED;
	w->hub.env.is_frozen = true;
	listen_off(w);
	w->quiet = t;
}

int worker_resume(struct worker *w)
{
	w->phase = WORKER_SERVING;
	w->hub.env.is_frozen = false;
	w->has_no_tls = false;
	LIST_FOREACH (node, &w->hub.env.all)
		conn_want_read(CONTAINER_OF(node, struct conn, node));
	return worker_listen(w);
}

void worker_task_freeze(struct worker *w, struct worker_task *t)
{
	(void)t;
	w->phase = WORKER_ENDED;
}

void worker_task_spool_room(struct worker *w, struct worker_task *t)
{
	transfers_hand_over_waiting(&w->hub.transfers);
	worker_task_answer(w, t);
}

void worker_task_stop_reading(struct worker *w, struct worker_task *t)
{
	w->phase = WORKER_NOT_READING;
	w->hub.env.is_stopping = true;
	listen_off(w);
	for (unsigned i = 0; i < w->n_listeners; i++)
		fd_closep(&w->listeners[i].fd);
	w->quiet = t;
}

/* Whom a goodbye is for: everybody, or, before a hand-over, those that can't be handed over. */
static bool has_to_leave(const struct worker *w, const struct conn *c)
{
	return w->phase == WORKER_SAYING_GOODBYE || transport_is_tls(&c->transport);
}

/* Return: how many are still there. */
static size_t dismiss(struct worker *w, bool all)
{
	size_t n = 0;

	LIST_FOREACH_SAFE (node, next, &w->hub.env.all) {
		struct conn *c = CONTAINER_OF(node, struct conn, node);

		if (!has_to_leave(w, c))
			continue;
		n++;
		if (c->state == CONN_HANDSHAKE)
			conn_abort(c);
		if (c->state != CONN_OPEN || (!all && (c->n_lagging > 0 || c->out->transit)))
			continue;
		protocol_say_goodbye(c);
		if (w->phase != WORKER_SAYING_GOODBYE)
			METRIC_INC(&w->metrics, handover_tls);
	}
	return n;
}

static void abort_all(struct worker *w)
{
	LIST_FOREACH_SAFE (node, next, &w->hub.env.all) {
		struct conn *c = CONTAINER_OF(node, struct conn, node);

		if (w->phase == WORKER_ENDED || has_to_leave(w, c))
			conn_abort(c);
	}
}

/* The rest keeps being served meanwhile, so this looks at them now and then. */
static void leave_tls(struct worker *w)
{
	uint64_t now = w->reactor.now_ns;
	size_t n = dismiss(w, now >= w->stop_patience_ns);

	if (n > 0 && now < w->stop_deadline_ns) {
		wheel_add(&w->reactor.wheel, &w->farewell, now + REACTOR_TICK_NS);
		return;
	}
	abort_all(w);
	worker_task_answer(w, w->tls_leave);
	w->tls_leave = NULL;
}

/* Two deadlines: the first for what waits, the last for the closing handshakes. */
static void farewell_due(struct wheel_timer *t)
{
	struct worker *w = CONTAINER_OF(t, struct worker, farewell);

	if (w->tls_leave) {
		leave_tls(w);
		return;
	}
	if (w->reactor.now_ns >= w->stop_deadline_ns) {
		abort_all(w);
		return;
	}
	(void)dismiss(w, true);
	wheel_add(&w->reactor.wheel, t, w->stop_deadline_ns);
}

void worker_task_say_goodbye_tls(struct worker *w, struct worker_task *t)
{
	uint64_t timeout = MIN(w->hub.env.config->shutdown_timeout, TLS_FAREWELL_NS);

	w->has_no_tls = true;
	listen_off(w);
	if (worker_listen(w)) /* the others are on again */
		wheel_add(&w->reactor.wheel, &w->accept_again, w->reactor.now_ns + ACCEPT_PAUSE_NS);
	w->tls_leave = t;
	w->stop_patience_ns = w->reactor.now_ns + timeout / 2;
	w->stop_deadline_ns = w->reactor.now_ns + timeout;
	leave_tls(w);
}

void worker_task_say_goodbye(struct worker *w, struct worker_task *t)
{
	uint64_t timeout = w->hub.env.config->shutdown_timeout;

	w->phase = WORKER_SAYING_GOODBYE;
	w->leave = t;
	w->stop_deadline_ns = w->reactor.now_ns + timeout - timeout / 10;
	wheel_add(&w->reactor.wheel, &w->farewell, w->reactor.now_ns + timeout / 2);
}

void worker_task_end(struct worker *w, struct worker_task *t)
{
	(void)t;
	w->hub.env.is_stopping = true; /* no notices: everybody goes */
	w->phase = WORKER_ENDED;
	abort_all(w);
}

/* What stopping needs at the end of a turn. */
static void stop_work(struct worker *w)
{
	if (w->quiet && !w->hub.env.is_congested) {
		worker_task_answer(w, w->quiet);
		w->quiet = NULL;
	}
	if (!w->leave)
		return;
	if (!hub_has_output(&w->hub))
		(void)dismiss(w, false);
	if (w->hub.env.n_all == 0) {
		worker_task_answer(w, w->leave);
		w->leave = NULL;
	}
}

/* ------------------------------------------------------------------------- loop */

static void tick_due(struct wheel_timer *t)
{
	struct worker *w = CONTAINER_OF(t, struct worker, tick);
	uint64_t bytes = 0, messages = 0;

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

static void worker_work(struct reactor *r)
{
	struct worker *w = CONTAINER_OF(r, struct worker, reactor);

	worker_run_tasks(w);
	hub_work(&w->hub);
	if (w->phase != WORKER_SERVING)
		stop_work(w);
	atomic_store_explicit(&w->metrics.loop_turns, r->turns, memory_order_relaxed);
	atomic_store_explicit(&w->metrics.loop_busy_ns, r->busy_ns, memory_order_relaxed);
}

static const struct reactor_ops worker_ops = {
	.has_work = worker_has_work,
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
	/* Deadlines may be nearer now: every connection looks at its own once. */
	LIST_FOREACH (node, &w->hub.env.all) {
		struct conn *c = CONTAINER_OF(node, struct conn, node);

		if (c->state == CONN_OPEN)
			conn_arm(c, w->reactor.now_ns);
	}
}

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
	wheel_timer_init(&w->accept_again, listen_again);
	wheel_timer_init(&w->farewell, farewell_due);
	wheel_add(&w->reactor.wheel, &w->tick, w->reactor.now_ns + NS_PER_S);
	*ret = w;
	return 0;
}

bool worker_add_listener(struct worker *w, int fd, enum worker_listener_kind kind)
{
	if (w->n_listeners == WORKER_MAX_LISTENERS)
		return false;
	w->listeners[w->n_listeners++] =
		(struct worker_listener){.worker = w, .fd = fd, .kind = kind};
	return true;
}

void worker_drain_listener(struct worker *w, int fd, enum worker_listener_kind kind)
{
	struct sock_peer peer;
	int client;

	while (sock_accept(fd, &client, &peer) == 0)
		adopt_socket(w, client, &peer, kind == LISTENER_TLS);
}
