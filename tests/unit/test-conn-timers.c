/* SPDX-License-Identifier: MIT */
/* Everything about a connection that time decides, under a clock that the test moves. */
#include "rig.h"

#define STEP (50 * NS_PER_MS)
#define LATE NS_PER_S /* at most, by the specification */

/* Moves the clock until the server closed, or sent a Close. Returns how long that took. */
static uint64_t time_until_close(struct guest *g, unsigned code, uint64_t longest)
{
	struct rig *r = g->rig;
	uint64_t start = r->now_ns;

	while (g->conn && g->conn->state <= CONN_OPEN && r->now_ns - start < longest)
		rig_pass(r, STEP);
	if (code)
		CHECK_EQ(guest_close_code(g), code);
	else
		CHECK(g->is_closed);
	return r->now_ns - start;
}

static void check_time(uint64_t took, uint64_t due)
{
	CHECK(took >= due);
	CHECK(took <= due + LATE);
}

TEST(conn_drops_a_handshake_that_is_not_complete_in_time)
{
	struct rig *r = rig_new(1, "");
	struct guest *silent = guest_accept(r, 0), *slow = guest_accept(r, 0);
	char request[1024];
	size_t n = guest_handshake(request, sizeof(request), "/");

	for (size_t i = 0; i < 9; i++) {
		guest_write(slow, request + i, 1);
		rig_pass(r, NS_PER_S);
	}
	CHECK(!silent->is_closed && !slow->is_closed);
	guest_write(slow, request + 9, n - 9);
	rig_turn(r);
	CHECK_EQ(guest_status(slow), 101);
	check_time(9 * NS_PER_S + time_until_close(silent, 0, 60 * NS_PER_S), 10 * NS_PER_S);
	CHECK_EQ(RIG_SUM(r, refused_timeout), 1);
	CHECK(slow->conn != NULL);
	rig_free(r);
}

/* A token may name any second, also those whose nanoseconds are more than 64 bits. */
TEST(conn_with_a_token_for_ages_is_not_closed)
{
	static const uint64_t ages[] = {4102444800,        20000000000,    18446744074,
					18446744073709552, UINT64_MAX - 1, UINT64_MAX};
	struct rig *r = rig_new(1, "");

	for (size_t i = 0; i < ARRAY_LEN(ages); i++) {
		const struct grant like = {
			.user_id = "carol", .expires_s = ages[i], .any_channel = true};
		struct guest *g = guest_open(r, 0, "/");

		g->conn->grant = grant_restore(&like);
		conn_arm(g->conn, r->now_ns);
		rig_pass(r, NS_PER_S);
		CHECK_EQ(g->conn->state, CONN_OPEN);
		CHECK(g->conn->timer.deadline_ns > r->now_ns + NS_PER_S);
	}
	rig_free(r);
}

TEST(conn_ends_with_its_token)
{
	const struct grant like = {
		.user_id = "carol", .expires_s = clock_wall_ms() / 1000, .any_channel = true};
	struct rig *r = rig_new(1, "");
	struct guest *g = guest_open(r, 0, "/");

	g->conn->grant = grant_restore(&like);
	conn_arm(g->conn, r->now_ns);
	check_time(time_until_close(g, 4003, 60 * NS_PER_S), 0);
	rig_free(r);
}

/* Both ways: a minute after it was set, at the latest, it is known. */
TEST(conn_with_a_token_notices_that_the_wall_clock_was_set)
{
	enum { DAY_MS = 24 * 3600 * 1000 };
	const struct grant like = {.user_id = "carol",
				   .expires_s = clock_wall_ms() / 1000 + 3600,
				   .any_channel = true};
	struct rig *r = rig_new(1, "heartbeat_timeout = 1h\nping_interval = 1h\n");
	struct guest *early = guest_open(r, 0, "/"), *late;
	uint64_t set_at;

	early->conn->grant = grant_restore(&like);
	conn_arm(early->conn, r->now_ns);
	rig_pass(r, 600 * NS_PER_S);
	CHECK_EQ(early->conn->state, CONN_OPEN);
	clock_step_for_test(DAY_MS);
	set_at = r->now_ns;
	CHECK(time_until_close(early, 4003, 61 * NS_PER_S) <= 61 * NS_PER_S);
	CHECK(r->now_ns - set_at <= 61 * NS_PER_S);
	/* Back: it is an hour more than it seemed. */
	clock_step_for_test(0);
	late = guest_open(r, 0, "/");
	late->conn->grant = grant_restore(&like);
	clock_step_for_test(3500 * 1000);
	conn_arm(late->conn, r->now_ns);
	rig_pass(r, 50 * NS_PER_S);
	CHECK_EQ(late->conn->state, CONN_OPEN);
	clock_step_for_test(0);
	rig_pass(r, 600 * NS_PER_S);
	CHECK_EQ(late->conn->state, CONN_OPEN);
	rig_free(r);
}

