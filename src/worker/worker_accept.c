/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/log.h"
#include "io/tls.h"
#include "worker/worker_private.h"

#define ACCEPT_UNITS (TURN_STEP / 2) /* of a turn's work, about what it costs */
#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define SERIAL_BITS 56 /* of a connection's serial; above them the worker's index */

static_assert(DIRECTORY_MAX_WORKERS <= 1 << (64 - SERIAL_BITS), "an index fits above a serial");

/* ---------------------------------------------------------- counted as they come and go */

/* Of a proxy that may be believed: what it brings counts for whom it speaks for. */
static bool is_proxy(const struct worker *w, const struct sock_peer *peer)
{
	return peer->is_unix || policy_trusts(w->hub.env.policy, peer->ip);
}

static void count_out(struct worker *w, const struct sock_peer *peer, bool was_refused)
{
	if (was_refused)
		admission_leave_refused(&w->pool->shared.admission);
	else
		admission_leave(&w->pool->shared.admission, peer);
}

void worker_conn_dead(struct conn *c)
{
	struct worker *w = CONTAINER_OF(c->env, struct worker, hub.env);

	atomic_fetch_sub_explicit(&w->load, 1, memory_order_relaxed);
	count_out(w, &c->peer, c->refusal != CONN_ADMITTED);
	slab_put(&w->conns, c);
}

enum conn_refusal worker_conn_move(struct conn *c, const struct sock_peer *peer)
{
	struct worker *w = CONTAINER_OF(c->env, struct worker, hub.env);

	/* Behind a proxy: until now it has counted for nobody's address but the proxy's. */
	if (admission_move(&w->pool->shared.admission, &c->peer, peer,
			   c->env->config->max_connections_per_ip))
		return CONN_E_ADDRESS_FULL;
	c->peer = *peer;
	return CONN_ADMITTED;
}

