/* SPDX-License-Identifier: MIT */

/* Who is read when: in the order in which they came, for a share of the turn's time each. */

#include <stdio.h>

#include "conn/conn_private.h"
#include "rig.h"

#define FREE "max_incoming_frames_per_second = 0\n"

/* The events of a turn come from here on. */
static void begin_events(struct rig *r)
{
	turn_begin(&r->w[0]->hub.env.turn, clock_now_ns());
}

static void write_pings(struct guest *g, unsigned n)
{
	struct buf all = {0};

	for (unsigned i = 0; i < n; i++)
		guest_encode(&all, true, WS_PING, "", 0);
	guest_write(g, all.data, all.len);
	buf_fini(&all);
}

static unsigned count_pongs(struct guest *g)
{
	struct guest_frame f;
	unsigned n = 0;

	while (guest_next_frame(g, &f))
		n += f.opcode == WS_PONG;
	return n;
}

/* A step takes a fifth of a client's share: what a client may have is five, and one begun. */
TEST(conn_that_had_its_share_waits_behind_those_that_had_none)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *flood = guest_open(r, 0, "/a"), *g[8];
	const unsigned share = 6 * TURN_STEP / TURN_FRAME;

	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		g[i] = guest_open(r, 0, "/b");
	clock_creep_for_test(TURN_CLIENT_NS / 5);
	begin_events(r);
	write_pings(flood, 4 * share);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		write_pings(g[i], 1);
	/* Nobody had waited: each was read as its event came, and the flood once. */
	CHECK(RIG_SUM(r, frames_received) <= share + ARRAY_LEN(g));

	begin_events(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		write_pings(g[i], 1);
	/* Those that had no share yet don't wait for what is left of the flood. */
	CHECK(RIG_SUM(r, frames_received) >= 2 * ARRAY_LEN(g));
	CHECK(RIG_SUM(r, frames_received) <= share + 2 * ARRAY_LEN(g));
	rig_turn(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		CHECK_EQ(count_pongs(g[i]), 2);
	CHECK(count_pongs(flood) <= 2 * share);
	CHECK(conn_has_parked(flood->conn));
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, frames_received), 4 * share + 2 * ARRAY_LEN(g));
	rig_free(r);
}

/*
 * Hundreds that were throttled may go on in the same moment. Who says something now doesn't wait
 * for them; and they are not forgotten, however many say something in each turn.
 */
TEST(conn_with_an_event_is_read_before_those_that_were_throttled)
{
	struct rig *r = rig_new(1, "max_incoming_frames_per_second = 64\n");
	struct guest *good = guest_open(r, 0, "/b"), *g[64], *busy[8];
	unsigned before, turns = 0;

	for (unsigned i = 0; i < ARRAY_LEN(busy); i++)
		busy[i] = guest_open(r, 0, "/c");
	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		g[i] = guest_open(r, 0, "/a");
		write_pings(g[i], 128);
	}
	rig_settle(r);
	CHECK_EQ(RIG_SUM(r, throttles), ARRAY_LEN(g));
	/* A step takes all the time that a turn has for reading, so there is one in each. */
	clock_creep_for_test(TURN_READ_NS);
	rig_pass(r, NS_PER_S);
	before = (unsigned)RIG_SUM(r, frames_received);
	/* One or two have their share, and all others stand in line. */
	while (RIG_SUM(r, frames_received) == before)
		rig_turn(r);
	CHECK(RIG_SUM(r, frames_received) <= before + 2 * 64);
	begin_events(r);
	write_pings(good, 1);
	rig_turn(r);
	CHECK_EQ(count_pongs(good), 1);
	while (RIG_SUM(r, frames_received) < before + ARRAY_LEN(g) * 64) {
		begin_events(r);
		for (unsigned i = 0; i < ARRAY_LEN(busy); i++)
			write_pings(busy[i], 1);
		rig_turn(r);
		CHECK(++turns <= 64 * ARRAY_LEN(g));
	}
	rig_free(r);
}

/*
 * Who has used up its share stays behind the others for a second, also where all it had was read:
 * each thing that it sends is an event of its own.
 */
