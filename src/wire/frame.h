/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One message, encoded once, for any number of receivers: WebSocket headers and payload in
 * one allocation, frozen once it is published, counted by references. What the server sends
 * is not masked, so the same bytes serve everyone.
 *
 * A *frame* is this: an encoded message that lies in logs and queues. Where a frame of RFC
 * 6455 is meant it's called a WebSocket frame (wire/ws), or a piece (wire/frame_bytes).
 *
 * A receiver that cannot read the original, or could read a smaller one, gets a *variant*:
 * another encoding of the same message. wire/frame_variant makes them; each has a slot here,
 * into which it is published by compare-and-swap, so that it is made for all workers at once
 * and no thread waits. Whoever loses the race frees its own and takes the winner's.
 *
 * Memory: every frame is charged to one atomic account, variants included, and given back
 * when the last reference goes: log_memory is checked against it. It may move to another account
 * at any time.
 *
 * What carries its number is made before that is known, in all its variants. The number stands
 * last in each, in a place that frame_set_number() knows: deflated it is a stored block.
 *
 * A message that a channel keeps lies in a slot of a heap that outlives the process, see
 * wire/frame_kept; its variants don't, they are made again.
 */

#include "base/base.h"
#include "containers/shm_heap.h"
#include "wire/deflate.h"
#include "wire/frame_bytes.h"
#include "wire/msg.h"

enum frame_variant {
	FRAME_VARIANT_PACKED,   /* BinaryData compressed with ZIP_PREFERRED */
	FRAME_VARIANT_UNPACKED, /* BinaryData decompressed */
	FRAME_VARIANT_DEFLATED, /* from here on one for each window but DEFLATE_NONE */
	FRAME_N_VARIANTS = FRAME_VARIANT_DEFLATED + DEFLATE_N_WINDOWS - 1,
};

enum frame_flags {
	FRAME_NOTICE = 1 << 0,      /* CONNECT or DISCONNECT: first to be skipped */
	FRAME_CONTROL = 1 << 1,     /* WebSocket control frame: may stand between fragments */
	FRAME_CAN_PACK = 1 << 2,    /* uncompressed BinaryData, large enough and not too large */
	FRAME_IS_PACKED = 1 << 3,   /* compressed BinaryData, see @packed_with */
	FRAME_CLOSE = 1 << 4,       /* the last that a connection sends */
	FRAME_CAN_DEFLATE = 1 << 5, /* may be worth it: as received, or once it is unpacked */
	FRAME_NUMBERED = 1 << 6,    /* it ends with msg_number_field() of its place, + 1 */
	FRAME_KEPT = 1 << 7,        /* it lies in a slot of @heap, and is in no private queue */
};

/*
 * Frozen from the moment it is published, but for refs and the slots. While it is
 * in one connection's private queue, @next belongs to that queue.
 */
struct WB_SHARED frame {
	_Atomic uint32_t refs;
	uint8_t flags WB_FROZEN;
	uint8_t opcode WB_FROZEN;
	uint8_t packed_with WB_FROZEN; /* enum zip_kind, where FRAME_IS_PACKED */
	atomic_flag is_charging;       /* @account is looked at, for a moment */
	uint32_t slot WB_FROZEN;       /* channel: slot of the directory … */
	uint32_t generation WB_FROZEN; /* … and which of its users */
	uint64_t seq WB_FROZEN;        /* place in the channel's order */
	uint64_t sender WB_FROZEN;     /* serial of the connection that must not get it; 0: none */
	uint64_t received_ns WB_FROZEN;
	union {
		struct frame *next;              /* in a private queue */
		struct shm_heap *heap WB_FROZEN; /* of FRAME_KEPT */
	};
	uint32_t messages;       /* in body: 1, or so many as were joined */
	uint32_t room;           /* bytes of body that may still be joined */
	_Atomic size_t *account; /* under @is_charging, once it is published */
	/* By enum frame_variant. NULL: not made. Several slots may have the same bytes. */
	_Atomic(const struct frame_bytes *) variant[FRAME_N_VARIANTS];
	struct frame_bytes body; /* must be last */
};

/**
 * frame_new() - a frame of a given size, its payload still to be written
 * @opcode:   of the message
 * @payload:  bytes of the whole message
 * @max_frame: longest payload of one WebSocket frame; control frames are never cut
 * @account:  borrowed for the life of the frame; charged with its memory
 *
 * Return:  the frame with one reference, or NULL without memory.
 * Owns:    the caller's reference; frame_unref() gives it back.
 * Thread:  any; until it is published, the caller's alone.
 */
struct frame *frame_new(uint8_t opcode, size_t payload, size_t max_frame, _Atomic size_t *account)
	WB_NODISCARD;

/* The same of a message that an extension changed: @rsv are its WS_RSV bits. */
struct frame *frame_new_extended(uint8_t rsv, uint8_t opcode, size_t payload, size_t max_frame,
				 _Atomic size_t *account) WB_NODISCARD;

/**
 * frame_new_kept() - frame_new() in a slot
 * @heap, @slot, @has_key: of frame_place(); with all its pages
 *
 * Owns:    the slot is the frame's.
 */
struct frame *frame_new_kept(struct shm_heap *heap, struct shm_slot *slot, bool has_key,
			     uint8_t opcode, size_t payload, size_t max_frame,
			     _Atomic size_t *account) WB_NODISCARD;

