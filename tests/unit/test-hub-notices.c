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
	j->r = rig_new(2, FREE "max_channels_per_client = 1000\n");
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
	CHECK_EQ(j.h->notices.pending.n, 2);
	memcpy(old, j.sender->conn->id, sizeof(old));
	conn_abort(j.sender->conn);
	CHECK_EQ(j.h->notices.pending.n, 3);
	/* Who came and went before anybody was told, wasn't there. */
	conn_abort(a->conn);
	CHECK_EQ(j.h->notices.pending.n, 2);
	rig_settle(j.r);
	CHECK_EQ(j.h->notices.pending.n, 0);
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
	CHECK_EQ(j.h->notices.pending.n, 1);
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
	CHECK_EQ(hub_join(h, a->conn, "room", 4, NULL, NULL), 0);
	conn_env_pause(&j.h->env, CONN_PAUSE_CONGESTED);
	hub_leave(h, a->conn->members, HUB_TELL);
	CHECK_EQ(h->notices.pending.n, 1);
	CHECK_EQ(hub_join(h, a->conn, "room", 4, NULL, NULL), 0);
	hub_notice_joined(h, a->conn->members);
	CHECK_EQ(h->notices.pending.n, 0);
	hub_leave(h, a->conn->members, HUB_TELL);
	CHECK_EQ(h->notices.pending.n, 1);
	rig_settle(j.r);
	expect_notice(j.far, WENT, a->conn->id, "room");
	expect_quiet(j.far);
	rig_free(j.r);
}

#define CHANNELS 128

TEST(hub_keeps_a_bounded_number_of_notices_back)
{
	struct jam j;
	struct conn *member;
	char name[16];

	jam_init(&j);
	member = jam_come(&j, "/home")->conn;
	for (unsigned i = 0; i < CHANNELS; i++) {
		snprintf(name, sizeof(name), "%u", i);
		CHECK_EQ(hub_join(j.h, member, name, strlen(name), NULL, NULL), 0);
	}
	/* They come and stay, so nothing cancels anything. */
	for (unsigned k = 0; k < HUB_PENDING_NOTICES / CHANNELS + 1; k++) {
		struct guest *g = jam_come(&j, "/elsewhere");

		for (unsigned i = 0; i < CHANNELS; i++) {
			snprintf(name, sizeof(name), "%u", i);
			CHECK_EQ(hub_join(j.h, g->conn, name, strlen(name), NULL, NULL), 0);
			hub_notice_joined(j.h, g->conn->members);
		}
		g->is_mute = true;
		CHECK(j.h->notices.pending.n <= HUB_PENDING_NOTICES);
	}
	CHECK_EQ(j.h->notices.pending.n, HUB_PENDING_NOTICES);
	CHECK(RIG_SUM(j.r, notices_skipped) > 0);
	rig_settle(j.r);
	CHECK_EQ(j.h->notices.pending.n, 0);
	rig_free(j.r);
}

/* --------------------------------------------------------------- their share of a turn */

static void open_mute(struct rig *r, const char *path, unsigned n)
{
	while (n-- > 0)
		guest_open(r, 0, path)->is_mute = true;
}

/* What is more than a turn's share waits, and is merged: nobody hears of what came to nothing. */
TEST(hub_gives_notices_a_share_of_a_turn)
{
	struct rig *r = rig_new(1, FREE "max_connections = 1000\n");
	struct guest *g = guest_open(r, 0, "/home"), *a, *b;
	struct hub *h = &r->w[0]->hub;
	uint64_t before;

	open_mute(r, "/a", HUB_NOTICES_PER_TURN / 2);
	open_mute(r, "/b", HUB_NOTICES_PER_TURN / 2);
	a = guest_open(r, 0, "/a");
	b = guest_open(r, 0, "/b");
	rig_settle(r);
	guest_drop(a);
	guest_drop(b);
	before = RIG_SUM(r, notices_sent);
	CHECK_EQ(hub_join(h, g->conn, "a", 1, NULL, NULL), 0);
	hub_notice_joined(h, g->conn->members);
	CHECK_EQ(hub_join(h, g->conn, "b", 1, NULL, NULL), 0);
	hub_notice_joined(h, g->conn->members);
	CHECK_EQ(h->notices.pending.n, 0);
	/* Its share is used up. */
	for (unsigned i = 0; i < 100; i++) {
		hub_leave(h, hub_membership(h, g->conn, "a", 1), HUB_TELL);
		CHECK_EQ(h->notices.pending.n, 1);
		CHECK_EQ(hub_join(h, g->conn, "a", 1, NULL, NULL), 0);
		hub_notice_joined(h, g->conn->members);
		CHECK_EQ(h->notices.pending.n, 0);
	}
	hub_leave(h, hub_membership(h, g->conn, "b", 1), HUB_TELL);
	CHECK(hub_has_work(h));
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, notices_sent), before + 3);
	expect_notice(a, CAME, g->conn->id, "a");
	expect_quiet(a);
	expect_notice(b, CAME, g->conn->id, "b");
	expect_notice(b, WENT, g->conn->id, "b");
	expect_quiet(b);
	rig_free(r);
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
