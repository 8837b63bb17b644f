/* SPDX-License-Identifier: MIT */
/* Who does not answer is found, and what all workers have to do is done by all of them. */
#include "rig.h"

#include "server/pool_task.h"
#include "server/watchdog.h"

TEST(watchdog_sees_who_does_not_answer)
{
	struct rig *r = rig_new(2, "");
	static struct watchdog w;
	uint64_t now = r->now_ns;

	w = (struct watchdog){0};
	watchdog_init(&w, r->pool);
	CHECK_EQ(watchdog_period_ns(&w), NS_PER_S); /* there is no manager */
	watchdog_run(&w, now);
	rig_turn_one(r, 0);
	worker_pool_run_done(r->pool);
	CHECK(!watchdog_is_stalled(&w, 1, now + WATCHDOG_STALLED_NS));
	CHECK(watchdog_is_stalled(&w, 1, now + WATCHDOG_STALLED_NS + 1));
	CHECK(!watchdog_is_stalled(&w, 0, now + WATCHDOG_STALLED_NS + 1));
	/* No second ping before the first is answered; the other one has its next. */
	watchdog_run(&w, now + NS_PER_S);
	CHECK_EQ(w.pings[0].sent_ns, now + NS_PER_S);
	CHECK_EQ(w.pings[1].sent_ns, now);
	rig_turn(r);
	worker_pool_run_done(r->pool);
	for (unsigned i = 0; i < 2; i++)
		CHECK(!watchdog_is_stalled(&w, i, now + 1000 * NS_PER_S));
	rig_free(r);
}

TEST(watchdog_takes_no_standstill_for_a_worker_that_does_not_answer)
{
	struct rig *r = rig_new(1, "");
	static struct watchdog w;
	uint64_t now = r->now_ns, later = now + 1000 * NS_PER_S;

	w = (struct watchdog){0};
	watchdog_init(&w, r->pool);
	watchdog_run(&w, now);
	r->main.catch_up_by_ns = later + 1;
	CHECK(!watchdog_is_stalled(&w, 0, later));
	r->main.catch_up_by_ns = 0;
	r->main.stall_ns = later;
	CHECK(!watchdog_is_stalled(&w, 0, later + WATCHDOG_STALLED_NS));
	CHECK(watchdog_is_stalled(&w, 0, later + WATCHDOG_STALLED_NS + 1));
	rig_turn(r);
	worker_pool_run_done(r->pool);
	rig_free(r);
}

TEST(watchdog_is_fed_in_time)
{
	struct watchdog w = {.interval_ns = 30 * NS_PER_S};

	CHECK_EQ(watchdog_period_ns(&w), NS_PER_S);
	w.interval_ns = NS_PER_S;
	CHECK(watchdog_period_ns(&w) < w.interval_ns / 2);
}

struct counted {
	struct pool_task task;
	unsigned n_done;
};

static unsigned n_run;

static void run_one(struct worker *w, struct worker_task *t)
{
	n_run++;
	worker_task_answer(w, t);
}

static void all_done(struct pool_task *t)
{
	CONTAINER_OF(t, struct counted, task)->n_done++;
}

TEST(pool_task_ends_with_the_last_answer)
{
	struct rig *r = rig_new(3, "");
	static struct counted c;

	n_run = 0;
	c = (struct counted){0};
	for (unsigned round = 1; round <= 2; round++) {
		pool_task_post(&c.task, r->pool, run_one, all_done);
		for (unsigned i = 0; i < 3; i++) {
			CHECK_EQ(c.n_done, round - 1);
			rig_turn_one(r, i);
			worker_pool_run_done(r->pool);
		}
		CHECK_EQ(c.n_done, round);
		CHECK_EQ(n_run, 3 * round);
	}
	rig_free(r);
}
