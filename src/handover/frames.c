/* SPDX-License-Identifier: MIT */
#include "handover/frames.h"

#include <errno.h>

#include "handover/record_ids.h"

/* ----------------------------------------------------------------------- variants */

uint32_t frame_variant_id(const struct frame *f, const struct frame_bytes *b)
{
	/* Two variants may be the same bytes: the first of them is as good as the other. */
	for (uint32_t i = 0; i < FRAME_N_VARIANTS && b != &f->body; i++)
		if (atomic_load_explicit(&f->variant[i], memory_order_relaxed) == b)
			return i + 1;
	return 0;
}

const struct frame_bytes *frame_variant_of_id(const struct frame *f, uint32_t id)
{
	if (id == 0)
		return &f->body;
	return id <= FRAME_N_VARIANTS
		       ? atomic_load_explicit(&f->variant[id - 1], memory_order_relaxed)
		       : NULL;
}

/* ------------------------------------------------------------------------ one message */

/* Return: NULL without memory. */
static Record__Bytes *bytes_to_record(const struct frame_bytes *b, uint32_t variant_id,
				      struct arena *a)
{
	Record__Bytes *s = arena_alloc(a, sizeof(*s));

	if (!s)
		return NULL;
	*s = (Record__Bytes)RECORD__BYTES__INIT;
	s->variant = variant_id;
	s->piece = b->piece;
	s->data = (ProtobufCBinaryData){b->len, (uint8_t *)(uintptr_t)b->bytes};
	return s;
}

Record__Frame *frame_to_record(const struct frame *f, uint32_t variants, struct arena *a)
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
	/* Slot and generation are left out: the next process has a directory of its own. */
	if (frame_is_kept(f))
		s->place = shm_heap_place(f->heap, frame_kept_slot(f));
	else
		s->body = bytes_to_record(&f->body, 0, a);
	s->variants = arena_alloc(a, FRAME_N_VARIANTS * sizeof(Record__Bytes *));
	if ((!frame_is_kept(f) && !s->body) || !s->variants)
		return NULL;
	for (uint32_t id = 1; id <= FRAME_N_VARIANTS; id++) {
		if (!(variants & 1u << (id - 1)))
			continue;
		s->variants[s->n_variants] = bytes_to_record(frame_variant_of_id(f, id), id, a);
		if (!s->variants[s->n_variants++])
			return NULL;
	}
	return s;
}

/*
 * It lies in the file. What is marked as kept is on the account of its channel's store, which has a
 * reference, before that is made: see frames_in_settle().
 */
static struct frame *frame_from_place(uint32_t place, struct history *history,
				      _Atomic size_t *account)
{
	struct shm_heap *heap = &history->file.heap;
	struct frame_kept *k;
	struct frame *f;

	if (!shm_heap_is_slot(heap, place))
		return NULL;
	k = CONTAINER_OF(shm_heap_at(heap, place), struct frame_kept, slot);
	/* No two records are of one message. */
	if (!frame_kept_is_sound(heap, k) || frame_kept_is_adopted(heap, k))
		return NULL;
	if (atomic_load_explicit(&k->slot.mark, memory_order_relaxed) > SHM_HELD)
		return frame_ref(frame_kept_adopt(heap, k, &history->bytes));
	f = frame_kept_adopt(heap, k, account);
	atomic_fetch_add_explicit(account, frame_charged(f), memory_order_relaxed);
	return f;
}

static struct frame *frame_from_body(const Record__Frame *s, _Atomic size_t *account)
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

	saved.bytes = s->body->data.data;
	saved.len = s->body->data.len;
	saved.piece = s->body->piece;
	return frame_new_saved(&saved, account);
}

