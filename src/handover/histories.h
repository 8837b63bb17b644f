/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What channels keep, as records and back: epoch, number of the last message, and the messages by
 * their ids. A channel without members has no other record than this.
 */

#include "handover/frames.h"
#include "worker/hub.h"

/*
 * Gives ids to all messages that channels keep. Workers' threads have ended. Return: 0 |
 * -ENOMEM.
 */
int histories_collect(const struct history *h, struct frames_out *frames) WB_NODISCARD;

/* The record of a store; points into it, and to a list in @a. Return: NULL without memory. */
Record__History *history_to_record(const struct history *h, const struct history_store *s,
				   const struct frames_out *frames, struct arena *a);

/**
 * history_from_record() - make a store again
 * @config: says whether the channel has one, and what it may keep
 * @s:      whatever may stand in it
 *
 * Before anybody joins the channel.
 *
 * Return:  0, also where the channel has no history any more | RESTORE_E_UNFIT |
 *          RESTORE_E_NO_ROOM | -ENOMEM.
 */
int history_from_record(struct hub_shared *shared, const struct config *config,
			const Record__History *s, const struct frames_in *frames) WB_NODISCARD;
