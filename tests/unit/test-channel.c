/* SPDX-License-Identifier: MIT */
/* The log and members of a channel. The long one is test-channel-model.c. */
#include "rig.h"

#include <stdio.h>

#define QUIET "notice_limit = 0\nmax_incoming_frames_per_second = 0\n"

static struct frame *make_frame(struct channel *ch, uint64_t seq)
{
	struct conn_env *env = ch->env->conn;
	struct msg_builder b;
	struct frame *f;
	char text[32];

	snprintf(text, sizeof(text), "%u", (unsigned)seq);
	msg_init_chat(&b, "", "", text, 1);
	f = frame_from_msg(&b, env->config->max_frame_size, env->frame_account);
	CHECK(f != NULL);
	f->slot = ch->entry->slot;
	f->generation = ch->generation;
	f->seq = seq;
	return f;
}

/* What a post from another worker does when it comes. */
static void append(struct channel *ch, uint64_t seq)
{
	struct frame *f = make_frame(ch, seq);

	CHECK_EQ(channel_append(ch, f), 0);
	frame_unref(f);
	channel_check(ch);
}

static void expect_numbers(struct guest *g, uint64_t from, uint64_t to)
{
	const Websocket__WebSocketMessage *m;

	for (; from < to; from++) {
		m = guest_next_msg(g);
		CHECK(m && m->type == WEBSOCKET__MESSAGE_TYPE__CHAT_MESSAGE);
		CHECK_EQ(strtoull(m->chat->content, NULL, 10), from);
	}
	CHECK(guest_next_msg(g) == NULL);
}

TEST(channel_waits_for_a_number_that_is_still_on_its_way)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *g = guest_open(r, 0, "/room");
	struct channel *ch = rig_channel(r, 0, "room");

	CHECK(ch->slots == NULL);
	append(ch, 3);
	append(ch, 1);
	append(ch, 4);
	CHECK_EQ(ch->end, 0);
	CHECK_EQ(ch->high, 5);
	rig_settle(r);
	expect_numbers(g, 0, 0);
	append(ch, 0);
	CHECK_EQ(ch->end, 2);
	rig_settle(r);
	expect_numbers(g, 0, 2);
	append(ch, 2);
	rig_settle(r);
	expect_numbers(g, 2, 5);
	CHECK(ch->slots == NULL && ch->from == 5);
	append(ch, 4); /* what is older than its place is dropped */
	CHECK(ch->slots == NULL);
	rig_settle(r);
	expect_numbers(g, 0, 0);
	rig_free(r);
}

/* A gap may be far ahead of the ring, which grows; what waits behind it is freed at the end. */
TEST(channel_grows_over_gaps_and_drops_what_never_became_gapless)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *g = guest_open(r, 0, "/room");
	struct channel *ch = rig_channel(r, 0, "room");

	for (uint64_t seq = 999; seq > 0; seq--)
		append(ch, seq);
	CHECK_EQ(ch->mask, 1023);
	CHECK_EQ(ch->end, 0);
	append(ch, 0);
	rig_settle(r);
	expect_numbers(g, 0, 1000);
	append(ch, 1001);
	guest_end(g);
	rig_turn(r);
	CHECK(rig_channel(r, 0, "room") == NULL);
	CHECK_EQ(r->pool->shared.frame_bytes, 0);
	rig_free(r);
}

TEST(channel_costs_little_while_it_is_idle)
{
	CHECK(sizeof(struct channel) <= 256);
	CHECK(sizeof(struct directory_entry) <= 128);
}

