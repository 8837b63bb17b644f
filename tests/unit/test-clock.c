/* SPDX-License-Identifier: MIT */
#include "base/clock.h"

#include <time.h>

#include "test.h"

static uint64_t kernel_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

TEST(clock_is_the_monotonic_clock_in_nanoseconds)
{
	uint64_t before = kernel_ns(CLOCK_MONOTONIC);
	uint64_t now = clock_now_ns();
	uint64_t after = kernel_ns(CLOCK_MONOTONIC);

	CHECK(before <= now && now <= after);
	CHECK(now != 0);
}

TEST(clock_never_goes_back)
{
	uint64_t last = clock_now_ns();

	for (int i = 0; i < 10000; i++) {
		uint64_t now = clock_now_ns();

		CHECK(now >= last);
		last = now;
	}
}

TEST(clock_wall_is_in_milliseconds_since_the_epoch)
{
	uint64_t before = kernel_ns(CLOCK_REALTIME) / NS_PER_MS;
	uint64_t now = clock_wall_ms();
	uint64_t after = kernel_ns(CLOCK_REALTIME) / NS_PER_MS;

	CHECK(before <= now && now <= after);
}

TEST(clock_stands_where_a_test_puts_it_until_it_is_let_go)
{
	uint64_t wall = clock_wall_ms();

	clock_set_for_test(42);
	CHECK_EQ(clock_now_ns(), 42);
	CHECK_EQ(clock_now_ns(), 42);
	CHECK(clock_wall_ms() >= wall);
	clock_set_for_test(UINT64_MAX);
	CHECK_EQ(clock_now_ns(), UINT64_MAX);

	clock_set_for_test(0);
	CHECK(clock_now_ns() <= kernel_ns(CLOCK_MONOTONIC));
	CHECK(clock_now_ns() > 42);
}

TEST(clock_creeps_at_each_look_while_it_is_stopped)
{
	clock_set_for_test(1000);
	clock_creep_for_test(7);
	CHECK_EQ(clock_now_ns(), 1000);
	CHECK_EQ(clock_now_ns(), 1007);
	clock_set_for_test(2000);
	CHECK_EQ(clock_now_ns(), 2000);
	CHECK_EQ(clock_now_ns(), 2007);

	/* Let go, it forgets that. */
	clock_set_for_test(0);
	clock_set_for_test(3000);
	CHECK_EQ(clock_now_ns(), 3000);
	CHECK_EQ(clock_now_ns(), 3000);
	clock_set_for_test(0);
}

TEST(clock_units_agree)
{
	CHECK_EQ(NS_PER_S, 1000 * NS_PER_MS);
	CHECK_EQ(NS_PER_MS, 1000 * NS_PER_US);
	CHECK_EQ(NS_PER_US, 1000);
}
