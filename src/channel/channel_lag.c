/* SPDX-License-Identifier: MIT */
#include "channel/channel_private.h"

#define SEND_MAX_FRAMES 64 /* of one call to the transport, for one member */

/* ------------------------------------------------------------------ what waits for it */

/* Bytes and messages of the log before message @seq, which is its end or lies in it. */
static void log_before(const struct channel *ch, uint64_t seq, uint64_t *ret_bytes,
		       uint32_t *ret_messages)
{
	const struct channel_slot *slot = seq < ch->end ? slot_of(ch, seq) : NULL;

	*ret_bytes = slot ? slot->bytes_before : ch->bytes;
	*ret_messages = slot ? slot->messages_before : ch->messages;
}

/* Of the log from message @from on, which is not before the member's next, up to @to. O(1). */
static void log_between(const struct channel *ch, uint64_t from, uint64_t to, uint64_t *ret_bytes,
			uint64_t *ret_messages)
{
	uint64_t bytes;
	uint32_t messages, messages_before;

	*ret_bytes = *ret_messages = 0;
	if (from >= to)
		return;
	log_before(ch, from, &bytes, &messages_before);
	log_before(ch, to, ret_bytes, &messages);
	*ret_bytes -= bytes;
	*ret_messages = (uint32_t)(messages - messages_before);
}

/* What no round has brought to it yet waits for the server, not for this member. */
static uint64_t member_brought(const struct member *m)
{
	const struct channel *ch = m->channel;

	return m->index < ch->cursor ? ch->round_to : ch->flushed;
}

/* What waits in its channel for a lagging member, its own messages included. O(1). */
static void member_waiting(const struct member *m, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	uint64_t to = m->is_lagging ? member_brought(m) : 0;

	log_between(m->channel, member_next(m), to, ret_bytes, ret_messages);
}

/* What is kept anyway costs nothing where that is the channel's policy. */
static uint64_t member_counted_to(const struct member *m)
{
	const struct history_store *s = channel_store(m->channel);
	uint64_t to = member_brought(m);

	if (s && channel_slow_policy(m->channel) == SLOW_HISTORY)
		to = MIN(to, atomic_load_explicit(&s->earliest, memory_order_relaxed));
	return to;
}

/*
 * The same without its own, which it won't get, and without what it came for, which it did not let
 * lie. Those that no round has passed yet are taken off, too: they are no more than the channel's
 * backlog, which has a bound.
 */
static void member_backlog(const struct member *m, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	uint64_t to = m->is_lagging ? member_counted_to(m) : 0;

	log_between(m->channel, MAX(member_next(m), member_replay_to(m)), to, ret_bytes,
		    ret_messages);
	*ret_bytes -= MIN(m->own_bytes, *ret_bytes);
	*ret_messages -= MIN((uint64_t)m->own_messages, *ret_messages);
}

static void member_backlog_kept(const struct member *m, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	*ret_bytes = *ret_messages = 0;
	if (channel_slow_policy(m->channel) == SLOW_DISCONNECT)
		member_backlog(m, ret_bytes, ret_messages);
}

/* Adds up @waiting of all memberships, behind what is private. */
static void conn_add_up(const struct conn *c,
			void (*waiting)(const struct member *, uint64_t *, uint64_t *),
			uint64_t *ret_bytes, uint64_t *ret_messages)
{
	*ret_bytes = c->out->queue_bytes;
	*ret_messages = c->out->queue_count;
	for (const struct member *m = c->n_lagging ? c->members : NULL; m; m = m->sibling) {
		uint64_t bytes, messages;

		waiting(m, &bytes, &messages);
		*ret_bytes += bytes;
		*ret_messages += messages;
	}
}

void channel_backlog_bound(const struct conn *c, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	conn_add_up(c, member_waiting, ret_bytes, ret_messages);
}

void channel_backlog_kept(const struct conn *c, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	conn_add_up(c, member_backlog_kept, ret_bytes, ret_messages);
}

void channel_backlog(const struct conn *c, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	conn_add_up(c, member_backlog, ret_bytes, ret_messages);
}

/* ---------------------------------------------------------------- sending to it alone */

