/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "channel/channel_private.h"

/* ----------------------------------------------------------------------- ring */

static struct channel_slot *ring_take(struct channel_pool *pool, size_t slots)
{
	if (slots == CHANNEL_RING_SLOTS && pool->n > 0)
		return pool->ring[--pool->n];
	return calloc(slots, sizeof(struct channel_slot));
}

/* @ring is empty: every slot is zero but for its counts. */
static void ring_give_back(struct channel_pool *pool, struct channel_slot *ring, size_t slots)
{
	if (slots == CHANNEL_RING_SLOTS && pool->n < ARRAY_LEN(pool->ring))
		pool->ring[pool->n++] = ring;
	else
		free(ring);
}

/* Moves the log to a ring whose first and last message may be @span apart. */
static int ring_grow(struct channel *ch, uint64_t span)
{
	size_t slots = ch->slots ? ((size_t)ch->mask + 1) : CHANNEL_RING_SLOTS / 2;
	struct channel_slot *ring;

	/* As far as the message's own slot, though what lies before it may not be here yet. */
	do
		slots *= 2;
	while (span >= slots);
	if (slots > UINT32_MAX)
		return -ENOMEM;
	ring = ring_take(&ch->env->pool, slots);
	if (!ring)
		return -ENOMEM;
	/* Pins move with their slots. The old ring may go to the pool, so it has to be empty. */
	for (uint64_t s = ch->from; ch->slots && s < ch->high; s++) {
		ring[s & (slots - 1)] = *slot_of(ch, s);
		*slot_of(ch, s) = (struct channel_slot){0};
	}
	if (ch->slots)
		ring_give_back(&ch->env->pool, ch->slots, (size_t)ch->mask + 1);
	ch->slots = ring;
	ch->mask = (uint32_t)(slots - 1);
	return 0;
}

static void ring_drop(struct channel *ch)
{
	if (ch->slots)
		ring_give_back(&ch->env->pool, ch->slots, (size_t)ch->mask + 1);
	ch->slots = NULL;
	ch->mask = 0;
}

/* Where the log may shrink to what it holds without moving back and forth. */
static void ring_shrink(struct channel *ch)
{
	size_t slots = (size_t)ch->mask + 1, held = ch->high - ch->from;
	struct channel_slot *ring;

	if (ch->from == ch->high) {
		ring_drop(ch);
		return;
	}
	if (slots <= 4 * CHANNEL_RING_SLOTS || held >= slots / 8)
		return;
	/* Still twice as large as what it holds, or the next message would let it grow again. */
	slots /= 4;
	ring = calloc(slots, sizeof(*ring));
	if (!ring)
		return; /* then it stays as it is */
	for (uint64_t s = ch->from; s < ch->high; s++)
		ring[s & (slots - 1)] = *slot_of(ch, s);
	free(ch->slots);
	ch->slots = ring;
	ch->mask = (uint32_t)(slots - 1);
}

/* ------------------------------------------------------------------------ log */

/* What a message takes in memory, about; its variants come on top. */
static uint64_t frame_weight(const struct frame *f)
{
	return sizeof(*f) + f->body.len;
}

static void log_note_notice(struct channel *ch, const struct frame *f)
{
	ch->n_notices++;
	ch->env->notice_bytes += frame_weight(f);
}

static void slot_release(struct channel *ch, struct channel_slot *slot)
{
	if (slot->frame && slot->frame->flags & FRAME_NOTICE) {
		ch->n_notices--;
		ch->env->notice_bytes -= frame_weight(slot->frame);
	}
	slot->frame = frame_unref(slot->frame);
}

/*
 * Whether nobody needs a message. Where a notice was shed there is nothing to need: whoever is
 * pinned there has the next one before it (its @next is read as the start of the log then), or
 * those that read nothing would keep the places of all the notices that come.
 */