TEST(conn_that_used_its_share_stands_behind_for_a_second)
{
	struct rig *r = rig_new(1, "max_incoming_frames_per_second = 100000\n");
	struct guest *flood = guest_open(r, 0, "/a"), *good = guest_open(r, 0, "/b");
	const unsigned n = 2 * TURN_STEP / TURN_FRAME;

	rig_pass(r, NS_PER_S);
	clock_creep_for_test(TURN_FIRST_NS);
	begin_events(r);
	write_pings(flood, n);
	rig_settle(r);
	CHECK_EQ(count_pongs(flood), n);
	begin_events(r);
	write_pings(flood, 1);
	write_pings(good, 1);
	/* The first is not read with its event, the second is. */
	CHECK_EQ(RIG_SUM(r, frames_received), n + 1);
	rig_settle(r);
	CHECK_EQ(count_pongs(good), 1);
	CHECK_EQ(count_pongs(flood), 1);
	/* A second with little in it makes it one of the others again. */
	rig_pass(r, 2 * NS_PER_S);
	write_pings(flood, 1);
	rig_settle(r);
	begin_events(r);
	write_pings(flood, 1);
	CHECK_EQ(RIG_SUM(r, frames_received), n + 4);
	rig_free(r);
}

/* A thousand clients end at once, and one says something. */
TEST(conn_with_something_to_say_is_read_before_those_that_end)
{
	struct rig *r = rig_new(1, FREE "notice_limit = 0\n");
	struct guest *good = guest_open(r, 0, "/b"), *g[64];
	unsigned turns = 0;

	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		g[i] = guest_open(r, 0, "/a");
	/* Each of them uses up what a turn has for reading. */
	clock_creep_for_test(TURN_READ_NS);
	begin_events(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		guest_end(g[i]);
	write_pings(good, 1);
	rig_turn(r);
	CHECK_EQ(count_pongs(good), 1);
	CHECK(r->w[0]->hub.env.n_all > ARRAY_LEN(g) / 2);
	while (r->w[0]->hub.env.n_all > 1) {
		rig_turn(r);
		CHECK(++turns <= ARRAY_LEN(g));
	}
	rig_free(r);
}

/* The order in which clients were read, by the notes that they took in a channel. */
static void expect_order(struct guest *reader, const unsigned *order, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const Websocket__WebSocketMessage *m = guest_next_msg(reader);

		CHECK(m && m->chat);
		CHECK_EQ(strtoul(m->chat->content, NULL, 10), order[i]);
	}
	CHECK(!guest_next_msg(reader));
}

TEST(conn_is_read_in_the_order_of_events_over_turns)
{
	static const unsigned order[] = {0, 1, 2, 3, 4, 5};
	struct rig *r = rig_new(1, FREE "notice_limit = 0\n");
	struct guest *reader = guest_open(r, 0, "/room"), *g[6];
	unsigned turns = 0;

	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		g[i] = guest_open(r, 0, "/room");
	/* Any step takes all of a turn's time for reading. */
	clock_creep_for_test(TURN_READ_NS);
	begin_events(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		struct buf all = {0};
		char text[8];

		/* Enough beside it for a step. */
		for (unsigned k = 0; k < 2 * TURN_STEP / TURN_FRAME; k++)
			guest_encode(&all, true, WS_PONG, "", 0);
		CHECK_EQ(buf_append(&g[i]->in, all.data, all.len, BUF_NO_LIMIT), 0);
		buf_fini(&all);
		snprintf(text, sizeof(text), "%u", i);
		guest_chat(g[i], text, NULL);
	}
	while (hub_has_work(&r->w[0]->hub)) {
		rig_turn(r);
		turns++;
	}
	/* A few had a turn of their own at least; nobody overtook. */
	CHECK(turns >= ARRAY_LEN(g));
	clock_set_for_test(0);
	clock_set_for_test(r->now_ns);
	rig_settle(r);
	expect_order(reader, order, ARRAY_LEN(order));
	rig_free(r);
}

#define NEWCOMERS 400

