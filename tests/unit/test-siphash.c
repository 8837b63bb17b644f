/* SPDX-License-Identifier: MIT */
#include "containers/siphash.h"

#include <endian.h>

#include "test.h"

/* Key 00 01 .. 0f, of messages 00 01 ..: the vectors that come with the paper. */
TEST(siphash_is_that_of_the_paper)
{
	static const struct {
		size_t n;
		uint64_t hash;
	} vectors[] = {
		{0, 0x726fdb47dd0e0e31ULL},  {1, 0x74f839c593dc67fdULL},
		{2, 0x0d6c8009d9a94f5aULL},  {3, 0x85676696d7fb7e2dULL},
		{7, 0xab0200f58b01d137ULL},  {8, 0x93f5f5799a932462ULL},
		{15, 0xa129ca6149be45e5ULL}, {16, 0x3f2acc7f57c29bdbULL},
		{63, 0x958a324ceb064572ULL},
	};
	struct siphash_key key = {{le64toh(0x0706050403020100ULL), le64toh(0x0f0e0d0c0b0a0908ULL)}};
	uint8_t p[64];

	for (size_t i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)i;
	for (size_t i = 0; i < ARRAY_LEN(vectors); i++)
		CHECK_EQ(siphash(&key, p, vectors[i].n), vectors[i].hash);
}

TEST(siphash_draws_a_new_key_each_time)
{
	struct siphash_key a = {{0}}, b = {{0}};

	CHECK_EQ(siphash_draw_key(&a), 0);
	CHECK_EQ(siphash_draw_key(&b), 0);
	CHECK(a.half[0] != b.half[0] && a.half[1] != b.half[1]);
	CHECK(siphash(&a, "name", 4) != siphash(&b, "name", 4));
}

TEST(siphash_is_the_same_in_pieces)
{
	struct siphash_key key;
	uint64_t rng = test_seed();
	uint8_t p[300];

	CHECK_EQ(siphash_draw_key(&key), 0);
	for (size_t i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)test_random(&rng);
	for (int round = 0; round < 2000; round++) {
		size_t n = test_random(&rng) % (sizeof(p) + 1), at = 0;
		struct siphash s;

		siphash_begin(&s, &key);
		while (at < n) {
			size_t piece = test_random(&rng) % (n - at) + 1;

			siphash_add(&s, p + at, piece);
			siphash_add(&s, p, 0);
			at += piece;
		}
		CHECK_EQ(siphash_end(&s), siphash(&key, p, n));
	}
}
