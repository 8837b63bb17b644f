/* SPDX-License-Identifier: MIT */
/* flush_delay: what is held back, for how long, and what isn't. */
#include "rig.h"

#define DELAY_NS (4 * NS_PER_MS)
#define DELAYED "flush_delay = 4ms\nmax_incoming_frames_per_second = 0\nnotice_limit = 0\n"

struct pair {
	struct rig *r;
	struct guest *a, *b;
};

static struct pair pair_new(unsigned workers)
{
	struct pair p = {.r = rig_new(workers, DELAYED)};

	p.a = guest_open(p.r, 0, "/x");
	p.b = guest_open(p.r, workers - 1, "/x");
	p.b->sends = 0;
	return p;
}

static void expect_chat(struct guest *g, const char *content)
{
	const Websocket__WebSocketMessage *m = guest_next_msg(g);

	CHECK(m && m->chat);
	CHECK_STR(m->chat->content, content);
}

static void expect_nothing(struct pair *p)
{
	rig_settle(p->r);
	CHECK_EQ(p->b->sends, 0);
}

TEST(flush_delay_gathers_what_comes_meanwhile)
{
	for (unsigned workers = 1; workers <= 2; workers++) {
		struct pair p = pair_new(workers);

		for (int i = 0; i < 3; i++) { /* 1 ms apart */
			guest_chat(p.a, "x", NULL);
			expect_nothing(&p);
			rig_pass(p.r, NS_PER_MS);
		}
		guest_chat(p.a, "last", NULL);
		expect_nothing(&p);
		rig_pass(p.r, NS_PER_MS - 1);
		expect_nothing(&p);
		rig_pass(p.r, 1); /* 4 ms after the first */
		rig_settle(p.r);
		CHECK_EQ(p.b->sends, 1);
		for (int i = 0; i < 3; i++)
			expect_chat(p.b, "x");
		expect_chat(p.b, "last");
		/* The next one begins a delay of its own. */
		p.b->sends = 0;
		guest_chat(p.a, "next", NULL);
		expect_nothing(&p);
		rig_pass(p.r, DELAY_NS - 1);
		expect_nothing(&p);
		rig_pass(p.r, 1);
		rig_settle(p.r);
		expect_chat(p.b, "next");
		rig_free(p.r);
	}
}

/* The loop sleeps until then, and no longer. */
TEST(flush_delay_is_when_the_loop_wakes)
{
	struct pair p = pair_new(1);
	struct worker *w = p.r->w[0];

	CHECK_EQ(w->reactor.wake_ns, 0);
	guest_chat(p.a, "x", NULL);
	rig_settle(p.r);
	CHECK_EQ(w->reactor.wake_ns, p.r->now_ns + DELAY_NS);
	CHECK(!hub_has_work(&w->hub));
	rig_pass(p.r, DELAY_NS);
	CHECK_EQ(w->reactor.wake_ns, 0);
	expect_chat(p.b, "x");
	rig_free(p.r);
}

TEST(flush_delay_holds_nothing_that_is_for_one_alone)
{
	struct pair p = pair_new(1);

	guest_send(p.b, true, WS_PING, "now", 3);
	rig_settle(p.r);
	CHECK_EQ(p.b->sends, 1);
	rig_free(p.r);
}

/* More members than a turn has room for: those behind don't wait once more. */
TEST(flush_delay_goes_on_at_once_with_what_a_turn_left)
{
	struct rig *r = rig_new(1, DELAYED);
	struct guest *a = guest_open(r, 0, "/x"), *g[HUB_MEMBERS_PER_TURN + 10];

	for (size_t i = 0; i < ARRAY_LEN(g); i++) {
		g[i] = guest_open(r, 0, "/x");
		g[i]->is_mute = true;
		g[i]->sends = 0;
	}
	guest_chat(a, "x", NULL);
	rig_settle(r);
	rig_pass(r, DELAY_NS);
	rig_settle(r);
	for (size_t i = 0; i < ARRAY_LEN(g); i++)
		CHECK_EQ(g[i]->sends, 1);
	rig_free(r);
}

TEST(flush_delay_does_not_hold_up_a_stop)
{
	struct pair p = pair_new(1);

	guest_chat(p.a, "x", NULL);
	expect_nothing(&p);
	CHECK(rig_run(p.r, 0, worker_task_stop_reading));
	rig_settle(p.r);
	expect_chat(p.b, "x");
	rig_free(p.r);
}

TEST(flush_delay_that_a_reload_takes_away)
{
	struct pair p = pair_new(1);

	guest_chat(p.a, "x", NULL);
	expect_nothing(&p);
	worker_configure(p.r->w[0], rig_policy("flush_delay = 0\n"));
	rig_pass(p.r, DELAY_NS);
	expect_chat(p.b, "x");
	guest_chat(p.a, "y", NULL);
	rig_settle(p.r);
	expect_chat(p.b, "y");
	CHECK_EQ(p.r->w[0]->reactor.wake_ns, 0);
	rig_free(p.r);
}
