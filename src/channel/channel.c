/* SPDX-License-Identifier: MIT */
#include "channel/channel_private.h"

#include <errno.h>
#include <string.h>

#define NOTHING UINT64_MAX

void channel_init(struct channel *ch, struct channel_env *env, struct directory_entry *e,
		  uint64_t from)
{
	ch->env = env;
	ch->entry = e;
	ch->generation = e->generation;
	ch->members = &ch->only;
	ch->cap_members = 1;
	ch->from = ch->flushed = ch->round_to = ch->end = ch->high = from;
	list_init(&ch->grown_node);
}

void channel_fini(struct channel *ch)
{
	WB_ASSERT(ch->n_members == 0);
	channel_drop_log(ch);
	list_del(&ch->grown_node);
	if (ch->members != &ch->only)
		free(ch->members);
}

void channel_env_fini(struct channel_env *env)
{
	while (env->pool.n > 0)
		free(env->pool.ring[--env->pool.n]);
	for (size_t i = 0; i < FRAME_N_VARIANT_KEYS; i++)
		free(env->batch[i].copy);
}

/* -------------------------------------------------------------------- members */

static int members_grow(struct channel *ch)
{
	uint32_t cap = ch->cap_members * 2;
	struct member **more = malloc(cap * sizeof(struct member *));

	if (!more)
		return -ENOMEM;
	memcpy(more, ch->members, ch->n_members * sizeof(struct member *));
	if (ch->members != &ch->only)
		free(ch->members);
	ch->members = more;
	ch->cap_members = cap;
	return 0;
}

int channel_join(struct channel *ch, struct member *m, struct conn *c)
{
	if (ch->n_members == ch->cap_members && members_grow(ch))
		return -ENOMEM;
	m->channel = ch;
	m->conn = c;
	m->next = directory_next_seq(ch->entry);
	m->index = ch->n_members;
	ch->members[ch->n_members++] = m;
	m->sibling = c->members;
	c->members = m;
	c->n_members++;
	atomic_fetch_add_explicit(&ch->entry->members, 1, memory_order_relaxed);
	return 0;
}

static void move_member(struct channel *ch, uint32_t from, uint32_t to)
{
	ch->members[to] = ch->members[from];
	ch->members[to]->index = to;
}

static void unpin(struct member *m)
{
	if (!m->is_lagging)
		return;
	slot_of(m->channel, m->next)->pins--;
	m->is_lagging = false;
	m->conn->n_lagging--;
}

/* @m cannot go on now: its next message, which is here, stays until it can. */
static void pin(struct member *m)
{
	struct conn *c = m->conn;

	slot_of(m->channel, m->next)->pins++;
	m->is_lagging = true;
	c->n_lagging++;
	if (list_is_empty(&c->unsent_node))
		list_add_tail(&c->env->unsent, &c->unsent_node);
}

void channel_rewind(struct member *m, uint64_t next)
{
	struct channel *ch = m->channel;

	WB_ASSERT(!m->is_lagging);
	m->next = MIN(MAX(next, ch->from), ch->end);
	if (m->next < ch->end)
		pin(m);
}

void channel_loaded(struct channel *ch)
{
	channel_trim(ch);
}

void channel_leave(struct member *m)
{
	struct channel *ch = m->channel;
	struct member **at = &m->conn->members;
	uint32_t hole = m->index;

	unpin(m);
	/* Those the round has passed stay before the cursor, the others behind it. */
	if (hole < ch->cursor) {
		move_member(ch, --ch->cursor, hole);
		hole = ch->cursor;
	}
	move_member(ch, --ch->n_members, hole);
	while (*at != m)
		at = &(*at)->sibling;
	*at = m->sibling;
	m->conn->n_members--;
	atomic_fetch_sub_explicit(&ch->entry->members, 1, memory_order_relaxed);
	*m = (struct member){0};
	channel_trim(ch);
}

void channel_waiting(const struct member *m, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	const struct log_slot *slot;

	*ret_bytes = *ret_messages = 0;
	if (!m->is_lagging)
		return;
	slot = slot_of(m->channel, m->next);
	*ret_bytes = m->channel->bytes - slot->bytes_before;
	*ret_messages = (uint32_t)(m->channel->messages - slot->messages_before);
}

