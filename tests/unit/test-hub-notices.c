/* SPDX-License-Identifier: MIT */
/* Who is told of coming and going, and what becomes of that where it finds no room. */
#include "rig.h"

#include <stdio.h>

#include "base/text.h"

#define FREE "max_incoming_frames_per_second = 0\n"

static const Websocket__WebSocketMessage *next_notice(struct guest *g)
{
	const Websocket__WebSocketMessage *m;

	do
		m = guest_next_msg(g);
	while (m && m->type != WEBSOCKET__MESSAGE_TYPE__CONTROL);
	return m;
}

static void expect_notice(struct guest *g, Websocket__ControlType type, const uint8_t id[16],
			  const char *channel)
{
	const Websocket__WebSocketMessage *m = next_notice(g);
	char text[37];

	uuid4_format(text, id);
	CHECK(m != NULL);
	CHECK_EQ(m->control->type, type);
	CHECK_STR(m->control->session_id, text);
	if (channel[0])
		CHECK_STR(m->channel, channel);
}

static void expect_quiet(struct guest *g)
{
	CHECK(next_notice(g) == NULL);
}

#define CAME WEBSOCKET__CONTROL_TYPE__CONNECT
#define WENT WEBSOCKET__CONTROL_TYPE__DISCONNECT

TEST(hub_tells_the_others_who_comes_and_goes)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *a = guest_open(r, 0, "/room"), *b = guest_open(r, 1, "/room");
	uint8_t id[16];

	rig_settle(r);
	expect_notice(a, CAME, b->conn->id, "room");
	expect_quiet(a);
	expect_quiet(b);
	guest_subscribe(b, "");
	guest_subscribe(a, "");
	rig_settle(r);
	guest_next_msg(b); /* the acknowledgement */
	expect_notice(b, CAME, a->conn->id, "");
	guest_drop(a);
	guest_unsubscribe(a, "");
	rig_settle(r);
	expect_notice(b, WENT, a->conn->id, "");
	guest_drop(a);
	memcpy(id, b->conn->id, sizeof(id));
	guest_end(b);
	rig_settle(r);
	expect_notice(a, WENT, id, "room");
	expect_quiet(a);
	rig_free(r);
}

TEST(hub_tells_nobody_past_notice_limit)
{
	struct rig *r = rig_new(1, FREE "notice_limit = 3\n");
	struct guest *g[5];

	for (int i = 0; i < 5; i++)
		g[i] = guest_open(r, 0, "/room");
	CHECK_EQ(guest_drop(g[0]), 2);
	CHECK_EQ(guest_drop(g[1]), 1);
	CHECK_EQ(guest_drop(g[2]), 0);
	guest_end(g[4]); /* four stay */
	rig_settle(r);
	CHECK_EQ(guest_drop(g[0]), 0);
	guest_end(g[3]); /* three */
	rig_settle(r);
	CHECK_EQ(guest_drop(g[0]), 1);
	rig_free(r);
	r = rig_new(1, FREE "notice_limit = 0\n");
	g[0] = guest_open(r, 0, "/");
	g[1] = guest_open(r, 0, "/");
	guest_end(g[1]);
	rig_settle(r);
	CHECK_EQ(guest_drop(g[0]), 0);
	CHECK_EQ(RIG_SUM(r, notices_sent), 0);
	rig_free(r);
}

/* ---------------------------------------------------------- while it is congested */

/* A worker whose ring into the other one is full. */
struct jam {
	struct rig *r;
	struct guest *sender, *far;
	struct hub *h;
};

static void jam_init(struct jam *j)
{
	j->r = rig_new(2, FREE);
	j->far = guest_open(j->r, 1, "/room");
	j->sender = guest_open(j->r, 0, "/room");
	j->h = &j->r->w[0]->hub;
	guest_drop(j->far);
	for (int i = 0; i <= HUB_INBOX_SLOTS; i++)
		guest_chat(j->sender, "", NULL);
	CHECK(conn_env_is_paused(&j->h->env, CONN_PAUSE_CONGESTED));
}

/* One that comes to worker 0 while that is congested. */
static struct guest *jam_come(struct jam *j, const char *path)
{
	struct guest *g = guest_accept(j->r, 0);
	char request[256];

	guest_write(g, request, guest_handshake(request, sizeof(request), path));
	rig_turn_one(j->r, 0);
	CHECK_EQ(guest_status(g), 101);
	guest_drop(g);
	return g;
}

