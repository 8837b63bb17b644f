/* SPDX-License-Identifier: MIT */
/*
 * Channels against a model, at random and for long: members on two workers come
 * and go, stop reading and go on, publish while deliveries are still on their way.
 * The model knows for each member and channel which messages it must get. Each
 * one has to come once, in the one order, unless a rule took it away: leaving, or
 * what slow_consumer says.
 */
#include "rig.h"

#include <stdio.h>

#include "channel/channel.h"

#define SEATS 24
#define CHANNELS 3

static const char *const names[CHANNELS] = {"", "a", "room/7"};

/* A message that a member must get next, or may miss. */
struct want {
	uint32_t id;
	bool may_miss;
};

struct seat {
	struct guest *g;
	bool is_in[CHANNELS];
	struct buf wants[CHANNELS]; /* of struct want */
	size_t at[CHANNELS];        /* bytes of it that are done */
};

struct model {
	struct rig *r;
	struct seat seats[SEATS];
	uint64_t random;
	uint32_t next_id;
	uint64_t delivered;
	uint64_t missed; /* wants that were passed over, and that nobody may miss */
	unsigned kicked; /* closed with 1013 */
	bool goes;       /* members leave and end */
	bool may_skip;   /* slow_consumer = skip */
	bool may_kick;   /* slow_consumer = disconnect */
};

static unsigned dice(struct model *m, unsigned sides)
{
	return (unsigned)(test_random(&m->random) >> 33) % sides;
}

static bool is_open(const struct seat *s)
{
	return s->g && s->g->conn && s->g->conn->state == CONN_OPEN;
}

/* ---------------------------------------------------------------- what must come */

static void want(struct seat *s, unsigned channel, uint32_t id)
{
	const struct want w = {.id = id};

	CHECK_EQ(buf_append(&s->wants[channel], &w, sizeof(w), BUF_NO_LIMIT), 0);
}

static struct want *next_want(struct seat *s, unsigned channel)
{
	if (s->at[channel] == s->wants[channel].len)
		return NULL;
	return (struct want *)(void *)(s->wants[channel].data + s->at[channel]);
}

static void forget_wants(struct seat *s, unsigned channel)
{
	size_t done = s->at[channel];

	for (struct want *w; (w = next_want(s, channel)); s->at[channel] += sizeof(*w))
		w->may_miss = true;
	s->at[channel] = done; /* they may still come */
}

static void take_chat(struct model *m, struct seat *s, const Websocket__WebSocketMessage *msg)
{
	uint32_t id = (uint32_t)strtoul(msg->chat->content, NULL, 10);
	unsigned channel = 0;
	struct want *w;

	while (channel < CHANNELS && strcmp(names[channel], msg->channel) != 0)
		channel++;
	CHECK(channel < CHANNELS);
	for (;;) {
		w = next_want(s, channel);
		if (!w)
			fail_msg("message %u came, which nobody awaited", id);
		s->at[channel] += sizeof(*w);
		if (w->id == id)
			break;
		if (!w->may_miss && !m->may_skip)
			fail_msg("message %u came, %u was next", id, w->id);
		m->missed += !w->may_miss;
	}
	m->delivered++;
}

