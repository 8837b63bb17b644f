/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "conn/conn_private.h"
#include "handover/handover_private.h"
#include "io/log.h"

#define ARENA_BYTES ((size_t)256 << 10)
#define ARENA_LIMIT ((size_t)1 << 40) /* what is written exists already */

/* A channel and what is kept of it on all workers. */
struct saved_channel {
	const struct directory_entry *entry;
	uint64_t seq;
	uint64_t from;
	uint32_t *frame; /* by number of the message - from */
};

struct saving {
	struct worker_pool *pool;
	const struct handover_ops *ops;
	void *ctx;
	struct record_writer *out;
	struct numbers numbers;
	struct saved_channel *channels;
	uint32_t n_channels;
	uint32_t n_frames;
	uint32_t n_connections;
	struct arena arena; /* of the record that is being made */
};

static bool does_travel(const struct saving *s, const struct conn *c)
{
	return c->state != CONN_DEAD && s->ops->cookie(s->ctx, c) != 0;
}

/* ---------------------------------------------------------------------- numbers */

struct numbered_frame *numbers_find(const struct numbers *n, const struct frame *f)
{
	struct numbered_frame *found;

	HASH_FIND_PTR(n->frames, &f, found);
	return found;
}

uint32_t frame_variant_of(const struct frame *f, const struct frame_bytes *b)
{
	for (uint32_t i = 0; i < FRAME_N_VARIANTS && b != &f->body; i++)
		if (atomic_load_explicit(&f->variant[i], memory_order_relaxed) == b)
			return i + 1;
	return 0;
}

/* Return: NULL without memory. */
static struct numbered_frame *number(struct saving *s, struct frame *f)
{
	struct numbered_frame *n = numbers_find(&s->numbers, f);

	if (n)
		return n;
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->frame = f;
	n->number = ++s->n_frames;
	HASH_ADD_PTR(s->numbers.frames, frame, n);
	if (n->hh.tbl)
		return n;
	free(n);
	return NULL;
}

/* Slots of channels that have members, each once, with the oldest message that any worker keeps. */
static int number_channels(struct saving *s)
{
	struct directory *d = &s->pool->shared.directory;

	s->numbers.channel = calloc(d->max, sizeof(*s->numbers.channel));
	s->channels = calloc(MAX(d->fresh, 1u), sizeof(*s->channels));
	if (!s->numbers.channel || !s->channels)
		return -ENOMEM;
	for (unsigned i = 0; i < s->pool->n; i++) {
		for (struct channel *ch = s->pool->workers[i]->hub.by_name; ch; ch = ch->hh.next) {
			uint32_t *at = &s->numbers.channel[ch->entry->slot];

			if (!*at) {
				*at = ++s->n_channels;
				s->channels[*at - 1] = (struct saved_channel){
					.entry = ch->entry,
					.seq = directory_next_seq(ch->entry),
					.from = ch->from,
				};
			}
			s->channels[*at - 1].from = MIN(s->channels[*at - 1].from, ch->from);
		}
	}
	return 0;
}

/* What one worker keeps of a channel; what others keep of it too is the same frame. */
static int number_log(struct saving *s, const struct channel *ch)
{
	struct saved_channel *to = &s->channels[s->numbers.channel[ch->entry->slot] - 1];

	if (to->seq == to->from)
		return 0;
	if (!to->frame)
		to->frame = calloc(to->seq - to->from, sizeof(*to->frame));
	if (!to->frame)
		return -ENOMEM;
	for (uint64_t seq = ch->from; seq < MIN(ch->high, to->seq); seq++) {
		struct frame *f = ch->slots[seq & ch->mask].frame;
		const struct numbered_frame *n = f ? number(s, f) : NULL;

		if (f && !n)
			return -ENOMEM;
		if (n)
			to->frame[seq - to->from] = n->number;
	}
	return 0;
}

static int number_transit(struct saving *s, const struct conn *c)
{
	struct numbered_frame *n;
	uint32_t variant;

	if (!c->out->transit)
		return 0;
	n = number(s, c->out->transit);
	if (!n)
		return -ENOMEM;
	variant = frame_variant_of(c->out->transit, c->out->transit_bytes);
	n->variants |= variant ? 1u << (variant - 1) : 0;
	return 0;
}

static int number_all(struct saving *s)
{
	int r = number_channels(s);

	for (unsigned i = 0; i < s->pool->n && r == 0; i++) {
		struct hub *h = &s->pool->workers[i]->hub;

		for (struct channel *ch = h->by_name; ch && r == 0; ch = ch->hh.next)
			r = number_log(s, ch);
		LIST_FOREACH (node, &h->env.all) {
			const struct conn *c = CONTAINER_OF(node, struct conn, node);

			if (r || !does_travel(s, c))
				continue;
			s->n_connections++;
			r = number_transit(s, c);
		}
	}
	return r;
}

/* ---------------------------------------------------------------------- records */

static bool bytes_record(Record__Bytes *out, uint32_t variant, const struct frame_bytes *b)
{
	*out = (Record__Bytes)RECORD__BYTES__INIT;
	out->variant = variant;
	out->piece = b->piece;
	out->data = (ProtobufCBinaryData){b->len, (uint8_t *)(uintptr_t)b->bytes};
	return true;
}

/* Return: NULL without memory. */
static Record__Bytes *variant_record(uint32_t variant, const struct frame_bytes *b, struct arena *a)
{
	Record__Bytes *out = arena_alloc(a, sizeof(*out));

	return out && bytes_record(out, variant, b) ? out : NULL;
}

