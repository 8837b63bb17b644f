/* SPDX-License-Identifier: MIT */
/* Faults that were found once, on the way out: rounds, congestion, what waits for a client. */
#include "rig.h"

#include <stdio.h>

#include "channel/channel.h"
#include "worker/protocol.h"

#define FREE "max_incoming_frames_per_second = 0\nnotice_limit = 0\nping_interval = 1h\n"
#define STEP (50 * NS_PER_MS)
#define MIB ((size_t)1024 * 1024)

static void send_binary(struct guest *g, enum zip_kind kind, const void *p, size_t n)
{
	struct msg_builder b;

	msg_init_binary(&b, p, n, 1, true, (Websocket__CompressionType)kind);
	guest_send_msg(g, &b);
}

/* ------------------------------------------------------ work on compressed messages */

#define PACKED_MESSAGES 40
#define TURN_BYTES ((size_t)256 * 1024) /* that one client has worked on in a turn */

/* Turns until nothing is left to do: none of them works on more than a share of one client. */
static void check_work_of_each_turn(struct rig *r, size_t whole)
{
	uint64_t before = RIG_SUM(r, work_bytes), after, begun = before;
	unsigned turns = 0;

	while (hub_has_work(&r->w[0]->hub)) {
		rig_turn(r);
		after = RIG_SUM(r, work_bytes);
		CHECK(after - before <= TURN_BYTES + 64 * 1024);
		turns += after > before;
		before = after;
	}
	CHECK(before >= whole);
	CHECK(turns >= (before - begun) / (TURN_BYTES + 64 * 1024));
}

/* Small on the wire, large unpacked: one turn doesn't unpack all that came. */
TEST(channel_unpacks_a_budget_in_a_turn)
{
	struct rig *r = rig_new(1, FREE "compression_max_size = 1M\n");
	struct guest *sender = guest_open(r, 0, "/room"), *reader = guest_open(r, 0, "/room");
	struct buf packed = {0};
	uint8_t *zeros = calloc(1, MIB);
	struct zip zip;

	zip_init(&zip);
	CHECK_EQ(zip_pack_kind(&zip, ZIP_ZSTD, 3, zeros, MIB, &packed), 0);
	CHECK(packed.len < 1000);
	for (int i = 0; i < PACKED_MESSAGES; i++)
		send_binary(sender, ZIP_ZSTD, packed.data, packed.len);
	check_work_of_each_turn(r, PACKED_MESSAGES * MIB);
	for (int i = 0; i < PACKED_MESSAGES; i++) {
		const Websocket__WebSocketMessage *m = guest_next_msg(reader);

		CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA);
		CHECK_EQ(m->binary->compression, ZIP_NONE);
		CHECK_EQ(m->binary->data.len, MIB);
		CHECK_MEM(m->binary->data.data, zeros, MIB);
	}
	CHECK(guest_next_msg(reader) == NULL);
	zip_fini(&zip);
	buf_fini(&packed);
	free(zeros);
	rig_free(r);
}

/* The same the other way round: for a reader of zstd the messages are packed. */
TEST(channel_packs_a_budget_in_a_turn)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *sender = guest_open(r, 0, "/room"), *reader = guest_open(r, 0, "/room");
	const size_t n = 200 * 1024;
	uint8_t *zeros = calloc(1, n);
	struct msg_builder connect;

	msg_init_control(&connect, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_capabilities(&connect, MSG_CAP_ZSTD);
	guest_send_msg(reader, &connect);
	rig_settle(r);
	guest_drop(reader);
	for (int i = 0; i < PACKED_MESSAGES; i++)
		send_binary(sender, ZIP_NONE, zeros, n);
	check_work_of_each_turn(r, (PACKED_MESSAGES - 1) * n);
	for (int i = 0; i < PACKED_MESSAGES; i++) {
		const Websocket__WebSocketMessage *m = guest_next_msg(reader);

		CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__BINARY_DATA);
		CHECK_EQ(m->binary->compression, ZIP_ZSTD);
	}
	CHECK(guest_next_msg(reader) == NULL);
	free(zeros);
	rig_free(r);
}

/* --------------------------------------------------------------- after congestion */

/* As loops do: who has no work by its own account has no turn. */
static void run_who_has_work(struct rig *r)
{
	bool any = true;

	for (unsigned turns = 0; any; turns++) {
		any = false;
		for (unsigned i = 0; i < r->n; i++) {
			if (!hub_has_work(&r->w[i]->hub))
				continue;
			rig_turn_one(r, i);
			any = true;
		}
		CHECK(turns < 100000);
	}
}