/* Refused by one too many to answer them all, or there is no memory for it (CONN_ADMITTED). */
static void report_unanswered(struct worker *w, enum conn_refusal refusal)
{
	const struct conn_refusal_row *row = &conn_refusals[refusal];
	struct metrics *m = &w->metrics;

	/* Clients can provoke these lines: they are limited, and name nobody. */
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

struct conn *worker_accept_conn(struct worker *w, const struct transport *transport,
				const struct sock_peer *peer)
{
	const struct config *config = w->hub.env.config;
	struct admission *admission = &w->pool->shared.admission;
	enum conn_refusal refusal = CONN_ADMITTED;
	struct conn *c = NULL;
	bool is_counted;

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
	/* Who is refused stays until it has its answer, in a place of its own if there is one. */
	is_counted = refusal == CONN_ADMITTED || admission_enter_refused(admission);
	if (is_counted)
		c = slab_get(&w->conns);
	if (!c) {
		if (is_counted)
			count_out(w, peer, refusal != CONN_ADMITTED);
		report_unanswered(w, refusal);
		return NULL;
	}
	atomic_fetch_add_explicit(&w->load, 1, memory_order_relaxed);
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

	/* No limits: whoever was let in stays, even where they are lower than before. */
	if (was_refused ? !admission_enter_refused(admission)
			: admission_enter(admission, peer, UINT64_MAX, 0) != 0)
		return NULL;
	/* Its state is filled in by the caller, from the record that was left of it. */
	c = slab_get(&w->conns);
	if (!c) {
		count_out(w, peer, was_refused);
		return NULL;
	}
	atomic_fetch_add_explicit(&w->load, 1, memory_order_relaxed);
	c->transport = *transport;
	return c;
}

int worker_attach(struct worker *w, struct conn *c)
{
	/* Once and for all: edges in both directions, so that no message costs a call to epoll. */
	return reactor_add(&w->reactor, &c->source, c->transport.fd,
			   EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, conn_event);
}

/* --------------------------------------------------------------------- accepting */

/* Only proxies may come where the PROXY protocol is spoken. */
static bool is_stranger(struct worker *w, const struct sock_peer *peer)
{
	char address[SOCK_ADDRESS_MAX];

	if (!w->hub.env.config->proxy_protocol || is_proxy(w, peer))
		return false;
	/* Who may say for whom it speaks may say anything: only those that are listed. */
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

/* @fd is taken over in any case. */
static void accept_socket(struct worker *w, int fd, const struct sock_peer *peer, bool is_tls)
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
	if ((is_tls && !w->hub.env.policy->tls) || is_stranger(w, peer)) {
		fd_closep(&fd);
		return;
	}
	sock_set_options(fd, &options);
	/* The PROXY header comes in the clear, and TLS begins behind it. */
	if (init_transport(w, &transport, fd, is_tls && !awaits_proxy)) {
		report_unanswered(w, CONN_ADMITTED);
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
	/* Last: what came in already is an edge that is reported at once. */
	if (worker_attach(w, c)) {
		METRIC_INC(&w->metrics, accept_errors);
		conn_abort(c);
	}
}

/* ------------------------------------------------ a listener that several workers share */

/* Accepted by one worker, and on its way to another. */
struct passed_socket {
	struct worker_task task;
	struct sock_peer peer;
	int fd;
};

static void take_passed_socket(struct worker *w, struct worker_task *t)
{
	struct passed_socket *s = CONTAINER_OF(t, struct passed_socket, task);

	/* Behind the end of the loop nobody would serve it: as if it had waited in the kernel. */
	if (w->phase == WORKER_ENDED)
		fd_closep(&s->fd);
	else
		accept_socket(w, s->fd, &s->peer, false);
	atomic_fetch_sub_explicit(&w->load, 1, memory_order_relaxed);
	free(s);
}

static uint32_t load_of(const struct worker *w)
{
	return atomic_load_explicit(&w->load, memory_order_relaxed);
}

/* Itself, unless another one has fewer connections. */
static struct worker *least_loaded(struct worker *w)
{
	struct worker *least = w;

	for (unsigned i = 0; i < w->pool->n; i++)
		if (load_of(w->pool->workers[i]) < load_of(least))
			least = w->pool->workers[i];
	return least;
}

/*
 * The kernel wakes the same worker again and again, as long as it is the first that sleeps. Before
 * a worker answers that it stands still or has stopped reading, what it passed on is in the inbox
 * of the other, ahead of all that main posts then: so none is forgotten.
 */
static void accept_shared_socket(struct worker *w, int fd, const struct sock_peer *peer)
{
	struct worker *to = least_loaded(w);
	struct passed_socket *s = to == w ? NULL : calloc(1, sizeof(*s));

	if (!s) {
		accept_socket(w, fd, peer, false);
		return;
	}
	*s = (struct passed_socket){.task.run = take_passed_socket, .peer = *peer, .fd = fd};
	/* Counted already on its way: more may be accepted before it arrives. */
	atomic_fetch_add_explicit(&to->load, 1, memory_order_relaxed);
	worker_post(to, &s->task);
}

/* @fd is taken over. */
static void accept_for(struct worker_listener *l, int fd, const struct sock_peer *peer)
{
	if (l->kind == LISTENER_UNIX || l->kind == LISTENER_ACTIVATED)
		accept_shared_socket(l->worker, fd, peer);
	else
		accept_socket(l->worker, fd, peer, l->kind == LISTENER_TLS);
}

void worker_drain_listener(struct worker *w, int fd, enum worker_listener_kind kind)
{
	struct sock_peer peer;
	int client;

	/* Until there is none, or no more can be taken: the listener is closed after this. */
	while (sock_accept(fd, &client, &peer) == 0)
		accept_socket(w, client, &peer, kind == LISTENER_TLS);
}

void worker_listen_off(struct worker *w)
{
	for (unsigned i = 0; i < w->n_listeners; i++) {
		struct worker_listener *l = &w->listeners[i];

		if (l->is_on)
			reactor_del(&w->reactor, &l->source, l->fd);
		l->is_on = false;
	}
}

void worker_listen_later(struct worker *w)
{
	wheel_add(&w->reactor.wheel, &w->accept_again, w->reactor.now_ns + ACCEPT_PAUSE_NS);
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
	/* Left on, the listeners would be reported in each turn, and the loop would spin. */
	worker_listen_off(w);
	worker_listen_later(w);
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
	struct turn *turn = &l->worker->hub.env.turn;
	struct sock_peer peer;
	int fd, r;

	(void)events;
	/*
	 * What is left after its share is reported again in the next turn: listeners have no edges.
	 */
	for (turn_begin_client(turn, TURN_CLIENT_NS); !turn_client_is_over(turn);
	     turn_charge(turn, ACCEPT_UNITS)) {
		r = sock_accept(l->fd, &fd, &peer);
		if (r == 0 || r == -EAGAIN)
			accept_works(l->worker);
		if (r == -EAGAIN)
			return;
		if (r == 0) {
			accept_for(l, fd, &peer);
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

bool worker_add_listener(struct worker *w, int fd, enum worker_listener_kind kind)
{
	if (w->n_listeners == WORKER_MAX_LISTENERS)
		return false;
	w->listeners[w->n_listeners++] =
		(struct worker_listener){.worker = w, .fd = fd, .kind = kind};
	return true;
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

void worker_listen_again(struct wheel_timer *t)
{
	struct worker *w = CONTAINER_OF(t, struct worker, accept_again);

	/* It may have begun to stop since; then the listeners stay off. */
	if (w->phase != WORKER_SERVING)
		return;
	if (worker_listen(w))
		worker_listen_later(w);
}
