/* SPDX-License-Identifier: MIT */
#include "client/backoff.h"

#include "test.h"

TEST(backoff_grows_by_its_factor_with_a_quarter_of_chance)
{
	static const double plain_ms[] = {1000, 1500, 2250, 3375, 5062.5};
	static const uint32_t chance[] = {0, 1, 1u << 31, UINT32_MAX};

	for (size_t k = 0; k < ARRAY_LEN(chance); k++) {
		struct backoff b = {
			.first_ns = 1000 * NS_PER_MS,
			.factor = 1.5,
			.max_attempts = ARRAY_LEN(plain_ms),
		};

		for (size_t i = 0; i < ARRAY_LEN(plain_ms); i++) {
			uint64_t ns;
			double ms;

			CHECK(backoff_next(&b, chance[k], &ns));
			ms = (double)ns / NS_PER_MS;
			CHECK(ms >= 0.7499 * plain_ms[i] && ms <= 1.2501 * plain_ms[i]);
			if (chance[k] == 0)
				CHECK(ms < 0.7501 * plain_ms[i]);
			if (chance[k] == UINT32_MAX)
				CHECK(ms > 1.2499 * plain_ms[i]);
		}
	}
}

TEST(backoff_ends_after_its_attempts_and_counts_anew)
{
	struct backoff b = {.first_ns = NS_PER_S, .factor = 2, .max_attempts = 3};
	uint64_t ns = 7;

	for (int i = 0; i < 3; i++)
		CHECK(backoff_next(&b, 0, &ns));
	CHECK(!backoff_next(&b, 0, &ns));
	CHECK(!backoff_next(&b, 0, &ns));
	backoff_reset(&b);
	CHECK(backoff_next(&b, 0, &ns));
	CHECK_EQ(ns, NS_PER_S * 3 / 4);
}

TEST(backoff_without_attempts_is_used_up_at_once)
{
	struct backoff b = {.first_ns = NS_PER_S, .factor = 2};
	uint64_t ns;

	CHECK(!backoff_next(&b, 0, &ns));
}

TEST(backoff_has_a_longest_delay)
{
	struct backoff b = {.first_ns = NS_PER_S, .factor = 1000, .max_attempts = UINT64_MAX};
	uint64_t ns = 0;

	for (int i = 0; i < 100000; i++) {
		CHECK(backoff_next(&b, UINT32_MAX, &ns));
		CHECK(ns <= BACKOFF_MAX_NS);
	}
	CHECK_EQ(ns, BACKOFF_MAX_NS);
}
