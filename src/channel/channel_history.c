/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <systemd/sd-id128.h>

#include "channel/channel_private.h"

/* ------------------------------------------------------------------------ saying it */

void channel_position(const struct member *m, Websocket__Position *ret)
{
	struct history_store *s = channel_store(m->channel);
	const struct history_figures f = s ? history_look(s) : (struct history_figures){0};

	websocket__position__init(ret);
	ret->channel = m->channel->entry->name;
	ret->epoch = f.epoch;
	if (!f.epoch)
		return;
	ret->sequence = m->next;
	ret->earliest = f.earliest;
}

/* One of its own, where it answers nothing. */
static void set_request(struct msg_builder *b, const void *request, size_t n)
{
	sd_id128_t random = SD_ID128_NULL;

	if (request) {
		msg_set_request_id(b, request, n);
		return;
	}
	(void)sd_id128_randomize(&random);
	msg_set_own_request_id(b, random.bytes);
}

static void send_positions(struct member *m, Websocket__ControlType type,
			   Websocket__Position **positions, size_t n, const char *reason,
			   const void *request, size_t request_n)
{
	struct msg_builder b;

	msg_init_control(&b, type);
	set_request(&b, request, request_n);
	if (m->channel->entry->name[0])
		msg_set_channel(&b, m->channel->entry->name);
	msg_set_positions(&b, positions, n);
	if (reason)
		msg_set_reason(&b, reason);
	conn_send_msg(m->conn, &b);
}

/* The private queue is sent before anything else of this member: so it stands where it belongs. */
static void send_gap(struct member *m, struct member_mark *mark)
{
	Websocket__Position before, after, *both[] = {&before, &after};
	const char *reason = mark->reason;

	channel_position(m, &after);
	before = after;
	before.sequence = mark->gap_from;
	mark->gap_from = NO_PLACE;
	if (mark->replay_to == NO_PLACE)
		member_drop_mark(m);
	METRIC_INC(m->conn->env->metrics, history_gaps);
	/* Without history any more there is no place to be told of. */
	if (after.epoch)
		send_positions(m, WEBSOCKET__CONTROL_TYPE__GAP, both, 2, reason, NULL, 0);
}

static void send_position(struct member *m, const void *request, size_t n)
{
	Websocket__Position position, *one[] = {&position};

	channel_position(m, &position);
	send_positions(m, WEBSOCKET__CONTROL_TYPE__POSITION, one, 1, NULL, request, n);
}

void channel_send_position(struct member *m, const void *request, size_t n)
{
	struct member_mark *mark = member_mark(m);
	const struct conn *c = m->conn;

	if (mark && mark->gap_from != NO_PLACE)
		send_gap(m, mark);
	if (c->state == CONN_OPEN)
		send_position(m, request, n);
}

bool member_tell(struct member *m)
{
	struct member_mark *mark = member_mark(m);

	if (!mark)
		return false;
	if (mark->gap_from != NO_PLACE) {
		send_gap(m, mark);
		/* A POSITION that is due, too, comes behind it in the next round of this. */
		return true;
	}
	if (m->next < mark->replay_to)
		return false;
	member_drop_mark(m);
	send_position(m, NULL, 0);
	return true;
}

/* ------------------------------------------------------------------------- beginning */

/* Of what it published itself here it gets nothing: what is ahead of it is on its account. */
static void note_own_ahead(struct member *m)
{
	const struct channel *ch = m->channel;

	for (uint64_t seq = m->next; seq < ch->high; seq++) {
		const struct frame *f = slot_of(ch, seq)->frame;

		if (f && f->sender == m->conn->serial)
			channel_note_own(m, f);
	}
}

int channel_begin(struct member *m, const struct history_start *start, bool wants_end)
{
	struct channel *ch = m->channel;
	uint64_t next = start->last;

	if (start->epoch == 0)
		return 0;
	if (start->n > 0) {
		if (channel_prepend(ch, start->frames, start->n))
			return -ENOMEM;
		next = start->frames[0]->seq;
	} else if (start->sequence < start->last) {
		next = MAX(start->sequence, ch->from);
	}
	m->next = next;
	note_own_ahead(m);
	/* What comes to the log from here on rounds see to. */
	if (next < ch->end) {
		member_pin(m);
		m->conn->is_owed = true; /* nothing of it was refused by its socket */
		conn_want_write(m->conn);
	}
	return wants_end ? channel_set_mark(m, MAX(ch->end, next), NO_PLACE) : 0;
}