TEST(conn_pings_counts_what_is_missed_and_expires)
{
	struct rig *r = rig_new(1, "");
	struct guest *g = guest_open(r, 0, "/");
	uint64_t start = r->now_ns, pinged = 0;
	struct guest_frame f;

	while (g->conn->state == CONN_OPEN && r->now_ns - start < 200 * NS_PER_S) {
		rig_pass(r, STEP);
		if (!pinged && guest_next_frame(g, &f) && f.opcode == WS_PING)
			pinged = r->now_ns - start;
	}
	check_time(pinged, 30 * NS_PER_S);
	check_time(r->now_ns - start, 120 * NS_PER_S);
	CHECK_EQ(guest_close_code(g), 4001);
	/* At 30 s, and again each 10 s for which there was no answer. */
	CHECK_EQ(RIG_SUM(r, pings_sent), 9);
	CHECK_EQ(RIG_SUM(r, pongs_missed), 8);
	CHECK_EQ(RIG_SUM(r, heartbeat_expired), 1);
	CHECK_EQ(RIG_SUM(r, closed_4001), 1);
	rig_free(r);
}

TEST(conn_expiry_counts_from_the_last_sign_of_life)
{
	static const uint64_t offsets[] = {0,
					   1,
					   STEP - 1,
					   STEP,
					   STEP + 1,
					   29 * NS_PER_S + 7,
					   30 * NS_PER_S,
					   47 * NS_PER_S + 3};

	for (size_t i = 0; i < 2 * ARRAY_LEN(offsets); i++) {
		/* The second half is looked at just before the time, too. */
		struct rig *r = rig_new(1, i < ARRAY_LEN(offsets) ? "heartbeat_timeout = 60\n"
								  : "heartbeat_timeout = 60\n"
								    "ping_interval = 59900ms\n");
		struct guest *g = guest_open(r, 0, "/");

		rig_pass_in_steps(r, offsets[i % ARRAY_LEN(offsets)] + 1, STEP);
		guest_send(g, true, WS_PONG, "", 0);
		guest_drop(g);
		check_time(time_until_close(g, 4001, 100 * NS_PER_S), 60 * NS_PER_S);
		rig_free(r);
	}
}

TEST(conn_stays_as_long_as_pings_are_answered)
{
	struct rig *r = rig_new(1, "");
	struct guest *g = guest_open(r, 0, "/");
	struct guest_frame f;
	unsigned pings = 0;

	for (uint64_t t = 0; t < 600 * NS_PER_S; t += STEP) {
		rig_pass(r, STEP);
		while (guest_next_frame(g, &f)) {
			CHECK_EQ(f.opcode, WS_PING);
			pings++;
			guest_send(g, true, WS_PONG, f.p, f.n);
		}
	}
	CHECK_EQ(g->conn->state, CONN_OPEN);
	CHECK(pings >= 19 && pings <= 20);
	CHECK_EQ(RIG_SUM(r, pongs_missed), 0);
	rig_free(r);
}

/* A pong that comes late is no miss twice, and everything that comes is a sign of life. */
TEST(conn_takes_any_frame_for_a_sign_of_life)
{
	static const uint8_t opcodes[] = {WS_TEXT, WS_BINARY, WS_PING, WS_PONG};
	struct rig *r = rig_new(1, "");
	struct guest *g = guest_open(r, 0, "/");

	for (int i = 0; i < 40; i++) {
		rig_pass_in_steps(r, 25 * NS_PER_S, STEP);
		guest_send(g, true, opcodes[i % ARRAY_LEN(opcodes)], "\x08\x04", 2);
	}
	CHECK_EQ(g->conn->state, CONN_OPEN);
	CHECK_EQ(RIG_SUM(r, pings_sent), 0);
	rig_pass_in_steps(r, 45 * NS_PER_S, STEP);
	CHECK_EQ(RIG_SUM(r, pongs_missed), 1);
	guest_send(g, true, WS_PONG, "", 0);
	rig_pass_in_steps(r, 29 * NS_PER_S, STEP);
	CHECK_EQ(RIG_SUM(r, pongs_missed), 1);
	CHECK_EQ(RIG_SUM(r, pings_sent), 2);
	rig_free(r);
}

/* Bytes of a frame that never ends are none. */
TEST(conn_takes_no_part_of_a_frame_for_a_sign_of_life)
{
	struct rig *r = rig_new(1, "message_timeout = 1h\n");
	struct guest *g = guest_open(r, 0, "/");
	uint64_t start = r->now_ns;

	guest_write(g, "\x82\xfe\x10\x00\0\0\0\0", 8);
	while (g->conn->state == CONN_OPEN && r->now_ns - start < 300 * NS_PER_S) {
		rig_pass_in_steps(r, NS_PER_S, STEP);
		guest_write(g, "x", 1);
	}
	check_time(r->now_ns - start, 120 * NS_PER_S);
	CHECK_EQ(guest_close_code(g), 4001);
	rig_free(r);
}

/* ------------------------------------------------------------- incomplete messages */

