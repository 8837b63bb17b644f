/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/version.h"
#include "containers/buf.h"
#include "io/log.h"
#include "server/server_private.h"
#include "service/preflight.h"
#include "worker/client_list.h"
#include "worker/protocol.h"

#define REASON_MAX 256 /* of health and readiness */

/* ---------------------------------------------------------- metrics and readiness */

static void answer_metrics(void *ctx, struct admin_request *req)
{
	struct server *s = ctx;
	struct buf text = {0};
	const struct metrics *shards[DIRECTORY_MAX_WORKERS];
	uint64_t depth[DIRECTORY_MAX_WORKERS];
	struct metrics_extra extra = {
		.channels = atomic_load_explicit(&s->pool->shared.directory.count,
						 memory_order_relaxed),
		.log_memory_bytes =
			atomic_load_explicit(&s->pool->shared.frame_bytes, memory_order_relaxed),
		.history_bytes =
			atomic_load_explicit(&s->pool->shared.history.bytes, memory_order_relaxed),
		.history_messages = atomic_load_explicit(&s->pool->shared.history.n_messages,
							 memory_order_relaxed),
		.history_evicted = atomic_load_explicit(&s->pool->shared.history.evicted,
							memory_order_relaxed),
		.log_lines_dropped = log_dropped(),
		.state_bytes = s->incoming.records_bytes,
		.pause_ns = s->incoming.pause_ns,
		.start_wall_ms = s->started_ms,
		.version = wb_version,
		.ring_depth = depth,
	};

	if (s->spool) {
		extra.spool_queue_bytes = atomic_load_explicit(
			&spool_counters(s->spool)->queued_bytes, memory_order_relaxed);
		extra.spool_wait_ns = spool_wait_ns(s->spool, s->reactor.now_ns);
	}
	/* Read while the workers go on: a scrape may be a moment old, and holds nobody up. */
	for (unsigned i = 0; i < s->pool->n; i++) {
		shards[i] = &s->pool->workers[i]->metrics;
		depth[i] = ring_depth(&s->pool->workers[i]->hub.inbox);
	}
	admin_reply_metrics(req, &text, metrics_render(shards, s->pool->n, &extra, &text));
}

static bool server_is_healthy(const struct server *s, char reason[REASON_MAX])
{
	for (unsigned i = 0; i < s->pool->n; i++) {
		if (!watchdog_is_stalled(&s->watchdog, i, s->reactor.now_ns))
			continue;
		snprintf(reason, REASON_MAX, "worker %u does not answer", i);
		return false;
	}
	return true;
}

static bool server_is_ready(const struct server *s, char reason[REASON_MAX])
{
	if (server_is_ending(s)) {
		snprintf(reason, REASON_MAX, "stopping");
		return false;
	}
	if (s->spool && spool_is_stalled(s->spool, s->reactor.now_ns)) {
		snprintf(reason, REASON_MAX, "the disk of spool_dir does not answer");
		return false;
	}
	return server_is_healthy(s, reason);
}

static void answer_healthz(void *ctx, struct admin_request *req)
{
	char reason[REASON_MAX] = "";
	bool is_healthy = server_is_healthy(ctx, reason);

	admin_reply_state(req, is_healthy, reason);
}

static void answer_readyz(void *ctx, struct admin_request *req)
{
	char reason[REASON_MAX] = "";
	bool is_ready = server_is_ready(ctx, reason);

	admin_reply_state(req, is_ready, reason);
}

/* ---------------------------------------------------------------------- clients */

/* Goes from worker to worker: each passes over, appends, counts, in as many turns as it takes. */
struct clients_query {
	struct worker_task task;
	struct server *server;
	struct admin_request *req;
	struct client_list list;
	unsigned at;
	int result; /* of client_list_append() */
	char channel[ADMIN_CHANNEL_MAX + 1], user[ADMIN_USER_MAX + 1];
};

static void clients_run(struct worker *w, struct worker_task *t)
{
	struct clients_query *q = CONTAINER_OF(t, struct clients_query, task);

	q->result = client_list_append(&w->hub, &q->list);
	worker_task_answer(w, t);
}

static void clients_done(struct worker_task *t)
{
	struct clients_query *q = CONTAINER_OF(t, struct clients_query, task);

	/* One worker after the other, so that its offset and limit run on over all of them. */
	if (q->result == 0)
		q->at++;
	/* In an order they are walked through once more. */
	if (q->result == 0 && q->at == q->server->pool->n && q->list.order && !q->list.picks) {
		q->result = client_list_pick(&q->list);
		q->at = 0;
	}
	if (q->result >= 0 && q->at < q->server->pool->n) {
		worker_post(q->server->pool->workers[q->at], t);
		return;
	}
	if (q->result == 0 && q->list.picks)
		q->result = client_list_arrange(&q->list);
	if (q->result < 0)
		admin_reply(q->req, 500, NULL, "out of memory\n");
	else
		admin_reply_list(q->req, "clients", &q->list.out, q->list.listed, q->list.total);
	client_list_fini(&q->list);
	free(q);
}

