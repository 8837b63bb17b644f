/* SPDX-License-Identifier: MIT */
/* A channel that a worker is behind with: who publishes there waits, and goes on again. */
#include "rig.h"

#include "worker/protocol.h"

#define FREE "max_incoming_frames_per_second = 0\nnotice_limit = 0\nping_interval = 1h\n"

/* More than a turn sends to, so that what is published meanwhile stays behind. */
#define MANY (HUB_MEMBERS_PER_TURN + 10)

static void fill(struct rig *r, unsigned worker, const char *path)
{
	for (unsigned i = 0; i < MANY; i++)
		guest_open(r, worker, path)->is_mute = true;
}

static bool is_held(const struct guest *g)
{
	return g->conn->pauses & CONN_PAUSE_CHANNEL;
}

static uint64_t full(struct rig *r, unsigned worker, const char *name)
{
	return directory_full(rig_channel(r, worker, name)->entry);
}

TEST(hub_backlog_of_messages_holds_publishers)
{
	struct rig *r = rig_new(1, FREE);
	struct guest *sender = guest_open(r, 0, "/room"), *other = guest_open(r, 0, "/else");
	struct guest *reader = guest_open(r, 0, "/room"), *peer = guest_open(r, 0, "/else");
	struct channel *ch = rig_channel(r, 0, "room");

	fill(r, 0, "/room");
	guest_send_numbers(sender, 0, CHANNEL_BACKLOG_MESSAGES);
	CHECK(!is_held(sender) && !full(r, 0, "room"));
	guest_send_numbers(sender, CHANNEL_BACKLOG_MESSAGES, 12000);
	CHECK(is_held(sender));
	CHECK_EQ(full(r, 0, "room"), 1);
	CHECK_EQ(RIG_SUM(r, channel_pauses), 1);
	CHECK_EQ(RIG_SUM(r, messages_received), CHANNEL_BACKLOG_MESSAGES + 1);
	/* Nobody else is held, and nobody counts as slow. */
	guest_chat(other, "0", NULL);
	for (int i = 0; i < 3; i++)
		rig_turn(r);
	guest_expect_numbers(peer, 0, 1);
	while (is_held(sender)) {
		CHECK(ch->high - ch->flushed > CHANNEL_BACKLOG_MESSAGES / 2);
		rig_turn(r);
		rig_check(r);
	}
	CHECK_EQ(full(r, 0, "room"), 0);
	rig_settle(r);
	guest_expect_numbers(reader, 0, 12000);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	rig_free(r);
}

TEST(hub_backlog_of_bytes_is_a_part_of_log_memory)
{
	struct rig *r = rig_new(1, FREE "log_memory = 4M\n");
	struct guest *sender = guest_open(r, 0, "/room"), *reader = guest_open(r, 0, "/room");
	size_t bound = (4 << 20) / CHANNEL_BACKLOG_SHARE, worst = 0;
	char text[16001];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	fill(r, 0, "/room");
	for (unsigned i = 0; i < 400; i++)
		guest_chat(sender, text, NULL);
	while (guest_drop(reader) < 400 && hub_has_work(&r->w[0]->hub)) {
		worst = MAX(worst, r->pool->shared.frame_bytes);
		rig_turn(r);
	}
	CHECK(RIG_SUM(r, channel_pauses) > 0);
	CHECK(worst > bound && worst < bound + 2 * sizeof(text));
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	rig_settle(r);
	rig_free(r);
}

/* Each has less than any part that a channel may have; together they have too much. */
TEST(hub_backlogs_of_many_channels_are_a_part_of_log_memory)
{
	enum { CHANNELS = 300, EACH = 3 };
	struct rig *r = rig_new(1, FREE "log_memory = 4M\n");
	struct guest *sender[CHANNELS], *reader[CHANNELS];
	char text[4801], path[16];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (unsigned i = 0; i < CHANNELS; i++) {
		snprintf(path, sizeof(path), "/room%u", i);
		sender[i] = guest_open(r, 0, path);
		reader[i] = guest_open(r, 0, path);
	}
	for (unsigned i = 0; i < CHANNELS * EACH; i++)
		guest_chat(sender[i / EACH], text, NULL);
	rig_turn(r);
	CHECK(RIG_SUM(r, channel_pauses) > 0);
	CHECK(RIG_SUM(r, messages_received) * sizeof(text) < 4 << 20);
	rig_settle(r);
	for (unsigned i = 0; i < CHANNELS; i++) {
		CHECK(!is_held(sender[i]));
		CHECK_EQ(guest_drop(reader[i]), EACH);
	}
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	rig_free(r);
}

#define LATE 20