Record__Frame *frame_record(const struct frame *f, uint32_t variants, struct arena *a)
{
	Record__Frame *s = arena_alloc(a, sizeof(*s));

	if (!s)
		return NULL;
	*s = (Record__Frame)RECORD__FRAME__INIT;
	s->flags = f->flags;
	s->opcode = f->opcode;
	s->packed_with = f->packed_with;
	s->seq = f->seq;
	s->sender = f->sender;
	s->received_ns = f->received_ns;
	s->messages = f->messages;
	s->body = variant_record(0, &f->body, a);
	s->variants = arena_alloc(a, FRAME_N_VARIANTS * sizeof(Record__Bytes *));
	if (!s->body || !s->variants)
		return NULL;
	for (uint32_t i = 0; i < FRAME_N_VARIANTS; i++) {
		if (!(variants & 1u << i))
			continue;
		s->variants[s->n_variants] = variant_record(
			i + 1, atomic_load_explicit(&f->variant[i], memory_order_relaxed), a);
		if (!s->variants[s->n_variants++])
			return NULL;
	}
	return s;
}

static int put(struct saving *s, enum record_kind kind, const void *record)
{
	int r = record ? record_put(s->out, kind, record) : -ENOMEM;

	arena_reset(&s->arena);
	return r;
}

static int put_head(struct saving *s, struct handover_report *ret)
{
	static char version[] = WB_VERSION;
	Record__Head head;

	record__head__init(&head);
	for (unsigned i = 0; i < s->pool->n; i++)
		head.next_serial = MAX(head.next_serial, s->pool->workers[i]->next_serial);
	head.version = version;
	head.frozen_ns = ret->frozen_ns;
	head.connections = s->n_connections;
	head.channels = s->n_channels;
	head.frames = s->n_frames;
	head.log_dropped = log_dropped();
	return put(s, RECORD_HEAD, &head);
}

/* Counters of one worker on their way into a record; names are copied. */
struct counters {
	Record__Counters record;
	struct arena *arena;
	size_t cap;
	bool is_short; /* of memory */
};

static void count_one(void *ctx, const char *name, uint64_t value)
{
	struct counters *c = ctx;

	(void)name;
	(void)value;
	c->cap++;
}

static void take_one(void *ctx, const char *name, uint64_t value)
{
	struct counters *c = ctx;
	size_t n = strlen(name) + 1;
	char *copy = arena_alloc(c->arena, n);

	if (!copy || c->record.n_name == c->cap) {
		c->is_short = true;
		return;
	}
	memcpy(copy, name, n);
	c->record.name[c->record.n_name++] = copy;
	c->record.value[c->record.n_value++] = value;
}

static int put_counters(struct saving *s, const struct metrics *m)
{
	struct counters c = {.record = RECORD__COUNTERS__INIT, .arena = &s->arena};

	metrics_each(m, count_one, &c);
	c.record.name = arena_alloc(c.arena, c.cap * sizeof(*c.record.name));
	c.record.value = arena_alloc(c.arena, c.cap * sizeof(*c.record.value));
	if (!c.record.name || !c.record.value)
		return -ENOMEM;
	metrics_each(m, take_one, &c);
	return put(s, RECORD_COUNTERS, c.is_short ? NULL : &c.record);
}

static int put_channel(struct saving *s, const struct saved_channel *ch)
{
	Record__Channel record = RECORD__CHANNEL__INIT;

	record.name =
		(ProtobufCBinaryData){ch->entry->name_len, (uint8_t *)(uintptr_t)ch->entry->name};
	record.seq = ch->seq;
	record.from = ch->from;
	record.frame = ch->frame;
	record.n_frame = ch->frame ? ch->seq - ch->from : 0;
	return put(s, RECORD_CHANNEL, &record);
}

static int put_connections(struct saving *s, const struct conn_env *env)
{
	LIST_FOREACH (node, &env->all) {
		const struct conn *c = CONTAINER_OF(node, struct conn, node);
		int r;

		if (!does_travel(s, c))
			continue;
		r = put(s, RECORD_CONNECTION,
			conn_save(c, s->ops->cookie(s->ctx, c), &s->numbers, &s->arena));
		if (r)
			return r;
	}
	return 0;
}

static int put_all(struct saving *s, struct handover_report *ret)
{
	int r = put_head(s, ret);

	for (unsigned i = 0; i < s->pool->n && r == 0; i++)
		r = put_counters(s, &s->pool->workers[i]->metrics);
	for (struct numbered_frame *n = s->numbers.frames; n && r == 0; n = n->hh.next)
		r = put(s, RECORD_FRAME, frame_record(n->frame, n->variants, &s->arena));
	for (uint32_t i = 0; i < s->n_channels && r == 0; i++)
		r = put_channel(s, &s->channels[i]);
	for (unsigned i = 0; i < s->pool->n && r == 0; i++)
		r = put_connections(s, &s->pool->workers[i]->hub.env);
	return r ? r : record_finish(s->out);
}

static void saving_fini(struct saving *s)
{
	struct numbered_frame *n, *next;

	HASH_ITER (hh, s->numbers.frames, n, next) {
		HASH_DEL(s->numbers.frames, n);
		free(n);
	}
	for (uint32_t i = 0; i < s->n_channels; i++)
		free(s->channels[i].frame);
	free(s->channels);
	free(s->numbers.channel);
	arena_fini(&s->arena);
}

int handover_save(struct worker_pool *p, const struct handover_ops *ops, void *ctx,
		  struct record_writer *out, struct handover_report *ret)
{
	struct saving s = {.pool = p, .ops = ops, .ctx = ctx, .out = out};
	int r;

	arena_init(&s.arena, ARENA_BYTES, ARENA_LIMIT);
	r = number_all(&s);
	if (r == 0)
		r = put_all(&s, ret);
	if (r == 0) {
		ret->connections = s.n_connections;
		ret->channels = s.n_channels;
		ret->frames = s.n_frames;
	}
	saving_fini(&s);
	return r;
}
