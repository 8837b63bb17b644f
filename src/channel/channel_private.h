/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the two sources of a channel share: channel_log.c (the ring of messages)
 * and channel.c (members, rounds, those that lag). Nobody else includes it.
 */

#include "channel/channel.h"

/* The slot of a message that lies in the log's ring. */
static inline struct log_slot *slot_of(const struct channel *ch, uint64_t seq)
{
	return &ch->slots[seq & ch->mask];
}

/* Drops what no round and no lagging member needs any more. */
void channel_trim(struct channel *ch);

/* When more notices wait than messages may wait for a client, the older half goes. */
void channel_shed_notices(struct channel *ch);

/* Drops everything. */
void channel_drop_log(struct channel *ch);
