/* SPDX-License-Identifier: MIT */
#include "worker/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "io/log.h"
#include "wire/ws.h"
#include "worker/protocol.h"
#include "worker/worker.h"

/* A connection that has handed chunks to the spool. */
struct transfer {
	uint64_t serial;
	struct conn *conn;
	struct spool_job *end;         /* for spool_abort() */
	struct spool_unfinished *kept; /* for the next process */
	UT_hash_handle hh;
};

/* A chunk for which the spool had no room; its connection is held meanwhile. */
struct spool_wait {
	struct list node;
	struct conn *conn;
	struct spool_chunk job;
};

static struct spool_owner owner_of(const struct conn *c)
{
	return (struct spool_owner){hub_of_const(c)->index, c->serial};
}

static bool fill_job(struct conn *c, const Websocket__WebSocketMessage *m, struct spool_chunk *job)
{
	const Websocket__BinaryData *binary = m->binary;

	*job = (struct spool_chunk){
		.owner = owner_of(c),
		.sequence = binary->sequence,
		.is_last = binary->is_last,
		.kind = (enum zip_kind)binary->compression,
		.unpack_limit = c->env->config->max_message_size,
		.n = binary->data.len,
	};
	uuid4_format(job->client_id, c->id);
	job->request_id_len = (uint8_t)MIN(m->request_id.len, (size_t)MSG_REQUEST_ID_MAX);
	if (job->request_id_len > 0)
		memcpy(job->request_id, m->request_id.data, job->request_id_len);
	job->data = malloc(MAX(job->n, (size_t)1));
	if (!job->data)
		return false;
	if (job->n > 0)
		memcpy(job->data, binary->data.data, job->n);
	return true;
}

static bool note(struct hub *h, struct conn *c)
{
	struct transfer *t;

	HASH_FIND(hh, h->transfers, &c->serial, sizeof(c->serial), t);
	if (t)
		return true;
	t = calloc(1, sizeof(*t));
	if (!t)
		return false;
	t->serial = c->serial;
	t->conn = c;
	t->end = spool_job_new();
	if (t->end)
		HASH_ADD(hh, h->transfers, serial, sizeof(t->serial), t);
	if (t->hh.tbl)
		return true;
	spool_job_free(t->end);
	free(t);
	return false;
}

/* The spool has no room: the client isn't read until its chunk was taken. */
static bool wait_for_room(struct hub *h, struct conn *c, const struct spool_chunk *job)
{
	struct spool_wait *w = calloc(1, sizeof(*w));

	if (!w)
		return false;
	w->conn = c;
	w->job = *job;
	list_add_tail(&h->spool_waiting, &w->node);
	c->awaits_spool = true;
	return true;
}

void transfer_chunk(struct conn *c, const Websocket__WebSocketMessage *m)
{
	struct hub *h = hub_of(c);
	struct spool_chunk job = {0};

	if (note(h, c) && fill_job(c, m, &job) &&
	    (spool_put_chunk(h->shared->spool, &job) || wait_for_room(h, c, &job)))
		return;
	free(job.data);
	conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
}

void transfer_room(struct hub *h)
{
	LIST_FOREACH_SAFE (node, next, &h->spool_waiting) {
		struct spool_wait *w = CONTAINER_OF(node, struct spool_wait, node);

		if (!h->shared->spool || !spool_put_chunk(h->shared->spool, &w->job))
			return; /* it will tell again */
		w->conn->awaits_spool = false;
		conn_want_read(w->conn);
		list_del(&w->node);
		free(w);
	}
}

void transfer_done(struct hub *h, const struct spool_result *result)
{
	struct transfer *t;
	struct msg_builder b;
	bool is_done = result->error == 0;
	char text[256];

	if (is_done) {
		METRIC_INC(h->env.metrics, spool_files);
		METRIC_ADD(h->env.metrics, spool_bytes, result->bytes);
	} else {
		METRIC_INC(h->env.metrics, spool_errors);
	}
	HASH_FIND(hh, h->transfers, &result->owner.serial, sizeof(result->owner.serial), t);
	if (!t)
		return;
	snprintf(text, sizeof(text),
		 is_done ? "sent the file %s" : "sent a transfer that is not kept: %s",
		 is_done ? result->name : result->reason);
	conn_log(t->conn, is_done ? LOG_INFO : LOG_NOTICE, is_done ? EV_SPOOLED : EV_SPOOL_FAILED,
		 NULL, text);
	msg_init_control(&b, is_done ? WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE
				     : WEBSOCKET__CONTROL_TYPE__ERROR);
	msg_set_request_id(&b, result->request_id, result->request_id_len);
	if (is_done) {
		METRIC_INC(h->env.metrics, acks_sent);
	} else {
		METRIC_INC(h->env.metrics, errors_sent);
		msg_set_code(&b, 422);
		msg_set_reason(&b, result->reason);
	}
	conn_send_msg(t->conn, &b);
}