/* The log follows its slowest member, up and down again, and the smallest ring is pooled. */
TEST(channel_grows_and_shrinks_with_its_slowest_member)
{
	struct rig *r = rig_new(1, QUIET "message_queue_size = 100000\nmax_send_buffer = 100M\n");
	struct guest *sender = guest_open(r, 0, "/room");
	struct guest *fast = guest_open(r, 0, "/room"), *slow = guest_open(r, 0, "/room");
	struct channel *ch = rig_channel(r, 0, "room");
	uint32_t largest, smallest;
	char text[16];

	guest_set_room(slow, 0);
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(text, sizeof(text), "%u", i);
		guest_chat(sender, text, NULL);
		rig_turn(r);
		channel_check(ch);
	}
	expect_numbers(fast, 0, 5000);
	CHECK_EQ(ch->mask, 8191);
	largest = smallest = ch->mask;
	while (slow->conn->n_lagging > 0) {
		guest_set_room(slow, 1000);
		rig_settle(r);
		channel_check(ch);
		CHECK(ch->mask <= largest);
		largest = ch->mask;
		if (ch->mask)
			smallest = ch->mask;
		CHECK(ch->mask < 4 * CHANNEL_RING_SLOTS || ch->high - ch->from >= ch->mask / 8);
	}
	CHECK(smallest < 4 * CHANNEL_RING_SLOTS);
	guest_set_room(slow, ROOM_FOR_ALL);
	rig_settle(r);
	expect_numbers(slow, 0, 5000);
	CHECK(ch->slots == NULL);
	guest_chat(sender, "5000", NULL);
	CHECK(ch->slots != NULL);
	rig_settle(r);
	CHECK(ch->slots == NULL);
	CHECK_EQ(r->w[0]->hub.channels.pool.n, 1);
	expect_numbers(fast, 5000, 5001);
	expect_numbers(slow, 5000, 5001);
	expect_numbers(sender, 0, 0);
	rig_free(r);
}

TEST(channel_never_sends_to_the_sender)
{
	struct rig *r = rig_new(2, QUIET);
	struct guest *g[6];
	char text[16];

	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		g[i] = guest_open(r, i % 2, "/room");
	for (unsigned i = 0; i < 600; i++) {
		snprintf(text, sizeof(text), "%u", i);
		guest_chat(g[i % 6], text, NULL);
		if (i % 7 == 0)
			rig_turn_one(r, i % 2);
	}
	rig_settle(r);
	for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
		const Websocket__WebSocketMessage *m;

		for (unsigned k = 0; k < 600; k++) {
			if (k % 6 == i)
				continue;
			m = guest_next_msg(g[i]);
			CHECK(m != NULL);
			CHECK_EQ(strtoul(m->chat->content, NULL, 10), k);
			CHECK_STR(m->channel, "room");
		}
		CHECK(guest_next_msg(g[i]) == NULL);
	}
	rig_free(r);
}

/* A log without members to send to keeps nothing: the sender alone is caught up with its own. */
TEST(channel_keeps_nothing_for_a_lone_sender)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *g = guest_open(r, 0, "/room");

	guest_set_room(g, 0);
	for (int i = 0; i < 100; i++)
		guest_chat(g, "echo?", NULL);
	rig_settle(r);
	CHECK_EQ(g->calls, 0);
	CHECK_EQ(r->pool->shared.frame_bytes, 0);
	rig_free(r);
}

/* ----------------------------------------------------------------------- rounds */

#define MANY (2 * HUB_MEMBERS_PER_TURN + 100)

static unsigned count_reached(struct guest *const *g, unsigned n)
{
	unsigned reached = 0;

	for (unsigned i = 0; i < n; i++)
		reached += g[i]->calls > 0;
	return reached;
}

/* More members than a turn may visit: others are read before the rest has its turn. */
TEST(channel_spreads_a_large_round_over_turns)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *sender = guest_open(r, 0, "/room"), *other = guest_open(r, 0, "/else");
	static struct guest *g[MANY];

	for (unsigned i = 0; i < MANY; i++)
		g[i] = guest_open(r, 0, "/room");
	guest_chat(sender, "0", NULL);
	rig_turn_one(r, 0);
	CHECK(count_reached(g, MANY) >= HUB_MEMBERS_PER_TURN - 1);
	CHECK(count_reached(g, MANY) <= HUB_MEMBERS_PER_TURN);
	guest_chat(sender, "1", NULL);
	guest_send(other, true, WS_PING, "", 0);
	rig_turn_one(r, 0);
	CHECK_EQ(other->calls, 1);
	CHECK(count_reached(g, MANY) <= 2 * HUB_MEMBERS_PER_TURN);
	rig_turn_one(r, 0);
	CHECK_EQ(count_reached(g, MANY), MANY);
	rig_settle(r);
	for (unsigned i = 0; i < MANY; i++)
		expect_numbers(g[i], 0, 2);
	rig_free(r);
}