static void congest(struct rig *r, struct guest *sender)
{
	struct hub *h = &r->w[0]->hub;

	guest_send_numbers(sender, 0, HUB_INBOX_SLOTS + 1);
	CHECK(conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) && h->outbox.set != 0);
	for (int i = 0; i < 3; i++)
		rig_turn_one(r, 0);
	CHECK(conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED));
}

/* The consumer drains between the producer's last look at the ring and its sleep. */
TEST(hub_has_work_once_its_mark_was_taken)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *sender = guest_open(r, 0, "/room"), *far = guest_open(r, 1, "/room");
	struct hub *h = &r->w[0]->hub;

	congest(r, sender);
	guest_chat(sender, "8193", NULL); /* is not read now */
	CHECK_EQ(r->w[1]->hub.waiting, 1u << 0);
	CHECK(!hub_has_work(h));
	rig_turn_one(r, 1);
	CHECK_EQ(r->w[1]->hub.waiting, 0);
	CHECK(conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED));
	CHECK(hub_has_work(h));
	run_who_has_work(r);
	CHECK(!conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) && h->outbox.set == 0);
	CHECK(list_is_empty(&h->env.stalled));
	guest_expect_numbers(far, 0, HUB_INBOX_SLOTS + 2);
	rig_free(r);
}

/* One of two full rings has room again: its post goes out, then there is nothing to do but wait. */
TEST(hub_has_work_while_one_of_its_posts_can_go)
{
	struct rig *r = rig_new(3, FREE);
	struct guest *sender = guest_open(r, 0, "/room");
	struct guest *near = guest_open(r, 1, "/room"), *far = guest_open(r, 2, "/room");
	struct hub *h = &r->w[0]->hub;

	congest(r, sender);
	CHECK_EQ(h->outbox.set, 1u << 1 | 1u << 2);
	rig_turn_one(r, 2);
	CHECK(hub_has_work(h));
	rig_turn_one(r, 0);
	CHECK_EQ(h->outbox.set, 1u << 1);
	CHECK(conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) && !hub_has_work(h));
	run_who_has_work(r);
	CHECK(!conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED));
	guest_expect_numbers(near, 0, HUB_INBOX_SLOTS + 1);
	guest_expect_numbers(far, 0, HUB_INBOX_SLOTS + 1);
	rig_free(r);
}

/* The second try, behind the mark, found room: congested, and nothing waits that would end it. */
TEST(hub_has_work_while_congested_with_an_empty_outbox)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *sender = guest_open(r, 0, "/room"), *far = guest_open(r, 1, "/room");
	struct hub *h = &r->w[0]->hub;

	CHECK(!hub_has_work(h));
	conn_env_pause(&h->env, CONN_PAUSE_CONGESTED);
	guest_send_numbers(sender, 0, 3);
	CHECK(!list_is_empty(&h->env.stalled));
	CHECK(hub_has_work(h));
	run_who_has_work(r);
	CHECK(!conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED));
	guest_expect_numbers(far, 0, 3);
	rig_free(r);
}

/* However the turns of three workers fall, none is left with a full outbox and nothing to do. */
TEST(hub_gets_through_congestion_by_its_own_account)
{
	struct rig *r = rig_new(3, FREE);
	struct guest *g[3];
	uint64_t random = test_seed(), greetings;

	for (unsigned i = 0; i < 3; i++) {
		g[i] = guest_open(r, i, "/room");
		g[i]->is_mute = true;
	}
	greetings = RIG_SUM(r, messages_sent);
	for (int round = 0; round < 4; round++) {
		for (unsigned i = 0; i < 3; i++)
			guest_send_numbers(g[i], 0, HUB_INBOX_SLOTS / 2 + 100);
		for (int i = 0; i < 50; i++) {
			unsigned n = (unsigned)(test_random(&random) % 3);

			if (hub_has_work(&r->w[n]->hub))
				rig_turn_one(r, n);
		}
	}
	run_who_has_work(r);
	CHECK(RIG_SUM(r, ring_overflows) > 0);
	CHECK_EQ(RIG_SUM(r, messages_received), 4u * 3 * (HUB_INBOX_SLOTS / 2 + 100));
	CHECK_EQ(RIG_SUM(r, messages_sent) - greetings, 2 * RIG_SUM(r, messages_received));
	rig_free(r);
}

/* --------------------------------------------------------------------- log_memory */

