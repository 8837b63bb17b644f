/* SPDX-License-Identifier: MIT */
#include "worker/transfer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uthash.h>

#include "base/text.h"
#include "io/log.h"

#define UNPACK_RATIO 64     /* what a packed chunk may become where that is a lot */
#define HANDED_OVER_MAX 256 /* tries in a row; each takes the spool's lock */
#define COME_BACK_MS 2000   /* after a refusal that may not last */

/* A connection that has handed chunks to the spool. */
struct transfer {
	uint64_t serial;
	struct conn *conn;
	struct spool_job *abort_job; /* for spool_abort(), which may not fail for want of memory */
	struct waiting_chunk *waiting;      /* NULL: none */
	struct spool_unfinished unfinished; /* for the next process; here, since it may not fail */
	bool has_unfinished;
	UT_hash_handle hh;
};

/* A chunk for which the spool had no room; its connection is held meanwhile. */
struct waiting_chunk {
	struct list node;
	struct conn *conn;
	struct spool_chunk chunk;
};

void transfers_init(struct transfers *ts, struct transfer_shared *shared, struct acks *acks,
		    unsigned worker, struct metrics *metrics)
{
	ts->acks = acks;
	ts->shared = shared;
	ts->worker = worker;
	ts->metrics = metrics;
	list_init(&ts->waiting);
	shared->of_worker[worker] = ts;
	shared->n_workers = MAX(shared->n_workers, worker + 1);
}

/* Whence a client comes, as struct spool_owner has it. */
static uint64_t address_of(const struct sock_peer *peer)
{
	static const uint8_t ipv4_head[12] = {[10] = 0xff, [11] = 0xff};
	uint64_t address = 0;

	if (peer->is_unix)
		return 0;
	/* Of IPv4, mapped, the last eight bytes; of IPv6 the network, of which one has all. */
	for (size_t i = 0; i < 8; i++)
		address = address << 8 |
			  peer->ip[memcmp(peer->ip, ipv4_head, sizeof(ipv4_head)) == 0 ? 8 + i : i];
	return address & ~(UINT64_C(1) << 63);
}

static struct spool_owner owner_of(const struct transfers *ts, const struct conn *c)
{
	return (struct spool_owner){ts->worker, c->serial, address_of(&c->peer)};
}

static struct transfer *transfer_of(const struct transfers *ts, uint64_t serial)
{
	struct transfer *t;

	HASH_FIND(hh, ts->by_serial, &serial, sizeof(serial), t);
	return t;
}

/* ------------------------------------------------------------------- on the way there */

/* @p is copied: what a client sends lies in the worker's buffers. False: no memory. */
static bool chunk_set_data(struct spool_chunk *chunk, const void *p, size_t n)
{
	chunk->n = n;
	chunk->data = malloc(MAX(n, (size_t)1));
	if (!chunk->data)
		return false;
	if (n > 0)
		memcpy(chunk->data, p, n);
	return true;
}

/* Packed bytes are cheap to send: how much may be made of them has the bound of all messages. */
static size_t unpack_limit_of(const struct config *config, size_t packed)
{
	uint64_t most = MAX(config->compression_max_size, UNPACK_RATIO * (uint64_t)packed);

	return (size_t)MIN(most, config->max_message_size);
}

static bool chunk_fill(struct spool_chunk *chunk, struct transfers *ts, struct conn *c,
		       const Websocket__WebSocketMessage *m)
{
	const Websocket__BinaryData *binary = m->binary;

	/* Its numbers are the client's word: the spool checks them, this passes them on. */
	*chunk = (struct spool_chunk){
		.owner = owner_of(ts, c),
		.sequence = binary->sequence,
		.is_last = binary->is_last,
		.announced = binary->size,
		.kind = (enum zip_kind)binary->compression,
		.unpack_limit = unpack_limit_of(c->env->config, binary->data.len),
	};
	uuid4_format(chunk->client_id, c->id);
	chunk->request_id_len = (uint8_t)MIN(m->request_id.len, (size_t)MSG_REQUEST_ID_MAX);
	if (chunk->request_id_len > 0)
		memcpy(chunk->request_id, m->request_id.data, chunk->request_id_len);
	return chunk_set_data(chunk, binary->data.data, binary->data.len);
}

/*
 * From the first chunk on the connection is known here, so that its end is told to the spool.
 * What that takes is allocated now: an end cannot be refused for want of memory.
 */
static bool transfer_track(struct transfers *ts, struct conn *c)
{
	struct transfer *t = transfer_of(ts, c->serial);

	if (t)
		return true;
	t = calloc(1, sizeof(*t));
	if (!t)
		return false;
	t->serial = c->serial;
	t->conn = c;
	t->abort_job = spool_job_new();
	if (t->abort_job)
		HASH_ADD(hh, ts->by_serial, serial, sizeof(t->serial), t);
	if (t->hh.tbl) /* uthash leaves it NULL when it had no memory */
		return true;
	spool_job_free(t->abort_job);
	free(t);
	return false;
}

