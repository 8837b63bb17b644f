/* SPDX-License-Identifier: MIT */

/* Why a client is not read: one set of reasons, of its own and of all of its worker. */

#include "conn/conn_private.h"
#include "rig.h"

static const uint8_t normal[] = {1000 >> 8, 1000 & 0xff};

TEST(conn_pause_holds_until_the_last_reason_is_gone)
{
	struct rig *r = rig_new(1, "");
	struct guest *a = guest_open(r, 0, "/room"), *b = guest_open(r, 0, "/room");

	(void)guest_drop(a);
	conn_pause(a->conn, CONN_PAUSE_SPOOL);
	conn_pause(a->conn, CONN_PAUSE_CHANNEL);
	guest_chat(a, "held", NULL);
	rig_settle(r);
	CHECK_EQ(guest_drop(b), 0);

	/* A reason that isn't there changes nothing, nor does one of several. */
	conn_resume(a->conn, CONN_PAUSE_THROTTLED);
	conn_resume(a->conn, CONN_PAUSE_SPOOL);
	rig_settle(r);
	CHECK(conn_is_paused(a->conn));
	CHECK_EQ(guest_drop(b), 0);

	conn_resume(a->conn, CONN_PAUSE_CHANNEL);
	rig_settle(r);
	CHECK(!conn_is_paused(a->conn));
	CHECK_EQ(guest_drop(b), 1);
	rig_free(r);
}

TEST(conn_pause_of_its_own_outlasts_that_of_the_worker)
{
	struct rig *r = rig_new(1, "");
	struct guest *a = guest_open(r, 0, "/room"), *b = guest_open(r, 0, "/room");
	struct conn_env *env = &r->w[0]->hub.env;

	(void)guest_drop(a);
	for (int own_first = 0; own_first < 2; own_first++) {
		conn_env_pause(env, CONN_PAUSE_STANDING_STILL);
		conn_pause(a->conn, CONN_PAUSE_SPOOL);
		guest_chat(a, "held", NULL);
		guest_chat(b, "held, too", NULL);
		rig_turn(r);
		CHECK_EQ(guest_drop(a) + guest_drop(b), 0);

		if (own_first)
			conn_resume(a->conn, CONN_PAUSE_SPOOL);
		else
			conn_env_resume(env, CONN_PAUSE_STANDING_STILL);
		rig_turn(r);
		CHECK_EQ(guest_drop(b), 0);
		CHECK_EQ(guest_drop(a), own_first ? 0 : 1);

		if (own_first)
			conn_env_resume(env, CONN_PAUSE_STANDING_STILL);
		else
			conn_resume(a->conn, CONN_PAUSE_SPOOL);
		rig_settle(r);
		CHECK_EQ(guest_drop(b), 1);
		CHECK_EQ(guest_drop(a), own_first ? 1 : 0);
	}
	rig_free(r);
}

TEST(conn_pause_for_its_queue_follows_what_waits_there)
{
	struct rig *r = rig_new(1, "message_queue_size = 20\nslow_consumer_grace = 60\n");
	struct guest *g = guest_open(r, 0, "/room");
	struct buf all = {0};

	guest_set_room(g, 0);
	for (int i = 0; i < 30; i++)
		guest_encode(&all, true, WS_PING, "", 0);
	guest_write(g, all.data, all.len);
	rig_turn(r);
	/* The frame behind half of the queue is the last that was taken. */
	CHECK_EQ(g->conn->pauses, CONN_PAUSE_QUEUE);
	CHECK_EQ(g->conn->out->queue_count, 11);
	CHECK(conn_has_parked(g->conn));

	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK_EQ(g->conn->pauses, 0);
	CHECK_EQ(g->conn->out->queue_count, 0);
	for (int i = 0; i < 30; i++) {
		struct guest_frame f;

		CHECK(guest_next_frame(g, &f) && f.opcode == WS_PONG);
	}
	buf_fini(&all);
	rig_free(r);
}

/* What waits for the end of congestion is not read before it; the peer's Close is. */
TEST(conn_pause_does_not_hold_back_the_end_of_one_that_closes)
{
	struct rig *r = rig_new(1, "");
	struct guest *g = guest_open(r, 0, "/room");

	conn_env_pause(&r->w[0]->hub.env, CONN_PAUSE_STANDING_STILL);
	guest_send(g, true, WS_CLOSE, normal, sizeof(normal));
	rig_turn(r);
	CHECK_EQ(g->conn->state, CONN_OPEN);
	conn_close(g->conn, 1001, "");
	rig_turn(r);
	CHECK_EQ(guest_close_code(g), 1001);
	CHECK(g->is_shut);
	guest_end(g);
	CHECK(g->is_closed);
	conn_env_resume(&r->w[0]->hub.env, CONN_PAUSE_STANDING_STILL);
	rig_free(r);
}
