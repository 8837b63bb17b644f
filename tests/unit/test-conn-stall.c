/* SPDX-License-Identifier: MIT */

/* The process stood still while its clients did not: time that is on nobody's account. */

#include "rig.h"

#define STALL_NS (200 * NS_PER_S) /* more than any timeout below */
#define FREE "max_incoming_frames_per_second = 0\n"

/* The turn on waking, for which epoll had nothing: the bytes are there, and not reported yet. */
static void wake(struct rig *r)
{
	rig_stand_still(r, STALL_NS);
	rig_turn(r);
}

TEST(conn_that_spoke_while_nobody_listened_is_not_silent)
{
	struct rig *r = rig_new(1, FREE "notice_limit = 0\n");
	struct guest *speaker[50], *opening = guest_accept(r, 0);
	char request[256];
	size_t n = guest_handshake(request, sizeof(request), "/room");

	for (unsigned i = 0; i < ARRAY_LEN(speaker); i++)
		speaker[i] = guest_open(r, 0, "/room");
	rig_settle(r);
	wake(r);
	CHECK_EQ(RIG_SUM(r, connections_active), ARRAY_LEN(speaker));
	CHECK_EQ(RIG_SUM(r, pings_sent), 0);
	for (unsigned i = 0; i < ARRAY_LEN(speaker); i++)
		guest_chat(speaker[i], "still here", NULL);
	guest_write(opening, request, n);
	rig_settle(r);
	CHECK_EQ(guest_status(opening), 101);
	for (unsigned i = 0; i < ARRAY_LEN(speaker); i++) {
		CHECK_EQ(speaker[i]->conn->state, CONN_OPEN);
		CHECK_EQ(guest_drop(speaker[i]), ARRAY_LEN(speaker) - 1);
	}
	CHECK_EQ(RIG_SUM(r, heartbeat_expired), 0);
	CHECK_EQ(RIG_SUM(r, refused_timeout), 0);
	rig_free(r);
}

TEST(conn_that_was_silent_is_pinged_before_it_ends)
{
	struct rig *r = rig_new(1, "ping_interval = 30\nheartbeat_timeout = 60\n");
	struct guest *answers = guest_open(r, 0, "/a"), *silent = guest_open(r, 0, "/b");
	struct guest_frame f;
	uint64_t woke;

	wake(r);
	rig_settle(r);
	woke = r->now_ns;
	CHECK(guest_next_frame(answers, &f) && f.opcode == WS_PING);
	CHECK(guest_next_frame(silent, &f) && f.opcode == WS_PING);
	do {
		guest_send(answers, true, WS_PONG, "", 0);
		rig_pass(r, 50 * NS_PER_MS);
	} while (silent->conn && silent->conn->state == CONN_OPEN);
	CHECK_EQ(guest_close_code(silent), 4001);
	CHECK(r->now_ns - woke >= 60 * NS_PER_S);
	CHECK(r->now_ns - woke <= 61 * NS_PER_S);
	CHECK_EQ(answers->conn->state, CONN_OPEN);
	rig_free(r);
}

/* Each of them has its time once more, and no longer. */
TEST(conn_deadlines_begin_anew_when_the_standstill_is_over)
{
	struct rig *r = rig_new(1, "message_timeout = 20\nhandshake_timeout = 10\n"
				   "message_queue_size = 10\nslow_consumer_grace = 5\n"
				   "heartbeat_timeout = 300\n");
	struct guest *half = guest_open(r, 0, "/a"), *opening = guest_accept(r, 0);
	struct guest *slow = guest_open(r, 0, "/b"), *sender = guest_open(r, 0, "/b");

	guest_send(half, false, WS_BINARY, "half", 4);
	guest_write(opening, "GET / HT", 8);
	(void)guest_drop(slow);
	guest_set_room(slow, 0);
	guest_send_numbers(sender, 0, 20);
	rig_settle(r);
	CHECK(slow->conn->over_tick != 0);
	wake(r);
	rig_settle(r);

	rig_pass_in_steps(r, 4900 * NS_PER_MS, 50 * NS_PER_MS);
	CHECK_EQ(slow->conn->state, CONN_OPEN);
	rig_pass_in_steps(r, NS_PER_S, 50 * NS_PER_MS);
	CHECK(!slow->conn || slow->conn->state == CONN_CLOSING);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 1);

	rig_pass_in_steps(r, 4 * NS_PER_S, 50 * NS_PER_MS);
	CHECK(opening->conn != NULL);
	rig_pass_in_steps(r, NS_PER_S, 50 * NS_PER_MS);
	CHECK(!opening->conn);

	rig_pass_in_steps(r, 9 * NS_PER_S, 50 * NS_PER_MS);
	CHECK_EQ(half->conn->state, CONN_OPEN);
	rig_pass_in_steps(r, NS_PER_S, 50 * NS_PER_MS);
	CHECK_EQ(guest_close_code(half), 1008);
	rig_free(r);
}

/* Its Close is on the way, and so may the peer's be. */
TEST(conn_that_closes_has_time_to_end_behind_a_standstill)
{
	struct rig *r = rig_new(1, "");
	struct guest *g = guest_open(r, 0, "/a"), *mute = guest_open(r, 0, "/b");
	static const uint8_t normal[] = {1000 >> 8, 1000 & 0xff};

	conn_close(g->conn, 1001, "");
	conn_close(mute->conn, 1001, "");
	rig_turn(r);
	wake(r);
	rig_settle(r);
	CHECK(g->conn && mute->conn);
	guest_send(g, true, WS_CLOSE, normal, sizeof(normal));
	rig_settle(r);
	guest_end(g);
	rig_settle(r);
	CHECK(g->is_closed && !g->was_reset);
	rig_pass_in_steps(r, 3 * NS_PER_S, 50 * NS_PER_MS);
	CHECK(mute->is_closed);
	rig_free(r);
}

/* A line that isn't worked off yet is what came meanwhile; but not for ever. */
TEST(conn_timers_wait_for_the_line_and_no_longer_than_they_may)
{
	struct rig *r = rig_new(1, "heartbeat_timeout = 60\n");
	struct guest *g = guest_open(r, 0, "/a"), *other = guest_open(r, 0, "/a");
	struct conn_env *env = &r->w[0]->hub.env;

	(void)guest_drop(g);
	wake(r);
	for (uint64_t ns = 0; ns < REACTOR_CATCH_UP_NS; ns += 100 * NS_PER_MS) {
		CHECK_EQ(RIG_SUM(r, pings_sent), 0);
		/* Somebody always is in it. */
		list_add_tail(&env->to_read, &other->conn->read_node);
		rig_pass(r, 100 * NS_PER_MS);
	}
	CHECK_EQ(RIG_SUM(r, pings_sent), 2);
	CHECK_EQ(r->w[0]->reactor.stall_ns, r->now_ns);
	rig_free(r);
}