/* The spool has no room: the client isn't read until its chunk was taken. */
static bool wait_for_room(struct transfers *ts, struct conn *c, const struct spool_chunk *chunk)
{
	struct waiting_chunk *w = calloc(1, sizeof(*w));

	if (!w)
		return false;
	w->conn = c;
	w->chunk = *chunk;
	transfer_of(ts, c->serial)->waiting = w; /* it is tracked since before its first chunk */
	list_add_tail(&ts->waiting, &w->node);
	conn_pause(c, CONN_PAUSE_SPOOL);
	return true;
}

/* False: there is no memory, and @chunk is the caller's as before. */
static bool hand_over(struct transfers *ts, struct conn *c, struct spool_chunk *chunk)
{
	return spool_put_chunk(ts->shared->spool, chunk) || wait_for_room(ts, c, chunk);
}

void transfer_take_chunk(struct transfers *ts, struct conn *c, const Websocket__WebSocketMessage *m)
{
	struct spool_chunk chunk = {0};

	if (transfer_track(ts, c) && chunk_fill(&chunk, ts, c, m) && hand_over(ts, c, &chunk))
		return;
	free(chunk.data);
	conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
}

void transfers_hand_over_waiting(struct transfers *ts)
{
	unsigned left = HANDED_OVER_MAX;

	/*
	 * Who waits longest is asked first. One whose share of the queue is full keeps nobody else
	 * out; the spool says so again when there is room for those that found none now.
	 */
	LIST_FOREACH_SAFE (node, next, &ts->waiting) {
		struct waiting_chunk *w = CONTAINER_OF(node, struct waiting_chunk, node);

		if (!ts->shared->spool || left-- == 0)
			return;
		if (!spool_put_chunk(ts->shared->spool, &w->chunk))
			continue;
		conn_resume(w->conn, CONN_PAUSE_SPOOL);
		transfer_of(ts, w->conn->serial)->waiting = NULL;
		list_del(&w->node);
		free(w);
	}
}

/* ------------------------------------------------------------------ on the way back */

/* Which key's limit a transfer has met; NULL: no key's. */
static const char *const refusal_setting[SPOOL_N_REFUSALS] = {
	[SPOOL_R_FILE_SIZE] = "spool_max_file_size",
	[SPOOL_R_SIZE] = "spool_max_size",
	[SPOOL_R_FREE] = "spool_min_free",
};

static void count_refusal(struct transfers *ts, enum spool_refusal refusal)
{
	switch (refusal) {
	case SPOOL_R_FILE_SIZE:
		METRIC_INC(ts->metrics, spool_refused_file_size);
		break;
	case SPOOL_R_SIZE:
		METRIC_INC(ts->metrics, spool_refused_size);
		break;
	case SPOOL_R_FREE:
		METRIC_INC(ts->metrics, spool_refused_free);
		break;
	case SPOOL_R_OPEN:
		METRIC_INC(ts->metrics, spool_refused_open);
		break;
	case SPOOL_R_RATE:
		METRIC_INC(ts->metrics, spool_refused_rate);
		break;
	default:
		break;
	}
}

/* ERROR with the request of the chunk that broke it, which was kept with the transfer. */
static void send_error(struct conn *c, const struct spool_result *result)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__ERROR);
	msg_set_request_id(&b, result->request_id, result->request_id_len);
	msg_set_code(&b, result->is_transient ? 503 : 422);
	msg_set_reason(&b, result->reason);
	if (result->is_transient)
		msg_set_reconnect_after_ms(&b, COME_BACK_MS);
	METRIC_INC(c->env->metrics, errors_sent);
	conn_send_msg(c, &b);
}

void transfer_answer(struct transfers *ts, const struct spool_result *result)
{
	struct transfer *t = transfer_of(ts, result->owner.serial);
	bool is_done = result->error == 0;
	char text[256];

	/* The file is there whether or not its client still is: it counts in either case. */
	if (is_done) {
		METRIC_INC(ts->metrics, spool_files);
		METRIC_ADD(ts->metrics, spool_bytes, result->bytes);
	} else {
		METRIC_INC(ts->metrics, spool_errors);
		count_refusal(ts, result->refusal);
	}
	if (!t)
		return;
	snprintf(text, sizeof(text),
		 is_done ? "sent the file %s" : "sent a transfer that is not kept: %s",
		 is_done ? result->name : result->reason);
	conn_log(t->conn, is_done ? LOG_INFO : LOG_NOTICE, is_done ? EV_SPOOLED : EV_SPOOL_FAILED,
		 refusal_setting[result->refusal], text);
	/* The last chunk's comes behind those of the others. */
	if (is_done)
		acks_send_behind(ts->acks, t->conn, result->request_id, result->request_id_len);
	else
		send_error(t->conn, result);
}

