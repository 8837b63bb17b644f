/* SPDX-License-Identifier: MIT */
#include "base/clock.h"

#include <time.h>

/* 0: the clock runs. The only writer is a test, so the line stays shared by all caches. */
static _Atomic uint64_t stopped_at;
static _Atomic uint64_t creep;
static _Atomic int64_t step_ms;

static uint64_t read_clock(clockid_t id, uint64_t per_second)
{
	struct timespec now;

	/* Cannot fail: the clocks exist on every Linux and the pointer is good. */
	(void)clock_gettime(id, &now);
	return (uint64_t)now.tv_sec * per_second + (uint64_t)now.tv_nsec / (NS_PER_S / per_second);
}

static uint64_t look_at_stopped(void)
{
	uint64_t ns = atomic_load_explicit(&creep, memory_order_relaxed);

	return atomic_fetch_add_explicit(&stopped_at, ns, memory_order_relaxed);
}

uint64_t clock_now_ns(void)
{
	uint64_t stopped = atomic_load_explicit(&stopped_at, memory_order_relaxed);

	if (WB_UNLIKELY(stopped))
		return look_at_stopped();
	return read_clock(CLOCK_MONOTONIC, NS_PER_S);
}

uint64_t clock_wall_ms(void)
{
	return read_clock(CLOCK_REALTIME, NS_PER_S / NS_PER_MS) +
	       (uint64_t)atomic_load_explicit(&step_ms, memory_order_relaxed);
}

void clock_step_for_test(int64_t ms)
{
	atomic_store_explicit(&step_ms, ms, memory_order_relaxed);
}

void clock_set_for_test(uint64_t ns)
{
	atomic_store_explicit(&stopped_at, ns, memory_order_relaxed);
	if (!ns)
		atomic_store_explicit(&creep, 0, memory_order_relaxed);
}

void clock_creep_for_test(uint64_t ns)
{
	atomic_store_explicit(&creep, ns, memory_order_relaxed);
}
