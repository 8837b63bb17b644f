/* SPDX-License-Identifier: MIT */
#include "wire/frame_kept.h"

#include <string.h>

#include "wire/msg.h"
#include "wire/ws.h"
#include "wire/zip.h"

/* All that is said about a message, in one piece for its checksum. */
struct mark_of {
	uint64_t epoch, before, seq, sender, received_ns, len, piece;
	uint32_t body_crc, bits, messages;
	uint8_t flags, opcode, packed_with, zero;
	uint8_t key[FRAME_KEY_BYTES];
};

static size_t key_offset(size_t len)
{
	return (offsetof(struct frame_kept, frame) + sizeof(struct frame) + len + 7) & ~(size_t)7;
}

static uint8_t *key_at(const struct frame_kept *k)
{
	return (uint8_t *)(uintptr_t)k + key_offset(k->frame.body.len);
}

static uint64_t mark_of(const struct frame_kept *k)
{
	const struct frame *f = &k->frame;
	struct mark_of m;

	memset(&m, 0, sizeof(m));
	m.epoch = k->epoch;
	m.before = k->before;
	m.seq = f->seq;
	m.sender = f->sender;
	m.received_ns = f->received_ns;
	m.len = f->body.len;
	m.piece = f->body.piece;
	m.body_crc = k->body_crc;
	m.bits = k->bits;
	m.messages = f->messages;
	m.flags = f->flags;
	m.opcode = f->opcode;
	m.packed_with = f->packed_with;
	if (k->bits & FRAME_KEPT_HAS_KEY)
		memcpy(m.key, key_at(k), sizeof(m.key));
	return (uint64_t)msg_crc32(&m, sizeof(m)) << 32 | FRAME_KEPT_MARK;
}

/* Of a slot whose frame has so many bytes. */
static size_t slot_bytes(size_t len, bool has_key)
{
	return key_offset(len) + (has_key ? FRAME_KEY_BYTES : 0);
}

size_t frame_kept_bytes(size_t payload, size_t max_frame, bool has_key)
{
	return slot_bytes(frame_bytes_size(payload, max_frame), has_key);
}

struct shm_slot *frame_place(struct shm_heap *heap, size_t payload, size_t max_frame, bool has_key)
{
	return shm_heap_alloc(heap, frame_kept_bytes(payload, max_frame, has_key));
}

struct frame *frame_kept_copy(struct shm_heap *heap, const struct frame *f, bool has_key,
			      _Atomic size_t *account)
{
	size_t bytes = slot_bytes(f->body.len, has_key);
	struct shm_slot *slot = shm_heap_alloc(heap, bytes);
	struct frame *copy;

	if (slot && !shm_heap_commit(heap, slot, bytes)) {
		shm_heap_free(heap, slot);
		return NULL;
	}
	if (!slot)
		return NULL;
	copy = frame_new_kept(heap, slot, has_key, f->opcode, 0, SIZE_MAX, account);
	copy->flags |= f->flags;
	copy->packed_with = f->packed_with;
	copy->messages = f->messages;
	copy->slot = f->slot;
	copy->generation = f->generation;
	copy->sender = f->sender;
	copy->received_ns = f->received_ns;
	copy->body.len = f->body.len;
	copy->body.piece = f->body.piece;
	memcpy(copy->body.bytes, f->body.bytes, f->body.len);
	return copy;
}

bool frame_kept_seal(struct frame *f, size_t *done, size_t n)
{
	struct frame_kept *k = frame_kept_of(f);
	size_t step = MIN(n, f->body.len - *done);

	if (k->bits & FRAME_KEPT_SEALED)
		return true;
	k->body_crc = msg_crc32_on(k->body_crc, f->body.bytes + *done, step);
	*done += step;
	if (*done < f->body.len)
		return false;
	k->bits |= FRAME_KEPT_SEALED;
	return true;
}

void frame_kept_commit(struct frame *f, uint64_t epoch, uint64_t before, const void *key)
{
	struct frame_kept *k = frame_kept_of(f);

	WB_ASSERT(k->bits & FRAME_KEPT_SEALED && (!key || k->bits & FRAME_KEPT_HAS_ROOM));
	k->epoch = epoch;
	k->before = before;
	if (key) {
		memcpy(key_at(k), key, FRAME_KEY_BYTES);
		k->bits |= FRAME_KEPT_HAS_KEY;
	}
	/* Release: nothing of it is written behind that. A death comes between two instructions. */
	atomic_store_explicit(&k->slot.mark, mark_of(k), memory_order_release);
}

void frame_kept_withdraw(struct frame *f)
{
	if (f->heap->is_left)
		return;
	/* Release: who finds it held reads by whom. */
	atomic_store_explicit(&frame_kept_slot(f)->mark, SHM_HELD, memory_order_release);
}

/* ---------------------------------------------------------------- what another one left */

bool frame_kept_is_sound(const struct shm_heap *heap, const struct frame_kept *k)
{
	const struct frame *f = &k->frame;
	size_t room = shm_heap_room(heap, &k->slot);

	return room >= key_offset(0) && f->body.len <= room &&
	       slot_bytes(f->body.len, k->bits & FRAME_KEPT_HAS_KEY) <= room &&
	       f->opcode == WS_BINARY &&
	       frame_bytes_is_sound(f->opcode, f->body.len, f->body.piece) &&
	       frame_payload_len(f) >= MSG_NUMBER_FIELD && f->packed_with < ZIP_N_KINDS &&
	       f->messages > 0 && f->messages <= f->body.len && f->flags & FRAME_NUMBERED &&
	       f->flags & FRAME_KEPT && !(f->flags & (FRAME_CONTROL | FRAME_CLOSE)) &&
	       !(f->flags & FRAME_IS_PACKED && f->packed_with == ZIP_NONE);
}

struct frame_kept *frame_kept_find(struct shm_heap *heap, struct shm_slot *slot)
{
	struct frame_kept *k = CONTAINER_OF(slot, struct frame_kept, slot);
	uint64_t mark = atomic_load_explicit(&slot->mark, memory_order_acquire);

	if ((uint32_t)mark != FRAME_KEPT_MARK || !frame_kept_is_sound(heap, k))
		return NULL;
	return mark == mark_of(k) ? k : NULL;
}

bool frame_kept_is_whole(struct frame_kept *k)
{
	struct frame *f = &k->frame;
	uint32_t crc;

	frame_set_number_of_body(f, 0);
	crc = msg_crc32(f->body.bytes, f->body.len);
	frame_set_number_of_body(f, f->seq + 1);
	return crc == k->body_crc;
}

const uint8_t *frame_kept_key(const struct frame_kept *k)
{
	return k->bits & FRAME_KEPT_HAS_KEY ? key_at(k) : NULL;
}

struct frame *frame_kept_adopt(struct shm_heap *heap, struct frame_kept *k, _Atomic size_t *account)
{
	struct frame *f = &k->frame;

	if (frame_kept_is_adopted(heap, k))
		return f;
	/* What was written before it was committed stays; all else was the other process's. */
	atomic_init(&f->refs, 1);
	atomic_flag_clear_explicit(&f->is_charging, memory_order_relaxed);
	f->room = 0;
	f->account = account;
	f->heap = heap;
	for (size_t i = 0; i < FRAME_N_VARIANTS; i++)
		atomic_init(&f->variant[i], NULL);
	k->slot.run = heap->run;
	return f;
}