TEST(conn_closes_a_message_that_takes_too_long)
{
	struct rig *r = rig_new(1, "ping_interval = 1h\n");
	struct guest *g = guest_open(r, 0, "/");
	struct guest *half = guest_open(r, 0, "/");

	rig_pass(r, 17 * NS_PER_S);
	guest_send(g, false, WS_BINARY, "begun", 5);
	guest_write(half, "\x82", 1);
	for (int i = 0; i < 50; i++) {
		rig_pass_in_steps(r, NS_PER_S, STEP);
		guest_send(g, false, WS_CONTINUATION, "more", 4);
		guest_send(g, true, WS_PING, "", 0);
		guest_drop(g);
	}
	check_time(50 * NS_PER_S + time_until_close(g, 1008, 60 * NS_PER_S), 60 * NS_PER_S);
	CHECK_EQ(guest_close_code(half), 1008);
	CHECK_EQ(RIG_SUM(r, closed_1008), 2);
	rig_free(r);
}

TEST(conn_gives_each_message_its_own_time)
{
	struct rig *r = rig_new(1, "ping_interval = 1h\n");
	struct guest *g = guest_open(r, 0, "/");

	for (int i = 0; i < 5; i++) {
		guest_send(g, false, WS_TEXT, "slow", 4);
		rig_pass_in_steps(r, 59 * NS_PER_S, STEP);
		guest_send(g, true, WS_CONTINUATION, "ly", 2);
		CHECK_EQ(g->conn->input, NULL);
	}
	CHECK_EQ(RIG_SUM(r, text_messages), 5);
	/* One whose end comes together with the next one's beginning, too. */
	for (int i = 0; i < 5; i++) {
		struct buf both = {0};

		if (i)
			guest_encode(&both, true, WS_CONTINUATION, "end", 3);
		guest_encode(&both, false, WS_TEXT, "begin", 5);
		guest_write(g, both.data, both.len);
		rig_pass_in_steps(r, 59 * NS_PER_S, STEP);
		buf_fini(&both);
	}
	CHECK_EQ(g->conn->state, CONN_OPEN);
	rig_free(r);
}

/* A control frame that came in parts has not begun the message that comes right behind it. */
TEST(conn_does_not_charge_a_message_with_a_control_frames_time)
{
	struct rig *r = rig_new(1, "ping_interval = 1h\n");
	struct guest *g = guest_open(r, 0, "/");
	struct buf both = {0};

	guest_encode(&both, true, WS_PONG, "slow", 4);
	guest_write(g, both.data, 5);
	rig_pass_in_steps(r, 50 * NS_PER_S, STEP);
	guest_encode(&both, false, WS_TEXT, "begin", 5);
	guest_write(g, both.data + 5, both.len - 5);
	guest_drop(g);
	check_time(time_until_close(g, 1008, 100 * NS_PER_S), 60 * NS_PER_S);
	buf_fini(&both);
	rig_free(r);
}

/* --------------------------------------------------------------------------- ends */

TEST(conn_does_not_wait_long_for_the_peers_close_or_end)
{
	struct rig *r = rig_new(1, "");
	struct guest *mute = guest_open(r, 0, "/"), *deaf = guest_open(r, 0, "/");
	struct guest *stuck = guest_open(r, 0, "/");
	uint64_t start = r->now_ns;

	conn_close(mute->conn, 1000, ""); /* gets no Close in return */
	conn_close(deaf->conn, 1000, ""); /* gets one, but no end */
	guest_set_room(stuck, 1);
	conn_close(stuck->conn, 1000, ""); /* cannot even say it */
	rig_settle(r);
	guest_send(deaf, true, WS_CLOSE, "\x03\xe8", 2);
	rig_settle(r);
	CHECK(deaf->is_shut && !mute->is_shut && !stuck->is_shut);
	while (!deaf->is_closed)
		rig_pass(r, STEP);
	check_time(r->now_ns - start, 2 * NS_PER_S);
	CHECK(!mute->is_closed && !stuck->is_closed);
	while (!mute->is_closed || !stuck->is_closed)
		rig_pass(r, STEP);
	check_time(r->now_ns - start, 5 * NS_PER_S);
	CHECK(mute->was_reset && stuck->was_reset && !deaf->was_reset);
	rig_free(r);
}

/* An hour without traffic is looked at each half minute, not each tick. */
TEST(conn_lets_an_idle_worker_sleep)
{
	struct rig *r = rig_new(1, "");
	struct guest *g = guest_open(r, 0, "/");
	unsigned fired = 0;

	for (uint64_t t = 0; t < 300 * NS_PER_S; t += STEP) {
		uint64_t deadline = g->conn->timer.deadline_ns;

		rig_pass(r, STEP);
		fired += g->conn->timer.deadline_ns != deadline;
		if (guest_drop(g) == 0)
			guest_send(g, true, WS_PONG, "", 0);
	}
	CHECK(fired >= 9 && fired <= 12);
	rig_free(r);
}
