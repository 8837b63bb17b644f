/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Variants of a frame: which a receiver gets, and how they are made.
 *
 * BinaryData is compressed or decompressed, or the whole message deflated
 * (permessage-deflate), never both on top of each other: what is compressed once gets no
 * smaller.
 *
 * Variants are made before a message is published, by its publisher, in steps: struct
 * frame_forms. Which ones is decided by who is there then. A receiver that turns up meanwhile
 * gets the body in the place of a variant that was to save bytes; only what it can't read is
 * unpacked for it when it is met, on the thread that meets it, all at once.
 */

#include "base/base.h"
#include "containers/buf.h"
#include "wire/deflate.h"
#include "wire/frame.h"
#include "wire/msg_caps.h"
#include "wire/zip.h"

struct arena;

#define FRAME_PACKINGS_MAX 4 /* that a worker has under way at a time, each with a context */

/* What making variants needs, from the worker that makes them. */
struct WB_OWNER(worker) frame_maker {
	struct zip *zip;
	struct deflater deflater;
	struct arena *arena; /* for decoding; reset by each use */
	struct buf scratch;  /* output of zip or deflater, kept between messages */
	struct buf copy;     /* payload of a message that is cut */
	unsigned level;      /* of zstd and zlib */
	size_t max_frame;    /* bytes */
	size_t max_message;  /* bound of what is unpacked … */
	size_t unpack_to;    /* … which may come to this, or to 64 times what it was [bytes] */
	size_t deflate_from; /* messages from this size … */
	size_t deflate_to;   /* … to this one are worth deflating [bytes] */
	unsigned n_packings; /* under way, over several turns */
	/* Running totals, for metrics. */
	uint64_t pack_in, pack_out, unpack_in, unpack_out, deflate_in, deflate_out, failures;
};

/* Most bytes that @n packed ones are unpacked to for others. */
static inline size_t frame_unpack_limit(const struct frame_maker *m, size_t n)
{
	size_t most = MAX(m->unpack_to, n > SIZE_MAX / 64 ? SIZE_MAX : 64 * n);

	return MIN(most, m->max_message);
}

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
 * Cost:    a comparison where nothing varies; else a look at a slot. Unpacking, once, where
 *          nobody needed that when the message was published: up to frame_unpack_limit() bytes.
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

enum frame_forms_outcome {
	FRAME_FORMS_MORE = 1,      /* the budget is used up: go on later */
	FRAME_FORMS_E_CORRUPT,     /* what others need unpacked can't be */
	FRAME_FORMS_E_TOO_BIG,     /* or unpacks to more than frame_unpack_limit() */
	FRAME_FORMS_E_NOT_SMALLER, /* of one variant: it is left out */
};

/* Variants of one frame on their way. All-zero there are none, as after frame_forms_init_none(). */
struct WB_OWNER(worker) frame_forms {
	struct frame *f; /* borrowed */
	struct frame_maker *maker;
	const Websocket__WebSocketMessage *msg; /* that @f carries, borrowed; NULL: a text */
	const struct msg_said *said;            /* what is said of it beyond that, borrowed */
	unsigned left;                          /* bit i: enum frame_variant i is to be made */
	bool is_begun;                          /* the lowest of them is */
	bool is_packing;                        /* it is among maker->n_packings */
	bool is_made;                           /* @out is complete, and is put into @bytes */
	struct zip_unpacking unpacking;
	struct zip_packing packing;
	struct deflating deflating;
	struct buf out;  /* of the codec */
	struct buf head; /* what stands before it in the message */
	uint32_t crc;    /* of the first @checked bytes of @out */
	size_t checked;
	struct frame_bytes *bytes; /* the variant, being written … */
	size_t at;                 /* … so many bytes of @out so far */
	uint64_t unpacked;         /* bytes of unpacking, whatever came of it … */
	uint64_t worked;           /* … and of all that was done, copies counting less */
	/* For the maker's totals once all are made: what begins anew is not counted twice. */
	uint64_t pack_in, pack_out, unpack_in, unpack_out, deflate_in, deflate_out;
};

/*
 * Begin to make these variants of a frame that nobody else knows yet. @said: what @f says
 * beyond @msg; borrowed like that.
 */
void frame_forms_init(struct frame_forms *w, struct frame *f,
		      const Websocket__WebSocketMessage *msg, const struct msg_said *said,
		      unsigned variants, struct frame_maker *m);

/* There are none to make. What stands in the rest of it doesn't matter: it is large. */
static inline void frame_forms_init_none(struct frame_forms *w)
{
	w->maker = NULL;
	w->left = 0;
	w->unpacked = 0;
}

/**
 * frame_forms_run() - make them, or go on with it
 * @budget: bytes that may still go in or come out; counted down, to 0 where more were taken
 *
 * What doesn't get smaller is left out, and so is, where FRAME_PACKINGS_MAX are under way, what
 * would only save bytes.
 *
 * Return:  0 all is made that could be | FRAME_FORMS_MORE | FRAME_FORMS_E_CORRUPT |
 *          FRAME_FORMS_E_TOO_BIG | -ENOMEM: what had to be unpacked isn't.
 * Cost:    a call with a budget of 1 takes one step, as those of wire/zip and wire/deflate; 64 KiB
 *          are copied at a time.
 */
int frame_forms_run(struct frame_forms *w, size_t *budget) WB_NODISCARD;

/* Bytes of memory that it holds, without those of the libraries. */
size_t frame_forms_bytes(const struct frame_forms *w);

/* In any state; @w is all-zero then. */
void frame_forms_fini(struct frame_forms *w);