/* A frame of bytes that are sent as they are: an HTTP response before the first frame. */
struct frame *frame_new_raw(const void *p, size_t n, _Atomic size_t *account) WB_NODISCARD;

/* A frame without any message, which has room for @room bytes of messages and their heads. */
struct frame *frame_new_joined(size_t room, _Atomic size_t *account) WB_NODISCARD;

/**
 * frame_join() - put a whole message behind those in a frame of frame_new_joined()
 *
 * Many small messages for one receiver so cost one allocation and one place in its queue.
 *
 * Return:  false, nothing happened: it has no room.
 * Thread:  its owner's, while nothing of it was sent.
 */
bool frame_join(struct frame *f, uint8_t opcode, const void *p, size_t n) WB_NODISCARD;

/* A frame as another process had it: what it was made of, for frame_new_saved(). */
struct WB_VALUE frame_saved {
	uint8_t flags;
	uint8_t opcode;
	uint8_t packed_with;
	uint32_t messages;
	uint64_t seq;
	uint64_t sender;
	uint64_t received_ns;
	const uint8_t *bytes; /* borrowed */
	size_t len;
	size_t piece;
};

/**
 * frame_new_saved() - make it again, byte for byte
 *
 * What stands in @s may be anything. Variants are made anew; frame_set_variant() brings those
 * of which a receiver has a part already.
 *
 * Return:  the frame with one reference; NULL: @s cannot be of a frame, or there is no memory.
 */
struct frame *frame_new_saved(const struct frame_saved *s, _Atomic size_t *account) WB_NODISCARD;

/**
 * frame_set_variant() - give a frame a variant that was made elsewhere
 * @variant: enum frame_variant
 *
 * Return:  the bytes, which live as long as @f; NULL as frame_new_saved(), and when it has one.
 * Thread:  the only one that knows @f.
 */
const struct frame_bytes *frame_set_variant(struct frame *f, size_t variant, const uint8_t *bytes,
					    size_t len, size_t piece) WB_NODISCARD;

/**
 * frame_publish_variant() - put what was made into its slot
 * @variant: enum frame_variant
 * @made:    by malloc(); or the body, bytes of another slot, or frame_unreadable
 *
 * Return:  what is in the slot now: @made, or what another thread was faster with.
 * Owns:    @made is the frame's, or freed.
 * Thread:  any that holds a reference.
 */
const struct frame_bytes *frame_publish_variant(struct frame *f, size_t variant,
						const struct frame_bytes *made);

/* Stands in the slot of a variant that cannot be made: nobody tries again. */
extern const struct frame_bytes frame_unreadable;

/* Writes a part of the payload at an offset of the message, across pieces where need be. */
void frame_write(struct frame *f, size_t offset, const void *p, size_t n);

/* Where the payload lies in one piece; NULL when it is cut. For writing before publishing. */
uint8_t *frame_payload(struct frame *f);

/* Bytes of the message, without any header. */
size_t frame_payload_len(const struct frame *f);

/* Copies the whole payload to @out, which has frame_payload_len() bytes. */
void frame_copy_payload(const struct frame *f, uint8_t *out);

/* A frame that carries a message of wire/msg; NULL without memory. */
struct frame *frame_from_msg(const struct msg_builder *b, size_t max_frame, _Atomic size_t *account)
	WB_NODISCARD;

/* A frame that carries a message of wire/msg, and @n bytes of msg_suffix() behind it. */
struct frame *frame_from_msg_said(const struct msg_builder *b, const uint8_t *suffix, size_t n,
				  size_t max_frame, _Atomic size_t *account) WB_NODISCARD;

/* The bytes that it is charged with. Thread: any that holds a reference. */
WB_ANY_THREAD size_t frame_charged(const struct frame *f);

/* From now on another account is charged with it, while nobody else knows it. */
void frame_set_account(struct frame *f, _Atomic size_t *account);

/* The same of one that others may know. Thread: as frame_charged(). */
WB_ANY_THREAD void frame_move_account(struct frame *f, _Atomic size_t *account);

/**
 * frame_set_number() - write its number into all its variants
 * @number: `sequence` of the message
 *
 * It is FRAME_NUMBERED; before others know it. Cost: eight bytes for each variant that is made.
 */
void frame_set_number(struct frame *f, uint64_t number);

/* The same, of the frame alone. */
void frame_set_number_of_body(struct frame *f, uint64_t number);

#define FRAME_NUMBER_BLOCK (MSG_NUMBER_FIELD + 5) /* bytes that end a deflated message … */
#define FRAME_NUMBER_TAIL 1                       /* … so many of them behind the number */

/* What ends a numbered message that was deflated up to its number. Source: RFC 1951, 3.2.4. */
void frame_number_block(uint8_t out[FRAME_NUMBER_BLOCK], uint64_t number);

/* One more reference. Thread: any that holds one. */
static inline struct frame *frame_ref(struct frame *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

/* One reference less; the last frees it, its variants too. NULL is fine. Return: NULL. */
WB_ANY_THREAD struct frame *frame_unref(struct frame *f);

/* Whether it lies in a heap that outlives the process. */
static inline bool frame_is_kept(const struct frame *f)
{
	return f->flags & FRAME_KEPT;
}

/* True when receivers of different abilities may need different variants of it. */
static inline bool frame_varies(const struct frame *f)
{
	return f->flags & (FRAME_CAN_PACK | FRAME_IS_PACKED | FRAME_CAN_DEFLATE);
}