#define ONE_MIB_FOR_ALL                                                                      \
	FREE "echo_path = /echo\nlog_memory = 1M\nmax_send_buffer = 64M\nmessage_queue_size" \
	     " = 100000\nslow_consumer_grace = 1h\n"

static size_t frame_bytes(struct rig *r)
{
	return atomic_load(&r->pool->shared.frame_bytes);
}

/* Of what each client is sent the kernel took the beginning: nothing waits, all is in transit. */
TEST(slow_consumer_log_memory_counts_what_is_in_transit)
{
	struct rig *r = rig_new(1, ONE_MIB_FOR_ALL);
	uint8_t *p = calloc(1, 600 * 1024);
	struct guest *small = guest_open(r, 0, "/echo"), *g[8];
	unsigned closed = 0;

	guest_set_room(small, 100);
	guest_send(small, true, WS_BINARY, p, 50 * 1024);
	rig_settle(r);
	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		g[i] = guest_open(r, 0, "/echo");
		guest_set_room(g[i], 100);
		guest_send(g[i], true, WS_BINARY, p, 600 * 1024);
		rig_settle(r);
		CHECK(frame_bytes(r) <= MIB);
	}
	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		CHECK_EQ(g[i]->is_closed, g[i]->was_reset);
		closed += g[i]->is_closed;
	}
	CHECK_EQ(closed, 7); /* one has room */
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 7);
	CHECK_EQ(RIG_SUM(r, closed_1013), 7);
	CHECK_EQ(small->conn->state, CONN_OPEN);
	guest_set_room(small, ROOM_FOR_ALL);
	rig_settle(r);
	CHECK_EQ(guest_drop(small), 1);
	free(p);
	rig_free(r);
}

/* Half of all that a client has is left to it, with what is in transit. */
TEST(slow_consumer_log_memory_skips_for_what_is_in_transit_too)
{
	struct rig *r = rig_new(1, ONE_MIB_FOR_ALL "slow_consumer = skip\n");
	struct guest *sender = guest_open(r, 0, "/room"), *slow = guest_open(r, 0, "/room");
	uint8_t *p = calloc(1, 300 * 1024);
	uint64_t bytes, messages;

	guest_set_room(slow, 100);
	send_binary(sender, ZIP_NONE, p, 300 * 1024);
	rig_settle(r);
	CHECK(slow->conn->out->transit != NULL);
	for (int i = 0; i < 100 && RIG_SUM(r, slow_skips) == 0; i++) {
		send_binary(sender, ZIP_NONE, p, 10 * 1024);
		rig_settle(r);
	}
	CHECK_EQ(RIG_SUM(r, slow_skips), 1);
	CHECK_EQ(slow->conn->state, CONN_OPEN);
	channel_backlog(slow->conn, &bytes, &messages);
	CHECK(bytes <= MIB / 2 - 300 * 1024);
	CHECK(messages > 0);
	CHECK(frame_bytes(r) <= MIB * 6 / 10);
	free(p);
	rig_free(r);
}

/* ---------------------------------------------------------------------- own messages */

/* A client that can't be sent to publishes far more than may wait for it. */
static void check_own_messages(const char *limit, size_t bytes, unsigned n)
{
	char config[300], text[2000] = "";
	uint64_t waiting_bytes, waiting;
	struct guest *slow, *other;
	struct rig *r;

	snprintf(config, sizeof(config), FREE "%s", limit);
	r = rig_new(1, config);
	slow = guest_open(r, 0, "/room");
	other = guest_open(r, 0, "/room");
	guest_set_room(slow, 0);
	for (unsigned i = 0; i < 3; i++) {
		guest_send_numbers(other, i, i + 1);
		rig_settle(r);
	}
	memset(text, 'x', bytes);
	for (unsigned i = 0; i < n; i++) {
		guest_chat(slow, text, NULL);
		if (i % 100 == 0)
			rig_settle(r);
	}
	rig_settle(r);
	CHECK_EQ(slow->conn->state, CONN_OPEN);
	CHECK_EQ(slow->conn->over_tick, 0);
	channel_backlog(slow->conn, &waiting_bytes, &waiting);
	CHECK_EQ(waiting, 2); /* and one is in transit */
	CHECK_EQ(guest_drop(other), n);
	rig_pass_in_steps(r, 10 * NS_PER_S, STEP);
	guest_set_room(slow, ROOM_FOR_ALL);
	rig_settle(r);
	guest_expect_numbers(slow, 0, 3);
	CHECK(guest_next_msg(slow) == NULL);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	rig_free(r);
}

