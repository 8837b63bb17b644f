/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "conn/conn_private.h"
#include "handover/handover_private.h"
#include "io/log.h"
#include "worker/protocol.h"
#include "worker/worker_private.h"

#define ARENA_BYTES ((size_t)256 << 10)
#define ARENA_LIMIT ((size_t)4 << 30)
#define NUMBERS_MAX                                                                   \
	((size_t)1 << 28) /* of frames or channels: far more than there is memory for \
			   */

/* A connection that is not as it was, and has to go once all others are back. */
struct unfit {
	struct conn *conn;
	struct worker *worker;
	bool can_be_told; /* open, and nothing is half sent */
};

struct restoring {
	struct worker_pool *pool;
	const struct handover_ops *ops;
	void *ctx;
	struct restored made;
	struct handover_report *report;
	struct unfit *unfit;
	size_t n_unfit;
	struct arena arena; /* of the record in hand */
	ProtobufCAllocator allocator;
	unsigned next_worker; /* connections go round */
	unsigned next_counters;
};

/* Makes room for one more; NULL without memory. */
static void *one_more(void *array, size_t n, size_t each)
{
	/* Doubles at powers of two. */
	if (n & (n - 1))
		return array;
	return n < NUMBERS_MAX ? realloc(array, MAX(2 * n, (size_t)1) * each) : NULL;
}

/* ----------------------------------------------------------------- head, counters */

static int take_head(struct restoring *r, const struct record *record)
{
	const Record__Head *s = record__head__unpack(&r->allocator, record->n, record->p);

	if (!s)
		return -EINVAL;
	/* Above them all: serials are never used twice. */
	for (unsigned i = 0; i < r->pool->n; i++)
		r->pool->workers[i]->next_serial = s->next_serial;
	r->report->frozen_ns = s->frozen_ns;
	snprintf(r->report->version, sizeof(r->report->version), "%s", s->version);
	log_add_dropped(s->log_dropped);
	return 0;
}

static int take_counters(struct restoring *r, const struct record *record)
{
	const Record__Counters *s = record__counters__unpack(&r->allocator, record->n, record->p);
	struct worker *w = r->pool->workers[r->next_counters++ % r->pool->n];

	if (!s)
		return -EINVAL;
	/* One that this version doesn't know is lost. */
	for (size_t i = 0; i < MIN(s->n_name, s->n_value); i++)
		(void)metrics_restore(&w->metrics, s->name[i], s->value[i]);
	return 0;
}

/* --------------------------------------------------------------- frames, channels */

struct frame *frame_of_record(const Record__Frame *s, _Atomic size_t *account)
{
	struct frame_saved saved = {
		.flags = (uint8_t)s->flags,
		.opcode = (uint8_t)s->opcode,
		.packed_with = (uint8_t)s->packed_with,
		.messages = s->messages,
		.seq = s->seq,
		.sender = s->sender,
		.received_ns = s->received_ns,
	};
	struct frame *f;

	if (!s->body)
		return NULL;
	saved.bytes = s->body->data.data;
	saved.len = s->body->data.len;
	saved.piece = s->body->piece;
	f = frame_new_saved(&saved, account);
	for (size_t i = 0; f && i < s->n_variants; i++) {
		const Record__Bytes *b = s->variants[i];

		if (b->variant == 0 ||
		    !frame_set_variant(f, b->variant - 1, b->data.data, b->data.len, b->piece))
			f = frame_unref(f);
	}
	return f;
}

/* Its number counts, also when it can't be made. */
static int take_frame(struct restoring *r, const struct record *record)
{
	const Record__Frame *s = record__frame__unpack(&r->allocator, record->n, record->p);
	struct frame **more = one_more(r->made.frame, r->made.n_frames, sizeof(*more));

	if (!more)
		return -ENOMEM;
	r->made.frame = more;
	more[r->made.n_frames] = s ? frame_of_record(s, &r->pool->shared.frame_bytes) : NULL;
	r->report->frames += more[r->made.n_frames] != NULL;
	r->made.n_frames++;
	return s ? 0 : -EINVAL;
}

/* The lobby's name has no bytes, and those of an empty field are nowhere. */
static const char *name_of(const Record__Channel *s)
{
	return s->name.len ? (const char *)s->name.data : "";
}

static bool is_channel_sound(const Record__Channel *s)
{
	return s->name.len <= DIRECTORY_NAME_MAX && utf8_valid(name_of(s), s->name.len) &&
	       !memchr(name_of(s), 0, s->name.len) && s->from <= s->seq &&
	       s->seq < UINT64_MAX / 2 && s->n_frame == (s->n_frame ? s->seq - s->from : 0);
}

/* The messages of its log. False: no memory. */
static bool fill_log(struct restoring *r, const Record__Channel *s, struct hub_log *log)
{
	const uint8_t allowed = FRAME_NOTICE | FRAME_CAN_PACK | FRAME_IS_PACKED | FRAME_CAN_DEFLATE;

	log->from = s->n_frame ? s->from : s->seq;
	log->frame = calloc(MAX(s->n_frame, (size_t)1), sizeof(*log->frame));
	if (!log->frame)
		return false;
	for (; log->n < s->n_frame; log->n++) {
		uint32_t number = s->frame[log->n];
		struct frame *f =
			number && number <= r->made.n_frames ? r->made.frame[number - 1] : NULL;

		if (!f)
			continue;
		f->flags &= allowed;
		f->seq = log->from + log->n;
		f->slot = log->entry->slot;
		f->generation = log->entry->generation;
		log->frame[log->n] = f;
	}
	return true;
}