void transfer_lost(struct hub *h)
{
	struct transfer *t, *next;

	HASH_ITER (hh, h->transfers, t, next) {
		conn_log(t->conn, LOG_ERR, EV_SPOOL_FAILED, NULL,
			 "sent a transfer whose end is not known: out of memory; "
			 "closing with " WS_CODE_TEXT(INTERNAL_ERROR));
		conn_close(t->conn, WS_CODE_INTERNAL_ERROR, NULL);
	}
}

void transfer_drop(struct conn *c)
{
	struct hub *h = hub_of(c);
	struct transfer *t;

	LIST_FOREACH_SAFE (node, next, &h->spool_waiting) {
		struct spool_wait *w = CONTAINER_OF(node, struct spool_wait, node);

		if (w->conn != c)
			continue;
		list_del(&w->node);
		free(w->job.data);
		free(w);
	}
	HASH_FIND(hh, h->transfers, &c->serial, sizeof(c->serial), t);
	if (!t)
		return;
	HASH_DELETE(hh, h->transfers, t);
	if (h->shared->spool)
		spool_abort(h->shared->spool, owner_of(c), t->end);
	else
		spool_job_free(t->end);
	free(t->kept);
	free(t);
}

/* ------------------------------------------------------- from one process to the next */

void transfer_set_unfinished(void *pool, const struct spool_unfinished *k)
{
	struct worker_pool *p = pool;
	struct transfer *t;

	HASH_FIND(hh, p->workers[k->owner.worker]->hub.transfers, &k->owner.serial,
		  sizeof(k->owner.serial), t);
	if (!t)
		return;
	t->kept = malloc(sizeof(*k));
	if (t->kept)
		*t->kept = *k;
}

const struct spool_unfinished *transfer_unfinished(const struct conn *c)
{
	struct transfer *t;

	HASH_FIND(hh, hub_of_const(c)->transfers, &c->serial, sizeof(c->serial), t);
	return t ? t->kept : NULL;
}

const struct spool_chunk *transfer_waiting_chunk(const struct conn *c)
{
	LIST_FOREACH (node, &hub_of_const(c)->spool_waiting) {
		const struct spool_wait *w = CONTAINER_OF(node, struct spool_wait, node);

		if (w->conn == c)
			return &w->job;
	}
	return NULL;
}

void transfer_resume_all(struct worker_pool *p, struct spool *spool)
{
	for (unsigned i = 0; i < p->n; i++) {
		struct hub *h = &p->workers[i]->hub;
		struct transfer *t, *next;

		HASH_ITER (hh, h->transfers, t, next) {
			WB_CLEANUP(ptr_freep) struct spool_unfinished *k = TAKE_PTR(t->kept);

			if (k && spool_resume(spool, k))
				conn_close(t->conn, WS_CODE_INTERNAL_ERROR, NULL);
		}
		transfer_room(h);
	}
}

/* A transfer of the process before, and this one has no spool. Said once. */
static int lose(struct hub *h, struct conn *c)
{
	const struct spool_result lost = {
		.owner = owner_of(c),
		.error = -ECANCELED,
		.reason = "the server writes no files any more",
		.name = "",
	};
	struct transfer *t;

	HASH_FIND(hh, h->transfers, &c->serial, sizeof(c->serial), t);
	if (t)
		return 0;
	if (!note(h, c))
		return -ENOMEM;
	transfer_done(h, &lost);
	return 0;
}

int transfer_resume(struct conn *c, const struct spool_unfinished *k)
{
	struct hub *h = hub_of(c);
	struct spool_unfinished mine = *k;

	if (!h->shared->spool)
		return lose(h, c);
	if (!note(h, c))
		return -ENOMEM;
	mine.owner = owner_of(c);
	return spool_resume(h->shared->spool, &mine);
}

int transfer_resume_waiting(struct conn *c, const struct spool_chunk *like)
{
	struct hub *h = hub_of(c);
	struct spool_chunk job = *like;

	if (!h->shared->spool)
		return lose(h, c);
	job.owner = owner_of(c);
	job.unpack_limit = c->env->config->max_message_size;
	uuid4_format(job.client_id, c->id);
	job.data = malloc(MAX(job.n, (size_t)1));
	if (job.data && job.n > 0)
		memcpy(job.data, like->data, job.n);
	if (job.data && note(h, c) &&
	    (spool_put_chunk(h->shared->spool, &job) || wait_for_room(h, c, &job)))
		return 0;
	free(job.data);
	return -ENOMEM;
}
