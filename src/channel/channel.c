/* SPDX-License-Identifier: MIT */
#include "channel/channel.h"

#include <errno.h>
#include <string.h>

#include "channel/channel_private.h"

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
	list_init(&ch->held_node);
	list_init(&ch->late_acks);
	/* As if it had been silent until now. */
	ch->window.tick = (uint32_t)(env->conn->reactor->now_ns >> 20);
}

void channel_fini(struct channel *ch)
{
	WB_ASSERT(ch->n_members == 0 && list_is_empty(&ch->late_acks));
	channel_drop_log(ch);
	list_del(&ch->grown_node);
	list_del(&ch->held_node);
	if (ch->members != &ch->only)
		free(ch->members);
}

void channel_env_fini(struct channel_env *env)
{
	while (env->pool.n > 0)
		free(env->pool.ring[--env->pool.n]);
	for (size_t i = 0; i < ARRAY_LEN(env->batch); i++)
		free(env->batch[i].copy);
	table_fini(&env->marks);
}

/* -------------------------------------------------------------------- members */

static int members_grow(struct channel *ch)
{
	/* From the one that lies in the channel itself: most channels never have a second one. */
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

/* One more of its members is slow, or one less. */
static void channel_count_slow(struct channel *ch, bool is_slow)
{
	bool had_any = ch->n_slow > 0;

	if (is_slow)
		ch->n_slow++;
	else
		ch->n_slow--;
	if (had_any == (ch->n_slow > 0))
		return;
	directory_set_lagging(ch->entry, ch->env->worker, !had_any);
	ch->env->has_caught_up |= had_any;
}

int channel_join(struct channel *ch, struct member *m, struct conn *c)
{
	if (ch->n_members == ch->cap_members && members_grow(ch))
		return -ENOMEM;
	m->channel = ch;
	m->conn = c;
	/*
	 * The directory's number, not the end of this log: what has its number already was said
	 * before it joined, though some of it may still be on its way here. A round that is under
	 * way comes by at the new member, too, and finds nothing for it.
	 */
	m->next = directory_next_seq(ch->entry);
	m->index = ch->n_members;
	ch->members[ch->n_members++] = m;
	m->sibling = c->members;
	c->members = m;
	c->n_members++;
	atomic_fetch_add_explicit(&ch->entry->members, 1, memory_order_relaxed);
	directory_add_reader(ch->entry, c->caps, c->deflate_window);
	if (c->is_slow)
		channel_count_slow(ch, true);
	return 0;
}

void channel_set_slow(struct conn *c, bool is_slow)
{
	c->is_slow = is_slow;
	for (struct member *m = c->members; m; m = m->sibling)
		channel_count_slow(m->channel, is_slow);
}

void member_unpin(struct member *m)
{
	if (!m->is_lagging)
		return;
	m->next = member_next(m);
	slot_of(m->channel, m->next)->pins--;
	m->is_lagging = false;
	m->conn->n_lagging--;
}

void member_pin(struct member *m)
{
	struct conn *c = m->conn;

	slot_of(m->channel, m->next)->pins++;
	m->is_lagging = true;
	c->n_lagging++;
	if (list_is_empty(&c->unsent_node))
		list_add_tail(&c->env->unsent, &c->unsent_node);
}

void channel_note_own(struct member *m, const struct frame *f)
{
	if (f->flags & FRAME_NOTICE) {
		m->has_own_notice = true;
		return;
	}
	m->own_messages++;
	m->own_bytes += f->body.len;
}

void member_pass_own(struct member *m, uint64_t to)
{
	for (uint64_t seq = m->next; seq < to; seq++) {
		const struct frame *f = slot_of(m->channel, seq)->frame;

		if (!f || f->sender != m->conn->serial)
			continue;
		if (f->flags & FRAME_NOTICE) {
			m->has_own_notice = false;
			continue;
		}
		m->own_messages--;
		m->own_bytes -= f->body.len;
	}
	/*
	 * A notice may have been shed before it was passed; behind the last message there is none.
	 */
	if (to == m->channel->high)
		m->has_own_notice = false;
}

void channel_rewind(struct member *m, uint64_t next, uint64_t own, bool lags)
{
	struct channel *ch = m->channel;

	WB_ASSERT(!m->is_lagging);
	m->next = MIN(MAX(next, ch->from), ch->end);
	/* A round leaves nothing out, so it can only begin where nothing is missing. */
	if (!lags && m->next >= ch->whole_from)
		channel_flushed_back(ch, m->next);
	else if (m->next < ch->end)
		member_pin(m);
	for (uint64_t seq = m->next; seq < MIN(own, ch->end); seq++) {
		const struct frame *f = slot_of(ch, seq)->frame;

		if (f && f->sender == m->conn->serial)
			channel_note_own(m, f);
	}
}

uint64_t channel_last_own(const struct member *m)
{
	const struct channel *ch = m->channel;

	for (uint64_t seq = ch->high; member_has_own(m) && seq > member_next(m); seq--) {
		const struct frame *f = slot_of(ch, seq - 1)->frame;

		if (f && f->sender == m->conn->serial)
			return seq;
	}
	return 0;
}

void channel_end_loading(struct channel *ch)
{
	ch->shed_to = 0;
	channel_trim(ch);
	if (ch->flushed < ch->end)
		channel_want_flush(ch);
}

void channel_hold(struct member *m)
{
	m->is_held = true;
	m->channel->n_held++;
	conn_pause(m->conn, CONN_PAUSE_CHANNEL);
}

static void member_release(struct member *m)
{
	if (!m->is_held)
		return;
	m->is_held = false;
	m->channel->n_held--;
	conn_resume(m->conn, CONN_PAUSE_CHANNEL);
}

void channel_release(struct channel *ch)
{
	/* Each time others come first: the last may find the channel behind once more. */
	uint32_t at = ch->n_members ? (uint32_t)(ch->flushed % ch->n_members) : 0;

	for (uint32_t n = ch->n_members; n > 0 && ch->n_held > 0; n--) {
		member_release(ch->members[at]);
		at = at + 1 < ch->n_members ? at + 1 : 0;
	}
}

/* The last of some members takes the place of one that goes; it may be that one itself. */
static void move_member(struct channel *ch, uint32_t from, uint32_t to)
{
	if (from == to)
		return;
	ch->members[to] = ch->members[from];
	ch->members[to]->index = to;
}

void channel_leave(struct member *m, struct member **at)
{
	struct channel *ch = m->channel;
	uint32_t hole = m->index;

	WB_ASSERT(*at == m);
	member_unpin(m);
	member_release(m);
	member_drop_mark(m);
	if (m->conn->is_slow)
		channel_count_slow(ch, false);
	/*
	 * Those that the round has passed stay before the cursor, the others behind it. So a hole
	 * before the cursor is filled with the last member before it, and what that one leaves
	 * behind with the last of all. With the cursor at the end these are one and the same place.
	 */
	if (hole < ch->cursor) {
		move_member(ch, --ch->cursor, hole);
		hole = ch->cursor;
	}
	move_member(ch, --ch->n_members, hole);
	*at = m->sibling;
	m->conn->n_members--;
	atomic_fetch_sub_explicit(&ch->entry->members, 1, memory_order_relaxed);
	directory_drop_reader(ch->entry, m->conn->caps, m->conn->deflate_window);
	*m = (struct member){0};
	channel_trim(ch);
}

/* What it keeps as running totals of its own messages, looked at one by one. */
static void member_check_own(const struct channel *ch, const struct member *m)
{
	uint64_t bytes = 0;
	uint32_t messages = 0;

	for (uint64_t seq = member_next(m); seq < ch->high; seq++) {
		const struct frame *f = slot_of(ch, seq)->frame;

		if (!f || f->flags & FRAME_NOTICE || f->sender != m->conn->serial)
			continue;
		bytes += f->body.len;
		messages++;
	}
	WB_ASSERT(m->own_bytes == bytes && m->own_messages == messages);
}

/* What each slot says came before it, looked at one by one. */
static void log_check_sums(const struct channel *ch)
{
	uint64_t bytes = ch->bytes;
	uint32_t messages = ch->messages;

	for (uint64_t seq = ch->end; seq > ch->from; seq--) {
		const struct channel_slot *slot = slot_of(ch, seq - 1);

		if (slot->frame && !(slot->frame->flags & FRAME_NOTICE)) {
			bytes -= slot->frame->body.len;
			messages--;
		}
		WB_ASSERT(slot->bytes_before == bytes && slot->messages_before == messages);
	}
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
	log_check_sums(ch);
	for (uint32_t i = 0; i < ch->n_members; i++) {
		const struct member *m = ch->members[i];

		/* Only who lags may be behind what was flushed, and its next message is here. */
		WB_ASSERT(m->channel == ch && m->index == i);
		WB_ASSERT(!m->is_lagging || member_next(m) < ch->end);
		WB_ASSERT(m->is_lagging || m->next >= ch->flushed);
		lagging += m->is_lagging;
		if (m->next < ch->high)
			member_check_own(ch, m);
	}
	WB_ASSERT(pins == lagging);
}
