/* SPDX-License-Identifier: MIT */
/*
 * Faults that were found once, where things end: no memory, a stop, what is held and for how
 * long.
 */
#include "rig.h"

#include <errno.h>
#include <stdio.h>

#include "fault.h"

#define FREE "max_incoming_frames_per_second = 0\nping_interval = 1h\nheartbeat_timeout = 1h\n"
#define STEP (50 * NS_PER_MS)
#define MEMBERS 4

static const uint8_t normal[] = {0x03, 0xe8}; /* of a Close: 1000 */

/* -------------------------------------------------------- no memory for a message */

/* Members of two channels, and a third one's, who has to notice nothing. */
struct poor {
	struct rig *r;
	struct guest *g[MEMBERS];
	struct guest *aside;
	struct buf chat; /* a message as a client writes it */
};

/* What a guest takes from here on is not an allocation of its own. */
static void make_room(struct guest *g)
{
	CHECK_EQ(buf_reserve(&g->out, 64 * 1024, BUF_NO_LIMIT), 0);
	CHECK_EQ(buf_reserve(&g->in, 4096, BUF_NO_LIMIT), 0);
}

/* The logs' rings come out of a pool; now they don't. */
static void empty_pools(struct rig *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		struct channel_pool *pool = &r->w[i]->hub.channels.pool;

		while (pool->n > 0)
			free(pool->ring[--pool->n]);
	}
}

static void poor_init(struct poor *p, unsigned workers)
{
	struct msg_builder b;
	uint8_t payload[256];

	*p = (struct poor){.r = rig_new(workers, FREE)};
	for (size_t i = 0; i < MEMBERS; i++) {
		p->g[i] = guest_open(p->r, (unsigned)i % workers, "/one");
		guest_subscribe(p->g[i], "two");
		rig_settle(p->r);
	}
	p->aside = guest_open(p->r, 0, "/aside");
	msg_init_chat(&b, "", "somebody", "is this kept?", 1);
	guest_encode(&p->chat, true, WS_BINARY, payload, msg_pack(&b, payload));
	guest_write(p->g[0], p->chat.data, p->chat.len); /* what is made on first use is there */
	rig_settle(p->r);
	for (size_t i = 0; i < MEMBERS; i++) {
		guest_drop(p->g[i]);
		make_room(p->g[i]);
	}
	empty_pools(p->r);
}

/* Newcomers find both channels as if nothing had been. */
static void check_channels_work(struct poor *p)
{
	struct guest *a = guest_open(p->r, 0, "/one"), *b = guest_open(p->r, 0, "/one");
	struct guest *far = guest_open(p->r, p->r->n - 1, "/one");

	guest_subscribe(a, "two");
	guest_subscribe(b, "two");
	rig_settle(p->r);
	guest_drop(b);
	guest_drop(far);
	for (int i = 0; i < 100; i++) {
		guest_chat(a, "one", NULL);
		guest_chat(a, "two", "two");
	}
	rig_settle(p->r);
	rig_check(p->r);
	CHECK_EQ(guest_drop(b), 200);
	CHECK_EQ(guest_drop(far), 100);
}

static void poor_fini(struct poor *p)
{
	(void)fault_end(FAULT_ALLOC);
	fault_fail_elements(0);
	rig_settle(p->r);
	rig_check(p->r);
	CHECK_EQ(p->aside->conn->state, CONN_OPEN);
	check_channels_work(p);
	buf_fini(&p->chat);
	rig_free(p->r);
}

/* The message of the one, then each DISCONNECT notice of the other: none is kept. */
TEST(hub_closes_the_members_of_a_channel_that_lost_a_message)
{
	struct poor p;

	poor_init(&p, 1);
	fault_fail_elements(sizeof(struct channel_slot));
	guest_write(p.g[0], p.chat.data, p.chat.len);
	rig_settle(p.r);
	fault_fail_elements(0);
	for (size_t i = 0; i < MEMBERS; i++)
		CHECK_EQ(guest_close_code(p.g[i]), 1011);
	CHECK_EQ(RIG_SUM(p.r, closed_1011), MEMBERS);
	CHECK(!rig_channel(p.r, 0, "one") && !rig_channel(p.r, 0, "two"));
	poor_fini(&p);
}

