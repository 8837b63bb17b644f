/* SPDX-License-Identifier: MIT */
#include "client/system.h"

#include <string.h>

#include "test.h"

TEST(system_descriptors_have_an_end)
{
	CHECK_EQ(system_raise_descriptors(1), 1);
	CHECK(system_raise_descriptors((size_t)1 << 40) < (size_t)1 << 40);
}

/* Fails once in 2^128 runs. */
TEST(system_bytes_are_other_ones_each_time)
{
	uint8_t a[16] = {0}, b[16] = {0};

	system_random_bytes(a, sizeof(a));
	system_random_bytes(b, sizeof(b));
	CHECK(memcmp(a, b, sizeof(a)) != 0);
	system_random_bytes(a, 0);
}
