/* SPDX-License-Identifier: MIT */
/* Workers in lock step: posts, full rings, congestion, channels that come and go meanwhile. */
#include "fault.h"
#include "rig.h"

#include <errno.h>
#include <stdio.h>

#define FREE "max_incoming_frames_per_second = 0\nnotice_limit = 0\n"

TEST(hub_full_ring_pauses_the_publishers_and_loses_nothing)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *sender = guest_open(r, 0, "/room"), *near = guest_open(r, 0, "/room");
	struct guest *far = guest_open(r, 1, "/room"), *pinger = guest_open(r, 0, "/else");
	struct hub *h = &r->w[0]->hub;

	guest_send_numbers(sender, 0, HUB_INBOX_SLOTS);
	CHECK(!conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) && h->outbox.set == 0);
	guest_send_numbers(sender, HUB_INBOX_SLOTS, HUB_INBOX_SLOTS + 1);
	CHECK(conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED));
	CHECK_EQ(h->outbox.set, 1u << 1);
	CHECK(h->outbox.post[1] != NULL);
	CHECK_EQ(r->w[1]->hub.waiting, 1u << 0);
	CHECK_EQ(RIG_SUM(r, ring_overflows), 1);
	/* From now on nobody of this worker is read. */
	guest_send_numbers(sender, HUB_INBOX_SLOTS + 1, 10000);
	guest_send(pinger, true, WS_PING, "", 0);
	for (int i = 0; i < 10; i++)
		rig_turn_one(r, 0);
	CHECK_EQ(RIG_SUM(r, messages_received), HUB_INBOX_SLOTS + 1);
	CHECK_EQ(pinger->calls, 0);
	CHECK(!list_is_empty(&h->env.stalled));
	CHECK(!hub_has_work(h)); /* it sleeps until it is woken */
	rig_turn_one(r, 1);
	CHECK_EQ(r->w[1]->hub.waiting, 0);
	rig_turn_one(r, 0);
	CHECK(!conn_env_is_paused(&h->env, CONN_PAUSE_CONGESTED) && h->outbox.set == 0);
	CHECK(list_is_empty(&h->env.stalled));
	rig_settle(r);
	CHECK_EQ(pinger->calls, 1);
	guest_expect_numbers(near, 0, 10000);
	guest_expect_numbers(far, 0, 10000);
	CHECK(guest_next_msg(sender) == NULL);
	CHECK_EQ(RIG_SUM(r, ring_posts), 10000);
	rig_free(r);
}

/* However much other workers have published: this one has clients of its own. */
TEST(hub_takes_posts_for_its_part_of_a_turn)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *sender = guest_open(r, 0, "/room"), *far = guest_open(r, 1, "/room");
	struct hub *h;

	guest_send_numbers(sender, 0, HUB_INBOX_SLOTS);
	clock_creep_for_test(TURN_POSTS_NS / 4);
	rig_turn_one(r, 1);
	clock_creep_for_test(0);
	h = &r->w[1]->hub;
	CHECK(!ring_is_empty(&h->inbox));
	CHECK(ring_depth(&h->inbox) < HUB_INBOX_SLOTS);
	CHECK(hub_has_work(h)); /* it goes on without being woken */
	rig_settle(r);
	guest_expect_numbers(far, 0, HUB_INBOX_SLOTS);
	rig_free(r);
}

/* A ring that is full holds nobody up that doesn't need it. */
TEST(hub_congestion_of_one_ring_leaves_the_others_their_posts)
{
	struct rig *r = rig_new(3, FREE);
	struct guest *sender = guest_open(r, 0, "/room");
	struct guest *slow = guest_open(r, 1, "/room"), *quick = guest_open(r, 2, "/room");

	for (unsigned i = 0; i <= HUB_INBOX_SLOTS; i += 512) {
		guest_send_numbers(sender, i, i + 512);
		rig_turn_one(r, 0);
		rig_turn_one(r, 2);
	}
	CHECK(conn_env_is_paused(&r->w[0]->hub.env, CONN_PAUSE_CONGESTED));
	guest_expect_numbers(quick, 0, HUB_INBOX_SLOTS + 1);
	/* Those of the other two workers still meet. */
	guest_chat(quick, "0", NULL);
	rig_turn_one(r, 0);
	guest_expect_numbers(sender, 0, 1);
	rig_settle(r);
	CHECK_EQ(guest_drop(slow), HUB_INBOX_SLOTS + 512 + 1);
	rig_free(r);
}