/* A ring that cannot grow: what lags is pinned in it, and members of only one channel stay. */
TEST(hub_closes_laggards_and_all_where_a_log_cannot_grow)
{
	struct guest *two;
	struct poor p;

	poor_init(&p, 1);
	two = guest_open(p.r, 0, "/two");
	guest_set_room(p.g[1], 0);
	for (int i = 0; i < 50; i++)
		guest_write(p.g[0], p.chat.data, p.chat.len);
	rig_settle(p.r);
	CHECK_EQ(p.g[1]->conn->n_lagging, 1);
	CHECK_EQ(RIG_SUM(p.r, closed_1011), 0);
	fault_fail_elements(sizeof(struct channel_slot));
	guest_chat(p.g[3], "keeps a ring", "two");
	fault_fail_elements(0);
	rig_settle(p.r);
	/* The ring of "two" was to be made then: its members are gone, and are all but @aside. */
	CHECK_EQ(guest_close_code(two), 1011);
	CHECK_EQ(RIG_SUM(p.r, closed_1011), MEMBERS + 1);
	CHECK(!rig_channel(p.r, 0, "one"));
	poor_fini(&p);

	poor_init(&p, 1);
	two = guest_open(p.r, 0, "/two");
	guest_set_room(p.g[1], 0);
	for (int i = 0; i < CHANNEL_RING_SLOTS; i++)
		guest_write(p.g[0], p.chat.data, p.chat.len);
	rig_settle(p.r);
	guest_chat(p.g[0], "has its ring, and keeps it", "two"); /* the laggard pins it */
	rig_settle(p.r);
	fault_fail_elements(sizeof(struct channel_slot));
	for (int i = 0; i < 3; i++)
		guest_write(p.g[0], p.chat.data, p.chat.len);
	rig_settle(p.r);
	fault_fail_elements(0);
	CHECK_EQ(RIG_SUM(p.r, closed_1011), MEMBERS);
	CHECK_EQ(two->conn->state, CONN_OPEN);
	CHECK_EQ(rig_channel(p.r, 0, "two")->n_members, 1);
	poor_fini(&p);
}

/* Another worker keeps what one lost. */
TEST(hub_loses_a_message_for_one_worker_only)
{
	struct poor p;

	poor_init(&p, 2);
	guest_write(p.g[0], p.chat.data, p.chat.len);
	rig_turn_one(p.r, 0);
	CHECK_EQ(RIG_SUM(p.r, closed_1011), 0);
	fault_fail_elements(sizeof(struct channel_slot));
	rig_turn_one(p.r, 1);
	fault_fail_elements(0);
	rig_settle(p.r);
	CHECK_EQ(guest_drop(p.g[2]), 1 + 4); /* and who has left which channel */
	for (size_t i = 0; i < MEMBERS; i++)
		CHECK_EQ(guest_close_code(p.g[i]), i % 2 ? 1011 : 0);
	CHECK_EQ(RIG_SUM(p.r, closed_1011), MEMBERS / 2);
	poor_fini(&p);
}

#define SCENES 7

static void lay_out_control(struct buf *out, Websocket__ControlType type)
{
	static char names[3][8] = {"three", "two", "one"};
	char *channels[] = {names[0], names[1], names[2]};
	/* Memberships to be made and one that is there; or those that are there. */
	size_t from = type == WEBSOCKET__CONTROL_TYPE__UNSUBSCRIBE;
	struct msg_builder b;
	uint8_t payload[256];

	msg_init_control(&b, type);
	if (type == WEBSOCKET__CONTROL_TYPE__CONNECT)
		msg_set_session_id(&b, "mine");
	else
		msg_set_channels(&b, channels + from, 2);
	guest_encode(out, true, WS_BINARY, payload, msg_pack(&b, payload));
}

/* What a client may write, each laid out before anything fails. */
static void lay_out_scenes(struct buf scene[SCENES])
{
	uint8_t payload[2048], data[1024] = {0};
	struct msg_builder b;

	msg_init_chat(&b, "", "somebody", "is this kept?", 1);
	guest_encode(&scene[0], true, WS_BINARY, payload, msg_pack(&b, payload));
	/* Twice in one turn, and in parts. */
	msg_init_binary(&b, data, sizeof(data), 1, true, WEBSOCKET__COMPRESSION_TYPE__NONE);
	guest_encode(&scene[1], true, WS_BINARY, payload, msg_pack(&b, payload));
	guest_encode(&scene[1], false, WS_BINARY, payload, 500);
	guest_encode(&scene[1], true, WS_PING, "!", 1);
	guest_encode(&scene[1], true, WS_CONTINUATION, payload + 500, msg_size(&b) - 500);
	guest_encode(&scene[2], true, WS_CLOSE, normal, sizeof(normal));
	guest_encode(&scene[3], true, WS_BINARY, payload, 700);
	scene[3].len = 300;
	lay_out_control(&scene[4], WEBSOCKET__CONTROL_TYPE__SUBSCRIBE);
	lay_out_control(&scene[5], WEBSOCKET__CONTROL_TYPE__UNSUBSCRIBE);
	lay_out_control(&scene[6], WEBSOCKET__CONTROL_TYPE__CONNECT);
}