static bool slot_pass_pins(struct channel *ch, uint64_t seq)
{
	struct channel_slot *slot = slot_of(ch, seq);

	if (!slot->pins)
		return true;
	if (slot->frame || seq + 1 >= ch->end)
		return false;
	slot_of(ch, seq + 1)->pins += slot->pins;
	slot->pins = 0;
	return true;
}

void channel_trim(struct channel *ch)
{
	uint64_t before = ch->from;

	/*
	 * What isn't flushed yet the round still needs, and the first pin is that of the member
	 * that lags most: what lies before both has been sent to everyone.
	 */
	while (ch->from < ch->flushed && slot_pass_pins(ch, ch->from)) {
		slot_release(ch, slot_of(ch, ch->from));
		ch->from++;
	}
	if (ch->from > before)
		ring_shrink(ch);
}

/* Members that are caught up have had them; it is for those that lag. The oldest go. */
static void log_shed_notices(struct channel *ch, uint64_t keep)
{
	uint64_t shed = 0;

	/* From where the last time ended, so that a log with a long lag is not walked each time. */
	for (ch->shed_to = MAX(ch->shed_to, ch->from);
	     ch->shed_to < ch->flushed && ch->n_notices > keep; ch->shed_to++) {
		struct channel_slot *slot = slot_of(ch, ch->shed_to);

		if (!slot->frame || !(slot->frame->flags & FRAME_NOTICE))
			continue;
		slot_release(ch, slot);
		shed++;
	}
	METRIC_ADD(ch->env->conn->metrics, notices_skipped, shed);
}

void channel_shed_notices(struct channel *ch)
{
	uint64_t limit = ch->env->conn->config->message_queue_size;

	if (ch->n_notices > limit)
		log_shed_notices(ch, limit / 2);
}

void channel_shed_all_notices(struct channel *ch)
{
	if (ch->n_notices == 0)
		return;
	log_shed_notices(ch, 0);
	channel_trim(ch);
}

/* -------------------------------------------------------------------- backlog */

/* Whether what no round has taken is past a part of the bound. */
static bool backlog_is_past(const struct channel *ch, unsigned part)
{
	uint64_t memory = ch->env->conn->config->log_memory;
	uint64_t bytes = memory / CHANNEL_BACKLOG_SHARE;

	/*
	 * Where little is left, who has a backlog gets a smaller part before others have to go; and
	 * none if the channels of this worker have too much together, however many they are.
	 */
	if ((ch->backlog_bytes > bytes / CHANNEL_BACKLOG_SHARE || ch->env->backlog_bytes > bytes) &&
	    atomic_load_explicit(ch->env->conn->frame_account, memory_order_relaxed) >
		    memory / 4 * 3)
		bytes = ch->env->backlog_bytes > bytes ? 0 : bytes / CHANNEL_BACKLOG_SHARE;
	return ch->high - ch->flushed > CHANNEL_BACKLOG_MESSAGES / part ||
	       ch->backlog_bytes > bytes / part;
}

/* Of the two reasons that publishers are held for one has come, or gone. */
static void channel_tell_full(struct channel *ch)
{
	bool is_full = ch->is_behind || ch->is_owing;

	directory_set_full(ch->entry, ch->env->worker, is_full);
	ch->env->has_caught_up |= !is_full;
}

static void channel_set_behind(struct channel *ch, bool is_behind)
{
	ch->is_behind = is_behind;
	channel_tell_full(ch);
}

static void backlog_add(struct channel *ch, const struct frame *f)
{
	ch->backlog_bytes += frame_weight(f);
	ch->env->backlog_bytes += frame_weight(f);
	if (!ch->is_behind && WB_UNLIKELY(backlog_is_past(ch, 1)))
		channel_set_behind(ch, true);
}

static void channel_stop_owing(struct channel_env *env, unsigned i)
{
	struct channel *ch = env->owing[i];

	env->owing[i] = NULL;
	env->n_owing--;
	ch->is_owing = false;
	channel_tell_full(ch);
}