/* Members that have taken nothing of 300 messages yet. */
static void open_late(struct rig *r, struct guest *sender, struct guest *g[LATE], char *text,
		      size_t n)
{
	memset(text, 'x', n - 1);
	text[n - 1] = '\0';
	for (unsigned i = 0; i < LATE; i++) {
		g[i] = guest_open(r, 0, "/room");
		guest_set_room(g[i], 0);
	}
	for (unsigned i = 0; i < 300; i++)
		guest_chat(sender, text, NULL);
	rig_settle(r);
}

/*
 * Members that could not be sent to for a moment, and then take all that they are sent, wait for
 * the worker: that is not their fault, and publishing would make it worse.
 */
TEST(hub_holds_publishers_while_members_that_read_on_wait_for_it)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 100\nslow_consumer_grace = 5s\n");
	struct guest *sender = guest_open(r, 0, "/room"), *g[LATE];
	char text[1001];

	open_late(r, sender, g, text, sizeof(text));
	CHECK_EQ(full(r, 0, "room"), 0);
	for (unsigned i = 0; i < LATE; i++)
		guest_set_room(g[i], ROOM_FOR_ALL);
	/* A few sends use up what a turn has for them, and all are to be sent more. */
	clock_creep_for_test(TURN_ANSWER_NS);
	rig_turn(r);
	CHECK_EQ(full(r, 0, "room"), 0);
	for (unsigned turns = 0; !full(r, 0, "room"); turns++) {
		rig_turn(r);
		CHECK(turns < LATE);
	}
	guest_chat(sender, text, NULL);
	rig_turn(r);
	CHECK_EQ(RIG_SUM(r, channel_pauses), 1);
	/* Past the grace, while some are past their limits. */
	for (unsigned i = 0; i < 3; i++)
		rig_pass(r, 3 * NS_PER_S);
	CHECK(hub_has_work(&r->w[0]->hub));
	rig_settle(r);
	CHECK_EQ(full(r, 0, "room"), 0);
	CHECK(!is_held(sender));
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	for (unsigned i = 0; i < LATE; i++)
		CHECK_EQ(guest_drop(g[i]), 301);
	rig_free(r);
}

/* Who takes a little now and then is not one of them: the others go on. */
TEST(hub_does_not_hold_publishers_for_members_that_read_slowly)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 100\nslow_consumer_grace = 5s\n");
	struct guest *sender = guest_open(r, 0, "/room"), *g[LATE];
	char text[1001];

	open_late(r, sender, g, text, sizeof(text));
	/* At first it is more than a share, so that each would be sent more. */
	for (unsigned i = 0; i < LATE; i++)
		guest_set_room(g[i], CHANNEL_CATCH_UP_BYTES + 3000);
	rig_settle(r);
	clock_creep_for_test(TURN_ANSWER_NS);
	for (unsigned turns = 0; turns < 60; turns++) {
		for (unsigned i = 0; i < LATE; i++)
			guest_set_room(g[i], 1500);
		guest_chat(sender, text, NULL);
		rig_turn(r);
		CHECK_EQ(full(r, 0, "room"), 0);
	}
	for (unsigned i = 0; i < 12; i++)
		rig_pass(r, NS_PER_S / 2);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), LATE);
	rig_free(r);
}

/* A sender on worker 0 is held since worker 1, with many members, is behind. */
struct scene {
	struct rig *r;
	struct guest *sender, *near, *far, *many[MANY];
};

static struct scene *scene_new(void)
{
	struct scene *s = calloc(1, sizeof(*s));
	char text[1001];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	s->r = rig_new(3, FREE "log_memory = 1M\n");
	s->sender = guest_open(s->r, 0, "/room");
	s->near = guest_open(s->r, 2, "/room");
	s->far = guest_open(s->r, 1, "/room");
	for (unsigned i = 0; i < MANY; i++) {
		s->many[i] = guest_open(s->r, 1, "/room");
		s->many[i]->is_mute = true;
	}
	for (unsigned i = 0; i < 120; i++) {
		guest_chat(s->sender, text, NULL);
		rig_turn_one(s->r, 0);
		rig_turn_one(s->r, 2);
	}
	/* It learns of its bound when it takes what was posted, and sends a part of one round. */
	CHECK(!is_held(s->sender));
	rig_turn_one(s->r, 1);
	CHECK_EQ(full(s->r, 0, "room"), 1u << 1);
	guest_chat(s->sender, text, NULL);
	guest_chat(s->sender, text, NULL);
	CHECK(is_held(s->sender));
	rig_turn_one(s->r, 0);
	CHECK_EQ(s->r->w[1]->hub.held_by, 1u << 0);
	CHECK(!hub_has_work(&s->r->w[0]->hub)); /* it sleeps until it is woken */
	return s;
}

static void scene_free(struct scene *s)
{
	rig_settle(s->r);
	rig_check(s->r);
	rig_free(s->r);
	free(s);
}

