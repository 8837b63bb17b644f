/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * One message, encoded once, for any number of receivers: WebSocket header and
 * payload in one allocation, frozen once it is published, counted by references.
 * What the server sends is not masked, so the same bytes serve everyone.
 *
 * A message longer than max_frame_size is cut into several WebSocket frames; their
 * headers lie between the pieces of the payload, all pieces but the last of one
 * size, so frame_is_boundary() tells by arithmetic where control frames may go
 * between.
 *
 * Variants: a receiver that cannot read the original, or could read a smaller
 * one, gets another encoding of the same message: its BinaryData compressed or
 * decompressed, or the whole message deflated (permessage-deflate), never both on
 * top of each other. It is made when the first such
 * receiver is met, on the thread that meets it, and published into a slot of the
 * frame by compare-and-swap; whoever loses the race frees its own and uses the
 * winner's. So no thread waits, and each variant is made for all workers at once.
 *
 * Memory: every frame is charged to one atomic account, variants included, and
 * given back when the last reference goes: log_memory is checked against it.
 */

#include <sys/uio.h>

#include "base/base.h"
#include "containers/buf.h"
#include "wire/deflate.h"
#include "wire/msg.h"
#include "wire/msg_caps.h"
#include "wire/zip.h"

/* Encodings of one message beside the one that was published. */
enum frame_variant {
	FRAME_VARIANT_PACKED,   /* BinaryData compressed with zstd */
	FRAME_VARIANT_UNPACKED, /* BinaryData decompressed */
	FRAME_VARIANT_DEFLATED, /* and from here on one for each enum deflate_window but
				   DEFLATE_NONE */
	FRAME_N_VARIANTS = FRAME_VARIANT_DEFLATED + DEFLATE_N_WINDOWS - 1,
};

enum frame_flags {
	FRAME_NOTICE = 1 << 0,    /* CONNECT or DISCONNECT: first to be skipped */
	FRAME_CONTROL = 1 << 1,   /* WebSocket control frame: may stand between fragments */
	FRAME_CAN_PACK = 1 << 2,  /* uncompressed BinaryData, large enough and not too large */
	FRAME_IS_PACKED = 1 << 3, /* compressed BinaryData, see @packed_with */
	FRAME_CLOSE = 1 << 4,     /* the last that a connection sends */
	FRAME_CAN_DEFLATE =
		1 << 5, /* not compressed as received, or IS_PACKED and to be unpacked */
};