void transfers_close_all(struct transfers *ts)
{
	struct transfer *t, *next;

	/* Closing a connection drops its transfer: the next one is known before. */
	HASH_ITER (hh, ts->by_serial, t, next) {
		conn_log(t->conn, LOG_ERR, EV_SPOOL_FAILED, NULL,
			 "sent a transfer whose end is not known: out of memory; "
			 "closing with " WS_CODE_TEXT(INTERNAL_ERROR));
		conn_close(t->conn, WS_CODE_INTERNAL_ERROR, NULL);
	}
}

void transfer_drop(struct transfers *ts, struct conn *c)
{
	struct transfer *t = transfer_of(ts, c->serial);

	if (!t)
		return;
	if (t->waiting) {
		list_del(&t->waiting->node);
		free(t->waiting->chunk.data);
		free(t->waiting);
	}
	HASH_DELETE(hh, ts->by_serial, t);
	/* The job is the spool's from here on; before a hand-over there is none to take it. */
	if (ts->shared->spool)
		spool_abort(ts->shared->spool, owner_of(ts, c), t->abort_job);
	else
		spool_job_free(t->abort_job);
	free(t);
}

/* ------------------------------------------------------- from one process to the next */

void transfer_set_unfinished(void *shared, const struct spool_unfinished *u)
{
	struct transfer_shared *all = shared;
	struct transfer *t = transfer_of(all->of_worker[u->owner.worker], u->owner.serial);

	if (!t)
		return; /* the connection ended meanwhile, so nobody goes on with it */
	t->unfinished = *u;
	t->has_unfinished = true;
}

const struct spool_unfinished *transfer_unfinished(const struct transfers *ts, const struct conn *c)
{
	const struct transfer *t = transfer_of(ts, c->serial);

	return t && t->has_unfinished ? &t->unfinished : NULL;
}

const struct spool_chunk *transfer_waiting_chunk(const struct transfers *ts, const struct conn *c)
{
	const struct transfer *t = transfer_of(ts, c->serial);

	return t && t->waiting ? &t->waiting->chunk : NULL;
}

void transfers_resume_all(struct transfer_shared *shared)
{
	for (unsigned i = 0; i < shared->n_workers; i++) {
		struct transfers *ts = shared->of_worker[i];
		struct transfer *t, *next;

		/* First what the spool had written, then the chunk that follows it. */
		HASH_ITER (hh, ts->by_serial, t, next) {
			bool is_unfinished = t->has_unfinished;

			t->has_unfinished = false;
			if (is_unfinished && spool_resume(shared->spool, &t->unfinished))
				conn_close(t->conn, WS_CODE_INTERNAL_ERROR, NULL);
		}
		transfers_hand_over_waiting(ts);
	}
}

/* A transfer of the process before, and this one has no spool. Its client is told once. */
static int fail_without_spool(struct transfers *ts, struct conn *c)
{
	const struct spool_result failed = {
		.owner = owner_of(ts, c),
		.error = -ECANCELED,
		.is_transient = true,
		.reason = "the server writes no files any more",
		.name = "",
	};

	/* A transfer and a chunk behind it may come, one after the other. */
	if (transfer_of(ts, c->serial))
		return 0;
	if (!transfer_track(ts, c))
		return -ENOMEM;
	transfer_answer(ts, &failed);
	return 0;
}

int transfer_resume(struct transfers *ts, struct conn *c, const struct spool_unfinished *u)
{
	struct spool_unfinished mine = *u;

	if (!ts->shared->spool)
		return fail_without_spool(ts, c);
	if (!transfer_track(ts, c))
		return -ENOMEM;
	mine.owner = owner_of(ts, c);
	return spool_resume(ts->shared->spool, &mine);
}

int transfer_resume_waiting(struct transfers *ts, struct conn *c, const struct spool_chunk *like)
{
	struct spool_chunk chunk = *like;

	/* The worker and the limits are those of this process, not of the one before. */
	if (!ts->shared->spool)
		return fail_without_spool(ts, c);
	chunk.owner = owner_of(ts, c);
	chunk.unpack_limit = unpack_limit_of(c->env->config, like->n);
	uuid4_format(chunk.client_id, c->id);
	if (chunk_set_data(&chunk, like->data, like->n) && transfer_track(ts, c) &&
	    hand_over(ts, c, &chunk))
		return 0;
	free(chunk.data);
	return -ENOMEM;
}
