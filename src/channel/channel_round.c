/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "channel/channel_private.h"

#define STEP_MEMBERS 16U         /* that are sent to between two looks at the clock … */
#define STEP_SHIFT_MAX 2U        /* … times up to four, while sending is quick … */
#define STEP_BYTES (512U * 1024) /* … or fewer, so that they get no more than this in all */
#define STEP_LONG_NS (200 * NS_PER_US)
#define STEP_SHORT_NS (50 * NS_PER_US)

/* ------------------------------------------------------------------------ its batch */

/* Lays a small batch out in one piece, which costs the kernel less than many short ones. */
static void batch_join(struct channel_batch *b)
{
	uint8_t *at;

	if (b->n_iov < 2 || b->bytes > CHANNEL_COPY_BYTES)
		return;
	if (!b->copy)
		b->copy = malloc(CHANNEL_COPY_BYTES);
	at = b->copy;
	if (!at)
		return; /* then it goes out in its pieces */
	for (int i = 0; i < b->n_iov; i++) {
		memcpy(at, b->iov[i].iov_base, b->iov[i].iov_len);
		at += b->iov[i].iov_len;
	}
	b->iov[0] = (struct iovec){b->copy, b->bytes};
	b->n_iov = 1;
}

/* The round's messages for all that have one key of variants; gathered for the first of them. */
static const struct channel_batch *batch_for(struct channel *ch, unsigned key)
{
	struct channel_batch *b = &ch->env->batch[key];

	if (b->serial == ch->env->batch_serial)
		return b;
	b->serial = ch->env->batch_serial;
	b->n_iov = 0;
	b->bytes = 0;
	/* What this key cannot be given is left out, and so costs each of its members nothing. */
	for (uint64_t seq = ch->flushed; seq < ch->round_to; seq++) {
		const struct frame_bytes *bytes =
			frame_variant_for_key(slot_of(ch, seq)->frame, key, ch->env->maker);

		if (!bytes)
			continue;
		b->iov[b->n_iov++] = (struct iovec){(void *)(uintptr_t)bytes->bytes, bytes->len};
		b->bytes += bytes->len;
	}
	b->n_frames = (unsigned)b->n_iov;
	batch_join(b);
	return b;
}

/* What a message adds to a round. A compressed one ends it: nobody knows how large it unpacks. */
static size_t batch_weight(const struct frame *f)
{
	return f->flags & FRAME_IS_PACKED ? CHANNEL_BATCH_BYTES : f->body.len;
}

/* ------------------------------------------------------------------------- the round */

/* What a round consists of, while a turn works on it. */
struct round {
	size_t bytes; /* of its messages */
	bool varies;  /* they have several variants */
};

/*
 * Chooses how far the next round goes, or goes on with one that the last turn had no budget
 * for.
 */
static struct round round_begin(struct channel *ch)
{
	struct round round = {0};
	size_t bytes = 0;
	uint64_t to = ch->round_to;

	if (to == ch->flushed) {
		/* At least one message, however large it is. */
		while (to < ch->end && to - ch->flushed < CHANNEL_BATCH_FRAMES &&
		       (bytes < CHANNEL_BATCH_BYTES || to == ch->flushed))
			bytes += batch_weight(slot_of(ch, to++)->frame);
		ch->round_to = to;
		ch->cursor = 0;
	}
	for (uint64_t seq = ch->flushed; seq < to; seq++) {
		round.varies |= frame_varies(slot_of(ch, seq)->frame);
		round.bytes += slot_of(ch, seq)->frame->body.len;
	}
	/*
	 * The batches are the worker's, not the channel's: since the last turn others may have
	 * used them, so they are gathered again even where the round only goes on.
	 */
	ch->env->batch_serial++;
	return round;
}

static void round_end(struct channel *ch)
{
	struct conn_env *env = ch->env->conn;
	uint64_t received = slot_of(ch, ch->flushed)->frame->received_ns;

	/* Of its first message, which has waited longest. The turn's clock has stood still. */
	if (received)
		metric_observe(env->metrics, clock_now_ns() - received);
	/* Before the log is trimmed, which keeps all that isn't flushed. */
	channel_flushed_to(ch, ch->round_to);
	ch->cursor = 0;
	channel_trim(ch);
	if (ch->slots)
		channel_shed_notices(ch);
}

/* The batch goes to a member whole, with one send. */
static void round_send(struct channel *ch, struct member *m, unsigned key)
{
	const struct channel_batch *b = batch_for(ch, key);

	if (b->n_iov == 0) {
		m->next = ch->round_to;
		return;
	}
	(void)member_take_result(m, ch->round_to, b->bytes, b->n_frames,
				 transport_send(&m->conn->transport, b->iov, b->n_iov));
}

