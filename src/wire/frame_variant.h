/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Variants of a frame: which a receiver gets, and how they are made.
 *
 * BinaryData is compressed or decompressed, or the whole message deflated
 * (permessage-deflate), never both on top of each other: what is compressed once gets no
 * smaller. A variant is made when the first receiver that needs it is met, on the thread
 * that meets it.
 */

#include "base/base.h"
#include "containers/buf.h"
#include "wire/deflate.h"
#include "wire/frame.h"
#include "wire/msg_caps.h"
#include "wire/zip.h"

struct arena;

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
	/* Running totals, for metrics. */
	uint64_t pack_in, pack_out, unpack_in, unpack_out, deflate_in, deflate_out, failures;
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
