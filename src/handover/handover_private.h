/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of a hand-over share: handover_save.c, handover_restore.c,
 * handover_sockets.c and connection.c (one connection to its record and back).
 * Nobody else includes it.
 */

#include "handover/handover.h"

/* A message that a record refers to by its number, with the variants of which somebody has a part.
 */
struct WB_OWNER(main) numbered_frame {
	struct frame *frame;
	uint32_t number;
	uint32_t variants; /* bit i: variant[i] */
	UT_hash_handle hh;
};

/* Numbers of frames and channels while a state is written. */
struct WB_OWNER(main) numbers {
	struct numbered_frame *frames; /* uthash, in the order of their numbers */
	uint32_t *channel;             /* by slot of the directory; 0: has none */
};

struct numbered_frame *numbers_find(const struct numbers *n, const struct frame *f);

/* Which encoding of a frame some bytes are: 0 as published, else enum frame_variant + 1. */
uint32_t frame_variant_of(const struct frame *f, const struct frame_bytes *b);

/* A frame's own record; allocates from @a. NULL: no memory. */
Record__Frame *frame_record(const struct frame *f, uint32_t variants, struct arena *a);

/* The frame of a record; NULL: no memory, or it is of no frame. */
struct frame *frame_of_record(const Record__Frame *s, _Atomic size_t *account);

/* What connections are made of again. */
struct WB_OWNER(main) restored {
	struct frame **frame; /* by number - 1; NULL: could not be made */
	size_t n_frames;
	struct hub_log *channel; /* by number - 1; entries are pinned, NULL: could not be made */
	size_t n_channels;
};

/**
 * conn_save() - a connection's record
 * @a:      what the record is made of, beside what it points to in @c
 *
 * Return:  NULL without memory.
 */
Record__Connection *conn_save(const struct conn *c, uint64_t cookie, const struct numbers *numbers,
			      struct arena *a);

/* Whose it is; false: the record is of no connection. */
bool conn_saved_peer(const Record__Connection *s, struct sock_peer *ret);

/**
 * conn_restore() - make a connection again
 * @c:      as conn_init() wants it, and transport set
 * @s:      one that conn_saved_peer() finds right
 *
 * Return:  0 | -EINVAL it is of no connection | -ENOMEM: to be ended by conn_abort().
 */
int conn_restore(struct conn *c, struct conn_env *env, const Record__Connection *s,
		 const struct restored *r) WB_NODISCARD;