void channel_own_waiting(const struct member *m, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	*ret_bytes = *ret_messages = 0;
	for (uint64_t seq = m->next; m->is_lagging && seq < m->last_own; seq++) {
		const struct frame *f = slot_of(m->channel, seq)->frame;

		if (!f || f->sender != m->conn->serial)
			continue;
		*ret_bytes += f->body.len;
		(*ret_messages)++;
	}
}

void channel_backlog_bound(const struct conn *c, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	*ret_bytes = c->out->queue_bytes;
	*ret_messages = c->out->queue_count;
	if (c->n_lagging == 0)
		return;
	for (const struct member *m = c->members; m; m = m->sibling) {
		uint64_t bytes, messages;

		channel_waiting(m, &bytes, &messages);
		*ret_bytes += bytes;
		*ret_messages += messages;
	}
}

void channel_backlog(const struct conn *c, uint64_t *ret_bytes, uint64_t *ret_messages)
{
	channel_backlog_bound(c, ret_bytes, ret_messages);
	for (const struct member *m = c->n_lagging ? c->members : NULL; m; m = m->sibling) {
		uint64_t bytes, messages;

		channel_own_waiting(m, &bytes, &messages);
		*ret_bytes -= bytes;
		*ret_messages -= messages;
	}
}

/* -------------------------------------------------------------------- sending */

/* The bytes of message @seq for this member, or NULL when it gets none of it. */
static const struct frame_bytes *bytes_for(const struct member *m, uint64_t seq)
{
	struct frame *f = slot_of(m->channel, seq)->frame;

	if (!f || f->sender == m->conn->serial)
		return NULL;
	return frame_variant_for(f, m->conn->caps, m->conn->deflate_window, m->channel->env->maker);
}

static void count_sent(const struct channel *ch, uint64_t frames, uint64_t bytes)
{
	METRIC_ADD(ch->env->conn->metrics, messages_sent, frames);
	METRIC_ADD(ch->env->conn->metrics, frames_sent, frames);
	METRIC_ADD(ch->env->conn->metrics, bytes_sent, bytes);
}

/*
 * @sent bytes of the messages from m->next on went out, and then the kernel was
 * full: moves @m behind the message that is in transit now. False: there is no
 * memory to remember it, the connection is gone and this membership with it.
 */
static bool advance(struct member *m, uint64_t to, size_t sent)
{
	struct channel *ch = m->channel;
	uint64_t frames = 0;
	size_t left = sent;

	for (; m->next < to; m->next++) {
		struct frame *f = slot_of(m->channel, m->next)->frame;
		const struct frame_bytes *b = bytes_for(m, m->next);

		if (!b)
			continue;
		if (left < b->len) {
			if (!conn_transit(m->conn, f, b, left))
				return false;
			m->next++;
			break;
		}
		left -= b->len;
		frames++;
	}
	count_sent(ch, frames, sent);
	return true;
}

/* What transport_send() returned for messages up to @to; true when all of it went. */
static bool take_result(struct member *m, uint64_t to, size_t bytes, unsigned frames, ssize_t sent)
{
	struct conn *c = m->conn;

	if (sent == (ssize_t)bytes) {
		m->next = to;
		count_sent(m->channel, frames, bytes);
		return true;
	}
	if (sent < 0 && sent != -EAGAIN) {
		conn_blocked(c, sent); /* the connection is gone, and this membership with it */
		return false;
	}
	if (!advance(m, to, sent < 0 ? 0 : (size_t)sent))
		return false;
	conn_blocked(c, sent);
	if (m->next < m->channel->end)
		pin(m);
	return false;
}

/* Sends to one member alone, up to @to, at most @share bytes; true when it can go on. */
static bool send_range(struct member *m, uint64_t to, size_t *share)
{
	struct iovec iov[64];
	size_t bytes = 0;
	uint64_t seq;
	int n = 0;

	for (seq = m->next; seq < to && n < (int)ARRAY_LEN(iov) && bytes < *share; seq++) {
		const struct frame_bytes *b = bytes_for(m, seq);

		if (!b)
			continue;
		iov[n++] = (struct iovec){(void *)(uintptr_t)b->bytes, b->len};
		bytes += b->len;
	}
	*share -= MIN(bytes, *share);
	if (n == 0) {
		m->next = seq;
		return true;
	}
	return take_result(m, seq, bytes, (unsigned)n, transport_send(&m->conn->transport, iov, n));
}

