/* SPDX-License-Identifier: MIT */
#include "containers/hist.h"

#include <stdio.h>

#include "test.h"

#define SAMPLES 19997

static const double percents[] = {0, 0.01, 1, 25, 50, 90, 99, 99.9, 99.99, 100};

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* The definition: the smallest sample that the share of samples does not exceed. */
static uint64_t true_percentile(const uint64_t *sorted, size_t n, double percent)
{
	size_t i = 0;

	while (i + 1 < n && (double)(i + 1) * 100 < percent * (double)n)
		i++;
	return sorted[i];
}

TEST(hist_empty_answers_zero)
{
	static struct hist h, other;

	CHECK_EQ(hist_count(&h), 0);
	CHECK_EQ(hist_min(&h), 0);
	CHECK_EQ(hist_max(&h), 0);
	CHECK(hist_mean(&h) == 0);
	CHECK_EQ(hist_percentile(&h, 50), 0);
	hist_merge(&h, &other);
	CHECK_EQ(hist_count(&h), 0);
	hist_check(&h);
}

TEST(hist_small_values_are_exact)
{
	static struct hist h;

	for (uint64_t v = 0; v < 256; v++)
		hist_add(&h, v);
	CHECK_EQ(hist_percentile(&h, 0), 0);
	CHECK_EQ(hist_percentile(&h, 50), 127);
	CHECK_EQ(hist_percentile(&h, 75), 191);
	CHECK_EQ(hist_percentile(&h, 100), 255);
	CHECK(hist_mean(&h) == 127.5);
	hist_check(&h);
	hist_init(&h);
	CHECK_EQ(hist_count(&h), 0);
	CHECK_EQ(hist_max(&h), 0);
}

/* One value each time, so that the percentile below the maximum is the bucket's upper end. */
TEST(hist_is_less_than_one_percent_off_over_the_whole_range)
{
	static struct hist h;

	for (uint64_t v = 1; v < HIST_MAX; v += v / 37 + 1) {
		uint64_t p;

		hist_init(&h);
		hist_add(&h, v);
		hist_add(&h, HIST_MAX);
		p = hist_percentile(&h, 50);
		CHECK(p >= v);
		CHECK((double)p < (double)v * 1.008);
		hist_check(&h);
	}
}

TEST(hist_percentiles_against_the_sorted_samples)
{
	static struct hist h;
	static uint64_t samples[SAMPLES];
	uint64_t random = test_seed();
	double sum = 0;

	for (size_t i = 0; i < SAMPLES; i++) {
		samples[i] = (test_random(&random) & HIST_MAX) >> (test_random(&random) % 41);
		sum += (double)samples[i];
		hist_add(&h, samples[i]);
	}
	hist_check(&h);
	qsort(samples, SAMPLES, sizeof(samples[0]), compare);
	for (size_t i = 0; i < ARRAY_LEN(percents); i++) {
		uint64_t is = true_percentile(samples, SAMPLES, percents[i]);
		uint64_t said = hist_percentile(&h, percents[i]);

		CHECK(said >= is);
		CHECK((double)said <= (double)is * 1.008);
	}
	CHECK_EQ(hist_count(&h), SAMPLES);
	CHECK_EQ(hist_min(&h), samples[0]);
	CHECK_EQ(hist_max(&h), samples[SAMPLES - 1]);
	CHECK_EQ(hist_percentile(&h, 100), samples[SAMPLES - 1]);
	CHECK(hist_mean(&h) > sum / SAMPLES * 0.999999 && hist_mean(&h) < sum / SAMPLES * 1.000001);
}

/* Shares that binary fractions only come near to. */
TEST(hist_percentile_counts_the_share_as_one_would_by_hand)
{
	static struct hist h;

	for (unsigned n = 1; n <= 250; n++) {
		hist_add(&h, n - 1);
		for (unsigned part = n % 10 ? 10 : 1; part <= 10000; part += n % 10 ? 10 : 1)
			CHECK_EQ(hist_percentile(&h, part / 100.0), (part * n + 9999) / 10000 - 1);
	}
}

TEST(hist_cuts_what_is_outside)
{
	static struct hist h;

	hist_add(&h, HIST_MAX + 1);
	hist_add(&h, UINT64_MAX / 2);
	CHECK_EQ(hist_max(&h), UINT64_MAX / 2);
	CHECK_EQ(hist_percentile(&h, 50), HIST_MAX);
	CHECK_EQ(hist_percentile(&h, 1000), UINT64_MAX / 2);
	CHECK_EQ(hist_percentile(&h, -1), HIST_MAX + 1);
	hist_check(&h);
}

TEST(hist_merge_is_as_if_all_had_been_added_to_one)
{
	static struct hist parts[3], merged, whole, some, empty;
	uint64_t random = test_seed();

	for (int i = 0; i < 3000; i++) {
		uint64_t v = test_random(&random) >> (test_random(&random) % 64) >> 12;

		hist_add(&parts[i % 3], v);
		hist_add(&whole, v);
	}
	hist_add(&some, 5);
	hist_merge(&empty, &some);
	CHECK_EQ(hist_min(&empty), 5);
	for (int i = 0; i < 3; i++)
		hist_merge(&merged, &parts[i]);
	CHECK_MEM(&merged, &whole, sizeof(whole));
	hist_check(&merged);
}
