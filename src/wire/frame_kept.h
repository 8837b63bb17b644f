/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * A message that outlives the process: a frame in a slot of a heap in shared memory, and before it
 * what the next process has to know to take it for whole.
 *
 * It is *committed* when it is in its channel's order: its mark is a checksum of all that is said
 * about it, where it stands and who has it before it. Its body has a checksum of its own, made
 * before it has its number. A process that finds a mark that is right has the whole message, if
 * the body's checksum is right as well: whatever the other one died of.
 *
 * Who has an account of that heap can read and write all of it. So everything that is found is
 * looked at as if it came from a stranger, before it is a frame again.
 */

#include "wire/frame.h"

#define FRAME_KEY_BYTES 24 /* by which a message is known again: channel/history_keys */

/* The low half of an owner's mark says what lies in the slot; the high half is a checksum. */
#define FRAME_KEPT_MARK 2

enum frame_kept_bits {
	FRAME_KEPT_SEALED = 1 << 0,   /* @body_crc is set */
	FRAME_KEPT_HAS_KEY = 1 << 1,  /* FRAME_KEY_BYTES of it lie behind the body */
	FRAME_KEPT_HAS_ROOM = 1 << 2, /* for one */
};

/* A slot with a message: the mark, what is said about it, the frame with its body, the key. */
struct WB_SHARED frame_kept {
	struct shm_slot slot;
	uint64_t epoch;  /* of the channel: with its place, what it is known by */
	uint64_t before; /* number of the message that is kept before it; 0: none */
	uint32_t body_crc;
	uint32_t bits;
	struct frame frame; /* must be last */
};

static inline struct frame_kept *frame_kept_of(const struct frame *f)
{
	return CONTAINER_OF((struct frame *)(uintptr_t)f, struct frame_kept, frame);
}

static inline struct shm_slot *frame_kept_slot(const struct frame *f)
{
	return &frame_kept_of(f)->slot;
}

/**
 * frame_place() - a slot for a message
 * @payload, @max_frame: as for frame_new()
 * @has_key: there is to be room for one
 *
 * Of a large one the pages come by shm_heap_commit(), frame_kept_bytes().
 *
 * Return:  NULL: there are no pages.
 */
struct shm_slot *frame_place(struct shm_heap *heap, size_t payload, size_t max_frame, bool has_key)
	WB_NODISCARD;

/* Bytes of its slot. */
size_t frame_kept_bytes(size_t payload, size_t max_frame, bool has_key);

/* What stands before the frame, of a slot that is held, as frame_place() made it. */
static inline struct frame *frame_kept_init(struct shm_slot *slot, bool has_key)
{
	struct frame_kept *k = CONTAINER_OF(slot, struct frame_kept, slot);

	k->epoch = k->before = 0;
	k->body_crc = 0;
	k->bits = has_key ? FRAME_KEPT_HAS_ROOM : 0;
	return &k->frame;
}

/**
 * frame_kept_copy() - the same message in a slot
 * @f: numbered, and nobody else's so far
 *
 * Without its variants.
 *
 * Return:  NULL: there are no pages.
 */
struct frame *frame_kept_copy(struct shm_heap *heap, const struct frame *f, bool has_key,
			      _Atomic size_t *account) WB_NODISCARD;

/* Whether it can have a key. */
static inline bool frame_kept_has_room(const struct frame *f)
{
	return frame_kept_of(f)->bits & FRAME_KEPT_HAS_ROOM;
}

/**
 * frame_kept_seal() - make the checksum of the body, or go on with it
 * @done:   bytes of the body that were looked at; 0 at first
 * @n:      so many more are, at most
 *
 * While its number is 0, and nothing is written to it any more.
 *
 * Return:  true: it is made; also where it was before.
 * Cost:    some GB/s.
 */
bool frame_kept_seal(struct frame *f, size_t *done, size_t n);

/**
 * frame_kept_commit() - it is in its channel's order from now on
 * @f:   sealed, and with its number
 * @key: FRAME_KEY_BYTES, for which there is room; or NULL
 *
 * Cost: a checksum of about 100 bytes.
 */
void frame_kept_commit(struct frame *f, uint64_t epoch, uint64_t before, const void *key);

/* It is kept no more, but somebody may still wait for it. */
void frame_kept_withdraw(struct frame *f);

/* ---------------------------------------------------------------- what another one left */

/**
 * frame_kept_find() - what is committed in a slot
 * @slot: whatever lies in it
 *
 * Return:  NULL: nothing that is whole, as far as its mark tells; the body was not looked at.
 */
struct frame_kept *frame_kept_find(struct shm_heap *heap, struct shm_slot *slot);

/* Whether its body is what it was. Writes its number once more. Thread: the only one that knows. */
bool frame_kept_is_whole(struct frame_kept *k);

/* Its key; NULL: it has none. */
const uint8_t *frame_kept_key(const struct frame_kept *k);

/**
 * frame_kept_adopt() - it is a frame of this process
 * @k:      that frame_kept_find() has found, or of which a hand-over has told; was it adopted
 *          already, that is well
 * @account: charged already
 *
 * Return:  the frame. If it wasn't adopted before, with one reference.
 * Thread:  the only one that knows it.
 */
struct frame *frame_kept_adopt(struct shm_heap *heap, struct frame_kept *k,
			       _Atomic size_t *account);

/* Whether a frame can be made of what lies there, without its mark. */
bool frame_kept_is_sound(const struct shm_heap *heap, const struct frame_kept *k);

/* Whether frame_kept_adopt() was there already. */
static inline bool frame_kept_is_adopted(const struct shm_heap *heap, const struct frame_kept *k)
{
	return k->slot.run == heap->run;
}