/* The same to one that has a part of the round already, or sent some of it. */
static void round_send_alone(struct channel *ch, struct member *m)
{
	size_t budget = SIZE_MAX;

	while (m->channel && m->next < ch->round_to && member_send_range(m, ch->round_to, &budget))
		;
}

/* The round comes by a member, which may be gone after it. */
static void round_visit(struct channel *ch, struct member *m, bool varies)
{
	struct conn *c = m->conn;

	/* It is served when its socket takes more; but more waits for it now. */
	if (m->is_lagging) {
		c->env->ops->check_limits(c);
		return;
	}
	/* It joined while the round was under way, or has caught up with more than that. */
	if (m->next >= ch->round_to)
		return;
	/* Something goes out before this: in this channel or another, or its private queue. */
	if (!conn_is_caught_up(c)) {
		member_pin(m);
		c->env->ops->check_limits(c);
		return;
	}
	if (WB_UNLIKELY(m->next != ch->flushed || member_has_own(m)))
		round_send_alone(ch, m);
	else
		round_send(ch, m, varies ? frame_variant_key(c->caps, c->deflate_window) : 0);
	/* One round may be too much. The connection is there until the turn ends, @m may not be. */
	if (c->n_lagging > 0)
		c->env->ops->check_limits(c);
}

/* Bytes that were compressed and decompressed so far. */
static uint64_t packing_work(const struct channel *ch)
{
	const struct frame_maker *m = ch->env->maker;

	return m->pack_in + m->deflate_in + m->unpack_out;
}

/* Members between two looks at the clock: for a part of a millisecond, whatever they are sent. */
static unsigned round_step_members(const struct channel_env *env, const struct round *round)
{
	unsigned most = STEP_MEMBERS << env->step_shift;

	/* The first of a key pays for making its variants, so each is looked at alone. */
	if (round->varies)
		return 1;
	if (round->bytes <= STEP_BYTES / most)
		return most;
	return round->bytes < STEP_BYTES ? (unsigned)(STEP_BYTES / round->bytes) : 1;
}

/*
 * A step of @visits took so long. What a send costs differs by more than ten between machines,
 * and with who is woken by it; looking at the clock costs as much everywhere.
 */
static void round_pace(struct channel_env *env, unsigned visits, uint64_t ns)
{
	/* Whoever did less may not have looked. */
	if (visits < STEP_MEMBERS)
		return;
	if (ns > STEP_LONG_NS && env->step_shift > 0)
		env->step_shift--;
	else if (ns < STEP_SHORT_NS && env->step_shift < STEP_SHIFT_MAX)
		env->step_shift++;
}

/* Goes on with up to @n members; returns what of the budget that took. */
static uint64_t round_step(struct channel *ch, const struct round *round, unsigned n)
{
	struct turn *turn = &ch->env->conn->turn;
	uint64_t before = packing_work(ch), began_ns = turn->seen_ns, work;
	unsigned visits = 0;

	for (; visits < n && ch->cursor < ch->n_members; visits++) {
		/* Passed before it is visited: it may leave meanwhile. */
		struct member *m = ch->members[ch->cursor++];

		round_visit(ch, m, round->varies);
	}
	work = packing_work(ch) - before;
	turn_charge(turn, visits * (TURN_SEND + round->bytes / TURN_SEND_BYTES_PER) + work);
	round_pace(ch->env, visits, turn->seen_ns - began_ns);
	return visits + work / CHANNEL_BYTES_PER_MEMBER;
}

bool channel_flush(struct channel *ch, unsigned *budget, unsigned share)
{
	const struct turn *turn = &ch->env->conn->turn;
	uint64_t spent = 0;

	ch->is_flushing = true;
	while (*budget > 0 && spent < share && ch->flushed < ch->end) {
		const struct round round = round_begin(ch);
		unsigned step = round_step_members(ch->env, &round);

		do {
			uint64_t work = round_step(ch, &round, MIN(step, *budget));

			*budget -= (unsigned)MIN(work, (uint64_t)*budget);
			spent += work;
		} while (*budget > 0 && spent < share && ch->cursor < ch->n_members &&
			 !turn_is_over(turn));
		/* Also when the budget is gone just now: the last member ends the round. */
		if (ch->cursor == ch->n_members)
			round_end(ch);
		if (turn_is_over(turn))
			break;
	}
	ch->is_flushing = false;
	return ch->flushed == ch->end;
}
