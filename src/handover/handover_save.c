/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "base/version.h"
#include "handover/channels.h"
#include "handover/config_record.h"
#include "handover/connection.h"
#include "handover/counters.h"
#include "handover/frames.h"
#include "handover/handover.h"
#include "handover/histories.h"
#include "handover/identities.h"
#include "io/log.h"

#define ARENA_BYTES ((size_t)256 << 10)
#define ARENA_LIMIT ((size_t)1 << 40) /* what is written exists already */

struct saving {
	struct worker_pool *pool;
	const struct handover_ops *ops;
	void *ctx;
	struct record_writer *out;
	struct channels_out channels;
	struct frames_out frames;
	uint32_t n_connections;
	struct arena arena; /* of the record that is being made */
};

/* What has no cookie is bound to this process: TLS. What is dead has been told everything. */
static bool does_travel(const struct saving *s, const struct conn *c)
{
	return c->state != CONN_DEAD && s->ops->cookie(s->ctx, c) != 0;
}

/* Gives ids to all that records will refer to, and counts: the first record says how many. */
static int collect_all(struct saving *s)
{
	int r = channels_out_collect(&s->channels, s->pool, &s->frames);

	for (unsigned i = 0; i < s->pool->n && r == 0; i++) {
		LIST_FOREACH (node, &s->pool->workers[i]->hub.env.all) {
			const struct conn *c = CONTAINER_OF(node, struct conn, node);

			if (r || !does_travel(s, c))
				continue;
			s->n_connections++;
			/* It may be in no log any more: then this client alone waits for it. */
			if (c->out->transit)
				r = frames_out_add_variant(&s->frames, c->out->transit,
							   c->out->transit_bytes);
		}
	}
	return r;
}

/* @record: a message of that kind; NULL: there was no memory for it. */
static int put_record(struct saving *s, enum record_kind kind, const void *record)
{
	int r = record ? record_put(s->out, kind, record) : -ENOMEM;

	/* It is written, so what it was made of can go: one connection may be large. */
	arena_reset(&s->arena);
	return r;
}

static int put_head(struct saving *s, const struct handover_report *report)
{
	const struct registry *registry = &s->pool->shared.registry;
	Record__Head head;
	int r;

	record__head__init(&head);
	/* Each worker counts on its own; the highest one is above all that were ever given. */
	for (unsigned i = 0; i < s->pool->n; i++)
		head.next_serial = MAX(head.next_serial, s->pool->workers[i]->next_serial);
	head.version = (char *)(uintptr_t)wb_version; /* protobuf-c only reads it */
	head.frozen_ns = report->frozen_ns;
	head.connections = s->n_connections;
	head.channels = s->channels.n;
	head.frames = s->frames.n;
	head.log_dropped = log_dropped();
	head.resume_key = (ProtobufCBinaryData){sizeof(registry->key.byte),
						(uint8_t *)(uintptr_t)registry->key.byte};
	head.registry_ns = registry->started_ns;
	r = history_hand_over(&s->pool->shared.history, &head.history_nonce);
	if (r)
		return r;
	return put_record(s, RECORD_HEAD, &head);
}

/* In the order of their ids, which uthash keeps. */
static int put_frames(struct saving *s)
{
	int r = 0;

	for (struct frame_out *f = s->frames.by_frame; f && r == 0; f = f->hh.next)
		r = put_record(s, RECORD_FRAME, frame_to_record(f->frame, f->variants, &s->arena));
	return r;
}

static int put_channels(struct saving *s)
{
	Record__Channel record;
	int r = 0;

	for (uint32_t id = 1; id <= s->channels.n && r == 0; id++) {
		channels_out_record(&s->channels, id, &record);
		r = put_record(s, RECORD_CHANNEL, &record);
	}
	return r;
}

static int put_histories(struct saving *s)
{
	const struct history *h = &s->pool->shared.history;
	int r = 0;

	HISTORY_FOREACH(node, h)
	{
		const struct history_store *store = CONTAINER_OF(node, struct history_store, node);

		/* One that gives no positions yet has none that anybody could come back with. */
		if (r == 0 && !store->is_starting)
			r = put_record(s, RECORD_KEPT, history_to_record(h, store, &s->arena));
	}
	return r;
}

static int put_identity(void *ctx, const struct registry_entry *e)
{
	struct saving *s = ctx;

	return put_record(s, RECORD_IDENTITY, identity_to_record(e, &s->arena));
}

static int put_connections(struct saving *s, const struct conn_env *env)
{
	LIST_FOREACH (node, &env->all) {
		const struct conn *c = CONTAINER_OF(node, struct conn, node);
		int r;

		/* As many as collect_all() has counted: nothing runs that could change it. */
		if (!does_travel(s, c))
			continue;
		r = put_record(s, RECORD_CONNECTION,
			       connection_to_record(c, s->ops->cookie(s->ctx, c), &s->channels,
						    &s->frames, &s->arena));
		if (r)
			return r;
	}
	return 0;
}

/*
 * In an order in which no record refers to one behind it: frames, the channels whose logs they
 * are in, what channels keep, client ids, the connections that are members and have them. So the
 * reader goes over them once.
 */
static int put_all(struct saving *s, const struct handover_report *report)
{
	int r = put_head(s, report);

	/* Every worker has the same one by now. */
	if (r == 0)
		r = config_record_put(s->out, s->pool->workers[0]->hub.env.policy);
	for (unsigned i = 0; i < s->pool->n && r == 0; i++)
		r = put_record(s, RECORD_COUNTERS,
			       counters_to_record(&s->pool->workers[i]->metrics, &s->arena));
	if (r == 0)
		r = put_frames(s);
	if (r == 0)
		r = put_channels(s);
	if (r == 0)
		r = put_histories(s);
	if (r == 0)
		r = registry_each(&s->pool->shared.registry, put_identity, s);
	for (unsigned i = 0; i < s->pool->n && r == 0; i++)
		r = put_connections(s, &s->pool->workers[i]->hub.env);
	return r ? r : record_finish(s->out);
}

int handover_save(struct worker_pool *p, const struct handover_ops *ops, void *ctx,
		  struct record_writer *out, struct handover_report *ret)
{
	struct saving s = {.pool = p, .ops = ops, .ctx = ctx, .out = out};
	int r;

	arena_init(&s.arena, ARENA_BYTES, ARENA_LIMIT);
	r = collect_all(&s);
	if (r == 0)
		r = put_all(&s, ret);
	/* A half written file is nobody's: what it holds is told only when it is whole. */
	if (r == 0) {
		ret->connections = s.n_connections;
		ret->channels = s.channels.n;
		ret->frames = s.frames.n;
	}
	channels_out_fini(&s.channels);
	frames_out_fini(&s.frames);
	arena_fini(&s.arena);
	return r;
}
