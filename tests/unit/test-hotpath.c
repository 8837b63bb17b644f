/* SPDX-License-Identifier: MIT */
/* What a message may cost. */
#include "rig.h"

#include <stdio.h>

#include "fault.h"

#define RECEIVERS 100
#define BROADCASTS 10000
#define TURNS_TO_WARM_UP 100

/* A sender and many receivers in one channel, in as many workers as the rig has. */
struct crowd {
	struct rig *r;
	struct guest *sender;
	struct guest *receiver[RECEIVERS];
	struct buf frame; /* one chat message as the client writes it */
};

static void crowd_init(struct crowd *c, unsigned workers, const char *config, size_t content)
{
	struct msg_builder b;
	uint8_t payload[4096];
	char text[2048] = "";

	CHECK(content < sizeof(text));
	memset(text, 'x', content);
	*c = (struct crowd){.r = rig_new(workers, config)};
	c->sender = guest_open(c->r, 0, "/crowd");
	c->sender->is_mute = true;
	for (unsigned i = 0; i < RECEIVERS; i++) {
		c->receiver[i] = guest_open(c->r, i % workers, "/crowd");
		c->receiver[i]->is_mute = true;
	}
	msg_init_chat(&b, "", "somebody", text, 1);
	CHECK(msg_size(&b) <= sizeof(payload));
	guest_encode(&c->frame, true, WS_BINARY, payload, msg_pack(&b, payload));
}

static void crowd_fini(struct crowd *c)
{
	buf_fini(&c->frame);
	rig_free(c->r);
}

static void crowd_broadcast(struct crowd *c)
{
	guest_write(c->sender, c->frame.data, c->frame.len);
}

static void crowd_forget(struct crowd *c)
{
	for (unsigned i = 0; i < RECEIVERS; i++)
		c->receiver[i]->sends = c->receiver[i]->calls = 0;
}

static void check_one_allocation_each(unsigned workers, size_t content)
{
	struct crowd c;
	uint64_t before, received;

	crowd_init(&c, workers, "max_incoming_frames_per_second = 0\nnotice_limit = 0\n", content);
	for (int i = 0; i < TURNS_TO_WARM_UP; i++) {
		crowd_broadcast(&c);
		rig_turn(c.r);
	}
	rig_settle(c.r);
	received = RIG_SUM(c.r, messages_sent);
	before = fault_calls(FAULT_ALLOC);
	for (int i = 0; i < BROADCASTS; i++) {
		crowd_broadcast(&c);
		rig_turn(c.r);
	}
	CHECK_EQ(fault_calls(FAULT_ALLOC) - before, BROADCASTS);
	rig_settle(c.r);
	CHECK_EQ(RIG_SUM(c.r, messages_sent) - received, (uint64_t)BROADCASTS * RECEIVERS);
	crowd_fini(&c);
}

TEST(hotpath_counts_allocations_at_all)
{
	uint64_t before = fault_calls(FAULT_ALLOC);
	struct buf b = {0};

	CHECK_EQ(buf_reserve(&b, 1, BUF_NO_LIMIT), 0);
	CHECK(fault_calls(FAULT_ALLOC) > before); /* else the binary was linked without --wrap */
	buf_fini(&b);
}

TEST(hotpath_broadcast_makes_one_allocation)
{
	check_one_allocation_each(1, 100);
}

TEST(hotpath_broadcast_makes_one_allocation_also_for_several_workers)
{
	check_one_allocation_each(2, 100);
}

/* Several messages of one turn go to each receiver with one send; nothing else is allocated. */
TEST(hotpath_one_send_for_each_membership_and_turn)
{
	struct crowd c;
	uint64_t before;

	crowd_init(&c, 1, "max_incoming_frames_per_second = 0\nnotice_limit = 0\n", 100);
	for (unsigned gathered = 1; gathered <= 50; gathered++) {
		for (int warm = 0; warm < 2; warm++) {
			crowd_forget(&c);
			before = fault_calls(FAULT_ALLOC);
			for (unsigned i = 0; i < gathered; i++)
				crowd_broadcast(&c);
			rig_turn(c.r);
		}
		CHECK_EQ(fault_calls(FAULT_ALLOC) - before, gathered);
		for (unsigned i = 0; i < RECEIVERS; i++) {
			CHECK_EQ(c.receiver[i]->calls, 1);
			CHECK_EQ(c.receiver[i]->sends, 1);
		}
		CHECK_EQ(c.sender->calls, 0);
	}
	crowd_fini(&c);
}

/* The same where each message is too large for the batch to be laid out in one piece. */
TEST(hotpath_one_send_also_for_large_batches)
{
	struct crowd c;

	crowd_init(&c, 1, "max_incoming_frames_per_second = 0\nnotice_limit = 0\n", 2000);
	crowd_forget(&c);
	for (unsigned i = 0; i < 2 * CHANNEL_COPY_BYTES / 2000; i++)
		crowd_broadcast(&c);
	rig_turn(c.r);
	for (unsigned i = 0; i < RECEIVERS; i++)
		CHECK_EQ(c.receiver[i]->calls, 1);
	crowd_fini(&c);
}

/*
 * A member that published some of the turn's messages gets those around its own in one send,
 * too.
 */
TEST(hotpath_one_send_for_a_member_that_publishes)
{
	struct crowd c;

	crowd_init(&c, 1, "max_incoming_frames_per_second = 0\nnotice_limit = 0\n", 100);
	for (int turn = 0; turn < 10; turn++) {
		crowd_forget(&c);
		crowd_broadcast(&c);
		guest_write(c.receiver[0], c.frame.data, c.frame.len);
		crowd_broadcast(&c);
		rig_turn(c.r);
		for (unsigned i = 0; i < RECEIVERS; i++)
			CHECK_EQ(c.receiver[i]->calls, 1);
	}
	CHECK_EQ(c.sender->calls, 10);
	crowd_fini(&c);
}

/* Reading costs no timer work: the armed timer stays where it is. */
TEST(hotpath_traffic_leaves_the_wheel_alone)
{
	struct crowd c;

	crowd_init(&c, 1, "notice_limit = 0\nmax_incoming_frames_per_second = 0\n", 100);
	for (int i = 0; i < 1000; i++) {
		const struct wheel_timer *t = &c.sender->conn->timer;
		struct wheel_timer before = *t;

		crowd_broadcast(&c);
		rig_pass(c.r, NS_PER_MS);
		CHECK_EQ(t->deadline_ns, before.deadline_ns);
		CHECK(t->node.next == before.node.next && t->node.prev == before.node.prev);
	}
	crowd_fini(&c);
}

/* An echo, an answer to a ping: one allocation each, nothing that stays. */
TEST(hotpath_answers_make_one_allocation)
{
	struct rig *r = rig_new(1, "echo_path = /echo\nmax_incoming_frames_per_second = 0\n");
	struct guest *g = guest_open(r, 0, "/echo");
	uint64_t before = 0;

	g->is_mute = true;
	for (int i = 0; i < 1010; i++) {
		if (i == 10)
			before = fault_calls(FAULT_ALLOC);
		guest_send(g, true, i % 2 ? WS_BINARY : WS_PING, "twelve bytes", 12);
		rig_turn(r);
	}
	CHECK_EQ(fault_calls(FAULT_ALLOC) - before, 1000);
	CHECK_EQ(g->conn->input, NULL);
	rig_free(r);
}