/* The @nth allocation that a client's bytes lead to fails; false when there are not so many. */
static bool fail_once(const struct buf *bytes, uint64_t nth, uint64_t times, unsigned *hit)
{
	uint64_t before;
	struct poor p;

	poor_init(&p, 1 + (unsigned)nth % 2);
	before = fault_calls(FAULT_ALLOC);
	fault_fail(FAULT_ALLOC, nth, times, ENOMEM);
	guest_write(p.g[0], bytes->data, bytes->len);
	rig_settle(p.r);
	before = fault_calls(FAULT_ALLOC) - before;
	*hit += RIG_SUM(p.r, closed_1011) > 1;
	poor_fini(&p);
	return before >= nth;
}

/* Whichever allocation fails, alone or with those behind it: some clients go, the rest goes on. */
TEST(hub_survives_each_allocation_that_fails)
{
	static const uint64_t times[] = {1, 2, 3, 7, UINT64_MAX};
	struct buf scene[SCENES] = {0};
	unsigned hit = 0;

	lay_out_scenes(scene);
	for (size_t s = 0; s < ARRAY_LEN(scene); s++) {
		for (size_t i = 0; i < ARRAY_LEN(times); i++)
			for (uint64_t nth = 1; fail_once(&scene[s], nth, times[i], &hit); nth++)
				CHECK(nth < 1000);
		buf_fini(&scene[s]);
	}
	CHECK(hit >= 8);
}

/* The same for who comes, where nobody else is: channel, table and lists are made for it. */
TEST(hub_survives_each_allocation_that_fails_for_a_newcomer)
{
	char request[1024];
	size_t n = guest_handshake(request, sizeof(request), "/first");
	bool has_failed = true;

	for (uint64_t nth = 1; has_failed; nth++) {
		uint64_t before;
		struct rig *r = rig_new(1, FREE);
		struct guest *g = guest_accept(r, 0), *next;

		make_room(g);
		before = fault_calls(FAULT_ALLOC);
		fault_fail(FAULT_ALLOC, nth, 1, ENOMEM);
		guest_write(g, request, n);
		rig_settle(r);
		has_failed = fault_calls(FAULT_ALLOC) - before >= nth;
		(void)fault_end(FAULT_ALLOC);
		if (!has_failed)
			CHECK_EQ(guest_status(g), 101);
		rig_check(r);
		next = guest_open(r, 0, "/first");
		CHECK_EQ(next->conn->state, CONN_OPEN);
		rig_free(r);
		CHECK(nth > 1 || has_failed);
		CHECK(nth < 1000);
	}
}

/* ----------------------------------------------------------------------------- stop */

enum { WITH_END = 1, PARKED = 2 };

/* The client says Close while nobody is read; then the daemon says goodbye. */
static void check_close_before_goodbye(unsigned how)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *g = guest_open(r, 0, "/room");
	struct buf all = {0};
	uint64_t start;

	/* More frames than one turn takes: the rest has been read, and waits here. */
	for (int i = 0; how & PARKED && i < 600; i++)
		guest_encode(&all, true, WS_PONG, "", 0);
	guest_encode(&all, true, WS_CLOSE, normal, sizeof(normal));
	if (how & PARKED) {
		clock_creep_for_test(TURN_CLIENT_NS / 10);
		guest_write(g, all.data, all.len);
		clock_creep_for_test(0);
		clock_set_for_test(r->now_ns);
	}
	CHECK(rig_run(r, 0, worker_task_stop_reading));
	if (!(how & PARKED))
		guest_write(g, all.data, all.len);
	if (how & WITH_END)
		guest_end(g);
	rig_settle(r);
	CHECK_EQ(g->conn->state, CONN_OPEN);
	start = r->now_ns;
	(void)rig_run(r, 0, worker_task_say_goodbye);
	rig_settle(r);
	CHECK_EQ(guest_close_code(g), 1012);
	CHECK(g->is_shut);
	if (how & WITH_END)
		CHECK(g->is_closed);
	else
		guest_end(g); /* it had nothing to wait for either */
	rig_settle(r);
	CHECK(g->is_closed && !g->was_reset);
	CHECK_EQ(r->now_ns, start);
	CHECK_EQ(r->w[0]->hub.env.n_all, 0);
	buf_fini(&all);
	rig_free(r);
}

