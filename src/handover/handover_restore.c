/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>

#include "conn/conn_restore.h"
#include "handover/channels.h"
#include "handover/connection.h"
#include "handover/counters.h"
#include "handover/frames.h"
#include "handover/handover.h"
#include "handover/histories.h"
#include "handover/identities.h"
#include "handover/record_ids.h"
#include "io/log.h"
#include "worker/protocol.h"

#define ARENA_BYTES ((size_t)256 << 10)
#define ARENA_LIMIT ((size_t)4 << 30)

/* A connection that is not as it was, and has to end once all others are back. */
struct unfit_conn {
	struct conn *conn;
	struct worker *worker;
	bool can_be_told; /* open, and nothing is half sent */
};

struct restoring {
	struct worker_pool *pool;
	const struct handover_ops *ops;
	void *ctx;
	struct frames_in frames;
	struct channels_in channels;
	struct handover_report *report;
	struct unfit_conn *unfit;
	size_t n_unfit;
	struct arena arena; /* of the record in hand */
	ProtobufCAllocator allocator;
	unsigned next_worker; /* connections go round */
	unsigned next_counters;
};

/* ----------------------------------------------------------------- head, counters */

static int take_head(struct restoring *r, const struct record *record)
{
	const Record__Head *s = record__head__unpack(&r->allocator, record->n, record->p);

	if (!s)
		return RESTORE_E_UNFIT;
	/* Above them all: serials are never used twice. */
	for (unsigned i = 0; i < r->pool->n; i++)
		r->pool->workers[i]->next_serial = s->next_serial;
	if (s->resume_key.len == sizeof(r->pool->shared.registry.key.byte))
		registry_inherit(&r->pool->shared.registry, s->resume_key.data, s->registry_ns);
	r->report->frozen_ns = s->frozen_ns;
	/* What was not left for us is gone before anything is kept here. */
	if (history_take_handed_over(&r->pool->shared.history, s->history_nonce, clock_now_ns()))
		r->frames.history = &r->pool->shared.history;
	else
		r->report->past = history_take_over(&r->pool->shared.history, true, 0, NULL, NULL,
						    &r->report->recovery);
	snprintf(r->report->version, sizeof(r->report->version), "%s", s->version);
	log_add_dropped(s->log_dropped);
	return 0;
}

static int take_counters(struct restoring *r, const struct record *record)
{
	const Record__Counters *s = record__counters__unpack(&r->allocator, record->n, record->p);
	struct worker *w = r->pool->workers[r->next_counters++ % r->pool->n];

	/* One worker has them now, whoever had them before: what counts is the sum. */
	if (!s)
		return RESTORE_E_UNFIT;
	counters_from_record(&w->metrics, s);
	return 0;
}

/* --------------------------------------------------------------- frames, channels */

/* Those that cannot be read are added as well: the ids behind them count on it. */
static int take_frame(struct restoring *r, const struct record *record)
{
	const Record__Frame *s = record__frame__unpack(&r->allocator, record->n, record->p);
	int error = frames_in_add(&r->frames, s, &r->pool->shared.frame_bytes);

	r->report->frames += error == 0;
	return error;
}

static int take_channel(struct restoring *r, const struct record *record)
{
	const Record__Channel *s = record__channel__unpack(&r->allocator, record->n, record->p);
	int error = channels_in_add(&r->channels, &r->pool->shared.directory, s, &r->frames);

	r->report->channels += error == 0;
	return error;
}

static int take_history(struct restoring *r, const struct record *record)
{
	const Record__History *s = record__history__unpack(&r->allocator, record->n, record->p);

	return s ? history_from_record(&r->pool->shared, r->pool->workers[0]->hub.env.config, s,
				       &r->frames)
		 : RESTORE_E_UNFIT;
}

static int take_kept(struct restoring *r, const struct record *record)
{
	const Record__Kept *s;

	if (!r->frames.history)
		return 0;
	s = record__kept__unpack(&r->allocator, record->n, record->p);
	return s ? history_from_file(&r->pool->shared, r->pool->workers[0]->hub.env.config, s)
		 : RESTORE_E_UNFIT;
}

static int take_identity(struct restoring *r, const struct record *record)
{
	const Record__Identity *s = record__identity__unpack(&r->allocator, record->n, record->p);

	return s ? identity_from_record(&r->pool->workers[0]->hub, s) : RESTORE_E_UNFIT;
}

/* -------------------------------------------------------------------- connections */

static void set_aside_unfit(struct restoring *r, struct worker *w, struct conn *c,
			    const Record__Connection *s)
{
	struct unfit_conn *more = record_ids_grow(r->unfit, r->n_unfit, sizeof(*more));

	if (!more) {
		conn_abort(c);
		return;
	}
	r->unfit = more;
	/* What was half sent is of the record, not of @c: it may not have come so far. */
	more[r->n_unfit++] = (struct unfit_conn){
		.conn = c,
		.worker = w,
		.can_be_told = c->state == CONN_OPEN &&
			       (!s->output || (!s->output->transit && !s->output->head_sent)),
	};
}