/* Members leave and come in the middle of a round: nobody is passed over or served twice. */
TEST(channel_survives_coming_and_going_within_a_round)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *sender = guest_open(r, 0, "/room");
	static struct guest *g[MANY], *late[50];
	uint64_t random = test_seed();

	for (unsigned i = 0; i < MANY; i++)
		g[i] = guest_open(r, 0, "/room");
	guest_chat(sender, "0", NULL);
	rig_turn_one(r, 0);
	for (unsigned i = 0; i < 200; i++) {
		guest_end(g[test_random(&random) % MANY]);
		rig_check(r);
	}
	for (unsigned i = 0; i < ARRAY_LEN(late); i++) {
		char request[256];

		late[i] = guest_accept(r, 0);
		guest_write(late[i], request, guest_handshake(request, sizeof(request), "/room"));
		rig_check(r);
	}
	guest_chat(sender, "1", NULL);
	rig_settle(r);
	for (unsigned i = 0; i < MANY; i++)
		if (!g[i]->is_closed)
			expect_numbers(g[i], 0, 2);
	for (unsigned i = 0; i < ARRAY_LEN(late); i++) {
		CHECK_EQ(guest_status(late[i]), 101);
		CHECK_EQ(guest_next_msg(late[i])->type, WEBSOCKET__MESSAGE_TYPE__CONTROL);
		expect_numbers(late[i], 1, 2);
	}
	rig_free(r);
}

static struct conn *conn_to_end;

/* What looks at the limits of one connection ends another. */
static void end_another(struct conn *c)
{
	if (conn_to_end && conn_to_end != c) {
		conn_abort(conn_to_end);
		conn_to_end = NULL;
	}
}

/*
 * A member before the cursor leaves while the cursor stands at the end: the last member takes
 * its place, and knows where it is.
 */
TEST(channel_knows_its_members_when_one_leaves_at_the_end_of_a_round)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *g[4], *sender = guest_open(r, 0, "/room");
	struct hub *h = &r->w[0]->hub;
	const struct conn_ops *before = h->env.ops;
	struct conn_ops ops = *before;
	struct channel *ch;

	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		g[i] = guest_open(r, 0, "/room");
	ch = rig_channel(r, 0, "room");
	CHECK(ch->members[ch->n_members - 1] == &g[3]->conn->path_member);
	/* The last one that a round comes by is not caught up, so its limits are looked at. */
	guest_set_room(g[3], 0);
	guest_chat(sender, "0", NULL);
	rig_turn_one(r, 0);
	guest_chat(sender, "1", NULL);
	ops.check_limits = end_another;
	h->env.ops = &ops;
	conn_to_end = g[0]->conn;
	rig_turn_one(r, 0);
	h->env.ops = before;
	CHECK(g[0]->is_closed && !conn_to_end);
	rig_check(r);
	CHECK_EQ(ch->n_members, 4);
	CHECK_EQ(g[3]->conn->path_member.index, 1);
	/* It is the one that leaves, and not whoever stands in a place that it took for its own. */
	guest_end(g[3]);
	rig_turn(r);
	rig_check(r);
	guest_chat(sender, "2", NULL);
	rig_settle(r);
	for (unsigned i = 1; i < 3; i++)
		expect_numbers(g[i], 0, 3);
	rig_free(r);
}

/* Many channels with something to send share the turns fairly. */
TEST(channel_budget_goes_round)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *sender[4];
	static struct guest *g[4][600];
	char path[8];

	for (unsigned k = 0; k < 4; k++) {
		snprintf(path, sizeof(path), "/%u", k);
		sender[k] = guest_open(r, 0, path);
		for (unsigned i = 0; i < 600; i++)
			g[k][i] = guest_open(r, 0, path);
	}
	for (int turn = 0; turn < 12; turn++) {
		for (unsigned k = 0; k < 4; k++)
			guest_chat(sender[k], "again", NULL);
		rig_turn_one(r, 0);
	}
	for (unsigned k = 0; k < 4; k++)
		CHECK(count_reached(g[k], 600) == 600);
	rig_settle(r);
	for (unsigned k = 0; k < 4; k++)
		for (unsigned i = 0; i < 600; i++)
			CHECK_EQ(guest_drop(g[k][i]), 12);
	rig_free(r);
}

