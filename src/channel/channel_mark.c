/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "channel/channel_private.h"

static uint64_t mark_hash(const struct member *m)
{
	/* Nobody chooses addresses. */
	return (uint64_t)(uintptr_t)m * 0x9e3779b97f4a7c15ULL;
}

struct member_mark *member_mark(const struct member *m)
{
	struct table_node *node = NULL;

	if (m->has_mark)
		node = table_find(&m->channel->env->marks, mark_hash(m));
	while (node && CONTAINER_OF(node, struct member_mark, node)->member != m)
		node = table_find_next(node);
	return node ? CONTAINER_OF(node, struct member_mark, node) : NULL;
}

/* The one that it has, or a new one that says nothing yet; NULL without memory. */
static struct member_mark *mark_of(struct member *m)
{
	struct member_mark *mark = member_mark(m);
	struct conn *c = m->conn;

	if (mark)
		return mark;
	mark = calloc(1, sizeof(*mark));
	if (!mark)
		return NULL;
	mark->member = m;
	mark->replay_to = mark->gap_from = NO_PLACE;
	table_insert(&m->channel->env->marks, &mark->node, mark_hash(m));
	m->has_mark = true;
	c->n_lagging++;
	if (list_is_empty(&c->unsent_node))
		list_add_tail(&c->env->unsent, &c->unsent_node);
	conn_want_write(c);
	return mark;
}

void member_drop_mark(struct member *m)
{
	struct member_mark *mark = member_mark(m);

	if (!mark)
		return;
	table_remove(&m->channel->env->marks, &mark->node);
	free(mark);
	m->has_mark = false;
	m->conn->n_lagging--;
}

bool member_note_gap(struct member *m, const char *reason)
{
	struct member_mark *mark;

	if (!m->conn->has_positions || !m->channel->has_history)
		return true;
	mark = mark_of(m);
	if (!mark)
		return false;
	/* Several before it is sent are one. */
	if (mark->gap_from == NO_PLACE) {
		mark->gap_from = m->next;
		mark->reason = reason;
	}
	return true;
}

void channel_get_mark(const struct member *m, uint64_t *ret_replay_to, uint64_t *ret_gap_from)
{
	const struct member_mark *mark = member_mark(m);

	*ret_replay_to = mark ? mark->replay_to : NO_PLACE;
	*ret_gap_from = mark ? mark->gap_from : NO_PLACE;
}

int channel_set_mark(struct member *m, uint64_t replay_to, uint64_t gap_from)
{
	struct member_mark *mark;

	if (replay_to == NO_PLACE && gap_from == NO_PLACE)
		return 0;
	mark = mark_of(m);
	if (!mark)
		return -ENOMEM;
	mark->replay_to = replay_to;
	mark->gap_from = gap_from;
	mark->reason = "skipped";
	return 0;
}