/* ---------------------------------------------------------------------- batch */

static void batch_join(struct batch *b)
{
	uint8_t *at;

	if (b->n_iov < 2 || b->bytes > CHANNEL_COPY_BYTES)
		return;
	if (!b->copy)
		b->copy = malloc(CHANNEL_COPY_BYTES);
	at = b->copy;
	if (!at)
		return;
	for (int i = 0; i < b->n_iov; i++) {
		memcpy(at, b->iov[i].iov_base, b->iov[i].iov_len);
		at += b->iov[i].iov_len;
	}
	b->iov[0] = (struct iovec){b->copy, b->bytes};
	b->n_iov = 1;
}

/* What one round sends to all members that have this key. */
static const struct batch *batch_for(struct channel *ch, unsigned key)
{
	struct batch *b = &ch->env->batch[key];

	if (b->round == ch->env->round)
		return b;
	b->round = ch->env->round;
	b->n_iov = 0;
	b->bytes = 0;
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

/* Chooses how far the next round goes; returns whether its messages have several variants. */
static bool begin_round(struct channel *ch)
{
	bool varies = false;
	size_t bytes = 0;
	uint64_t to = ch->round_to;

	if (to == ch->flushed) {
		while (to < ch->end && to - ch->flushed < CHANNEL_BATCH_FRAMES &&
		       (bytes < CHANNEL_BATCH_BYTES || to == ch->flushed))
			bytes += batch_weight(slot_of(ch, to++)->frame);
		ch->round_to = to;
		ch->cursor = 0;
	}
	for (uint64_t seq = ch->flushed; seq < to; seq++)
		varies |= frame_varies(slot_of(ch, seq)->frame);
	ch->env->round++;
	return varies;
}

static void end_round(struct channel *ch)
{
	struct conn_env *env = ch->env->conn;
	uint64_t received = slot_of(ch, ch->flushed)->frame->received_ns;

	if (received)
		metric_observe(env->metrics, clock_now_ns() - received);
	ch->flushed = ch->round_to;
	ch->cursor = 0;
	channel_trim(ch);
	if (ch->slots)
		channel_shed_notices(ch);
}

/* The round comes by a member. */
static void visit(struct channel *ch, struct member *m, bool varies)
{
	struct conn *c = m->conn;
	const struct batch *b;

	if (m->is_lagging) {
		c->env->ops->check_limits(c);
		return;
	}
	if (m->next >= ch->round_to)
		return;
	if (!conn_is_caught_up(c)) {
		pin(m);
		c->env->ops->check_limits(c);
		return;
	}
	if (WB_UNLIKELY(m->next != ch->flushed || m->last_own > ch->flushed)) {
		size_t share = SIZE_MAX;

		while (m->channel && m->next < ch->round_to && send_range(m, ch->round_to, &share))
			;
	} else {
		b = batch_for(ch, varies ? frame_variant_key(c->caps, c->deflate_window) : 0);
		if (b->n_iov == 0)
			m->next = ch->round_to;
		else
			(void)take_result(m, ch->round_to, b->bytes, b->n_frames,
					  transport_send(&c->transport, b->iov, b->n_iov));
	}
	/* One round may be too much. @m may be gone by now, the connection is still there. */
	if (c->n_lagging > 0)
		c->env->ops->check_limits(c);
}

/* Bytes that were compressed and decompressed so far. */
static uint64_t packing_work(const struct channel *ch)
{
	const struct frame_maker *m = ch->env->maker;

	return m->pack_in + m->deflate_in + m->unpack_out;
}

bool channel_flush(struct channel *ch, unsigned *budget)
{
	uint64_t work_before, work;
	bool varies;

	ch->is_flushing = true;
	while (*budget > 0 && ch->flushed < ch->end) {
		varies = begin_round(ch);
		while (*budget > 0 && ch->cursor < ch->n_members) {
			struct member *m = ch->members[ch->cursor++];

			work_before = packing_work(ch);
			visit(ch, m, varies);
			work = 1 + (packing_work(ch) - work_before) / CHANNEL_BYTES_PER_MEMBER;
			*budget -= (unsigned)MIN(work, (uint64_t)*budget);
		}
		if (ch->cursor == ch->n_members)
			end_round(ch);
	}
	ch->is_flushing = false;
	return ch->flushed == ch->end;
}

/* ------------------------------------------------------------ those that lag */

/* One member goes on, as far as @budget and the kernel allow; false: the kernel is full. */
static bool catch_up_one(struct member *m, size_t *share)
{
	struct channel *ch = m->channel;
	struct conn *c = m->conn;
	bool goes_on;

	unpin(m);
	goes_on = send_range(m, ch->end, share);
	if (c->state != CONN_OPEN)
		return false;
	if (goes_on && m->next < ch->end)
		pin(m);
	channel_trim(ch);
	return goes_on;
}

void channel_catch_up(struct conn *c)
{
	size_t share = CHANNEL_SHARE_BYTES;

	while (c->n_lagging > 0 && share > 0) {
		for (struct member *m = c->members; m && share > 0; m = m->sibling)
			if (m->is_lagging && !catch_up_one(m, &share))
				return;
	}
	if (c->n_lagging > 0)
		conn_want_write(c);
}

/* The lagging member whose next message is the oldest. */
static struct member *oldest(struct conn *c)
{
	struct member *found = NULL;
	uint64_t when = NOTHING;

	for (struct member *m = c->members; m; m = m->sibling) {
		const struct frame *f;

		if (!m->is_lagging)
			continue;
		f = slot_of(m->channel, m->next)->frame;
		if (!f)
			return m; /* a notice that was shed: free to pass */
		if (f->received_ns < when) {
			when = f->received_ns;
			found = m;
		}
	}
	return found;
}

/* Passes over one message; true when it was one that waited for this member. */
static bool skip_one(struct member *m, size_t *ret_len)
{
	struct channel *ch = m->channel;
	const struct frame *f = slot_of(ch, m->next)->frame;
	bool counts = f && !(f->flags & FRAME_NOTICE) && f->sender != m->conn->serial;

	if (counts)
		*ret_len = f->body.len;
	unpin(m);
	if (++m->next < ch->end)
		pin(m);
	return counts;
}

uint64_t channel_skip(struct conn *c, uint64_t bytes, uint64_t messages)
{
	uint64_t skipped = 0, sum_bytes = 0, sum_messages = 0;

	for (struct member *m = c->members; m; m = m->sibling) {
		uint64_t b, n, own_b, own_n;

		channel_waiting(m, &b, &n);
		channel_own_waiting(m, &own_b, &own_n);
		sum_bytes += b - own_b;
		sum_messages += n - own_n;
	}
	while (sum_bytes > bytes || sum_messages > messages) {
		struct member *m = oldest(c);
		size_t len = 0;

		if (!m)
			break;
		if (!skip_one(m, &len))
			continue;
		skipped++;
		sum_bytes -= len;
		sum_messages--;
	}
	for (struct member *m = c->members; m; m = m->sibling)
		channel_trim(m->channel);
	return skipped;
}

void channel_check(const struct channel *ch)
{
	uint32_t pins = 0, lagging = 0;

	WB_ASSERT(ch->from <= ch->flushed && ch->flushed <= ch->round_to);
	WB_ASSERT(ch->round_to <= ch->end && ch->end <= ch->high);
	WB_ASSERT(ch->slots || ch->from == ch->high);
	WB_ASSERT(ch->high - ch->from <= (uint64_t)ch->mask + 1);
	WB_ASSERT(ch->cursor <= ch->n_members);
	for (uint64_t s = ch->from; s < ch->high; s++)
		pins += slot_of(ch, s)->pins;
	for (uint32_t i = 0; i < ch->n_members; i++) {
		const struct member *m = ch->members[i];

		WB_ASSERT(m->channel == ch && m->index == i);
		WB_ASSERT(!m->is_lagging || (m->next >= ch->from && m->next < ch->end));
		WB_ASSERT(m->is_lagging || m->next >= ch->flushed);
		lagging += m->is_lagging;
	}
	WB_ASSERT(pins == lagging);
}