/* A small channel is sent in the turn in which it grew, however much the large ones need. */
TEST(channel_that_is_small_does_not_wait_for_large_ones)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *big = guest_open(r, 0, "/big"), *more = guest_open(r, 0, "/more");
	struct guest *small = guest_open(r, 0, "/small"), *peer = guest_open(r, 0, "/small");

	for (unsigned i = 0; i < 1100; i++) {
		guest_open(r, 0, "/big")->is_mute = true;
		guest_open(r, 0, "/more")->is_mute = true;
	}
	for (unsigned i = 0; i < 20; i++) {
		char text[8];

		guest_chat(big, "again", NULL);
		guest_chat(more, "again", NULL);
		snprintf(text, sizeof(text), "%u", i);
		guest_chat(small, text, NULL);
		rig_turn_one(r, 0);
		expect_numbers(peer, i, i + 1);
		CHECK(!list_is_empty(&r->w[0]->hub.channels.grown_large));
	}
	rig_settle(r);
	rig_free(r);
}

/* When a turn's time for sending is over a round stops, wherever it is, and both kinds go on. */
TEST(channel_round_ends_with_the_time_of_the_turn)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *big = guest_open(r, 0, "/big"), *small = guest_open(r, 0, "/small");
	struct guest *peer = guest_open(r, 0, "/small");
	static struct guest *g[1000];
	unsigned turns = 0;

	for (unsigned i = 0; i < ARRAY_LEN(g); i++)
		g[i] = guest_open(r, 0, "/big");
	guest_chat(big, "0", NULL);
	guest_chat(small, "0", NULL);
	clock_creep_for_test(TURN_SEND_NS / 4);
	for (; count_reached(g, ARRAY_LEN(g)) < ARRAY_LEN(g); turns++) {
		unsigned before = count_reached(g, ARRAY_LEN(g));

		rig_turn_one(r, 0);
		CHECK(count_reached(g, ARRAY_LEN(g)) > before);
		CHECK(count_reached(g, ARRAY_LEN(g)) <= before + 4 * 64);
		if (turns == 0)
			expect_numbers(peer, 0, 1);
	}
	clock_creep_for_test(0);
	CHECK(turns >= 4);
	rig_settle(r);
	rig_free(r);
}

/* One message larger than a batch goes alone, and those around it keep their places. */
TEST(channel_sends_messages_larger_than_a_batch)
{
	struct rig *r = rig_new(2, QUIET "max_send_buffer = 64M\n");
	struct guest *sender = guest_open(r, 0, "/room");
	struct guest *g[2] = {guest_open(r, 0, "/room"), guest_open(r, 1, "/room")};
	size_t big = 3 * CHANNEL_BATCH_BYTES;
	char *text = malloc(big + 1);

	memset(text, 'b', big);
	text[big] = '\0';
	for (int i = 0; i < 3; i++) {
		guest_chat(sender, "small", NULL);
		guest_chat(sender, text, NULL);
		rig_settle(r);
	}
	for (unsigned k = 0; k < 2; k++)
		for (int i = 0; i < 3; i++) {
			CHECK_STR(guest_next_msg(g[k])->chat->content, "small");
			CHECK_EQ(strlen(guest_next_msg(g[k])->chat->content), big);
		}
	free(text);
	rig_free(r);
}

/* A window of a second is closed by the message that comes behind it. */
TEST(channel_rate_is_that_of_the_last_second)
{
	struct rig *r = rig_new(1, QUIET);
	struct guest *a = guest_open(r, 0, "/room");
	struct channel *ch = rig_channel(r, 0, "room");
	struct channel_rate rate;

	CHECK_EQ(channel_rate(ch).messages, 0);
	for (unsigned i = 0; i < 30; i++) {
		guest_chat(a, "0123456789", NULL);
		rig_pass(r, NS_PER_S / 10);
	}
	rate = channel_rate(ch);
	CHECK(rate.messages >= 9 && rate.messages <= 11);
	CHECK(rate.bytes >= 9 * 18 && rate.bytes <= 11 * 40);
	/* Silent since: fewer and fewer, without anything that would count. */
	rig_pass(r, 10 * NS_PER_S);
	CHECK(channel_rate(ch).messages <= 1);
	rig_pass(r, 20 * NS_PER_S);
	CHECK_EQ(channel_rate(ch).messages, 0);
	guest_chat(a, "0123456789", NULL);
	rig_settle(r);
	CHECK_EQ(channel_rate(ch).messages, 0);
	rig_free(r);
}
