/* SPDX-License-Identifier: MIT */
#include "wire/frame.h"

#include <string.h>

#include "wire/frame_kept.h"
#include "wire/ws.h"
#include "wire/zip.h"

const struct frame_bytes frame_unreadable = {.len = 0};

/* Relaxed: the account is a sum that limits are compared with, and nothing is ordered by it. */
static void frame_charge(struct frame *f, size_t bytes)
{
	atomic_fetch_add_explicit(f->account, bytes, memory_order_relaxed);
}

static void frame_discharge(struct frame *f, size_t bytes)
{
	atomic_fetch_sub_explicit(f->account, bytes, memory_order_relaxed);
}

/* ------------------------------------------------------------------------- making */

/* The bytes behind it are all written later: clearing a large body would cost. */
static void frame_init(struct frame *f, _Atomic size_t *account)
{
	memset(f, 0, sizeof(*f));
	atomic_init(&f->refs, 1);
	f->account = account;
	f->messages = 1;
}

static struct frame *frame_alloc(size_t len, _Atomic size_t *account)
{
	struct frame *f = malloc(sizeof(*f) + len);

	if (!f)
		return NULL;
	frame_init(f, account);
	frame_charge(f, sizeof(*f) + len);
	return f;
}

struct frame *frame_new_extended(uint8_t rsv, uint8_t opcode, size_t payload, size_t max_frame,
				 _Atomic size_t *account)
{
	/* RFC 6455 section 5.5: a control frame is never fragmented. */
	size_t limit = opcode >= WS_CLOSE ? SIZE_MAX : max_frame;
	struct frame *f = frame_alloc(frame_bytes_size(payload, limit), account);

	if (!f)
		return NULL;
	f->opcode = opcode;
	f->flags = opcode >= WS_CLOSE ? FRAME_CONTROL : 0;
	frame_bytes_lay_out(&f->body, rsv, opcode, payload, limit);
	return f;
}

struct frame *frame_new(uint8_t opcode, size_t payload, size_t max_frame, _Atomic size_t *account)
{
	return frame_new_extended(0, opcode, payload, max_frame, account);
}

struct frame *frame_new_kept(struct shm_heap *heap, struct shm_slot *slot, bool has_key,
			     uint8_t opcode, size_t payload, size_t max_frame,
			     _Atomic size_t *account)
{
	struct frame *f = frame_kept_init(slot, has_key);

	frame_init(f, account);
	f->flags = FRAME_KEPT;
	f->heap = heap;
	f->opcode = opcode;
	frame_bytes_lay_out(&f->body, 0, opcode, payload, max_frame);
	frame_charge(f, shm_heap_room(heap, slot));
	return f;
}

struct frame *frame_new_raw(const void *p, size_t n, _Atomic size_t *account)
{
	struct frame *f = frame_alloc(n, account);

	if (!f)
		return NULL;
	/* It is no message (opcode 0), and nothing goes between its bytes. */
	f->flags = FRAME_CONTROL;
	f->body.len = f->body.piece = n;
	memcpy(f->body.bytes, p, n);
	return f;
}

struct frame *frame_new_joined(size_t room, _Atomic size_t *account)
{
	struct frame *f = frame_alloc(room, account);

	if (!f)
		return NULL;
	/* Messages in it have heads with opcodes of their own; here it only says "a message". */
	f->opcode = WS_BINARY;
	f->messages = 0;
	f->room = (uint32_t)room;
	return f;
}

/* The connection is its only owner so far, so what is sent is still open to change. */
bool frame_join(struct frame *f, uint8_t opcode, const void *p, size_t n)
{
	size_t total = frame_bytes_head_size(n) + n;
	uint8_t *at = f->body.bytes + f->body.len;

	if (total > f->room)
		return false;
	at += ws_encode_head(at, true, 0, opcode, n, NULL);
	if (n > 0)
		memcpy(at, p, n);
	/* All of it counts as one piece: control frames go in front or behind. */
	f->body.len += total;
	f->body.piece = f->body.len;
	f->room -= (uint32_t)total;
	f->messages++;
	return true;
}

/* What a state says may be anything: nothing of it may reach an assertion, or beyond an end. */
struct frame *frame_new_saved(const struct frame_saved *s, _Atomic size_t *account)
{
	struct frame *f;

