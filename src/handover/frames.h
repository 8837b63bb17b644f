/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Messages that wait for somebody, as records and back. Each is written once, with those of its
 * variants of which some client has a part already: the rest of it must come from the very same
 * bytes. All other variants are made anew when they are needed.
 */

#include <uthash.h>

#include "channel/history.h"
#include "containers/mem.h"
#include "record.pb-c.h"
#include "wire/frame.h"

/* Flags of a message in a log: what stands beyond them in a record is of a private queue. */
#define FRAME_LOG_FLAGS                                                                         \
	(FRAME_NOTICE | FRAME_CAN_PACK | FRAME_IS_PACKED | FRAME_CAN_DEFLATE | FRAME_NUMBERED | \
	 FRAME_KEPT)

/* A message that will be written. */
struct WB_OWNER(main) frame_out {
	struct frame *frame; /* borrowed */
	uint32_t id;
	uint32_t variants; /* bit i: enum frame_variant i goes with it */
	UT_hash_handle hh;
};

/* All-zero is empty. */
struct WB_OWNER(main) frames_out {
	struct frame_out *by_frame; /* uthash, which keeps the order of the ids */
	uint32_t n;
};

/* The entry of a message, with a new id if it has none yet. NULL: no memory. */
struct frame_out *frames_out_add(struct frames_out *out, struct frame *f);

/* Has the variant with these bytes go with a message. Return: 0 | -ENOMEM. */
int frames_out_add_variant(struct frames_out *out, struct frame *f, const struct frame_bytes *bytes)
	WB_NODISCARD;

/* The id of a message that was added. */
uint32_t frames_out_id(const struct frames_out *out, const struct frame *f);

void frames_out_fini(struct frames_out *out);

/* What was made again of records, by id. All-zero is empty. */
struct WB_OWNER(main) frames_in {
	struct frame **frame; /* by id - 1: references; NULL: could not be made */
	size_t n;
	/* Whose file they may lie in; NULL: what records say of places means nothing here. */
	struct history *history;
};

/**
 * frames_in_add() - take the next record
 * @s:      NULL: it could not be read; it counts all the same
 * @account: as for frame_new_saved()
 *
 * Return:  0 | RESTORE_E_UNFIT: it is of no message, or there is no memory for that | -ENOMEM.
 */
int frames_in_add(struct frames_in *in, const Record__Frame *s, _Atomic size_t *account)
	WB_NODISCARD;

/* The message of an id, borrowed; NULL: there is none. */
struct frame *frames_in_get(const struct frames_in *in, uint32_t id);

/*
 * Messages that lie in the file count as kept when they are read: their channels' stores take them.
 * Here those are found out whose channel has none any more.
 */
void frames_in_settle(struct frames_in *in);

void frames_in_fini(struct frames_in *in);

/*
 * One message to its record and back. The record points into @f and is made in @a; NULL: no
 * memory. Made again it has one reference; NULL: no memory, or the record is of no message.
 * @history: as frames_in.
 */
Record__Frame *frame_to_record(const struct frame *f, uint32_t variants, struct arena *a);
struct frame *frame_from_record(const Record__Frame *s, struct history *history,
				_Atomic size_t *account);

/*
 * How a record names some bytes of a message: 0 the body, else enum frame_variant + 1. And which
 * bytes a record means, NULL: the message has none such.
 */
uint32_t frame_variant_id(const struct frame *f, const struct frame_bytes *b);
const struct frame_bytes *frame_variant_of_id(const struct frame *f, uint32_t id);
