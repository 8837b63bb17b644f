/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Histogram of durations, for percentiles that need neither the samples nor a guess of
 * their range: buckets of equal width within each power of two, 128 of them, so that a
 * bucket is less than 0.8 % wide whatever the value. Below 256 each value has its own.
 * The layout is that of HdrHistogram, which Debian does not package for C.
 *
 * One takes 34 KiB, so it belongs to a worker or a tool, not to a connection.
 */

#include "base/base.h"

#define HIST_SUB_BITS 7             /* 128 buckets for each power of two */
#define HIST_MAX ((1ULL << 40) - 1) /* largest value told apart: 1099 s in ns */
#define HIST_BUCKETS ((40 - HIST_SUB_BITS + 1) << HIST_SUB_BITS)

/* All zero is valid and empty. */
struct WB_VALUE hist {
	uint64_t count;
	uint64_t sum;
	uint64_t min; /* valid when count > 0 */
	uint64_t max;
	uint64_t bucket[HIST_BUCKETS];
};

/* Forgets all values. */
void hist_init(struct hist *h);

/* Counts one value. What is past HIST_MAX counts as HIST_MAX in percentiles; hist_max() is true. */
void hist_add(struct hist *h, uint64_t value);

/* Counts all values of @from in @to as well. */
void hist_merge(struct hist *to, const struct hist *from);

/**
 * hist_percentile() - the value that a share of all values does not exceed
 * @percent: 0 .. 100, what is outside is cut to it; 0 gives the smallest, 100 the largest value
 *
 * Return: at least the true value and less than 1 % above it, never past hist_max(); 0 when
 *         the histogram is empty. (Values past HIST_MAX: see hist_add().)
 */
uint64_t hist_percentile(const struct hist *h, double percent);

/* Exact as long as all values together fit 64 bits; 0 when the histogram is empty. */
double hist_mean(const struct hist *h);
uint64_t hist_min(const struct hist *h);
uint64_t hist_max(const struct hist *h);
uint64_t hist_count(const struct hist *h);

/* Asserts that the buckets add up, for tests. */
void hist_check(const struct hist *h);