	/* A frame of no bytes would be looked at for its head, one of no messages never counted. */
	if (!frame_bytes_is_sound(s->opcode, s->len, s->piece) || s->packed_with >= ZIP_N_KINDS ||
	    s->messages == 0 || s->messages > s->len ||
	    (s->flags & FRAME_IS_PACKED && s->packed_with == ZIP_NONE))
		return NULL;
	f = frame_alloc(s->len, account);
	if (!f)
		return NULL;
	f->flags = s->flags & (uint8_t)~FRAME_KEPT;
	f->opcode = s->opcode;
	f->packed_with = s->packed_with;
	f->messages = s->messages;
	f->seq = s->seq;
	f->sender = s->sender;
	f->received_ns = s->received_ns;
	f->body.len = s->len;
	f->body.piece = s->piece;
	memcpy(f->body.bytes, s->bytes, s->len);
	return f;
}

struct frame *frame_from_msg_said(const struct msg_builder *b, const uint8_t *suffix, size_t n,
				  size_t max_frame, _Atomic size_t *account)
{
	size_t size = msg_size(b);
	struct frame *f = frame_new(WS_BINARY, size + n, max_frame, account);
	uint8_t *whole;

	if (!f)
		return NULL;
	if (n > 0)
		frame_write(f, size, suffix, n);
	if (frame_payload(f)) {
		msg_pack(b, frame_payload(f));
		return f;
	}
	/* protobuf-c writes to one place alone; what it wrote is then cut. */
	whole = malloc(size);
	if (!whole)
		return frame_unref(f);
	msg_pack(b, whole);
	frame_write(f, 0, whole, size);
	free(whole);
	return f;
}

struct frame *frame_from_msg(const struct msg_builder *b, size_t max_frame, _Atomic size_t *account)
{
	return frame_from_msg_said(b, NULL, 0, max_frame, account);
}

/* ------------------------------------------------------------------------ payload */

void frame_write(struct frame *f, size_t offset, const void *p, size_t n)
{
	frame_bytes_write(&f->body, offset, p, n);
}

uint8_t *frame_payload(struct frame *f)
{
	return frame_bytes_whole(&f->body);
}

size_t frame_payload_len(const struct frame *f)
{
	return frame_bytes_payload_len(&f->body);
}

void frame_copy_payload(const struct frame *f, uint8_t *out)
{
	frame_bytes_copy_payload(&f->body, out);
}

/* ----------------------------------------------------------------------- variants */

/*
 * Whether a slot has bytes of its own, and neither none nor those of another variant: a
 * deflated variant is what it was to be made of, where deflating brings nothing.
 */
static bool variant_is_own(const struct frame *f, size_t variant, const struct frame_bytes *b)
{
	if (!b || b == &frame_unreadable || b == &f->body)
		return false;
	return variant < FRAME_VARIANT_DEFLATED ||
	       b != atomic_load_explicit(&f->variant[FRAME_VARIANT_UNPACKED], memory_order_relaxed);
}

/*
 * For a few instructions, and once or twice in the life of a frame: whoever moves it to another
 * account has to move all that it was charged with.
 */
static void account_lock(struct frame *f)
{
	while (atomic_flag_test_and_set_explicit(&f->is_charging, memory_order_acquire))
		;
}

static void account_unlock(struct frame *f)
{
	atomic_flag_clear_explicit(&f->is_charging, memory_order_release);
}

const struct frame_bytes *frame_publish_variant(struct frame *f, size_t variant,
						const struct frame_bytes *made)
{
	bool is_own = variant_is_own(f, variant, made);
	const struct frame_bytes *there = NULL;
	bool is_first;

	account_lock(f);
	/* Release: the bytes come before the slot. Pairs with the load in frame_variant_for(). */
	is_first = atomic_compare_exchange_strong_explicit(
		&f->variant[variant], &there, made, memory_order_acq_rel, memory_order_acquire);
	if (is_first && is_own)
		frame_charge(f, sizeof(*made) + made->len);
	account_unlock(f);
	if (is_first)
		return made;
	if (is_own)
		free((void *)(uintptr_t)made);
	return there;
}

