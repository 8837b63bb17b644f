/* SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "containers/buf.h"
#include "io/log.h"
#include "server/server_private.h"
#include "worker/client_list.h"
#include "worker/protocol.h"

#define STALLED_NS (5 * NS_PER_S)

/* ---------------------------------------------------------- metrics and readiness */

static int admin_metrics(void *ctx, struct buf *out)
{
	struct server *s = ctx;
	const struct metrics *shards[DIRECTORY_MAX_WORKERS];
	uint64_t depth[DIRECTORY_MAX_WORKERS];
	struct metrics_extra extra = {
		.channels = atomic_load_explicit(&s->pool->shared.directory.count,
						 memory_order_relaxed),
		.log_memory_bytes =
			atomic_load_explicit(&s->pool->shared.frame_bytes, memory_order_relaxed),
		.log_lines_dropped = log_dropped(),
		.state_bytes = s->state_bytes,
		.pause_ns = s->pause_ns,
		.start_wall_ms = s->started_ms,
		.version = WB_VERSION,
		.ring_depth = depth,
	};

	if (s->spool) {
		extra.spool_queue_bytes = atomic_load_explicit(
			&spool_counters(s->spool)->queued_bytes, memory_order_relaxed);
		extra.spool_wait_ns = spool_wait_ns(s->spool, s->reactor.now_ns);
	}
	for (unsigned i = 0; i < s->pool->n; i++) {
		shards[i] = &s->pool->workers[i]->metrics;
		depth[i] = ring_depth(&s->pool->workers[i]->hub.inbox);
	}
	return metrics_render(shards, s->pool->n, &extra, out);
}

static bool admin_is_healthy(void *ctx, char *reason)
{
	struct server *s = ctx;

	for (unsigned i = 0; i < s->pool->n; i++) {
		const struct server_ping *p = &s->pings[i];

		if (!p->is_out || s->reactor.now_ns - p->since_ns < STALLED_NS)
			continue;
		snprintf(reason, ADMIN_REASON_MAX, "worker %u does not answer", i);
		return false;
	}
	return true;
}

static bool admin_is_ready(void *ctx, char *reason)
{
	struct server *s = ctx;

	if (s->is_stopping) {
		snprintf(reason, ADMIN_REASON_MAX, "stopping");
		return false;
	}
	if (s->spool && spool_is_stalled(s->spool, s->reactor.now_ns)) {
		snprintf(reason, ADMIN_REASON_MAX, "the disk of spool_dir does not answer");
		return false;
	}
	return admin_is_healthy(ctx, reason);
}

/* ---------------------------------------------------------------------- clients */

/* Goes from worker to worker: each passes over, appends, counts. */
struct clients_query {
	struct worker_task task;
	struct server *server;
	struct admin_request *req;
	struct buf objects;
	uint64_t offset, limit, total;
	unsigned at;
	int error;
};

static void clients_run(struct worker *w, struct worker_task *t)
{
	struct clients_query *q = CONTAINER_OF(t, struct clients_query, task);

	q->total += client_list_count(&w->hub);
	if (!q->error)
		q->error = client_list_append(&w->hub, &q->offset, &q->limit, &q->objects);
	worker_task_answer(w, t);
}

static void clients_done(struct worker_task *t)
{
	struct clients_query *q = CONTAINER_OF(t, struct clients_query, task);

	if (++q->at < q->server->pool->n) {
		worker_post(q->server->pool->workers[q->at], t);
		return;
	}
	if (q->error)
		admin_reply(q->req, 500, NULL, "out of memory\n");
	else
		admin_reply_clients(q->req, &q->objects, q->total);
	buf_fini(&q->objects);
	free(q);
}

static void admin_clients(void *ctx, struct admin_request *req, uint64_t offset, uint64_t limit)
{
	struct server *s = ctx;
	struct clients_query *q = calloc(1, sizeof(*q));

	if (!q) {
		admin_reply(req, 500, NULL, "out of memory\n");
		return;
	}
	q->task = (struct worker_task){.run = clients_run, .done = clients_done};
	q->server = s;
	q->req = req;
	q->offset = offset;
	q->limit = limit;
	worker_post(server_first(s), &q->task);
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

	if (q->result.status == 200)
		admin_reply_members(q->req, q->result.members);
	else if (q->result.status == 404)
		admin_reply_members(q->req, 0);
	else
		admin_reply(q->req, q->result.status, NULL, q->result.reason);
	free(q);
}

static void admin_publish(void *ctx, struct admin_request *req, const struct admin_publication *p)
{
	struct publish_query *q = calloc(1, sizeof(*q) + p->n);

	if (!q) {
		admin_reply(req, 500, NULL, "out of memory\n");
		return;
	}
	q->task = (struct worker_task){.run = publish_run, .done = publish_done};
	q->req = req;
	q->is_text = p->is_text;
	q->n = p->n;
	snprintf(q->channel, sizeof(q->channel), "%s", p->channel);
	if (p->n > 0)
		memcpy(q->body, p->body, p->n);
	worker_post(server_first(ctx), &q->task);
}

/* ------------------------------------------------------------------- disconnect */

/* Goes from worker to worker until one has the client. */
struct disconnect_query {
	struct worker_task task;
	struct server *server;
	struct admin_request *req;
	uint8_t id[16];
	unsigned at;
	bool is_found;
};

static void disconnect_run(struct worker *w, struct worker_task *t)
{
	struct disconnect_query *q = CONTAINER_OF(t, struct disconnect_query, task);
	struct conn *c = client_list_find(&w->hub, q->id);

	if (c) {
		q->is_found = true;
		conn_close(c, WS_CODE_NORMAL, "disconnected by the administrator");
	}
	worker_task_answer(w, t);
}

static void disconnect_done(struct worker_task *t)
{
	struct disconnect_query *q = CONTAINER_OF(t, struct disconnect_query, task);

	if (!q->is_found && ++q->at < q->server->pool->n) {
		worker_post(q->server->pool->workers[q->at], t);
		return;
	}
	admin_reply_found(q->req, q->is_found);
	free(q);
}

static void admin_disconnect(void *ctx, struct admin_request *req, const char *id)
{
	struct disconnect_query *q = calloc(1, sizeof(*q));
	struct server *s = ctx;

	if (!q || uuid_parse(id, q->id)) {
		admin_reply(req, q ? 400 : 500, NULL, q ? "id is no UUID\n" : "out of memory\n");
		free(q);
		return;
	}
	q->task = (struct worker_task){.run = disconnect_run, .done = disconnect_done};
	q->server = s;
	q->req = req;
	worker_post(server_first(s), &q->task);
}

static void admin_reload(void *ctx, struct admin_request *req)
{
	server_reload(ctx, req);
}

const struct admin_ops server_admin_ops = {
	.metrics = admin_metrics,
	.is_healthy = admin_is_healthy,
	.is_ready = admin_is_ready,
	.clients = admin_clients,
	.reload = admin_reload,
	.publish = admin_publish,
	.disconnect = admin_disconnect,
};
