/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * The time, as wsbind counts it: nanoseconds of CLOCK_MONOTONIC in a uint64_t. The
 * wall clock serves only what leaves the process (timestamps in messages and logs).
 *
 * A test may stop the monotonic clock at a value of its own. In a running daemon that
 * hook costs one load and one branch that is never taken.
 */

#include "base/base.h"

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/**
 * clock_now_ns() - the monotonic time
 *
 * Return: nanoseconds since an arbitrary start, never 0, never less than before; or the
 *         value a test has set.
 * Thread: any.
 * Cost:   one vDSO call, no system call. The loop reads it once a turn all the same.
 */
WB_ANY_THREAD uint64_t clock_now_ns(void);

/**
 * clock_wall_ms() - the wall clock
 *
 * May jump, also backwards. Not affected by clock_set_for_test(), but by clock_step_for_test().
 *
 * Return: milliseconds since the epoch.
 * Thread: any.
 */
WB_ANY_THREAD uint64_t clock_wall_ms(void);

/**
 * clock_set_for_test() - stop the monotonic clock at a value
 * @ns: what clock_now_ns() returns from now on, in all threads; 0 lets it run again
 *
 * Thread: any.
 */
WB_ANY_THREAD void clock_set_for_test(uint64_t ns);

/* The wall clock is set: by so many milliseconds beside the right time. Thread: any. */
WB_ANY_THREAD void clock_step_for_test(int64_t ms);

/* A clock that is stopped moves on by @ns at each look, until it is let go: work takes time. */
WB_ANY_THREAD void clock_creep_for_test(uint64_t ns);