const struct frame_bytes *frame_set_variant(struct frame *f, size_t variant, const uint8_t *bytes,
					    size_t len, size_t piece)
{
	struct frame_bytes *b;

	if (variant >= FRAME_N_VARIANTS ||
	    atomic_load_explicit(&f->variant[variant], memory_order_relaxed) ||
	    !frame_bytes_is_sound(WS_BINARY, len, piece))
		return NULL;
	/* Others than this thread come later; publishing it charges the account. */
	b = malloc(sizeof(*b) + len);
	if (!b)
		return NULL;
	b->len = len;
	b->piece = piece;
	memcpy(b->bytes, bytes, len);
	/* Only what varies has variants, whatever its record says. */
	if (!frame_varies(f))
		f->flags |= FRAME_CAN_DEFLATE;
	return frame_publish_variant(f, variant, b);
}

/* Without its variants. */
static size_t frame_own_bytes(const struct frame *f)
{
	return frame_is_kept(f) ? shm_heap_room(f->heap, frame_kept_slot(f))
				: sizeof(*f) + f->body.len + f->room;
}

size_t frame_charged(const struct frame *f)
{
	size_t bytes = frame_own_bytes(f);

	for (size_t i = 0; i < FRAME_N_VARIANTS; i++) {
		const struct frame_bytes *b =
			atomic_load_explicit(&f->variant[i], memory_order_relaxed);

		if (variant_is_own(f, i, b))
			bytes += sizeof(*b) + b->len;
	}
	return bytes;
}

void frame_set_account(struct frame *f, _Atomic size_t *account)
{
	size_t bytes = frame_charged(f);

	frame_discharge(f, bytes);
	f->account = account;
	frame_charge(f, bytes);
}

void frame_move_account(struct frame *f, _Atomic size_t *account)
{
	account_lock(f);
	frame_set_account(f, account);
	account_unlock(f);
}

/* ------------------------------------------------------------------------- numbers */

void frame_number_block(uint8_t out[FRAME_NUMBER_BLOCK], uint64_t number)
{
	/*
	 * Behind the three bits and the padding that a sync flush leaves: a stored block's length
	 * twice, what is in it, and the head of the empty block whose length the receiver adds.
	 */
	out[0] = MSG_NUMBER_FIELD;
	out[1] = 0;
	out[2] = (uint8_t)~MSG_NUMBER_FIELD;
	out[3] = 0xff;
	msg_number_field(out + 4, number);
	out[4 + MSG_NUMBER_FIELD] = 0;
}

static void bytes_set_number(struct frame_bytes *b, size_t behind, uint64_t number)
{
	uint8_t field[MSG_NUMBER_FIELD];

	msg_number_field(field, number);
	frame_bytes_write(b, frame_bytes_payload_len(b) - behind - MSG_NUMBER_BYTES,
			  field + MSG_NUMBER_FIELD - MSG_NUMBER_BYTES, MSG_NUMBER_BYTES);
}

void frame_set_number_of_body(struct frame *f, uint64_t number)
{
	bytes_set_number(&f->body, 0, number);
}

void frame_set_number(struct frame *f, uint64_t number)
{
	frame_set_number_of_body(f, number);
	if (!frame_varies(f))
		return;
	for (size_t i = 0; i < FRAME_N_VARIANTS; i++) {
		const struct frame_bytes *b =
			atomic_load_explicit(&f->variant[i], memory_order_relaxed);

		if (variant_is_own(f, i, b))
			bytes_set_number((struct frame_bytes *)(uintptr_t)b,
					 i < FRAME_VARIANT_DEFLATED ? 0 : FRAME_NUMBER_TAIL,
					 number);
	}
}

static void drop_variants(struct frame *f)
{
	/* From the last on: a deflated variant may be the unpacked one. */
	for (size_t i = FRAME_N_VARIANTS; i-- > 0;) {
		const struct frame_bytes *b =
			atomic_load_explicit(&f->variant[i], memory_order_relaxed);

		if (!variant_is_own(f, i, b))
			continue;
		frame_discharge(f, sizeof(*b) + b->len);
		free((void *)(uintptr_t)b);
	}
}

struct frame *frame_unref(struct frame *f)
{
	/* Release: this thread's reads come first. Acquire: pairs with those of all others. */
	if (!f || atomic_fetch_sub_explicit(&f->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	if (frame_varies(f))
		drop_variants(f);
	if (WB_UNLIKELY(frame_is_kept(f))) {
		frame_discharge(f, frame_own_bytes(f));
		shm_heap_free(f->heap, frame_kept_slot(f));
		return NULL;
	}
	frame_discharge(f, sizeof(*f) + f->body.len + f->room);
	free(f);
	return NULL;
}