void channel_set_owing(struct channel *ch)
{
	struct channel_env *env = ch->env;
	unsigned place = 0;

	/* Its own place, else a free one, else that of the one that was seen first. */
	for (unsigned i = 0; i < CHANNEL_OWING_MAX; i++) {
		if (env->owing[i] == ch) {
			place = i;
			break;
		}
		if (env->owing[place] &&
		    (!env->owing[i] || env->owing_turn[i] < env->owing_turn[place]))
			place = i;
	}
	if (env->owing[place] && env->owing[place] != ch)
		channel_stop_owing(env, place);
	env->owing[place] = ch;
	env->owing_turn[place] = env->conn->reactor->turns;
	if (ch->is_owing)
		return;
	env->n_owing++;
	ch->is_owing = true;
	channel_tell_full(ch);
}

void channel_end_owing(struct channel_env *env, bool all)
{
	uint64_t now = env->conn->reactor->turns;

	for (unsigned i = 0; i < CHANNEL_OWING_MAX; i++)
		if (env->owing[i] && (all || now - env->owing_turn[i] > CHANNEL_OWING_TURNS))
			channel_stop_owing(env, i);
}

void channel_flushed_to(struct channel *ch, uint64_t to)
{
	uint64_t bytes = 0;

	for (; ch->flushed < to; ch->flushed++)
		bytes += frame_weight(slot_of(ch, ch->flushed)->frame);
	ch->backlog_bytes -= bytes;
	ch->env->backlog_bytes -= bytes;
	/* At half, so that publishers aren't held and let go for each message. */
	if (WB_UNLIKELY(ch->is_behind) && !backlog_is_past(ch, 2))
		channel_set_behind(ch, false);
}

void channel_flushed_back(struct channel *ch, uint64_t to)
{
	while (ch->flushed > to)
		backlog_add(ch, slot_of(ch, --ch->flushed)->frame);
	ch->round_to = ch->flushed;
}

#define WINDOW_TICKS 954 /* of 2^20 ns: a second */

static uint32_t window_now(const struct channel *ch)
{
	return (uint32_t)(ch->env->conn->reactor->now_ns >> 20);
}

static struct channel_rate window_rate(const struct channel *ch, uint32_t ticks)
{
	return (struct channel_rate){
		.messages = (uint64_t)(ch->messages - ch->window.messages) * WINDOW_TICKS / ticks,
		.bytes = (ch->bytes - ch->window.bytes) * WINDOW_TICKS / ticks,
	};
}

/* The window is over: before what comes now is counted. */
static void window_close(struct channel *ch, uint32_t now)
{
	struct channel_rate last = window_rate(ch, now - ch->window.tick);

	ch->window = (struct channel_window){
		.tick = now,
		.messages = ch->messages,
		.bytes = ch->bytes,
		.last_messages = (uint32_t)MIN(last.messages, (uint64_t)UINT32_MAX),
		.last_bytes = last.bytes,
	};
}

struct channel_rate channel_rate(const struct channel *ch)
{
	uint32_t ticks = window_now(ch) - ch->window.tick;

	if (ticks < WINDOW_TICKS)
		return (struct channel_rate){ch->window.last_messages, ch->window.last_bytes};
	return window_rate(ch, ticks);
}

/* Counts what came without a gap; one message may be what many were waiting for. */
static void log_extend(struct channel *ch)
{
	uint32_t now = window_now(ch);

	if (WB_UNLIKELY(now - ch->window.tick >= WINDOW_TICKS))
		window_close(ch, now);
	while (ch->end < ch->high && slot_of(ch, ch->end)->frame) {
		struct channel_slot *slot = slot_of(ch, ch->end);

		/* Only now: what came before it wasn't known while there was a gap. */
		slot->bytes_before = ch->bytes;
		slot->messages_before = ch->messages;
		if (!(slot->frame->flags & FRAME_NOTICE)) {
			ch->bytes += slot->frame->body.len;
			ch->messages++;
		}
		ch->end++;
	}
}

