/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * What the sources of a channel share. They form a ladder: channel_log.c (the ring of
 * messages), channel_mark.c (what is due to be told to a member beside them), channel.c (the
 * members), channel_history.c (where a member begins, and what it is
 * told of its place), channel_lag.c (one member alone: what waits for it, and how it catches up),
 * channel_round.c (all members that are caught up). Nobody else includes it.
 */

#include "channel/channel.h"

/* The slot of a message that lies in the log's ring. */
static inline struct channel_slot *slot_of(const struct channel *ch, uint64_t seq)
{
	return &ch->slots[seq & ch->mask];
}

/* Number of the next message for a member: the log may begin behind where it was pinned. */
static inline uint64_t member_next(const struct member *m)
{
	return MAX(m->next, m->channel->from);
}

/* -------------------------------------------------------------------- channel_log.c */

/* Drops what no round and no lagging member needs any more. */
void channel_trim(struct channel *ch);

/* When more notices wait than messages may wait for a client, the older half goes. */
void channel_shed_notices(struct channel *ch);

/* A member that reads on waits for this worker: its publishers are held for some turns. */
void channel_set_owing(struct channel *ch);

/* Messages up to @to are flushed: they are no backlog any more. */
void channel_flushed_to(struct channel *ch, uint64_t to);

/* While it is loaded: messages from @to on are still to be flushed. All of them are here. */
void channel_flushed_back(struct channel *ch, uint64_t to);

/* Drops everything. */
void channel_drop_log(struct channel *ch);

/*
 * Puts messages before those of the log, @n of them in their order, all of which every round has
 * passed. The log takes references. Return: 0 | -ENOMEM.
 */
int channel_prepend(struct channel *ch, struct frame **frame, size_t n) WB_NODISCARD;

/* ------------------------------------------------------------------- channel_mark.c */

#define NO_PLACE UINT64_MAX

/*
 * What is due to be said to a member beside its messages, in their order. While there is one its
 * connection counts as lagging once more, so nothing passes it by.
 */
struct WB_OWNER(worker) member_mark {
	struct table_node node; /* in channel_env.marks, by the member's address */
	struct member *member;
	uint64_t replay_to; /* POSITION is due at this place; or NO_PLACE */
	uint64_t gap_from;  /* what came from here on was passed over: GAP is due; or NO_PLACE */
	const char *reason; /* of the GAP */
};

/* NULL: it has none. */
struct member_mark *member_mark(const struct member *m);

/* Its next message is passed over: one that it would have got. False: no memory for that. */
bool member_note_gap(struct member *m, const char *reason) WB_NODISCARD;

/* Forgets what would be due. */
void member_drop_mark(struct member *m);

/* Place up to which what it lags behind is what it asked for; 0: none of it. */
static inline uint64_t member_replay_to(const struct member *m)
{
	const struct member_mark *mark = WB_UNLIKELY(m->has_mark) ? member_mark(m) : NULL;

	return mark && mark->replay_to != NO_PLACE ? mark->replay_to : 0;
}

/* ------------------------------------------------------------------------ channel.c */

/* @m cannot go on now: its next message, which is here, stays until it can. */
void member_pin(struct member *m);

/* It goes on, or ends. Does nothing when it doesn't lag. */
void member_unpin(struct member *m);

/* Takes what lies before message @to off the account of its own. O(messages that it passes). */
void member_pass_own(struct member *m, uint64_t to);

/* Whether something that it published itself, and so doesn't get, is still ahead of it. */
static inline bool member_has_own(const struct member *m)
{
	return m->own_messages > 0 || m->has_own_notice;
}

/* Moves it on to message @to, which may be any up to the end of the log. */
static inline void member_pass(struct member *m, uint64_t to)
{
	if (WB_UNLIKELY(member_has_own(m)))
		member_pass_own(m, to);
	m->next = to;
}

/* ---------------------------------------------------------------- channel_history.c */

/* Says what is due at its place; the private queue has it. False: nothing is. */
bool member_tell(struct member *m);

/* -------------------------------------------------------------------- channel_lag.c */

/* Counts what went out to members of a channel. */
static inline void count_sent(const struct member *m, uint64_t frames, uint64_t bytes)
{
	struct metrics *metrics = m->channel->env->conn->metrics;

	m->conn->messages_out += frames;
	METRIC_ADD(metrics, messages_sent, frames);
	METRIC_ADD(metrics, frames_sent, frames);
	METRIC_ADD(metrics, bytes_sent, bytes);
}

/*
 * transport_send() did not take all that there is for @m up to @to, but returned @sent. The
 * membership may be gone after it.
 */
void member_take_part(struct member *m, uint64_t to, ssize_t sent);

/* What transport_send() returned for @frames messages up to @to. True when all of it went. */
static inline bool member_take_result(struct member *m, uint64_t to, size_t bytes, unsigned frames,
				      ssize_t sent)
{
	if (WB_UNLIKELY(sent != (ssize_t)bytes)) {
		member_take_part(m, to, sent);
		return false;
	}
	member_pass(m, to);
	count_sent(m, frames, bytes);
	return true;
}

/*
 * Sends to one member alone, up to @to, about as many bytes as @budget still has; it is counted
 * down. True when it can go on; else the membership may be gone.
 */
bool member_send_range(struct member *m, uint64_t to, size_t *budget);