static void answer_clients(void *ctx, struct admin_request *req)
{
	struct server *s = ctx;
	struct clients_query *q;
	struct admin_page page;
	unsigned order;

	if (!admin_read_page(req, &page) ||
	    !admin_read_order(req, client_order_name, CLIENTS_N_ORDERS, &order))
		return;
	/* It goes on its way with the request; whoever is asked last answers and frees both. */
	q = calloc(1, sizeof(*q));
	if (!q) {
		admin_reply(req, 500, NULL, "out of memory\n");
		return;
	}
	q->task = (struct worker_task){.run = clients_run, .done = clients_done};
	q->server = s;
	q->req = req;
	q->list.order = (enum client_order)order;
	q->list.offset = page.offset;
	q->list.limit = page.limit;
	if (page.channel)
		q->list.channel = strcpy(q->channel, page.channel);
	if (page.user)
		q->list.user = strcpy(q->user, page.user);
	worker_post(s->pool->workers[0], &q->task);
}

static void answer_channels(void *ctx, struct admin_request *req)
{
	server_list_channels(ctx, req);
}

/* ---------------------------------------------------------------------- publish */

struct publish_query {
	struct worker_task task;
	struct admin_request *req;
	struct protocol_published result;
	char channel[ADMIN_CHANNEL_MAX + 1];
	bool is_text;
	size_t n;
	uint8_t body[];
};

static void publish_run(struct worker *w, struct worker_task *t)
{
	struct publish_query *q = CONTAINER_OF(t, struct publish_query, task);

	q->result = protocol_publish(&w->hub, q->channel, q->is_text, q->body, q->n);
	worker_task_answer(w, t);
}

static void publish_done(struct worker_task *t)
{
	struct publish_query *q = CONTAINER_OF(t, struct publish_query, task);

	/* That nobody is there is no error of who publishes: it is what happened to the message. */
	if (q->result.status == 200)
		admin_reply_members(q->req, q->result.members);
	else if (q->result.status == 404)
		admin_reply_members(q->req, 0);
	else
		admin_reply(q->req, q->result.status, NULL, q->result.reason);
	free(q);
}

static void answer_publish(void *ctx, struct admin_request *req)
{
	struct server *s = ctx;
	struct admin_publication p;
	struct publish_query *q;

	if (!admin_read_publication(req, &p))
		return;
	q = calloc(1, sizeof(*q) + p.n);
	if (!q) {
		admin_reply(req, 500, NULL, "out of memory\n");
		return;
	}
	q->task = (struct worker_task){.run = publish_run, .done = publish_done};
	q->req = req;
	q->is_text = p.is_text;
	q->n = p.n;
	snprintf(q->channel, sizeof(q->channel), "%s", p.channel);
	if (p.n > 0)
		memcpy(q->body, p.body, p.n);
	/* Main has no hub of its own: the first worker publishes, any other would do as well. */
	worker_post(s->pool->workers[0], &q->task);
}

/* ------------------------------------------------------------------- disconnect */

/* Goes from worker to worker: until one has the client, or to all that may have the user. */
struct disconnect_query {
	struct worker_task task;
	struct server *server;
	struct admin_request *req;
	struct admin_target target;
	struct client_ending ending;
	unsigned at;
	int result; /* of client_list_end_user() */
};

static void disconnect_run(struct worker *w, struct worker_task *t)
{
	struct disconnect_query *q = CONTAINER_OF(t, struct disconnect_query, task);
	struct conn *c;

	/* Found is enough: how long the goodbye takes is the client's business. */
	if (q->target.by_user) {
		q->result = client_list_end_user(&w->hub, &q->ending);
	} else if ((c = client_list_find(&w->hub, q->target.id))) {
		client_list_end(c);
		q->ending.n = 1;
	}
	worker_task_answer(w, t);
}

static void disconnect_done(struct worker_task *t)
{
	struct disconnect_query *q = CONTAINER_OF(t, struct disconnect_query, task);
	bool has_all = !q->target.by_user && q->ending.n > 0;

	/* Which worker has it is not known to main; most often the first ones are asked in vain. */
	if (q->result == 0)
		q->at++;
	if (!has_all && q->at < q->server->pool->n) {
		worker_post(q->server->pool->workers[q->at], t);
		return;
	}
	admin_reply_ended(q->req, &q->target, q->ending.n);
	free(q);
}