void channel_want_flush(struct channel *ch)
{
	struct channel_env *env = ch->env;

	if (list_is_empty(&ch->grown_node))
		list_add_tail(ch->n_members > CHANNEL_SMALL_MEMBERS ? &env->grown_large
								    : &env->grown,
			      &ch->grown_node);
}

int channel_append(struct channel *ch, struct frame *f)
{
	if (f->seq < ch->end)
		return 0; /* from before this worker joined */
	/* Grown before anything is changed: without memory the log is as it was. */
	if (!ch->slots || f->seq - ch->from > ch->mask) {
		if (ring_grow(ch, f->seq - ch->from))
			return -ENOMEM;
	}
	slot_of(ch, f->seq)->frame = frame_ref(f);
	if (f->flags & FRAME_NOTICE)
		log_note_notice(ch, f);
	ch->high = MAX(ch->high, f->seq + 1);
	backlog_add(ch, f);
	log_extend(ch);
	if (ch->end > ch->flushed)
		channel_want_flush(ch);
	return 0;
}

int channel_load(struct channel *ch, uint64_t from, struct frame **frame, size_t n)
{
	WB_ASSERT(!ch->slots && ch->n_members == 0);
	ch->from = ch->end = ch->high = from;
	if (n > 0 && ring_grow(ch, n - 1))
		return -ENOMEM;
	/* All of it counts as flushed, so an empty slot holds nothing back: nobody needs it. */
	for (size_t i = 0; i < n; i++) {
		struct channel_slot *slot = slot_of(ch, from + i);
		struct frame *f = frame[i];

		*slot = (struct channel_slot){
			.frame = f ? frame_ref(f) : NULL,
			.bytes_before = ch->bytes,
			.messages_before = ch->messages,
		};
		if (!f)
			ch->whole_from = from + i + 1;
		if (f && f->flags & FRAME_NOTICE)
			log_note_notice(ch, f);
		if (f && !(f->flags & FRAME_NOTICE)) {
			ch->bytes += f->body.len;
			ch->messages++;
		}
	}
	ch->flushed = ch->round_to = ch->end = ch->high = from + n;
	return 0;
}

int channel_prepend(struct channel *ch, struct frame **frame, size_t n)
{
	uint64_t from = frame[0]->seq, bytes = ch->bytes;
	uint32_t messages = ch->messages;

	WB_ASSERT(frame[n - 1]->seq < ch->from);
	if (ch->from < ch->end) {
		bytes = slot_of(ch, ch->from)->bytes_before;
		messages = slot_of(ch, ch->from)->messages_before;
	}
	if ((!ch->slots || ch->high - from > (uint64_t)ch->mask + 1) &&
	    ring_grow(ch, ch->high - 1 - from))
		return -ENOMEM;
	/* From its start backwards, where it is known how much comes before; slots stay empty. */
	while (ch->from > from) {
		struct channel_slot *slot = slot_of(ch, --ch->from);
		struct frame *f = n > 0 && frame[n - 1]->seq == ch->from ? frame[--n] : NULL;

		bytes -= f ? f->body.len : 0;
		messages -= f != NULL;
		*slot = (struct channel_slot){
			.frame = f ? frame_ref(f) : NULL,
			.bytes_before = bytes,
			.messages_before = messages,
		};
	}
	return 0;
}

void channel_drop_log(struct channel *ch)
{
	/* Behind a gap that nothing filled there may be messages: so up to the last one. */
	for (; ch->from < ch->high; ch->from++) {
		slot_release(ch, slot_of(ch, ch->from));
		*slot_of(ch, ch->from) = (struct channel_slot){0};
	}
	ring_drop(ch);
	ch->env->backlog_bytes -= ch->backlog_bytes;
	ch->backlog_bytes = 0;
	/* Nobody here waits for it any more; a bit that stays would hold publishers for ever. */
	for (unsigned i = 0; ch->is_owing && i < CHANNEL_OWING_MAX; i++)
		if (ch->env->owing[i] == ch)
			channel_stop_owing(ch->env, i);
	if (ch->is_behind)
		channel_set_behind(ch, false);
}