TEST(conn_sees_a_close_that_came_while_it_was_held)
{
	check_close_before_goodbye(0);
	check_close_before_goodbye(WITH_END);
	check_close_before_goodbye(PARKED);
	check_close_before_goodbye(PARKED | WITH_END);
}

/* ---------------------------------------------------------------- reassembly_memory */

/* A request whose head was thrown away must not be answered as if it had begun in its middle. */
TEST(conn_drops_handshakes_past_reassembly_memory)
{
	struct rig *r = rig_new(1, "reassembly_memory = 1M\n");
	unsigned dropped = 0, upgraded = 0;
	struct guest *g[150];
	char head[9000];
	size_t n = guest_handshake(head, sizeof(head), "/room") - 2;

	n += (size_t)snprintf(head + n, sizeof(head) - n, "X-Long: ");
	memset(head + n, 'a', 7000 - n);
	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		g[i] = guest_accept(r, 0);
		guest_write(g[i], head, 7000);
		rig_turn(r);
		CHECK(r->w[0]->hub.env.reassembly_bytes <= 1024 * 1024);
	}
	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		if (g[i]->is_closed) {
			CHECK_EQ(g[i]->calls, 0);
			dropped++;
			continue;
		}
		guest_write(g[i], "\r\n\r\n", 4);
		rig_settle(r);
		CHECK_EQ(guest_status(g[i]), 101);
		upgraded++;
	}
	CHECK(dropped > 0 && upgraded > 100);
	CHECK_EQ(RIG_SUM(r, refused_bad_request), 0);
	CHECK_EQ(RIG_SUM(r, reassembly_bytes), 0);
	rig_free(r);
}

/* ------------------------------------------------------------------- held by the server */

/* An echo client that doesn't read: its private queue is half full, so it isn't read. */
static struct guest *held_guest(struct rig *r)
{
	struct guest *g = guest_open(r, 0, "/echo");
	uint8_t *p = calloc(1, 600 * 1024);

	guest_set_room(g, 1000);
	guest_send(g, true, WS_BINARY, p, 4000);
	guest_send(g, true, WS_BINARY, p, 600 * 1024);
	rig_settle(r);
	free(p);
	return g;
}

TEST(conn_that_is_held_lives_while_its_bytes_come)
{
	struct rig *r = rig_new(1, "echo_path = /echo\n");
	struct guest *g = held_guest(r), *silent = held_guest(r);
	uint64_t start = r->now_ns;

	for (int i = 0; i < 300; i++) {
		guest_send(g, true, WS_PONG, "", 0);
		rig_pass(r, NS_PER_S);
		CHECK_EQ(g->conn->state, CONN_OPEN);
		CHECK(g->in.len > g->in_at); /* it is held indeed */
		if (silent->conn && silent->conn->state == CONN_OPEN)
			start = r->now_ns;
	}
	/* Who says nothing is gone, held or not. */
	CHECK(start - RIG_START_NS >= 118 * NS_PER_S && start - RIG_START_NS <= 121 * NS_PER_S);
	CHECK_EQ(RIG_SUM(r, closed_4001), 1);
	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK_EQ(guest_drop(g), 2);
	CHECK_EQ(g->in.len, g->in_at);
	rig_free(r);
}

/* The rest of the message is here, and isn't looked at: the client can't help that. */
TEST(conn_that_is_held_has_no_message_timeout)
{
	struct rig *r = rig_new(1, FREE "echo_path = /echo\nmessage_queue_size = 10\n");
	struct guest *g = guest_open(r, 0, "/echo");
	struct guest_frame f;
	uint64_t start;

	guest_set_room(g, 0);
	guest_send(g, false, WS_TEXT, "to ", 3);
	for (int i = 0; i < 6; i++)
		guest_send(g, true, WS_PING, "", 0);
	rig_settle(r);
	guest_send(g, true, WS_CONTINUATION, "be", 2);
	CHECK(g->in.len > g->in_at);
	rig_pass_in_steps(r, 200 * NS_PER_S, STEP);
	CHECK_EQ(g->conn->state, CONN_OPEN);
	guest_set_room(g, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK(guest_next_message(g, &f));
	CHECK_EQ(f.n, 5);
	CHECK_MEM(f.p, "to be", 5);
	/* From here on it is the client's to go on. */
	guest_send(g, false, WS_TEXT, "or not", 6);
	start = r->now_ns;
	while (g->conn->state == CONN_OPEN && r->now_ns - start < 300 * NS_PER_S)
		rig_pass(r, STEP);
	CHECK(r->now_ns - start >= 60 * NS_PER_S && r->now_ns - start <= 61 * NS_PER_S);
	CHECK_EQ(guest_close_code(g), 1008);
	rig_free(r);
}