static void answer_disconnect(void *ctx, struct admin_request *req)
{
	struct server *s = ctx;
	struct disconnect_query *q;
	struct admin_target target;

	if (!admin_read_target(req, &target))
		return;
	q = calloc(1, sizeof(*q));
	if (!q) {
		admin_reply(req, 500, NULL, "out of memory\n");
		return;
	}
	q->task = (struct worker_task){.run = disconnect_run, .done = disconnect_done};
	q->server = s;
	q->req = req;
	q->target = target;
	q->ending.user = q->target.user;
	worker_post(s->pool->workers[0], &q->task);
}

static void answer_reload(void *ctx, struct admin_request *req)
{
	server_reload(ctx, req);
}

static admin_answer_fn *const answers[ADMIN_N_ROUTES] = {
#define ROUTE(name, ...) [ADMIN_ROUTE_##name] = answer_##name,
#include "service/admin_table.h"
};

/* ------------------------------------------------------------------- the listeners */

/* Runs again when the listeners' next deadline is due. */
static void arm_timer(struct server *s)
{
	struct server_admin *a = &s->admin;
	int ms = a->http ? admin_timeout_ms(a->http) : -1;

	/* Its own deadlines: a client that is silent, a listener that waits for a descriptor. */
	if (ms < 0)
		wheel_del(&s->reactor.wheel, &a->timer);
	else
		wheel_add(&s->reactor.wheel, &a->timer,
			  s->reactor.now_ns + (uint64_t)ms * NS_PER_MS);
}

static void admin_timer_due(struct wheel_timer *t)
{
	admin_run(CONTAINER_OF(t, struct server, admin.timer)->admin.http);
}

static void admin_ready(struct reactor_source *source, uint32_t events)
{
	(void)events;
	admin_run(CONTAINER_OF(source, struct server, admin.source)->admin.http);
}

void server_admin_work(struct server *s)
{
	struct server_admin *a = &s->admin;

	/* What workers have answered in this turn goes out in this turn. */
	if (a->http && admin_timeout_ms(a->http) == 0)
		admin_run(a->http);
	arm_timer(s);
}

void server_admin_stop(struct server *s)
{
	s->admin.http = admin_free(s->admin.http);
}

/* The key to blame for a listener that cannot be opened. */
static const char *key_of_listener(enum admin_listener failed, int error)
{
	if (failed == ADMIN_CONTROL)
		return "control_socket";
	return error == -EINVAL || error == -EADDRNOTAVAIL ? "metrics_host" : "metrics_port";
}

/* Gives the control socket to its group. Return: 0 | -errno. */
static int give_to_group(const char *path, const char *name)
{
	struct stat st;
	gid_t group;
	int r = preflight_find_group(name, &group);

	if (r)
		return r;
	/* In a folder that gives its own group to what is in it, nothing is left to be done. */
	if (stat(path, &st) == 0 && st.st_gid == group)
		return 0;
	return chown(path, (uid_t)-1, group) < 0 ? -errno : 0;
}

int server_admin_start(struct server *s)
{
	struct server_admin *a = &s->admin;
	struct admin_options options = {
		.metrics_host = s->config->enable_metrics ? s->config->metrics_host : NULL,
		.metrics_port = (uint16_t)s->config->metrics_port,
		.max_body = s->config->max_message_size,
		.answers = answers,
		.ctx = s,
	};
	enum admin_listener failed = ADMIN_METRICS;
	int r;

	/* Also without any listener: the work of each turn looks at it. */
	wheel_timer_init(&a->timer, admin_timer_due);
	r = config_control_socket_path(s->config, NULL, &a->control_path);
	options.control_path = a->control_path;
	if (r)
		return server_log_failure(s, "control socket", NULL, r);
	if (!options.metrics_host && !options.control_path)
		return 0;
	r = admin_new(&options, &failed, &a->http);
	if (r == -EADDRINUSE && failed == ADMIN_METRICS &&
	    options.metrics_port == PREFLIGHT_METRICS_PORT) {
		/*
		 * Of Prometheus on the same host, as likely as not: no reason to keep clients out.
		 */
		log_event(LOG_WARNING, EV_NOT_OPENED,
			  LOG_FIELDS(LOG_TEXT("SETTING", "metrics_port")),
			  "metrics_port = %u is taken, perhaps by Prometheus itself; continuing "
			  "without it: set another port, or enable_metrics = no",
			  PREFLIGHT_METRICS_PORT);
		options.metrics_host = NULL;
		if (!options.control_path)
			return 0;
		r = admin_new(&options, &failed, &a->http);
	}
	if (r)
		return server_log_failure(s, failed == ADMIN_CONTROL ? "control socket" : "metrics",
					  key_of_listener(failed, r), r);
	if (a->control_path && s->config->control_group[0]) {
		r = give_to_group(a->control_path, s->config->control_group);
		if (r)
			return server_log_failure(s, "group of the control socket", "control_group",
						  r);
	}
	r = reactor_add(&s->reactor, &a->source, admin_fd(a->http), EPOLLIN, admin_ready);
	return r ? server_log_failure(s, "epoll", NULL, r) : 0;
}
