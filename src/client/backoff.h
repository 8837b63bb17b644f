/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * How long to wait before connecting again: the first delay × factor^n, a quarter more
 * or less by chance, so that clients which lost the same server don't come back as one.
 * Pure: time and chance are the caller's.
 */

#include "base/base.h"
#include "base/clock.h"

#define BACKOFF_MAX_NS (600 * NS_PER_S) /* no delay is longer, whatever anyone asks for */

struct WB_VALUE backoff {
	uint64_t first_ns;
	double factor; /* >= 1 */
	uint64_t max_attempts;
	uint64_t attempts; /* since the last success */
};

/**
 * backoff_next() - count one more attempt
 * @random:     any number, evenly distributed
 * @ret_ns:     how long to wait before it: at least 0.75 and at most 1.25 times the plain delay,
 *              and at most BACKOFF_MAX_NS
 *
 * Return:  true | false: all attempts are used up.
 * Thread:  any.
 */
bool backoff_next(struct backoff *b, uint32_t random, uint64_t *ret_ns) WB_NODISCARD;

/* An attempt was successful: they count anew. */
static inline void backoff_reset(struct backoff *b)
{
	b->attempts = 0;
}