/* Both rings full at once: no two workers wait for each other. */
TEST(hub_two_congested_workers_get_on)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *g[2] = {guest_open(r, 0, "/a"), guest_open(r, 1, "/b")};
	uint64_t random = test_seed();
	unsigned congested = 0;

	guest_subscribe(g[0], "b");
	guest_subscribe(g[1], "a");
	rig_turn(r);
	guest_drop(g[0]);
	guest_drop(g[1]);
	guest_send_numbers(g[0], 0, 15000);
	guest_send_numbers(g[1], 0, 15000);
	CHECK(conn_env_is_paused(&r->w[0]->hub.env, CONN_PAUSE_CONGESTED) &&
	      conn_env_is_paused(&r->w[1]->hub.env, CONN_PAUSE_CONGESTED));
	for (int i = 0; i < 300; i++) {
		rig_turn_one(r, (unsigned)(test_random(&random) >> 63));
		congested += conn_env_is_paused(&r->w[0]->hub.env, CONN_PAUSE_CONGESTED);
		rig_check(r);
	}
	CHECK(congested > 0 && congested < 300);
	rig_settle(r);
	guest_expect_numbers(g[0], 0, 15000);
	guest_expect_numbers(g[1], 0, 15000);
	rig_free(r);
}

/* A publisher that goes while its messages wait: what it said before still arrives. */
TEST(hub_congestion_outlives_the_publisher)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *sender = guest_open(r, 0, "/room"), *far = guest_open(r, 1, "/room");

	guest_send_numbers(sender, 0, HUB_INBOX_SLOTS + 100);
	conn_abort(sender->conn);
	rig_turn_one(r, 0);
	rig_settle(r);
	guest_expect_numbers(far, 0, HUB_INBOX_SLOTS + 1);
	CHECK(guest_next_msg(far) == NULL);
	rig_free(r);
}

/* ------------------------------------------------------------ slots and numbers */

/* A message on its way to a channel that is gone doesn't turn up in the next one in its slot. */
TEST(hub_drops_posts_for_a_channel_that_is_gone)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *sender = guest_open(r, 0, "/old"), *far = guest_open(r, 1, "/old");
	uint32_t slot = rig_channel(r, 1, "old")->entry->slot;
	struct guest *near;
	char request[256];

	guest_chat(sender, "for the old ones", NULL);
	conn_abort(far->conn);
	conn_abort(sender->conn);
	CHECK_EQ(r->pool->shared.directory.count, 0);
	near = guest_accept(r, 1);
	guest_write(near, request, guest_handshake(request, sizeof(request), "/new"));
	CHECK_EQ(rig_channel(r, 1, "new")->entry->slot, slot);
	rig_settle(r);
	CHECK_EQ(guest_status(near), 101);
	CHECK_EQ(guest_drop(near), 1); /* CONFIG */
	CHECK_EQ(r->pool->shared.frame_bytes, 0);
	rig_free(r);
}

/* Who leaves and comes back gets what is published from then on, though older posts still come. */
TEST(hub_rejoined_channel_begins_at_its_number)
{
	struct rig *r = rig_new(2, FREE);
	struct guest *sender = guest_open(r, 0, "/room"), *far = guest_open(r, 1, "/home");

	guest_subscribe(far, "room");
	guest_send_numbers(sender, 0, 5);
	guest_unsubscribe(far, "room");
	guest_send_numbers(sender, 5, 8);
	guest_subscribe(far, "room");
	guest_send_numbers(sender, 8, 10);
	rig_settle(r);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(guest_next_msg(far)->control->type, WEBSOCKET__CONTROL_TYPE__ACKNOWLEDGE);
	guest_expect_numbers(far, 8, 10);
	CHECK(guest_next_msg(far) == NULL);
	rig_check(r);
	rig_free(r);
}

TEST(hub_join_says_what_is_in_the_way)
{
	struct rig *r = rig_new(1, "max_channels = 2\n");
	struct guest *g = guest_open(r, 0, "/one");
	struct hub *h = &r->w[0]->hub;
	struct member *two;

	CHECK_EQ(hub_join(h, g->conn, "one", 3, NULL, NULL), HUB_E_MEMBER);
	CHECK_EQ(hub_join(h, g->conn, "two", 3, NULL, NULL), 0);
	two = g->conn->members;
	CHECK_EQ(hub_join(h, g->conn, "three", 5, NULL, NULL), HUB_E_FULL);
	CHECK(hub_membership(h, g->conn, "two", 3) == two);
	CHECK(hub_membership(h, g->conn, "three", 5) == NULL);
	CHECK_EQ(g->conn->n_members, 2);
	hub_leave(h, two, HUB_TELL_NOBODY);
	CHECK(hub_membership(h, g->conn, "two", 3) == NULL);
	CHECK_EQ(hub_join(h, g->conn, "three", 5, NULL, NULL), 0);
	hub_leave(h, g->conn->members, false);
	rig_free(r);
}

static char *number_name(char out[8], size_t i)
{
	snprintf(out, 8, "%zu", i);
	return out;
}