static void take_frame(struct model *m, struct seat *s, const struct guest_frame *f)
{
	Websocket__WebSocketMessage *msg;

	if (f->opcode == WS_CLOSE) {
		CHECK(m->may_kick);
		CHECK_EQ(f->p[0] << 8 | f->p[1], 1013);
		m->kicked++;
		return;
	}
	if (f->opcode >= WS_CLOSE)
		return;
	CHECK(f->opcode == WS_BINARY && f->fin);
	arena_reset(&m->r->arena);
	CHECK_EQ(msg_decode(&m->r->arena, f->p, f->n, &msg), MSG_OK);
	if (msg->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE)
		take_chat(m, s, msg);
	else
		CHECK_EQ(msg->control->type, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
}

static void read_seat(struct model *m, struct seat *s)
{
	struct guest_frame f;

	while (s->g && guest_next_frame(s->g, &f))
		take_frame(m, s, &f);
}

/* ------------------------------------------------------------------------ steps */

static void step_publish(struct model *m)
{
	struct seat *s = &m->seats[dice(m, SEATS)];
	unsigned channel = dice(m, CHANNELS);
	char text[3000];

	if (!is_open(s) || !s->is_in[channel])
		return;
	memset(text, ' ', sizeof(text));
	text[dice(m, 10) ? 12 + dice(m, 100) : 2999] = '\0';
	text[snprintf(text, 12, "%u", m->next_id)] = ' ';
	for (unsigned i = 0; i < SEATS; i++)
		if (&m->seats[i] != s && is_open(&m->seats[i]) && m->seats[i].is_in[channel])
			want(&m->seats[i], channel, m->next_id);
	m->next_id++;
	guest_chat(s->g, text, names[channel]);
	CHECK_EQ(s->g->conn->input, NULL); /* it was taken at once: the model relies on that */
}

static void step_room(struct model *m)
{
	struct seat *s = &m->seats[dice(m, SEATS)];

	if (!s->g)
		return;
	switch (dice(m, 4)) {
	case 0:
		guest_set_room(s->g, 0);
		break;
	case 1:
		guest_set_room(s->g, ROOM_FOR_ALL);
		break;
	default:
		guest_set_room(s->g, dice(m, 6000));
	}
}

static void step_join_or_leave(struct model *m)
{
	struct seat *s = &m->seats[dice(m, SEATS)];
	unsigned channel = dice(m, CHANNELS);

	/* Its answers have to find room: a client that doesn't take them isn't read. */
	if (!is_open(s) || s->g->conn->out->queue_count > 2)
		return;
	if (!s->is_in[channel]) {
		guest_subscribe(s->g, names[channel]);
	} else {
		if (!m->goes)
			return;
		forget_wants(s, channel);
		guest_unsubscribe(s->g, names[channel]);
	}
	s->is_in[channel] = !s->is_in[channel];
}

static void step_come_or_end(struct model *m)
{
	struct seat *s = &m->seats[dice(m, SEATS)];
	unsigned worker = dice(m, 2);
	char request[256];

	if (is_open(s)) {
		if (m->goes && dice(m, 3) == 0)
			guest_end(s->g);
		return;
	}
	if (m->r->n_guests == RIG_MAX_GUESTS)
		return;
	if (s->g) {
		guest_set_room(s->g, ROOM_FOR_ALL);
		read_seat(m, s);
		if (s->g->conn)
			return; /* saying goodbye still */
	}
	for (unsigned k = 0; k < CHANNELS; k++) {
		buf_clear(&s->wants[k]);
		s->at[k] = 0;
		s->is_in[k] = k == 1;
	}
	s->g = guest_accept(m->r, worker);
	guest_write(s->g, request, guest_handshake(request, sizeof(request), "/a"));
	rig_turn_one(m->r, worker);
	CHECK_EQ(guest_status(s->g), 101);
	CHECK_EQ(guest_next_msg(s->g)->control->type, WEBSOCKET__CONTROL_TYPE__CONFIG);
	read_seat(m, s);
}

/* With nothing on its way, nobody waits for more than four times a limit. */
static void step_settle(struct model *m)
{
	uint64_t bytes, messages;

	rig_settle(m->r);
	for (unsigned i = 0; i < SEATS; i++) {
		if (!is_open(&m->seats[i]))
			continue;
		channel_backlog(m->seats[i].g->conn, &bytes, &messages);
		CHECK(messages <= 4 * m->r->config->message_queue_size);
	}
}

static void step(struct model *m)
{
	unsigned what = dice(m, 100);

	if (what < 55)
		step_publish(m);
	else if (what < 75)
		rig_turn_one(m->r, dice(m, 2));
	else if (what < 85)
		step_room(m);
	else if (what < 90)
		step_join_or_leave(m);
	else if (what < 93)
		step_come_or_end(m);
	else if (what < 96)
		rig_pass(m->r, dice(m, 100) * NS_PER_MS);
	else if (what < 98)
		read_seat(m, &m->seats[dice(m, SEATS)]);
	else
		step_settle(m);
}

static void finish(struct model *m)
{
	for (int pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < SEATS; i++)
			if (m->seats[i].g)
				guest_set_room(m->seats[i].g, ROOM_FOR_ALL);
		rig_settle(m->r);
		rig_pass(m->r, NS_PER_S);
	}
	for (unsigned i = 0; i < SEATS; i++) {
		struct seat *s = &m->seats[i];

		read_seat(m, s);
		for (unsigned k = 0; k < CHANNELS; k++) {
			for (struct want *w; (w = next_want(s, k)); s->at[k] += sizeof(*w)) {
				if (is_open(s) && !m->may_skip)
					CHECK(w->may_miss);
				m->missed += is_open(s) && !w->may_miss;
			}
			buf_fini(&s->wants[k]);
		}
	}
	rig_check(m->r);
}

static void run(struct model *m, const char *config, unsigned steps)
{
	m->random = test_seed();
	m->r = rig_new(2, config);
	for (unsigned i = 0; i < steps; i++) {
		step(m);
		rig_check(m->r);
	}
	finish(m);
	CHECK(m->next_id > steps / 10 && m->delivered > m->next_id);
}

#define COMMON                                                                       \
	"notice_limit = 0\nmax_incoming_frames_per_second = 0\nping_interval = 1h\n" \
	"heartbeat_timeout = 24h\n"

TEST(channel_model_loses_nothing_within_the_limits)
{
	struct model m = {.goes = true};

	run(&m, COMMON "message_queue_size = 100000\nmax_send_buffer = 1G\n", 20000);
	CHECK_EQ(m.missed, 0);
	CHECK_EQ(RIG_SUM(m.r, skipped_messages), 0);
	CHECK_EQ(RIG_SUM(m.r, slow_disconnects), 0);
	rig_free(m.r);
}

TEST(channel_model_skips_and_counts_what_it_skips)
{
	struct model m = {.may_skip = true};

	run(&m,
	    COMMON "message_queue_size = 40\nmax_send_buffer = 64K\nslow_consumer = skip\n"
		   "slow_consumer_grace = 500ms\n",
	    20000);
	CHECK(m.missed > 0);
	CHECK_EQ(RIG_SUM(m.r, skipped_messages), m.missed);
	CHECK_EQ(RIG_SUM(m.r, slow_disconnects), 0);
	rig_free(m.r);
}

TEST(channel_model_skips_at_once_without_grace)
{
	struct model m = {.may_skip = true};

	run(&m,
	    COMMON "message_queue_size = 40\nmax_send_buffer = 16K\nslow_consumer = skip\n"
		   "slow_consumer_grace = 0\n",
	    10000);
	CHECK(m.missed > 0);
	CHECK_EQ(RIG_SUM(m.r, skipped_messages), m.missed);
	rig_free(m.r);
}

TEST(channel_model_disconnects_who_is_slow_and_nobody_else)
{
	struct model m = {.goes = true, .may_kick = true};

	run(&m,
	    COMMON "message_queue_size = 40\nmax_send_buffer = 64K\nslow_consumer_grace = 500ms\n",
	    20000);
	CHECK(RIG_SUM(m.r, slow_disconnects) > 0);
	CHECK(m.kicked > 0 && m.kicked <= RIG_SUM(m.r, slow_disconnects));
	CHECK_EQ(m.missed, 0);
	rig_free(m.r);
}