/* Encoded bytes: one or more WebSocket frames of the same message. */
struct WB_FROZEN frame_bytes {
	size_t len;   /* of bytes[] */
	size_t piece; /* bytes of each WebSocket frame but the last, header included */
	uint8_t bytes[];
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
	uint32_t slot WB_FROZEN;       /* channel: slot of the directory … */
	uint32_t generation WB_FROZEN; /* … and which of its users */
	uint64_t seq WB_FROZEN;        /* place in the channel's order */
	uint64_t sender WB_FROZEN;     /* serial of the connection that must not get it; 0: none */
	uint64_t received_ns WB_FROZEN;
	struct frame *next; /* in a private queue */
	uint32_t messages;  /* in body: 1, or so many as were joined */
	uint32_t room;      /* bytes of body that may still be joined */
	_Atomic size_t *account WB_FROZEN;
	_Atomic(struct frame_bytes *)
		variant[FRAME_N_VARIANTS]; /* NULL: not made; may be another variant's bytes */
	struct frame_bytes body;           /* must be last */
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

/* Writes a part of the payload at an offset of the message, across pieces where need be. */
void frame_write(struct frame *f, size_t offset, const void *p, size_t n);

/* Where the whole payload lies in one piece, or NULL when it is cut. For writing before publishing.
 */
uint8_t *frame_payload(struct frame *f);

/* Bytes of the message, without any header. */
size_t frame_payload_len(const struct frame *f);

/* Copies the whole payload to @out, which has frame_payload_len() bytes. */
void frame_copy_payload(const struct frame *f, uint8_t *out);

/* A frame that carries a message of wire/msg; NULL without memory. */
struct frame *frame_from_msg(const struct msg_builder *b, size_t max_frame, _Atomic size_t *account)
	WB_NODISCARD;

/* One more reference. Thread: any that holds one. */
static inline struct frame *frame_ref(struct frame *f)
{
	atomic_fetch_add_explicit(&f->refs, 1, memory_order_relaxed);
	return f;
}

/* One reference less; the last frees it, its variants too. NULL is fine. Return: NULL. */
WB_ANY_THREAD struct frame *frame_unref(struct frame *f);

/* True when @offset is where one WebSocket frame of @b ends and another (or nothing) begins. */
static inline bool frame_is_boundary(const struct frame_bytes *b, size_t offset)
{
	return offset == b->len || offset % b->piece == 0;
}

/* True when receivers of different abilities may need different variants of it. */
static inline bool frame_varies(const struct frame *f)
{
	return f->flags & (FRAME_CAN_PACK | FRAME_IS_PACKED | FRAME_CAN_DEFLATE);
}

/* What making a variant needs, from the worker that makes it. */
struct WB_OWNER(worker) frame_maker {
	struct zip *zip;
	struct deflater deflater;
	struct arena *arena; /* for decoding; reset by each use */
	struct buf scratch;  /* output of zip or deflater */
	struct buf copy;     /* payload of a message that is cut */
	unsigned level;      /* of zstd and zlib */
	size_t max_frame;    /* bytes */
	size_t max_message;  /* bound of what is unpacked */
	size_t deflate_from; /* messages from this size … */
	size_t deflate_to;   /* … to this one are worth deflating [bytes] */
	uint64_t pack_in, pack_out, unpack_in, unpack_out, deflate_in, deflate_out,
		failures; /* running totals, for metrics */
};

/* Whether a message of @n bytes is worth deflating. */
static inline bool frame_can_deflate(const struct frame_maker *m, size_t n)
{
	return n > 0 && n >= m->deflate_from && n <= m->deflate_to;
}

/**
 * frame_new_deflated() - a message for one receiver, deflated
 * @opcode: WS_TEXT or WS_BINARY
 *
 * Return:  a frame with one reference, as frame_new() has; NULL without memory, and when
 *          deflating would not make it smaller.
 */
struct frame *frame_new_deflated(uint8_t opcode, const void *p, size_t n,
				 enum deflate_window window, struct frame_maker *m,
				 _Atomic size_t *account) WB_NODISCARD;

/**
 * frame_variant_for() - the encoding of a message for a receiver
 * @caps:   MSG_CAP_ bits of what it reads
 * @window: what it negotiated of permessage-deflate
 *
 * Return:  the bytes, alive as long as @f is; NULL when this receiver cannot be
 *          served: a compressed payload that is broken, or too large unpacked.
 * Cost:    a comparison where nothing varies; else making the variant, once.
 * Thread:  any worker that holds a reference, each with its own @m.
 */
const struct frame_bytes *frame_variant_for(struct frame *f, unsigned caps,
					    enum deflate_window window, struct frame_maker *m);

/*
 * Receivers that read alike get the same bytes of any frame. What they read is one number, the
 * key, so that a channel chooses bytes once for each key and not for each member.
 */
#define FRAME_N_VARIANT_KEYS (MSG_N_CODEC_SETS * DEFLATE_N_WINDOWS)

/* The key of a receiver; 0 of one that reads no codec and negotiated nothing. */
static inline unsigned frame_variant_key(unsigned caps, enum deflate_window window)
{
	return msg_caps_codec_set(caps) * DEFLATE_N_WINDOWS + window;
}

/* frame_variant_for() any receiver that has this key. */
static inline const struct frame_bytes *frame_variant_for_key(struct frame *f, unsigned key,
							      struct frame_maker *m)
{
	return frame_variant_for(f, msg_caps_of_codec_set(key / DEFLATE_N_WINDOWS),
				 (enum deflate_window)(key % DEFLATE_N_WINDOWS), m);
}