TEST(slow_consumer_own_messages_do_not_wait)
{
	check_own_messages("message_queue_size = 1000\n", 10, 4100);
	check_own_messages("max_send_buffer = 64K\n", 1900, 400);
}

/* Those of others among them do. */
TEST(slow_consumer_others_messages_among_the_own_ones_wait)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 10\n");
	struct guest *slow = guest_open(r, 0, "/room"), *other = guest_open(r, 0, "/room");

	guest_set_room(slow, 0);
	for (unsigned i = 0; i < 12; i++) {
		CHECK_EQ(slow->conn->over_tick, 0);
		guest_chat(slow, "mine", NULL);
		guest_send_numbers(other, i, i + 1);
		rig_settle(r);
	}
	CHECK(slow->conn->over_tick != 0);
	rig_pass_in_steps(r, 5 * NS_PER_S + 2 * STEP, STEP);
	CHECK_EQ(slow->conn->state, CONN_CLOSING);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 1);
	rig_free(r);
}

TEST(slow_consumer_skip_counts_and_keeps_others_messages_only)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 10\nslow_consumer = skip\n"
					"slow_consumer_grace = 0\n");
	struct guest *slow = guest_open(r, 0, "/room"), *other = guest_open(r, 0, "/room");

	guest_set_room(slow, 0);
	for (unsigned i = 0; i < 16; i++) {
		guest_chat(slow, "mine", NULL);
		guest_chat(slow, "mine too", NULL);
		guest_send_numbers(other, i, i + 1);
		rig_settle(r);
		rig_check(r);
	}
	CHECK_EQ(RIG_SUM(r, slow_skips), 1); /* at 11, down to 5 */
	CHECK_EQ(RIG_SUM(r, skipped_messages), 6);
	guest_set_room(slow, ROOM_FOR_ALL);
	rig_settle(r);
	guest_expect_numbers(slow, 0, 1);
	guest_expect_numbers(slow, 7, 16);
	CHECK(guest_next_msg(slow) == NULL);
	rig_free(r);
}

/* --------------------------------------------------------------------- private queue */

/* In no channel at all, so no round comes by. */
TEST(slow_consumer_private_queue_is_looked_at_without_a_channel)
{
	struct rig *r = rig_new(1, FREE "echo_path = /echo\nmax_frame_size = 16M\n");
	struct guest *patient = guest_open(r, 0, "/echo"), *greedy = guest_open(r, 0, "/echo");
	struct guest *const g[] = {patient, greedy};
	uint8_t *p = calloc(1, 5 * MIB);
	uint64_t start;

	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		guest_set_room(g[i], 1000);
		guest_send(g[i], true, WS_BINARY, p, 4000); /* in transit */
		guest_send(g[i], true, WS_BINARY, p, 400 * 1024);
		rig_settle(r);
		CHECK_EQ(g[i]->conn->over_tick, 0);
	}
	guest_send(greedy, true, WS_BINARY, p, 5 * MIB); /* four times max_send_buffer */
	rig_settle(r);
	CHECK_EQ(greedy->conn->state, CONN_CLOSING);
	guest_send(patient, true, WS_BINARY, p, MIB);
	rig_settle(r);
	start = r->now_ns;
	while (patient->conn->state == CONN_OPEN && r->now_ns - start < 60 * NS_PER_S)
		rig_pass(r, STEP);
	CHECK(r->now_ns - start >= 5 * NS_PER_S && r->now_ns - start <= 5 * NS_PER_S + 2 * STEP);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 2);
	CHECK_EQ(RIG_SUM(r, closed_1013), 2);
	free(p);
	rig_free(r);
}

/* What lags and what is private are each within the limit, but not both together. */
TEST(slow_consumer_private_queue_counts_with_what_lags)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 10\n");
	struct guest *slow = guest_open(r, 0, "/room"), *other = guest_open(r, 0, "/room");

	guest_set_room(slow, 0);
	guest_send_numbers(other, 0, 8);
	rig_settle(r);
	for (int i = 0; i < 4; i++) {
		CHECK_EQ(slow->conn->over_tick, 0);
		protocol_send_error(slow->conn, NULL, 400, "test");
		rig_settle(r);
	}
	CHECK(slow->conn->over_tick != 0);
	rig_pass_in_steps(r, 5 * NS_PER_S + 2 * STEP, STEP);
	CHECK_EQ(slow->conn->state, CONN_CLOSING);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 1);
	rig_free(r);
}
