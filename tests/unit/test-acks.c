/* SPDX-License-Identifier: MIT */
/* Acknowledgements that wait for members with much to catch up, and those that don't. */
#include <errno.h>

#include "fault.h"
#include "rig.h"

#define FREE                                                                         \
	"max_incoming_frames_per_second = 0\nnotice_limit = 0\nping_interval = 1h\n" \
	"message_queue_size = 100\nslow_consumer_grace = 5s\n"

static void ask_for_acks(struct guest *g)
{
	struct msg_builder b;

	msg_init_control(&b, WEBSOCKET__CONTROL_TYPE__CONNECT);
	msg_set_capabilities(&b, MSG_CAP_ACK);
	guest_send_msg(g, &b);
}

/* A chunk as a frame, behind what is in @out. */
static void encode_chunk(struct buf *out, uint8_t number, const char *channel)
{
	struct msg_builder b;
	uint8_t bytes[256];
	size_t n;

	msg_init_binary(&b, "data", 4, number, false, WEBSOCKET__COMPRESSION_TYPE__NONE);
	msg_set_request_id(&b, &number, 1);
	if (channel)
		msg_set_channel(&b, channel);
	CHECK(msg_size(&b) <= sizeof(bytes));
	n = msg_pack(&b, bytes);
	guest_encode(out, true, WS_BINARY, bytes, n);
}

static void send_chunk(struct guest *g, uint8_t number, const char *channel)
{
	struct buf all = {0};

	encode_chunk(&all, number, channel);
	guest_write(g, all.data, all.len);
	buf_fini(&all);
}

static void send_chat(struct guest *g, uint8_t number, const char *channel)
{
	struct msg_builder b;

	msg_init_chat(&b, "id", "me", "text", 0);
	msg_set_request_id(&b, &number, 1);
	if (channel)
		msg_set_channel(&b, channel);
	guest_send_msg(g, &b);
}

/* The request of the next ACKNOWLEDGE, whatever else comes before it; 0: there is none. */
static unsigned next_ack(struct guest *g)
{
	const Websocket__WebSocketMessage *m;

	while ((m = guest_next_msg(g)))
		if (m->control && m->control->type == WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE)
			return m->request_id.len == 1 ? m->request_id.data[0] : 1000;
	return 0;
}

/* A sender, and a member for which more than half of its limits waits, perhaps on a worker each. */
struct scene {
	struct rig *r;
	struct guest *sender, *slow;
};

static struct scene scene_with(unsigned workers, const char *config, unsigned half)
{
	struct scene s = {.r = rig_new(workers, config)};
	struct guest *other = guest_open(s.r, 0, "/room");

	s.sender = guest_open(s.r, 0, "/room");
	s.slow = guest_open(s.r, workers - 1, "/room");
	ask_for_acks(s.sender);
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 1000);
	guest_set_room(s.slow, 0);
	guest_send_numbers(other, 0, half - 10);
	rig_settle(s.r);
	send_chunk(s.sender, 100, NULL);
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 100);
	guest_send_numbers(other, half - 10, half + 10);
	rig_settle(s.r);
	CHECK_EQ(directory_lagging(rig_channel(s.r, 0, "room")->entry), 1u << (workers - 1));
	return s;
}

static struct scene scene_new(unsigned workers, const char *config)
{
	return scene_with(workers, config, 50);
}

static void scene_free(const struct scene *s)
{
	rig_settle(s->r);
	rig_check(s->r);
	CHECK_EQ(RIG_SUM(s->r, acks_waiting), 0);
	CHECK_EQ(RIG_SUM(s->r, slow_disconnects), 0);
	rig_free(s->r);
}