/* The membership of its path among them, which lies elsewhere, and may be left and joined again. */
TEST(hub_finds_memberships_however_many)
{
	struct rig *r = rig_new(1, "max_channels_per_client = 1000\n");
	struct guest *g = guest_open(r, 0, "/0"), *other = guest_open(r, 0, "/0");
	struct hub *h = &r->w[0]->hub;
	bool is_member[200] = {true};
	uint64_t random = test_seed();
	size_t n = 1;
	char name[8];

	for (unsigned step = 0; step < 4000; step++) {
		size_t i = test_random(&random) % ARRAY_LEN(is_member);
		size_t len = strlen(number_name(name, i)), siblings = 0;
		struct member *m = hub_membership(h, g->conn, name, len);

		CHECK_EQ(m != NULL, is_member[i]);
		CHECK_EQ(hub_membership(h, other->conn, name, len) != NULL, i == 0);
		/* Few at first, then many, then few again. */
		if (!m && (step < 2000 || test_random(&random) % 4 == 0))
			CHECK_EQ(hub_join(h, g->conn, name, len, NULL, NULL), 0);
		else if (m && (step >= 2000 || test_random(&random) % 4 == 0))
			hub_leave(h, m, false);
		else
			continue;
		is_member[i] = !is_member[i];
		n += is_member[i] ? 1 : SIZE_MAX;
		for (m = g->conn->members; m; m = m->sibling)
			siblings++;
		CHECK_EQ(siblings, n);
		CHECK_EQ(g->conn->n_members, n);
	}
	table_check(&h->memberships);
	rig_free(r);
}

/* Six connections that join many channels and go: nothing of them stays behind. */
TEST(hub_tables_shrink_with_what_they_hold)
{
	struct rig *r = rig_new(1, "max_channels = 4000\nmax_channels_per_client = 4000\n");
	char name[8];

	for (unsigned k = 0; k < 6; k++) {
		struct guest *g = guest_open(r, 0, "/home");
		struct hub *h = &r->w[0]->hub;

		for (size_t i = 0; i < 3000; i++) {
			number_name(name, i);
			CHECK_EQ(hub_join(h, g->conn, name, strlen(name), NULL, NULL), 0);
		}
		CHECK(h->by_name.n_buckets >= 3000);
		guest_end(g);
		rig_settle(r);
		h = &r->w[0]->hub; /* of the next process, perhaps */
		CHECK_EQ(h->by_name.n, 0);
		CHECK(h->by_name.n_buckets <= 2);
	}
	rig_free(r);
}

static struct frame *number_frame(struct hub *h, const char *text)
{
	struct msg_builder b;

	msg_init_chat(&b, "", "system", text, 1);
	return frame_from_msg(&b, h->env.config->max_frame_size, h->env.frame_account);
}

TEST(hub_publishes_by_name_without_being_a_member)
{
	struct rig *r = rig_new(3, FREE);
	struct guest *g[2] = {guest_open(r, 1, "/room"), guest_open(r, 2, "/room")};
	struct hub *h = &r->w[0]->hub;
	struct frame *f = number_frame(h, "0");
	uint32_t members = 99;
	struct hub_outlet o;

	CHECK_EQ(hub_outlet_init(h, "nobody", 6, &o), HUB_E_NO_CHANNEL);
	CHECK_EQ(hub_outlet_init(h, "room", 4, &o), 0);
	CHECK_EQ(members, 99);
	CHECK_EQ(hub_outlet_publish(h, &o, f, &members), 0);
	hub_outlet_fini(h, &o);
	CHECK_EQ(members, 2);
	rig_settle(r);
	guest_expect_numbers(g[0], 0, 1);
	guest_expect_numbers(g[1], 0, 1);
	h = &r->w[0]->hub;
	conn_env_pause(&h->env, CONN_PAUSE_CONGESTED);
	f = number_frame(h, "1");
	CHECK_EQ(hub_outlet_init(h, "room", 4, &o), 0);
	CHECK_EQ(hub_outlet_publish(h, &o, f, &members), HUB_E_CONGESTED);
	hub_outlet_fini(h, &o);
	frame_unref(f);
	rig_settle(r);
	rig_free(r);
}

/* Before a hand-over no turn follows: what a log had no memory for is told all the same. */
TEST(hub_that_cannot_keep_a_post_closes_the_members_at_once)
{
	struct rig *r = rig_new(2, "");
	struct guest *a = guest_open(r, 0, "/room"), *b = guest_open(r, 1, "/room");
	struct msg_builder m;

	rig_settle(r);
	msg_init_chat(&m, "", "a", "lost", 0);
	for (int i = 0; i < 100; i++) /* more than a log has room for without growing */
		guest_send_msg(a, &m);
	fault_fail(FAULT_ALLOC, 1, 1, ENOMEM);
	(void)hub_deliver_posts(&r->w[1]->hub);
	CHECK_EQ(fault_end(FAULT_ALLOC), 1);
	CHECK_EQ(b->conn->state, CONN_CLOSING);
	CHECK_EQ(a->conn->state, CONN_OPEN);
	rig_settle(r);
	CHECK_EQ(guest_close_code(b), 1011);
	rig_free(r);
}