TEST(hub_keeps_notices_back_and_tells_each_once)
{
	struct jam j;
	struct guest *a, *b;
	uint8_t old[16];

	jam_init(&j);
	a = jam_come(&j, "/room");
	b = jam_come(&j, "/room");
	CHECK_EQ(j.h->notices.n, 2);
	memcpy(old, j.sender->conn->id, sizeof(old));
	conn_abort(j.sender->conn);
	CHECK_EQ(j.h->notices.n, 3);
	/* Who came and went before anybody was told, wasn't there. */
	conn_abort(a->conn);
	CHECK_EQ(j.h->notices.n, 2);
	rig_settle(j.r);
	CHECK_EQ(j.h->notices.n, 0);
	expect_notice(j.far, CAME, b->conn->id, "room");
	expect_notice(j.far, WENT, old, "room");
	expect_quiet(j.far);
	/* A newcomer isn't told of itself. */
	expect_notice(b, WENT, old, "room");
	expect_quiet(b);
	rig_free(j.r);
}

/* Somebody who came and was the last to go: those who come later never hear of it. */
TEST(hub_forgets_a_notice_of_somebody_who_is_gone)
{
	struct jam j;
	struct guest *first, *second, *third;

	jam_init(&j);
	first = jam_come(&j, "/else");
	second = jam_come(&j, "/else");
	CHECK_EQ(j.h->notices.n, 1);
	conn_abort(first->conn);
	conn_abort(second->conn);
	third = jam_come(&j, "/else");
	rig_settle(j.r);
	for (const Websocket__WebSocketMessage *m; (m = next_notice(third));)
		CHECK_EQ(m->control->type, WENT);
	rig_free(j.r);
}

/* Leaving and coming back before anybody was told is nothing to tell. */
TEST(hub_leave_and_return_cancel_each_other)
{
	struct jam j;
	struct guest *a;
	struct hub *h;

	jam_init(&j);
	h = j.h;
	a = jam_come(&j, "/home");
	conn_env_resume(&j.h->env, CONN_PAUSE_CONGESTED);
	CHECK_EQ(hub_join(h, a->conn, "room", 4), 0);
	conn_env_pause(&j.h->env, CONN_PAUSE_CONGESTED);
	hub_leave(h, a->conn->members, true);
	CHECK_EQ(h->notices.n, 1);
	CHECK_EQ(hub_join(h, a->conn, "room", 4), 0);
	hub_notice_joined(h, a->conn->members);
	CHECK_EQ(h->notices.n, 0);
	hub_leave(h, a->conn->members, true);
	CHECK_EQ(h->notices.n, 1);
	rig_settle(j.r);
	expect_notice(j.far, WENT, a->conn->id, "room");
	expect_quiet(j.far);
	rig_free(j.r);
}

TEST(hub_keeps_a_bounded_number_of_notices_back)
{
	struct jam j;

	jam_init(&j);
	for (unsigned i = 0; i < HUB_PENDING_NOTICES + 5; i++) {
		struct guest *g = jam_come(&j, "/home");

		g->is_mute = true;
		/* Past notice_limit nobody is told anyway: the lobby's neighbours stay few. */
		if (i % 2)
			conn_abort(g->conn);
		CHECK(j.h->notices.n <= HUB_PENDING_NOTICES);
	}
	rig_settle(j.r);
	CHECK_EQ(j.h->notices.n, 0);
	rig_free(j.r);
}

/* -------------------------------------------------------------- who lags behind */

/* Any number of notices is no reason to disconnect, and takes no place from messages. */
TEST(hub_sheds_notices_for_those_that_lag)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 50\nslow_consumer_grace = 0\n");
	struct guest *slow = guest_open(r, 0, "/room"), *sender = guest_open(r, 0, "/room");
	const Websocket__WebSocketMessage *m;
	unsigned notices = 0, chats = 0;

	guest_drop(slow);
	guest_set_room(slow, 0);
	for (unsigned i = 0; i < 300; i++) {
		conn_abort(guest_open(r, 0, "/room")->conn);
		rig_turn(r);
		if (i % 10 == 0)
			guest_chat(sender, "kept", NULL);
		CHECK(rig_channel(r, 0, "room")->n_notices <= 52);
		rig_check(r);
	}
	CHECK_EQ(slow->conn->state, CONN_OPEN);
	CHECK(RIG_SUM(r, notices_skipped) >= 500);
	guest_set_room(slow, ROOM_FOR_ALL);
	rig_settle(r);
	while ((m = guest_next_msg(slow))) {
		notices += m->type == WEBSOCKET__MESSAGE_TYPE__CONTROL;
		chats += m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE;
	}
	CHECK_EQ(chats, 30);
	CHECK_EQ(notices + RIG_SUM(r, notices_skipped), 600);
	rig_free(r);
}