TEST(acks_of_chunks_wait_for_a_member_that_lags)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		struct scene s = scene_new(workers, FREE);

		for (uint8_t i = 1; i <= 3; i++)
			send_chunk(s.sender, i, NULL);
		rig_settle(s.r);
		CHECK_EQ(next_ack(s.sender), 0);
		CHECK_EQ(RIG_SUM(s.r, acks_waiting), 3);
		CHECK_EQ(RIG_SUM(s.r, acks_late), 3);
		/* They sleep meanwhile, and it is the other worker that wakes them. */
		CHECK(!hub_has_work(&s.r->w[0]->hub));
		guest_set_room(s.slow, ROOM_FOR_ALL);
		rig_turn_one(s.r, workers - 1);
		rig_settle(s.r);
		for (uint8_t i = 1; i <= 3; i++)
			CHECK_EQ(next_ack(s.sender), i);
		send_chunk(s.sender, 4, NULL);
		rig_settle(s.r);
		CHECK_EQ(next_ack(s.sender), 4);
		CHECK_EQ(RIG_SUM(s.r, acks_late), 3);
		scene_free(&s);
	}
}

TEST(acks_wait_no_longer_than_the_grace)
{
	struct scene s = scene_new(1, FREE);

	send_chunk(s.sender, 1, NULL);
	rig_pass(s.r, 2 * NS_PER_S);
	send_chunk(s.sender, 2, NULL);
	rig_pass(s.r, 2 * NS_PER_S);
	CHECK_EQ(next_ack(s.sender), 0);
	rig_pass(s.r, NS_PER_S);
	rig_pass(s.r, NS_PER_S / 10);
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 1);
	CHECK_EQ(next_ack(s.sender), 0);
	rig_pass(s.r, 2 * NS_PER_S);
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 2);
	scene_free(&s);
}

/* What is said in the same channel keeps its place; elsewhere nothing waits. */
TEST(acks_keep_their_order_in_a_channel)
{
	struct scene s = scene_new(1, FREE);

	guest_subscribe(s.sender, "else");
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 1000);
	send_chat(s.sender, 1, NULL);
	send_chunk(s.sender, 2, NULL);
	send_chat(s.sender, 3, NULL);
	send_chunk(s.sender, 4, "else");
	send_chat(s.sender, 5, "else");
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 1);
	CHECK_EQ(next_ack(s.sender), 4);
	CHECK_EQ(next_ack(s.sender), 5);
	CHECK_EQ(next_ack(s.sender), 0);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 2);
	CHECK_EQ(next_ack(s.sender), 3);
	scene_free(&s);
}

TEST(acks_don_t_wait_for_who_may_skip)
{
	struct rig *r = rig_new(1, FREE "slow_consumer = skip\n");
	struct guest *sender = guest_open(r, 0, "/room"), *slow = guest_open(r, 0, "/room");

	ask_for_acks(sender);
	guest_set_room(slow, 0);
	guest_send_numbers(sender, 0, 80);
	rig_settle(r);
	(void)guest_drop(sender);
	send_chunk(sender, 1, NULL);
	rig_settle(r);
	CHECK_EQ(next_ack(sender), 1);
	CHECK_EQ(RIG_SUM(r, acks_late), 0);
	rig_free(r);
}

/* So many at most: then it isn't read, and goes on when there are fewer. */
static void check_bound(const char *config, unsigned half, unsigned most)
{
	struct scene s = scene_with(1, config, half);
	unsigned n = 0;

	for (uint8_t i = 1; i <= 80; i++)
		send_chunk(s.sender, i, NULL);
	rig_settle(s.r);
	CHECK_EQ(RIG_SUM(s.r, acks_waiting), most + 1);
	CHECK(s.sender->conn->pauses & CONN_PAUSE_ACKS);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	rig_settle(s.r);
	while (n < 80)
		CHECK_EQ(next_ack(s.sender), ++n);
	CHECK(!(s.sender->conn->pauses & CONN_PAUSE_ACKS));
	scene_free(&s);
}

TEST(acks_that_wait_are_bounded)
{
	check_bound(FREE, 50, 50);
	check_bound(FREE "message_queue_size = 400\n", 200, ACKS_WAITING_MAX);
}