static int make_channel(struct restoring *r, const Record__Channel *s, struct hub_log *log)
{
	struct directory *d = &r->pool->shared.directory;
	int error;

	if (!is_channel_sound(s))
		return -EINVAL;
	error = directory_restore(d, name_of(s), s->name.len, s->seq, &log->entry);
	if (error)
		return error < 0 ? -EINVAL : -ENOMEM;
	if (fill_log(r, s, log))
		return 0;
	directory_unpin(d, log->entry);
	log->entry = NULL;
	return -ENOMEM;
}

static int take_channel(struct restoring *r, const struct record *record)
{
	const Record__Channel *s = record__channel__unpack(&r->allocator, record->n, record->p);
	struct hub_log *more = one_more(r->made.channel, r->made.n_channels, sizeof(*more));
	struct hub_log *log;
	int error;

	if (!more)
		return -ENOMEM;
	r->made.channel = more;
	log = &more[r->made.n_channels++];
	*log = (struct hub_log){0};
	error = s ? make_channel(r, s, log) : -EINVAL;
	r->report->channels += log->entry != NULL;
	return error;
}

/* -------------------------------------------------------------------- connections */

static void set_aside(struct restoring *r, struct worker *w, struct conn *c,
		      const Record__Connection *s)
{
	struct unfit *more = one_more(r->unfit, r->n_unfit, sizeof(*more));

	if (!more) {
		conn_abort(c);
		return;
	}
	r->unfit = more;
	more[r->n_unfit++] = (struct unfit){
		.conn = c,
		.worker = w,
		.can_be_told = c->state == CONN_OPEN &&
			       (!s->output || (!s->output->transit && !s->output->head_sent)),
	};
}

/* Now that every log is where it was, others can be told. */
static void dismiss_unfit(struct restoring *r)
{
	for (size_t i = 0; i < r->n_unfit; i++) {
		struct conn *c = r->unfit[i].conn;

		if (!r->unfit[i].can_be_told || r->ops->attach(r->ctx, r->unfit[i].worker, c)) {
			conn_abort(c);
			continue;
		}
		/* What it sent is not known any more: nothing is read, its Close neither. */
		c->is_deaf = c->got_close = true;
		conn_drop_input(c);
		protocol_say_goodbye(c);
	}
	free(r->unfit);
}

static int take_connection(struct restoring *r, const struct record *record)
{
	const Record__Connection *s =
		record__connection__unpack(&r->allocator, record->n, record->p);
	struct transport transport;
	struct sock_peer peer;
	struct worker *w;
	struct conn *c;
	int error;

	if (!s || !conn_saved_peer(s, &peer) || !r->ops->claim(r->ctx, s->cookie, &transport))
		return -EINVAL;
	w = r->pool->workers[r->next_worker++ % r->pool->n];
	c = worker_restore_conn(w, &transport, &peer, s->refuse_status != 0);
	if (!c) {
		transport_close(&transport, true);
		return -ENOMEM;
	}
	error = conn_restore(c, &w->hub.env, s, &r->made);
	if (!error && c->state != CONN_DEAD)
		error = r->ops->attach(r->ctx, w, c);
	if (error)
		set_aside(r, w, c, s);
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
	case RECORD_CONNECTION:
		error = take_connection(r, record);
		break;
	default:
		break; /* of a later version */
	}
	arena_reset(&r->arena);
	return error;
}

static void let_go(struct restoring *r)
{
	for (size_t i = 0; i < r->made.n_channels; i++) {
		struct hub_log *log = &r->made.channel[i];

		if (log->entry)
			directory_unpin(&r->pool->shared.directory, log->entry);
		free(log->frame);
	}
	for (size_t i = 0; i < r->made.n_frames; i++)
		frame_unref(r->made.frame[i]);
	free(r->made.channel);
	free(r->made.frame);
	arena_fini(&r->arena);
}

static void set_restoring(struct worker_pool *p, bool is_on)
{
	for (unsigned i = 0; i < p->n; i++) {
		struct hub *h = &p->workers[i]->hub;

		if (is_on)
			h->env.is_restoring = true;
		else
			conn_restored_all(&h->env);
	}
}

uint32_t handover_count_channels(const uint8_t *state, size_t n)
{
	struct record record;
	struct record_reader reader;
	Record__Head *head = NULL;
	uint32_t channels;

	if (record_open(&reader, state, n) == RECORD_OK && record_next(&reader, &record) &&
	    record.kind == RECORD_HEAD)
		head = record__head__unpack(NULL, record.n, record.p);
	channels = head ? head->channels : 0;
	record__head__free_unpacked(head, NULL);
	return channels;
}

int handover_restore(struct worker_pool *p, const struct handover_ops *ops, void *ctx,
		     const uint8_t *state, size_t n, struct handover_report *ret)
{
	struct restoring r = {.pool = p, .ops = ops, .ctx = ctx, .report = ret};
	struct record record;
	struct record_reader reader;
	enum record_result result = record_open(&reader, state, n);

	*ret = (struct handover_report){0};
	if (result != RECORD_OK)
		return result;
	arena_init(&r.arena, ARENA_BYTES, ARENA_LIMIT);
	r.allocator = arena_protobuf(&r.arena);
	set_restoring(p, true);
	while (record_next(&reader, &record))
		ret->failed += take_record(&r, &record) != 0;
	for (unsigned i = 0; i < p->n; i++)
		hub_rejoined(&p->workers[i]->hub);
	set_restoring(p, false);
	dismiss_unfit(&r);
	let_go(&r);
	return 0;
}
