/* SPDX-License-Identifier: MIT */
#include "client/backoff.h"

bool backoff_next(struct backoff *b, uint32_t random, uint64_t *ret_ns)
{
	double delay = (double)b->first_ns;

	if (b->attempts >= b->max_attempts)
		return false;
	/*
	 * A product step by step: it stops at the maximum, where a power would go on to infinity.
	 */
	for (uint64_t i = 0; i < b->attempts && delay < (double)BACKOFF_MAX_NS; i++)
		delay *= b->factor;
	/* Whoever lost the server at the same moment comes back at another. */
	delay *= 0.75 + 0.5 * ((double)random / (double)UINT32_MAX);
	*ret_ns = (uint64_t)MIN(delay, (double)BACKOFF_MAX_NS);
	b->attempts++;
	return true;
}