/* The bytes of message @seq for this member, or NULL when it gets none of it. */
static const struct frame_bytes *member_bytes_of(const struct member *m, uint64_t seq)
{
	struct frame *f = slot_of(m->channel, seq)->frame;

	if (!f || f->sender == m->conn->serial)
		return NULL;
	return frame_variant_for(f, m->conn->caps, m->conn->deflate_window, m->channel->env->maker);
}

/*
 * @sent bytes of the messages from m->next on went out, and then the kernel was
 * full: moves @m behind the message that is in transit now. False: there is no
 * memory to remember it, the connection is gone and this membership with it.
 */
static bool member_advance(struct member *m, uint64_t to, size_t sent)
{
	struct channel *ch = m->channel;
	uint64_t frames = 0;
	uint64_t seq = m->next;
	size_t left = sent;

	for (; seq < to; seq++) {
		struct frame *f = slot_of(ch, seq)->frame;
		const struct frame_bytes *b = member_bytes_of(m, seq);

		if (!b)
			continue;
		/*
		 * Also when nothing of it is out: what the kernel refuses first is in transit, and
		 * so is kept for the member whatever else it may have to skip.
		 */
		if (left < b->len) {
			if (!conn_transit(m->conn, f, b, left))
				return false;
			seq++;
			break;
		}
		left -= b->len;
		frames++;
	}
	member_pass(m, seq);
	count_sent(m, frames, sent);
	return true;
}

void member_take_part(struct member *m, uint64_t to, ssize_t sent)
{
	struct conn *c = m->conn;

	if (sent < 0 && sent != -EAGAIN) {
		conn_blocked(c, sent); /* the connection is gone, and this membership with it */
		return;
	}
	if (!member_advance(m, to, sent < 0 ? 0 : (size_t)sent))
		return;
	conn_blocked(c, sent);
	if (m->next < m->channel->end)
		member_pin(m);
}

bool member_send_range(struct member *m, uint64_t to, size_t *budget)
{
	struct iovec iov[SEND_MAX_FRAMES];
	size_t bytes = 0;
	uint64_t seq;
	int n = 0;

	for (seq = m->next; seq < to && n < (int)ARRAY_LEN(iov) && bytes < *budget; seq++) {
		const struct frame_bytes *b = member_bytes_of(m, seq);

		if (!b)
			continue;
		iov[n++] = (struct iovec){(void *)(uintptr_t)b->bytes, b->len};
		bytes += b->len;
	}
	*budget -= MIN(bytes, *budget);
	/* Nothing but its own messages, notices that were shed, and what it cannot be given. */
	if (n == 0) {
		member_pass(m, seq);
		return true;
	}
	/* Before it is sent: the connection may be gone then. */
	turn_charge_send(&m->conn->env->turn, bytes);
	return member_take_result(m, seq, bytes, (unsigned)n,
				  transport_send(&m->conn->transport, iov, n));
}

/* --------------------------------------------------------------------- catching up */

/*
 * One member goes on, as far as @budget and the kernel allow; false: the kernel is full, or
 * something is to be said before it goes on.
 */
static bool member_catch_up(struct member *m, size_t *budget)
{
	struct channel *ch = m->channel;
	struct conn *c = m->conn;
	uint64_t to = ch->end, replay_to;
	bool goes_on;

	if (WB_UNLIKELY(m->has_mark)) {
		if (member_tell(m))
			return false;
		replay_to = member_replay_to(m);
		to = MIN(to, MAX(replay_to, m->next));
	}
	if (!m->is_lagging)
		return true;
	/* Its next message changes. The log is trimmed once the pin is where it belongs. */
	member_unpin(m);
	goes_on = member_send_range(m, to, budget);
	if (c->state != CONN_OPEN)
		return false; /* then @m is gone, and perhaps the channel */
	if (goes_on && m->next < ch->end)
		member_pin(m);
	channel_trim(ch);
	return goes_on;
}