static unsigned count_open(struct guest *const *g)
{
	unsigned n = 0;

	for (unsigned i = 0; i < NEWCOMERS; i++)
		n += g[i]->conn && g[i]->conn->state == CONN_OPEN;
	return n;
}

/* All of them at once, before the one that is there already. */
TEST(conn_that_is_open_does_not_wait_for_handshakes)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *good = guest_open(r, 0, "/room"), *reader = guest_open(r, 0, "/room");
	static struct guest *g[NEWCOMERS];
	char request[256];
	size_t n = guest_handshake(request, sizeof(request), "/other");
	unsigned before = 0, turns = 0;

	r->has_lines = true;
	for (unsigned i = 0; i < NEWCOMERS; i++)
		g[i] = guest_accept(r, 0);
	rig_settle(r);
	(void)guest_drop(reader);
	/* A handshake takes as long as a signature: two fit into what a turn has for them. */
	clock_creep_for_test(TURN_HANDSHAKE_NS / 2);
	begin_events(r);
	for (unsigned i = 0; i < NEWCOMERS; i++)
		guest_write(g[i], request, n);
	CHECK_EQ(count_open(g), 0);
	while (before < NEWCOMERS) {
		guest_chat(good, "hello", NULL);
		rig_turn(r);
		turns++;
		CHECK_EQ(guest_drop(reader), 1);
		CHECK(count_open(g) > before);
		CHECK(count_open(g) <= before + 2);
		before = count_open(g);
	}
	CHECK(turns >= NEWCOMERS / 2);
	rig_free(r);
}

/*
 * Its handshake came with frames behind it, more than one share: they are read among those of
 * others.
 */
TEST(conn_that_has_just_opened_does_not_wait_for_handshakes)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *first, *g[NEWCOMERS];
	char request[256];
	size_t n = guest_handshake(request, sizeof(request), "/room");
	struct buf all = {0};
	unsigned turns = 0;

	CHECK_EQ(buf_append(&all, request, n, BUF_NO_LIMIT), 0);
	for (unsigned i = 0; i < 4 * TURN_STEP / TURN_FRAME; i++)
		guest_encode(&all, true, WS_PONG, "", 0);
	first = guest_accept(r, 0);
	for (unsigned i = 0; i < NEWCOMERS; i++)
		g[i] = guest_accept(r, 0);
	rig_settle(r);
	r->has_lines = true;
	clock_creep_for_test(TURN_CLIENT_NS);
	begin_events(r);
	guest_write(first, all.data, all.len);
	for (unsigned i = 0; i < NEWCOMERS; i++)
		guest_write(g[i], request, n);
	while (RIG_SUM(r, frames_received) < 4 * TURN_STEP / TURN_FRAME) {
		rig_turn(r);
		CHECK(++turns < 20);
	}
	CHECK(count_open(g) < NEWCOMERS / 2);
	buf_fini(&all);
	rig_free(r);
}

/* Its pong is here, but nobody came to read it: not its fault. */
TEST(conn_whose_bytes_wait_their_turn_is_not_silent)
{
	struct rig *r = rig_new(1, FREE "heartbeat_timeout = 60\nping_interval = 30\n");
	struct guest *g = guest_open(r, 0, "/room"), *silent = guest_open(r, 0, "/room");
	struct guest *opening = guest_accept(r, 0);
	struct conn_env *env = &r->w[0]->hub.env;
	char request[256];
	size_t n = guest_handshake(request, sizeof(request), "/room");

	CHECK_EQ(buf_append(&opening->in, request, n, BUF_NO_LIMIT), 0);
	rig_pass_in_steps(r, 9 * NS_PER_S, NS_PER_S);
	/* From here on no turn has time for anybody. */
	guest_encode(&g->in, true, WS_PONG, "", 0);
	g->conn->can_read = opening->conn->can_read = true;
	for (int i = 0; i < 60 * 4; i++) {
		list_del(&g->conn->read_node);
		list_del(&opening->conn->read_node);
		r->now_ns += NS_PER_S / 4;
		clock_set_for_test(r->now_ns);
		list_add_tail(&env->to_read, &g->conn->read_node);
		list_add_tail(&env->to_open, &opening->conn->read_node);
		r->w[0]->reactor.now_ns = r->now_ns;
		wheel_advance(&r->w[0]->reactor.wheel, r->now_ns);
	}
	CHECK(!silent->conn);
	CHECK_EQ(RIG_SUM(r, heartbeat_expired), 1);
	CHECK_EQ(g->conn->state, CONN_OPEN);
	CHECK_EQ(opening->conn->state, CONN_HANDSHAKE);
	rig_settle(r);
	CHECK_EQ(guest_status(opening), 101);
	CHECK_EQ(g->conn->last_sign_ns, r->now_ns);
	rig_free(r);
}