struct frame *frame_from_record(const Record__Frame *s, struct history *history,
				_Atomic size_t *account)
{
	struct frame *f = NULL;

	if (s->body)
		f = frame_from_body(s, account);
	else if (s->place && history)
		f = frame_from_place(s->place, history, account);
	/* One wrong variant spoils the message: who has a part of it could not be served. */
	for (size_t i = 0; f && i < s->n_variants; i++) {
		const Record__Bytes *b = s->variants[i];

		if (b->variant == 0 ||
		    !frame_set_variant(f, b->variant - 1, b->data.data, b->data.len, b->piece))
			f = frame_unref(f);
	}
	return f;
}

/* --------------------------------------------------------------------------- saving */

static struct frame_out *frames_out_find(const struct frames_out *out, const struct frame *f)
{
	struct frame_out *found;

	HASH_FIND_PTR(out->by_frame, &f, found);
	return found;
}

struct frame_out *frames_out_add(struct frames_out *out, struct frame *f)
{
	struct frame_out *one = frames_out_find(out, f);

	if (one)
		return one;
	one = calloc(1, sizeof(*one));
	if (!one)
		return NULL;
	one->frame = f;
	/* Ids follow the order in which messages are met, and so do their records. */
	one->id = out->n + 1;
	HASH_ADD_PTR(out->by_frame, frame, one);
	/* Without memory uthash leaves it out, and says so in the element alone. */
	if (!one->hh.tbl) {
		free(one);
		return NULL;
	}
	out->n++;
	return one;
}

int frames_out_add_variant(struct frames_out *out, struct frame *f, const struct frame_bytes *bytes)
{
	struct frame_out *one = frames_out_add(out, f);
	uint32_t variant_id = frame_variant_id(f, bytes);

	if (!one)
		return -ENOMEM;
	if (variant_id)
		one->variants |= 1u << (variant_id - 1);
	return 0;
}

uint32_t frames_out_id(const struct frames_out *out, const struct frame *f)
{
	const struct frame_out *one = frames_out_find(out, f);

	return one ? one->id : 0;
}

void frames_out_fini(struct frames_out *out)
{
	struct frame_out *one, *next;

	HASH_ITER (hh, out->by_frame, one, next) {
		HASH_DEL(out->by_frame, one);
		free(one);
	}
	*out = (struct frames_out){0};
}

/* ------------------------------------------------------------------------ restoring */

int frames_in_add(struct frames_in *in, const Record__Frame *s, _Atomic size_t *account)
{
	struct frame **more = record_ids_grow(in->frame, in->n, sizeof(*more));

	if (!more)
		return -ENOMEM;
	in->frame = more;
	/* A record that is no use takes its id all the same. */
	more[in->n] = s ? frame_from_record(s, in->history, account) : NULL;
	return more[in->n++] ? 0 : RESTORE_E_UNFIT;
}

struct frame *frames_in_get(const struct frames_in *in, uint32_t id)
{
	return id && id <= in->n ? in->frame[id - 1] : NULL;
}

static bool has_store(const struct history *h, uint64_t epoch)
{
	HISTORY_FOREACH(node, h)
	if (CONTAINER_OF(node, struct history_store, node)->epoch == epoch)
		return true;
	return false;
}

void frames_in_settle(struct frames_in *in)
{
	uint64_t epoch = 0;
	bool is_stored = false;

	for (size_t i = 0; i < in->n; i++) {
		struct frame *f = in->frame[i];

		/* Of a store that has dropped it meanwhile it is on the other account already. */
		if (!f || !frame_is_kept(f) || f->account != &in->history->bytes)
			continue;
		/* They come by channels, most often. */
		if (frame_kept_of(f)->epoch != epoch) {
			epoch = frame_kept_of(f)->epoch;
			is_stored = has_store(in->history, epoch);
		}
		if (is_stored)
			continue;
		frame_kept_withdraw(f);
		atomic_fetch_add_explicit(&in->history->bytes, frame_charged(f),
					  memory_order_relaxed);
		frame_move_account(f, in->history->frame_account);
		frame_unref(f);
	}
}

void frames_in_fini(struct frames_in *in)
{
	for (size_t i = 0; i < in->n; i++)
		frame_unref(in->frame[i]);
	free(in->frame);
	*in = (struct frames_in){0};
}