void channel_catch_up(struct conn *c)
{
	const struct turn *turn = &c->env->turn;
	size_t budget = CHANNEL_CATCH_UP_BYTES;

	/*
	 * In turn: a channel with much to say doesn't keep the others of this client waiting. One
	 * send at least, since those whose turn has come are taken out of the line.
	 */
	do {
		for (struct member *m = c->members; m && budget > 0; m = m->sibling)
			if ((m->is_lagging || m->has_mark) && !member_catch_up(m, &budget))
				return;
	} while (c->n_lagging > 0 && budget > 0 && !turn_is_over(turn));
	c->is_owed = c->n_lagging > 0;
	if (c->is_owed)
		conn_want_write(c);
}

void channel_owe(const struct conn *c)
{
	const struct config *config = c->env->config;
	unsigned left = CHANNEL_OWING_MAX; /* more would only take each other's places */
	uint64_t bytes, messages;

	channel_backlog(c, &bytes, &messages);
	if (bytes <= config->max_send_buffer / 2 && messages <= config->message_queue_size / 2)
		return;
	for (struct member *m = c->members; m && left > 0; m = m->sibling) {
		if (!m->is_lagging)
			continue;
		channel_set_owing(m->channel);
		left--;
	}
}

/* ----------------------------------------------------------------------- skipping */

static const char *skip_reason(const struct channel *ch)
{
	return channel_slow_policy(ch) == SLOW_HISTORY ? "history" : "skipped";
}

/* The lagging member whose next message is the oldest, or NULL. */
static struct member *oldest_lagging(struct conn *c)
{
	struct member *found = NULL;
	uint64_t when = UINT64_MAX;

	for (struct member *m = c->members; m; m = m->sibling) {
		const struct frame *f;

		if (!m->is_lagging || channel_slow_policy(m->channel) == SLOW_DISCONNECT ||
		    member_next(m) >= member_counted_to(m))
			continue;
		f = slot_of(m->channel, member_next(m))->frame;
		if (!f)
			return m; /* a notice that was shed: free to pass */
		if (f->received_ns < when) {
			when = f->received_ns;
			found = m;
		}
	}
	return found;
}

enum skip_outcome { SKIP_PASSED, SKIP_COUNTS, SKIP_NO_MEMORY };

/* Passes over one message; SKIP_COUNTS: it was one that waited for this member. */
static enum skip_outcome member_skip_one(struct member *m, size_t *ret_len)
{
	struct channel *ch = m->channel;
	const struct frame *f = slot_of(ch, member_next(m))->frame;
	bool counts = f && !(f->flags & FRAME_NOTICE) && f->sender != m->conn->serial;

	member_unpin(m);
	/* Of what is kept it is told; without memory for that it could not be honest. */
	if (counts && f->flags & FRAME_NUMBERED && !member_note_gap(m, skip_reason(ch))) {
		member_pin(m);
		return SKIP_NO_MEMORY;
	}
	if (counts)
		*ret_len = f->body.len;
	/* What it came for was on nobody's account. */
	counts = counts && m->next >= member_replay_to(m);
	member_pass(m, m->next + 1);
	if (m->next < ch->end)
		member_pin(m);
	return counts ? SKIP_COUNTS : SKIP_PASSED;
}

uint64_t channel_skip(struct conn *c, uint64_t bytes, uint64_t messages)
{
	uint64_t skipped = 0, sum_bytes = 0, sum_messages = 0;

	/* Added up once and then counted down: else each message would cost a walk through all. */
	for (struct member *m = c->members; m; m = m->sibling) {
		uint64_t b, n;

		member_backlog(m, &b, &n);
		sum_bytes += b;
		sum_messages += n;
	}
	while (sum_bytes > bytes || sum_messages > messages) {
		struct member *m = oldest_lagging(c);
		enum skip_outcome outcome;
		size_t len = 0;

		if (!m)
			break;
		outcome = member_skip_one(m, &len);
		if (outcome == SKIP_NO_MEMORY) {
			conn_close(c, WS_CODE_INTERNAL_ERROR, NULL);
			return skipped;
		}
		skipped += len > 0;
		if (outcome == SKIP_PASSED)
			continue;
		sum_bytes -= len;
		sum_messages--;
	}
	for (struct member *m = c->members; m; m = m->sibling)
		channel_trim(m->channel);
	return skipped;
}
