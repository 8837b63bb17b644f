/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Channels with their logs, as records and back. The logs of one channel on several workers are
 * parts of one order, told by the numbers of the messages, and become one: of each message the
 * id, 0 where no worker keeps it any more.
 */

#include "handover/frames.h"
#include "worker/worker.h"

struct channel_out;

/* The channels that have members. All-zero is empty. */
struct WB_OWNER(main) channels_out {
	struct channel_out *channel; /* by id - 1 */
	uint32_t n;
	uint32_t *id_by_slot; /* of the directory; 0: has none */
};

/**
 * channels_out_collect() - give ids to all channels of a pool, and to what their logs keep
 * @p:      its threads have ended
 * @frames: the messages are added to it
 *
 * Return:  0 | -ENOMEM.
 */
int channels_out_collect(struct channels_out *out, struct worker_pool *p, struct frames_out *frames)
	WB_NODISCARD;

/* The record with an id; points into @out and the directory. */
void channels_out_record(const struct channels_out *out, uint32_t id, Record__Channel *ret);

void channels_out_fini(struct channels_out *out);

/* What was made again of records, by id. All-zero is empty. */
struct WB_OWNER(main) channels_in {
	struct hub_log *log; /* by id - 1; entries are pinned, NULL: could not be made */
	size_t n;
};

/**
 * channels_in_add() - take the next record
 * @d:      the channel is made in it, as it was
 * @s:      NULL: it could not be read; it counts all the same
 * @frames: those that it may name
 *
 * Return:  0 | RESTORE_E_UNFIT, also for a second channel of one name | RESTORE_E_NO_ROOM |
 *          -ENOMEM.
 */
int channels_in_add(struct channels_in *in, struct directory *d, const Record__Channel *s,
		    const struct frames_in *frames) WB_NODISCARD;

/* What joining again needs. Return: 0 | RESTORE_E_UNFIT: nothing was made of such an id. */
int channels_in_get(const struct channels_in *in, uint32_t id, const struct hub_log **ret)
	WB_NODISCARD;

/* Unpins all: those whose members are back are held by them. */
void channels_in_fini(struct channels_in *in, struct directory *d);
