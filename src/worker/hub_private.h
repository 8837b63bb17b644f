/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of a hub share. They form a ladder: hub_channels.c (which channels
 * this worker has, and who is in them), hub_backlog.c (who is not read because a channel is
 * behind), hub_post.c (publishing, and the rings between the workers), hub_notice.c (who is told of
 * those that come and go), hub.c (all of it in the order of a loop turn). Nobody else includes it.
 */

#include "worker/hub.h"

/* The channel of this worker that an entry of the directory stands for, or NULL. */
static inline struct channel *hub_channel_at(struct hub *h, uint32_t slot, uint32_t generation)
{
	struct channel *ch = h->by_slot[slot];

	return ch && ch->generation == generation ? ch : NULL;
}

/* Address space for every slot of the directory; a slot costs memory once it is used. */
int hub_channels_init(struct hub *h) WB_NODISCARD;
void hub_channels_fini(struct hub *h);

/* Another configuration: its channels have history by that. */
void hub_channels_configure(struct hub *h);

/* Ends a membership, about which nobody is told; the channel stays. @m is gone after it. */
void hub_end_membership(struct hub *h, struct member *m);

/* The channel goes when its last member has, but not while it is being flushed. */
void hub_close_channel_if_empty(struct hub *h, struct channel *ch);

/* It published to a channel that a worker is behind with: it isn't read for a while. */
void hub_hold(struct hub *h, struct member *m);

/*
 * Goes on with those whose channel has caught up on all workers, and sends what waited for members
 * that are slow no more. False: the turn had no time for all of it.
 */
bool hub_release_held(struct hub *h);

/* It has caught up with a channel: wakes the hubs that wait for that. */
void hub_wake_held(struct hub *h);

/* Takes what others posted into the logs, and wakes who waits for room. True: there was any. */
bool hub_take_posts(struct hub *h);

/* Whether a hub that is congested may find room now. */
bool hub_outbox_may_go(const struct hub *h);

/* Hands over what the outbox has. True: it is empty now. */
bool hub_outbox_send(struct hub *h);

/* A turn has its share for notices. */
static inline void hub_notices_begin_turn(struct hub *h)
{
	h->notices.left = HUB_NOTICES_PER_TURN;
}

/* Sends notices that wait: of this turn's share and time, or @all. Until there is congestion. */
void hub_notices_send(struct hub *h, bool all);
void hub_notices_init(struct hub *h);
void hub_notices_fini(struct hub *h);