/* Hundreds that catch up with what a channel had for them, and one that waits for its pong. */
TEST(conn_gets_its_answer_before_those_that_catch_up)
{
	struct rig *r = rig_new(1, FREE "notice_limit = 0\n");
	struct guest *sender = guest_open(r, 0, "/room"), *good = guest_open(r, 0, "/b"), *g[50];
	uint64_t before = 0, sent = 0;
	char text[4001];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		g[i] = guest_open(r, 0, "/room");
		guest_set_room(g[i], 0);
	}
	for (unsigned i = 0; i < 100; i++)
		guest_chat(sender, text, NULL);
	rig_settle(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		before += g[i]->sent;
		guest_set_room(g[i], ROOM_FOR_ALL);
	}
	clock_creep_for_test(TURN_ANSWER_NS);
	for (unsigned turns = 0; turns < 3; turns++) {
		write_pings(good, 1);
		rig_turn(r);
		CHECK_EQ(count_pongs(good), 1);
	}
	/* Of the others a few were served: each sending counts in the turn's time. */
	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		sent += g[i]->sent;
	CHECK(sent - before > 0);
	CHECK(sent - before <= 3 * 10 * (CHANNEL_CATCH_UP_BYTES + sizeof(text)));
	rig_free(r);
}

/* A long answer goes in shares, between those of others. */
TEST(conn_sends_a_share_of_its_own_in_a_turn)
{
	struct rig *r = rig_new(1, FREE "echo_path = /echo\nmax_send_buffer = 4M\n");
	struct guest *g = guest_open(r, 0, "/echo");
	const size_t n = 2 << 20;
	uint8_t *p = calloc(1, n);
	struct guest_frame f;
	uint64_t before;

	guest_set_room(g, 0);
	guest_send(g, true, WS_BINARY, p, n);
	rig_settle(r);
	before = g->sent;
	guest_set_room(g, ROOM_FOR_ALL);
	for (unsigned turns = 1; turns <= 4; turns++) {
		rig_turn(r);
		CHECK(g->sent - before > 0);
		CHECK(g->sent - before <= turns * 256 * 1024);
	}
	rig_settle(r);
	CHECK(guest_next_message(g, &f) && f.n == n);
	free(p);
	rig_free(r);
}

TEST(conn_that_a_turn_had_no_time_to_send_to_comes_first_in_the_next)
{
	struct rig *r = rig_new(1, FREE "echo_path = /echo\n");
	struct guest *g[100];
	unsigned sent = 0, turns = 0;

	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		g[i] = guest_open(r, 0, "/echo");
		guest_set_room(g[i], 0);
		guest_send(g[i], true, WS_BINARY, "answer", 6);
	}
	rig_settle(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		guest_set_room(g[i], ROOM_FOR_ALL);
	clock_creep_for_test(TURN_ANSWER_NS);
	while (sent < ARRAY_LEN(g)) {
		unsigned before = sent;
		struct guest_frame f;

		rig_turn(r);
		turns++;
		/* In their order, two steps of sends at most. */
		while (sent < ARRAY_LEN(g) && guest_next_message(g[sent], &f))
			sent++;
		CHECK(sent > before && sent - before <= 2 * TURN_STEP / TURN_SEND);
	}
	CHECK(turns >= 3);
	rig_free(r);
}
