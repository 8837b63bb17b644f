/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What channels keep, as records and back: epoch, number of the last message, and where in the file
 * the messages are, which are not looked at. A channel without members has no other record than
 * this. Of a version that could leave no file the messages come by their ids.
 */

#include "handover/frames.h"
#include "worker/hub.h"

/* The record of a store; points into it, and to a list in @a. Return: NULL without memory. */
Record__Kept *history_to_record(const struct history *h, const struct history_store *s,
				struct arena *a);

/**
 * history_from_file() - take over a store that was left in the file
 * @config: says whether the channel has one, and what it may keep
 * @s:      whatever may stand in it
 *
 * Before anybody joins the channel; only where history_take_handed_over() said so.
 *
 * Return:  as history_from_record().
 */
int history_from_file(struct hub_shared *shared, const struct config *config, const Record__Kept *s)
	WB_NODISCARD;

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
