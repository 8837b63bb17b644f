/* SPDX-License-Identifier: MIT */
#include "containers/hist.h"

#include <string.h>

#define SUB_BUCKETS (1ULL << HIST_SUB_BITS)

/* Low bits of a value that its bucket does not tell apart. */
static unsigned value_shift(uint64_t value)
{
	/* The bit that is set keeps small values at a shift of 0, and 0 away from clz. */
	unsigned width = 64 - (unsigned)__builtin_clzll(value | SUB_BUCKETS);

	return width - HIST_SUB_BITS - 1;
}

/* The upper half of each power of two continues where the one before it ended, without a gap. */
static size_t bucket_of(uint64_t value)
{
	unsigned shift;

	value = MIN(value, (uint64_t)HIST_MAX);
	shift = value_shift(value);
	return ((size_t)shift << HIST_SUB_BITS) + (size_t)(value >> shift);
}

/* The largest value of a bucket. */
static uint64_t bucket_last(size_t i)
{
	unsigned shift = i < 2 * SUB_BUCKETS ? 0 : (unsigned)(i >> HIST_SUB_BITS) - 1;

	return ((uint64_t)(i - ((size_t)shift << HIST_SUB_BITS)) + 1) * (1ULL << shift) - 1;
}

void hist_init(struct hist *h)
{
	memset(h, 0, sizeof(*h));
}

void hist_add(struct hist *h, uint64_t value)
{
	h->bucket[bucket_of(value)]++;
	/* Beside the buckets these are exact, also where a value was cut to HIST_MAX. */
	h->sum += value;
	if (value > h->max)
		h->max = value;
	if (h->count == 0 || value < h->min)
		h->min = value;
	h->count++;
}

void hist_merge(struct hist *to, const struct hist *from)
{
	if (from->count == 0) /* its min says nothing */
		return;
	to->min = to->count ? MIN(to->min, from->min) : from->min;
	to->max = MAX(to->max, from->max);
	to->count += from->count;
	to->sum += from->sum;
	for (size_t i = 0; i < HIST_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
}

/* How many values the smallest @percent of them are, rounded up: the rank of the last of them. */
static uint64_t hist_rank(const struct hist *h, double percent)
{
	double rank = percent > 0 ? MIN(percent, 100.0) * (double)h->count / 100 : 0;
	uint64_t whole;

	/* 99.9 % of 1000 are 999, although 99.9 is a little more than that in binary. */
	rank *= 1 - 1e-14;
	whole = (uint64_t)rank;
	return MIN(whole + ((double)whole < rank), h->count);
}

uint64_t hist_percentile(const struct hist *h, double percent)
{
	uint64_t wanted = hist_rank(h, percent), seen = 0;

	/* Both ends are known exactly, and need not be guessed from a bucket. */
	if (wanted == 0)
		return hist_min(h);
	if (wanted == h->count)
		return h->max;
	for (size_t i = 0; i < HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		/* The bucket's upper end: a percentile may be told too high, never too low. */
		if (seen >= wanted)
			return MIN(bucket_last(i), h->max);
	}
	return h->max;
}

double hist_mean(const struct hist *h)
{
	return h->count ? (double)h->sum / (double)h->count : 0;
}

uint64_t hist_min(const struct hist *h)
{
	return h->count ? h->min : 0;
}

uint64_t hist_max(const struct hist *h)
{
	return h->max;
}

uint64_t hist_count(const struct hist *h)
{
	return h->count;
}

void hist_check(const struct hist *h)
{
	uint64_t count = 0;

	for (size_t i = 0; i < HIST_BUCKETS; i++)
		count += h->bucket[i];
	WB_ASSERT(count == h->count);
	WB_ASSERT(count == 0 || (h->min <= h->max && h->bucket[bucket_of(h->min)] &&
				 h->bucket[bucket_of(h->max)]));
}
