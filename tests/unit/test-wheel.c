/* SPDX-License-Identifier: MIT */
#include "containers/wheel.h"

#include "base/clock.h"

#include "test.h"

#define MS NS_PER_MS
#define TICK (10 * MS)
#define TURN (WHEEL_SLOTS * TICK)

/* A timer that notes when it fired. */
struct probe {
	struct wheel_timer t;
	struct wheel *wheel;
	const uint64_t *now;
	uint64_t fired_at;
	int fired;
	struct wheel_timer *other;
};

static void probe_fired(struct wheel_timer *t)
{
	struct probe *p = CONTAINER_OF(t, struct probe, t);

	CHECK(!wheel_is_armed(t));
	wheel_check(p->wheel);
	p->fired_at = *p->now;
	p->fired++;
}

static void count_only(struct wheel_timer *t)
{
	CONTAINER_OF(t, struct probe, t)->fired++;
}

static void probe_init(struct probe *p, struct wheel *w, const uint64_t *now, wheel_fn *fn)
{
	*p = (struct probe){.wheel = w, .now = now};
	wheel_timer_init(&p->t, fn);
}

/* Deadlines on, just beside and far past a tick, the far ones several turns of the wheel away. */
TEST(wheel_fires_never_early_and_under_two_ticks_late)
{
	static const uint64_t deadline[] = {
		0, 1, TICK - 1, TICK, TICK + 1, 101 * MS, TURN, 30000 * MS, 250001 * MS,
	};

	for (size_t i = 0; i < ARRAY_LEN(deadline); i++) {
		uint64_t now = 0;
		static struct wheel w;
		struct probe p;

		wheel_init(&w, TICK, 0);
		probe_init(&p, &w, &now, probe_fired);
		wheel_add(&w, &p.t, deadline[i]);
		for (; !p.fired && now < 300000 * MS; now += TICK / 4)
			wheel_advance(&w, now);
		CHECK_EQ(p.fired, 1);
		CHECK(p.fired_at >= deadline[i]);
		CHECK(p.fired_at < deadline[i] + 2 * TICK);
	}
}

TEST(wheel_ticks_are_never_longer_than_asked_for)
{
	static const uint64_t ticks[] = {1, 2, 3, 1000, 1024, TICK, 3600 * NS_PER_S};

	for (size_t i = 0; i < ARRAY_LEN(ticks); i++) {
		uint64_t now = 5 * ticks[i];
		static struct wheel w;
		struct probe p;

		wheel_init(&w, ticks[i], now);
		probe_init(&p, &w, &now, probe_fired);
		wheel_add(&w, &p.t, now + 10 * ticks[i]);
		CHECK(wheel_next_ns(&w) >= p.t.deadline_ns);
		CHECK(wheel_next_ns(&w) < p.t.deadline_ns + ticks[i]);
		now = wheel_next_ns(&w) - 1;
		wheel_advance(&w, now);
		CHECK_EQ(p.fired, 0);
		wheel_advance(&w, ++now);
		CHECK_EQ(p.fired, 1);
	}
}

TEST(wheel_idle_sleeps_until_the_one_deadline_however_far)
{
	uint64_t now = 12345;
	static struct wheel w;
	struct probe p;

	wheel_init(&w, TICK, now);
	CHECK_EQ(wheel_next_ns(&w), UINT64_MAX);
	probe_init(&p, &w, &now, probe_fired);
	wheel_add(&w, &p.t, now + 7 * TURN + 3);
	now = wheel_next_ns(&w);
	wheel_advance(&w, now);
	CHECK_EQ(p.fired, 1);
	CHECK(now - p.t.deadline_ns < TICK);
	CHECK_EQ(wheel_next_ns(&w), UINT64_MAX);
	CHECK_EQ(wheel_armed(&w), 0);
}

TEST(wheel_next_follows_what_is_armed_and_disarmed)
{
	uint64_t now = 0, first, second;
	static struct wheel w;
	struct probe p[3];

	wheel_init(&w, TICK, now);
	for (int i = 0; i < 3; i++)
		probe_init(&p[i], &w, &now, probe_fired);
	wheel_add(&w, &p[0].t, 5 * TURN);
	first = wheel_next_ns(&w);
	wheel_add(&w, &p[1].t, 100 * MS);
	second = wheel_next_ns(&w);
	CHECK(second < first);
	wheel_add(&w, &p[2].t, 100 * MS);
	wheel_del(&w, &p[1].t);
	CHECK_EQ(wheel_next_ns(&w), second);
	wheel_del(&w, &p[2].t);
	CHECK_EQ(wheel_next_ns(&w), first);
	wheel_del(&w, &p[0].t);
	CHECK_EQ(wheel_next_ns(&w), UINT64_MAX);
	wheel_check(&w);
}