/*
 * They wait until here since their ends are told to the members of their channels, who may have
 * come back behind them, and since a log must be where it was before anything is added to it.
 */
static void end_unfit(struct restoring *r)
{
	for (size_t i = 0; i < r->n_unfit; i++) {
		struct conn *c = r->unfit[i].conn;

		if (!r->unfit[i].can_be_told || r->ops->attach(r->ctx, r->unfit[i].worker, c)) {
			conn_abort(c);
			continue;
		}
		conn_ignore_input(c);
		protocol_say_goodbye(c);
	}
}

/* Return: 0 | RESTORE_E_UNFIT | -errno; its socket is not lost, whatever happens. */
static int take_connection(struct restoring *r, const struct record *record)
{
	const Record__Connection *s =
		record__connection__unpack(&r->allocator, record->n, record->p);
	struct transport transport;
	struct sock_peer peer;
	struct worker *w;
	struct conn *c;
	int error;

	/* A socket that no record claims is told and closed by whoever brought it. */
	if (!s || !connection_peer(s, &peer) || !r->ops->claim(r->ctx, s->cookie, &transport))
		return RESTORE_E_UNFIT;
	/* Where it was before means nothing: there may be more workers now, or fewer. */
	w = r->pool->workers[r->next_worker++ % r->pool->n];
	c = worker_restore_conn(w, &transport, &peer, s->refuse_status != 0);
	if (!c) {
		transport_close(&transport, true);
		return -ENOMEM;
	}
	error = connection_restore(c, &w->hub.env, s, &r->channels, &r->frames);
	/* Its events come last: they may begin at once, and find it complete. */
	if (!error && c->state != CONN_DEAD)
		error = r->ops->attach(r->ctx, w, c);
	if (error)
		set_aside_unfit(r, w, c, s);
	else
		r->report->connections++;
	return error;
}

/* --------------------------------------------------------------------------- all */

static int take_record(struct restoring *r, const struct record *record)
{
	int error = 0;

	switch (record->kind) {
	case RECORD_HEAD:
		error = take_head(r, record);
		break;
	case RECORD_COUNTERS:
		error = take_counters(r, record);
		break;
	case RECORD_FRAME:
		error = take_frame(r, record);
		break;
	case RECORD_CHANNEL:
		error = take_channel(r, record);
		break;
	case RECORD_HISTORY:
		error = take_history(r, record);
		break;
	case RECORD_KEPT:
		error = take_kept(r, record);
		break;
	case RECORD_IDENTITY:
		error = take_identity(r, record);
		break;
	case RECORD_CONNECTION:
		error = take_connection(r, record);
		break;
	default:
		break; /* of a later version */
	}
	/* What was made of it has copies of its own. */
	arena_reset(&r->arena);
	return error;
}

/* What was made for connections to refer to; those that do hold it themselves now. */
static void restoring_fini(struct restoring *r)
{
	channels_in_fini(&r->channels, &r->pool->shared.directory);
	frames_in_settle(&r->frames);
	frames_in_fini(&r->frames);
	free(r->unfit);
	arena_fini(&r->arena);
}

/* Limits that connections share are not enforced while only some of them are back. */
static void suspend_limits(struct worker_pool *p)
{
	for (unsigned i = 0; i < p->n; i++)
		p->workers[i]->hub.env.is_restoring = true;
}

static void resume_limits(struct worker_pool *p)
{
	for (unsigned i = 0; i < p->n; i++)
		conn_restored_all(&p->workers[i]->hub.env);
}

uint32_t handover_count_channels(const uint8_t *records, size_t n)
{
	struct record record;
	struct record_reader reader;
	Record__Head *head = NULL;
	uint32_t channels;

	if (record_open(&reader, records, n) == RECORD_OK && record_next(&reader, &record) &&
	    record.kind == RECORD_HEAD)
		head = record__head__unpack(NULL, record.n, record.p);
	channels = head ? head->channels : 0;
	record__head__free_unpacked(head, NULL);
	return channels;
}

int handover_restore(struct worker_pool *p, const struct handover_ops *ops, void *ctx,
		     const uint8_t *records, size_t n, struct handover_report *ret)
{
	struct restoring r = {.pool = p, .ops = ops, .ctx = ctx, .report = ret};
	struct record record;
	struct record_reader reader;
	enum record_result result = record_open(&reader, records, n);

	*ret = (struct handover_report){0};
	if (result != RECORD_OK)
		return result;
	arena_init(&r.arena, ARENA_BYTES, ARENA_LIMIT);
	r.allocator = arena_protobuf(&r.arena);
	suspend_limits(p);
	while (record_next(&reader, &record))
		ret->failed += take_record(&r, &record) != 0;
	/* All members are back: what nobody is behind of goes from the logs, then limits count. */
	for (unsigned i = 0; i < p->n; i++)
		hub_end_rejoining(&p->workers[i]->hub);
	resume_limits(p);
	end_unfit(&r);
	restoring_fini(&r);
	return 0;
}