TEST(acks_go_out_before_a_membership_ends)
{
	struct scene s = scene_new(1, FREE);

	/* Not by its path: that one stays as long as the connection. */
	guest_subscribe(s.sender, "else");
	guest_subscribe(s.slow, "else");
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 1000);
	send_chunk(s.sender, 1, NULL);
	send_chunk(s.sender, 2, "else");
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 0);
	guest_unsubscribe(s.sender, "else");
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 2);
	CHECK_EQ(next_ack(s.sender), 1000);
	CHECK_EQ(next_ack(s.sender), 0);
	/* Who is waited for goes: nobody waits any more. */
	guest_end(s.slow);
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 1);

	scene_free(&s);
}

TEST(acks_end_with_their_client)
{
	struct scene s = scene_new(1, FREE);

	send_chunk(s.sender, 1, NULL);
	send_chunk(s.sender, 2, NULL);
	rig_settle(s.r);
	CHECK_EQ(RIG_SUM(s.r, acks_waiting), 2);
	guest_end(s.sender);
	rig_settle(s.r);
	CHECK_EQ(RIG_SUM(s.r, acks_waiting), 0);
	scene_free(&s);
}

/* A turn had no time for all of them, and then nobody is there any more: the loop sleeps. */
TEST(acks_that_are_left_of_a_turn_end_with_their_client)
{
	struct scene s = scene_new(1, FREE);

	for (uint8_t i = 1; i <= 50; i++)
		send_chunk(s.sender, i, NULL);
	rig_settle(s.r);
	clock_creep_for_test(TURN_SEND_NS);
	guest_set_room(s.slow, ROOM_FOR_ALL);
	while (RIG_SUM(s.r, acks_waiting) == 50)
		rig_turn(s.r);
	CHECK(RIG_SUM(s.r, acks_waiting) > 0);
	CHECK(hub_has_work(&s.r->w[0]->hub));
	/* With its last member the channel goes, and what waited in it. */
	LIST_FOREACH_SAFE (node, next, &s.r->w[0]->hub.env.all)
		conn_abort(CONTAINER_OF(node, struct conn, node));
	CHECK_EQ(RIG_SUM(s.r, acks_waiting), 0);
	scene_free(&s);
}

/* Another process knows nothing of them: they go out before, and none is lost. */
TEST(acks_are_not_lost_by_a_hand_over)
{
	struct scene s = scene_new(2, FREE);

	send_chunk(s.sender, 1, NULL);
	send_chat(s.sender, 2, NULL);
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 0);
	rig_hand_over(s.r, 2, NULL);
	rig_settle(s.r);
	CHECK_EQ(next_ack(s.sender), 1);
	CHECK_EQ(next_ack(s.sender), 2);
	CHECK_EQ(next_ack(s.sender), 0);
	scene_free(&s);
}

/* Whatever allocation fails: it is told with 1011, or its acknowledgement comes. */
TEST(acks_without_memory_end_their_sender_only)
{
	bool has_failed = true;

	for (uint64_t nth = 1; has_failed; nth++) {
		struct scene s = scene_new(1, FREE);
		struct buf both = {0};
		uint64_t before;

		/* Nothing of the test itself allocates meanwhile. */
		encode_chunk(&both, 1, NULL);
		encode_chunk(&both, 2, NULL);
		CHECK_EQ(buf_reserve(&s.sender->in, 4096, BUF_NO_LIMIT), 0);
		CHECK_EQ(buf_reserve(&s.sender->out, 4096, BUF_NO_LIMIT), 0);
		CHECK_EQ(buf_reserve(&s.slow->out, 64 * 1024, BUF_NO_LIMIT), 0);
		before = fault_calls(FAULT_ALLOC);
		fault_fail(FAULT_ALLOC, nth, 1, ENOMEM);
		guest_write(s.sender, both.data, both.len);
		guest_set_room(s.slow, ROOM_FOR_ALL);
		rig_settle(s.r);
		has_failed = fault_calls(FAULT_ALLOC) - before >= nth;
		(void)fault_end(FAULT_ALLOC);
		if (!has_failed)
			CHECK_EQ(next_ack(s.sender), 1);
		CHECK_EQ(RIG_SUM(s.r, acks_waiting), 0);
		rig_check(s.r);
		rig_free(s.r);
		buf_fini(&both);
		CHECK(nth > 1 || has_failed);
		CHECK(nth < 100);
	}
}