TEST(wheel_add_moves_an_armed_timer)
{
	uint64_t now = 0;
	static struct wheel w;
	struct probe p;

	wheel_init(&w, TICK, now);
	probe_init(&p, &w, &now, probe_fired);
	wheel_add(&w, &p.t, 100 * MS);
	wheel_add(&w, &p.t, 300 * MS);
	CHECK_EQ(wheel_armed(&w), 1);
	CHECK(wheel_is_armed(&p.t));
	now = 250 * MS;
	wheel_advance(&w, now);
	CHECK_EQ(p.fired, 0);
	wheel_add(&w, &p.t, 260 * MS);
	now = 290 * MS;
	wheel_advance(&w, now);
	CHECK_EQ(p.fired, 1);
	now = 1000 * MS;
	wheel_advance(&w, now);
	CHECK_EQ(p.fired, 1);
}

TEST(wheel_timer_all_zero_is_disarmed)
{
	struct wheel_timer t = {0};
	static struct wheel w;

	wheel_init(&w, TICK, 0);
	CHECK(!wheel_is_armed(&t));
	wheel_del(&w, &t);
	wheel_timer_init(&t, probe_fired);
	CHECK(!wheel_is_armed(&t));
	wheel_del(&w, &t);
	wheel_del(&w, &t);
	wheel_check(&w);
}

TEST(wheel_deadline_at_the_end_of_time_never_comes)
{
	uint64_t now = 0;
	static struct wheel w;
	struct probe p;

	wheel_init(&w, TICK, now);
	probe_init(&p, &w, &now, probe_fired);
	wheel_add(&w, &p.t, UINT64_MAX);
	CHECK_EQ(wheel_next_ns(&w), UINT64_MAX);
	CHECK(wheel_is_armed(&p.t));
	wheel_advance(&w, UINT64_MAX);
	CHECK_EQ(p.fired, 0);
	wheel_check(&w);
}

TEST(wheel_ignores_a_clock_that_goes_back)
{
	uint64_t now = 10 * TURN;
	static struct wheel w;
	struct probe p;

	wheel_init(&w, TICK, now);
	probe_init(&p, &w, &now, probe_fired);
	wheel_add(&w, &p.t, now + TICK);
	wheel_advance(&w, 5);
	wheel_check(&w);
	now += 2 * TICK;
	wheel_advance(&w, now);
	CHECK_EQ(p.fired, 1);
}

/* One timer for each tick of two turns; the clock jumps over @jump ticks at once. */
static void check_jump(uint64_t jump)
{
	static struct probe p[2 * WHEEL_SLOTS];
	static struct wheel w;
	uint64_t now = 0, tick;

	wheel_init(&w, TICK, now);
	tick = 1ULL << w.shift;
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		probe_init(&p[i], &w, &now, count_only);
		wheel_add(&w, &p[i].t, (i + 1) * tick);
	}
	now = jump * tick;
	wheel_advance(&w, now);
	wheel_check(&w);
	for (size_t i = 0; i < ARRAY_LEN(p); i++)
		CHECK_EQ(p[i].fired, i + 1 <= jump);
}

TEST(wheel_misses_no_slot_when_the_clock_jumps)
{
	check_jump(1);
	check_jump(63);
	check_jump(64);
	check_jump(WHEEL_SLOTS - 1);
	check_jump(WHEEL_SLOTS);
	check_jump(WHEEL_SLOTS + 1);
	check_jump(2 * WHEEL_SLOTS - 1);
	check_jump(2 * WHEEL_SLOTS);
	check_jump(100 * WHEEL_SLOTS);
}

static void fire_and_rearm_at_once(struct wheel_timer *t)
{
	struct probe *p = CONTAINER_OF(t, struct probe, t);

	p->fired++;
	wheel_add(p->wheel, t, 0);
}

TEST(wheel_callback_that_rearms_itself_does_not_loop)
{
	uint64_t now = 0;
	static struct wheel w;
	struct probe p;

	wheel_init(&w, TICK, now);
	probe_init(&p, &w, &now, fire_and_rearm_at_once);
	wheel_add(&w, &p.t, 0);
	for (int i = 1; i <= 5; i++) {
		now = wheel_next_ns(&w);
		wheel_advance(&w, now);
		CHECK_EQ(p.fired, i);
		CHECK(wheel_is_armed(&p.t));
		CHECK(wheel_next_ns(&w) > now);
		CHECK(wheel_next_ns(&w) <= now + TICK);
		wheel_check(&w);
	}
}

static void fire_and_disarm_other(struct wheel_timer *t)
{
	struct probe *p = CONTAINER_OF(t, struct probe, t);

	p->fired++;
	wheel_del(p->wheel, p->other);
	wheel_check(p->wheel);
}

/* Both are due in the same call; whichever comes first keeps the other one from firing. */
TEST(wheel_callback_may_disarm_another_that_is_due)
{
	for (uint64_t apart = 0; apart <= 5 * TICK; apart += 5 * TICK) {
		uint64_t now = 0;
		static struct wheel w;
		struct probe a, b;

		wheel_init(&w, TICK, now);
		probe_init(&a, &w, &now, fire_and_disarm_other);
		probe_init(&b, &w, &now, fire_and_disarm_other);
		a.other = &b.t;
		b.other = &a.t;
		wheel_add(&w, &a.t, 100 * MS);
		wheel_add(&w, &b.t, 100 * MS + apart);
		now = 200 * MS;
		wheel_advance(&w, now);
		CHECK_EQ(a.fired + b.fired, 1);
		CHECK_EQ(wheel_armed(&w), 0);
		CHECK_EQ(wheel_next_ns(&w), UINT64_MAX);
	}
}