/* The worker that is behind is another one: it wakes those that wait for it. */
TEST(hub_backlog_of_another_worker_holds_publishers)
{
	struct scene *s = scene_new();

	while (full(s->r, 0, "room"))
		rig_turn_one(s->r, 1);
	CHECK_EQ(s->r->w[1]->hub.held_by, 0);
	CHECK(is_held(s->sender));
	rig_turn_one(s->r, 0);
	CHECK(!is_held(s->sender));
	rig_settle(s->r);
	CHECK_EQ(guest_drop(s->far), 122);
	CHECK_EQ(guest_drop(s->near), 122);
	scene_free(s);
}

/* The members of the worker that is behind go: no bit stays that would hold the others. */
TEST(hub_backlog_goes_with_the_members)
{
	struct scene *s = scene_new();

	guest_end(s->far);
	for (unsigned i = 0; i < MANY; i++)
		guest_end(s->many[i]);
	rig_turn_one(s->r, 1);
	CHECK_EQ(full(s->r, 0, "room"), 0);
	CHECK_EQ(s->r->w[1]->hub.held_by, 0);
	rig_turn_one(s->r, 0);
	CHECK(!is_held(s->sender));
	rig_settle(s->r);
	CHECK_EQ(guest_drop(s->near), 122);
	scene_free(s);
}

/* Who is held goes: nothing is left that points to it, and its channel goes with it. */
TEST(hub_backlog_survives_the_end_of_who_is_held)
{
	struct scene *s = scene_new();

	conn_abort(s->sender->conn);
	CHECK(list_is_empty(&s->r->w[0]->hub.held));
	rig_turn_one(s->r, 0);
	CHECK(rig_channel(s->r, 0, "room") == NULL);
	rig_settle(s->r);
	CHECK_EQ(guest_drop(s->far), 121);
	scene_free(s);
}

/* The administrator cannot be held, so that is told to try again. */
TEST(hub_backlog_refuses_the_administrator)
{
	struct scene *s = scene_new();
	struct protocol_published p =
		protocol_publish(&s->r->w[2]->hub, "room", true, (const uint8_t *)"!", 1);

	CHECK_EQ(p.status, 503);
	while (full(s->r, 0, "room"))
		rig_turn_one(s->r, 1);
	p = protocol_publish(&s->r->w[2]->hub, "room", true, (const uint8_t *)"!", 1);
	CHECK_EQ(p.status, 200);
	scene_free(s);
}

/* ------------------------------------------------------------------------ a hand-over */

/*
 * In the middle of a round: those whom it had not reached lag no more than before, in as many
 * workers as there are then. Who did lag still does, and is held to its limits.
 */
static void hand_over_in_a_round(unsigned workers)
{
	struct rig *r = rig_new(1, FREE "message_queue_size = 300\nslow_consumer_grace = 1h\n");
	struct guest *sender = guest_open(r, 0, "/room"), *slow = guest_open(r, 0, "/room");
	static struct guest *g[MANY];
	uint64_t bytes, messages;

	for (unsigned i = 0; i < MANY; i++)
		g[i] = guest_open(r, 0, "/room");
	guest_set_room(slow, 10);
	guest_send_numbers(sender, 0, 20);
	rig_turn(r);
	CHECK(slow->conn->n_lagging == 1 && g[MANY - 1]->calls == 0);
	guest_send_numbers(sender, 20, 1000);
	rig_turn(r);
	rig_hand_over(r, workers, NULL);
	for (unsigned i = 0; i < MANY; i++)
		CHECK_EQ(g[i]->conn->n_lagging, 0);
	CHECK_EQ(slow->conn->n_lagging, 1);
	rig_check(r);
	rig_settle(r);
	for (unsigned i = 0; i < MANY; i++)
		guest_expect_numbers(g[i], 0, 1000);
	channel_backlog(slow->conn, &bytes, &messages);
	CHECK_EQ(messages, 999);
	CHECK_EQ(RIG_SUM(r, slow_disconnects), 0);
	rig_free(r);
}

TEST(hub_backlog_outlives_a_hand_over)
{
	hand_over_in_a_round(1);
	hand_over_in_a_round(3);
}

/* Publishers that were held are held again, as long as the channel is behind. */
TEST(hub_backlog_is_behind_after_a_hand_over)
{
	struct scene *s = scene_new();

	rig_hand_over(s->r, 2, NULL);
	CHECK(directory_full(s->far->conn->members->channel->entry) != 0);
	rig_check(s->r);
	rig_settle(s->r);
	CHECK_EQ(directory_full(s->far->conn->members->channel->entry), 0);
	CHECK_EQ(guest_drop(s->far), 122);
	CHECK_EQ(guest_drop(s->near), 122);
	scene_free(s);
}