static void fire_and_delay_other(struct wheel_timer *t)
{
	struct probe *p = CONTAINER_OF(t, struct probe, t);

	p->fired++;
	if (p->other && wheel_is_armed(p->other))
		wheel_add(p->wheel, p->other, *p->now + 100 * MS);
}

TEST(wheel_callback_may_move_another_that_is_due)
{
	uint64_t now = 0;
	static struct wheel w;
	struct probe a, b;

	wheel_init(&w, TICK, now);
	probe_init(&a, &w, &now, fire_and_delay_other);
	probe_init(&b, &w, &now, fire_and_delay_other);
	a.other = &b.t;
	b.other = &a.t;
	wheel_add(&w, &a.t, 50 * MS);
	wheel_add(&w, &b.t, 50 * MS);
	now = 100 * MS;
	wheel_advance(&w, now);
	CHECK_EQ(a.fired + b.fired, 1);
	CHECK_EQ(wheel_armed(&w), 1);
	now = 300 * MS;
	wheel_advance(&w, now);
	CHECK_EQ(a.fired, 1);
	CHECK_EQ(b.fired, 1);
}

static void fire_and_free(struct wheel_timer *t)
{
	struct probe *p = CONTAINER_OF(t, struct probe, t);

	(*(int *)(uintptr_t)p->now)++;
	free(p);
}

TEST(wheel_callback_may_free_its_timer)
{
	static struct wheel w;
	int freed = 0;

	wheel_init(&w, TICK, 0);
	for (uint64_t i = 0; i < 50; i++) {
		struct probe *p = calloc(1, sizeof(*p));

		wheel_timer_init(&p->t, fire_and_free);
		p->now = (const uint64_t *)(uintptr_t)&freed;
		wheel_add(&w, &p->t, i * MS);
	}
	wheel_advance(&w, NS_PER_S);
	CHECK_EQ(freed, 50);
	wheel_check(&w);
}

/* The tick after which a timer must have fired and before which it must not, as the header says. */
static uint64_t due_tick(const struct wheel *w, const struct probe *p, uint64_t armed_in_tick)
{
	uint64_t tick = (p->t.deadline_ns + (1ULL << w->shift) - 1) >> w->shift;

	return MAX(tick, armed_in_tick + 1);
}

#define TIMERS 150

/* All timers beside what a plain array says about them. */
struct world {
	struct wheel w;
	uint64_t now;
	struct probe p[TIMERS];
	uint64_t due[TIMERS]; /* 0: disarmed */
	uint64_t random;
};

static void world_compare(struct world *o)
{
	uint64_t next = UINT64_MAX;

	for (size_t i = 0; i < TIMERS; i++) {
		if (o->p[i].fired) {
			CHECK(o->due[i] && o->due[i] <= o->now >> o->w.shift);
			CHECK_EQ(o->p[i].fired, 1);
			o->p[i].fired = 0;
			o->due[i] = 0;
		}
		CHECK_EQ(wheel_is_armed(&o->p[i].t), o->due[i] != 0);
		if (o->due[i])
			next = MIN(next, o->due[i]);
	}
	CHECK(next > o->now >> o->w.shift);
	if (test_random(&o->random) % 2)
		CHECK_EQ(wheel_next_ns(&o->w), next == UINT64_MAX ? next : next << o->w.shift);
	wheel_check(&o->w);
}

static uint64_t random_span(struct world *o)
{
	static const uint64_t spans[] = {MS, TICK, 10 * TICK, TURN / 2, TURN, 3 * TURN, 20 * TURN};

	return test_random(&o->random) % spans[test_random(&o->random) % ARRAY_LEN(spans)];
}

TEST(wheel_against_an_array_at_random)
{
	static struct world o;

	o.random = test_seed();
	o.now = test_random(&o.random) >> 8;
	wheel_init(&o.w, TICK, o.now);
	for (size_t i = 0; i < TIMERS; i++)
		probe_init(&o.p[i], &o.w, &o.now, probe_fired);
	for (int step = 0; step < 6000; step++) {
		size_t i = test_random(&o.random) % TIMERS;
		unsigned what = (unsigned)(test_random(&o.random) >> 32) % 10;

		if (what < 6) {
			wheel_add(&o.w, &o.p[i].t, o.now - MS + random_span(&o));
			o.due[i] = due_tick(&o.w, &o.p[i], o.now >> o.w.shift);
		} else if (what < 8) {
			wheel_del(&o.w, &o.p[i].t);
			o.due[i] = 0;
		} else {
			o.now += random_span(&o) / 4;
			wheel_advance(&o.w, o.now);
		}
		world_compare(&o);
	}
}
