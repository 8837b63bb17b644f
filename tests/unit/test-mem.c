/* SPDX-License-Identifier: MIT */
#include "containers/mem.h"

#include <stdio.h>

#include "test.h"

#define OBJECTS 500

static bool is_zero(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i])
			return false;
	return true;
}

/* Bytes of memory the process holds. */
static size_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	CHECK(f != NULL);
	CHECK_EQ(fscanf(f, "%*u %lu", &pages), 1);
	fclose(f);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

TEST(slab_objects_are_zero_aligned_and_apart)
{
	static const struct {
		size_t bytes, align, apart;
	} kinds[] = {{1, 8, 8},    {16, 16, 16},   {40, 8, 40},     {48, 16, 48},
		     {64, 64, 64}, {320, 64, 320}, {4096, 64, 4096}};

	for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
		uint8_t *last = NULL;
		struct slab s;

		slab_init(&s, kinds[k].bytes, 10);
		for (size_t i = 0; i < 10; i++) {
			uint8_t *p = slab_get(&s);

			CHECK(p && (uintptr_t)p % kinds[k].align == 0);
			CHECK(is_zero(p, kinds[k].bytes));
			CHECK(!last || (size_t)(p - last) == kinds[k].apart);
			memset(p, 0xaa, kinds[k].bytes);
			last = p;
			slab_check(&s);
		}
		slab_fini(&s);
	}
}

TEST(slab_hands_out_the_last_one_first_and_cleared)
{
	struct slab s;
	void *a, *b;

	slab_init(&s, 100, 4);
	a = slab_get(&s);
	b = slab_get(&s);
	memset(a, 1, 100);
	memset(b, 2, 100);
	slab_put(&s, b);
	slab_put(&s, a);
	slab_put(&s, NULL);
	CHECK_EQ(slab_in_use(&s), 0);
	slab_check(&s);
	CHECK(slab_get(&s) == a);
	CHECK(slab_get(&s) == b);
	CHECK(is_zero(a, 100) && is_zero(b, 100));
	CHECK_EQ(slab_in_use(&s), 2);
	slab_fini(&s);
}

TEST(slab_grows_by_chunks_and_uses_them_up_again)
{
	void *objects[OBJECTS];
	struct slab s;
	size_t bytes;

	slab_init(&s, 1000, 16);
	CHECK_EQ(slab_bytes(&s), 0);
	for (size_t i = 0; i < OBJECTS; i++)
		objects[i] = slab_get(&s);
	bytes = slab_bytes(&s);
	CHECK(bytes >= OBJECTS * 1000 && bytes < OBJECTS * 1000 * 5 / 4);
	for (size_t i = 0; i < OBJECTS; i++)
		slab_put(&s, objects[i]);
	slab_check(&s);
	for (size_t i = 0; i < OBJECTS; i++)
		CHECK(slab_get(&s) != NULL);
	CHECK_EQ(slab_bytes(&s), bytes);
	CHECK_EQ(slab_in_use(&s), OBJECTS);
	slab_fini(&s);
	CHECK_EQ(slab_in_use(&s), 0);
}

TEST(slab_untouched_objects_cost_no_memory)
{
	size_t before = resident_bytes();
	struct slab s;

	slab_init(&s, 4096, 65536);
	for (int i = 0; i < 100; i++)
		memset(slab_get(&s), 1, 4096);
	CHECK(slab_bytes(&s) >= 256u << 20);
	/* The sanitizer's shadow is an eighth of the chunk. */
	CHECK(resident_bytes() - before < (48u << 20));
	slab_fini(&s);
}

TEST(slab_without_memory_returns_null)
{
	struct slab s;

	slab_init(&s, (size_t)1 << 40, 1 << 10);
	CHECK(slab_get(&s) == NULL);
	CHECK_EQ(slab_in_use(&s), 0);
	slab_check(&s);
	slab_fini(&s);
	slab_fini(&s);
	slab_fini(NULL);
}

/* Each object carries its own number while it is out, so no two may overlap. */
TEST(slab_at_random)
{
	uint64_t random = test_seed();
	size_t *out[OBJECTS] = {0};
	size_t n = 0;
	struct slab s;

	slab_init(&s, 48, 30);
	for (int step = 0; step < 20000; step++) {
		size_t i = test_random(&random) % OBJECTS;

		if (out[i]) {
			CHECK(out[i][0] == i && out[i][5] == i);
			slab_put(&s, TAKE_PTR(out[i]));
			n--;
		} else {
			out[i] = slab_get(&s);
			CHECK(out[i] && is_zero((uint8_t *)out[i], 48));
			out[i][0] = out[i][5] = i;
			n++;
		}
		CHECK_EQ(slab_in_use(&s), n);
		if (step % 64 == 0)
			slab_check(&s);
	}
	slab_fini(&s);
}

TEST(arena_gives_aligned_memory_that_does_not_overlap)
{
	uint64_t random = test_seed();
	uint8_t *got[300];
	size_t size[300];
	struct arena a;

	arena_init(&a, 1024, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(got); i++) {
		size[i] = test_random(&random) % (i % 10 ? 100 : 5000);
		got[i] = arena_alloc(&a, size[i]);
		CHECK(got[i] && (uintptr_t)got[i] % 16 == 0);
		memset(got[i], (int)(i & 255), size[i]);
		arena_check(&a);
	}
	for (size_t i = 0; i < ARRAY_LEN(got); i++)
		for (size_t k = 0; k < size[i]; k++)
			CHECK_EQ(got[i][k], i & 255);
	arena_fini(&a);
	arena_check(&a);
}

TEST(arena_nothing_is_something)
{
	struct arena a;
	void *first, *second;

	arena_init(&a, 1024, 4096);
	first = arena_alloc(&a, 0);
	second = arena_alloc(&a, 0);
	CHECK(first && second && first != second);
	CHECK(arena_alloc(&a, 1) != second);
	arena_fini(&a);
}

TEST(arena_stops_at_its_limit)
{
	struct arena a;
	size_t got = 0;

	arena_init(&a, 256, 4096);
	while (arena_alloc(&a, 64))
		got += 64;
	CHECK(got <= 4096 && got >= 3072);
	arena_check(&a);
	CHECK(arena_alloc(&a, SIZE_MAX) == NULL);
	CHECK(arena_alloc(&a, SIZE_MAX - 14) == NULL);
	arena_reset(&a);
	CHECK(arena_alloc(&a, 4096 - 256) != NULL);
	CHECK(arena_alloc(&a, 256) != NULL);
	CHECK(arena_alloc(&a, 1) == NULL);
	CHECK_EQ(a.held_bytes, 4096);
	arena_fini(&a);

	arena_init(&a, 4096, 1000);
	CHECK(arena_alloc(&a, 992) != NULL);
	CHECK(arena_alloc(&a, 1) == NULL);
	arena_fini(&a);
}

TEST(arena_all_zero_gives_nothing)
{
	struct arena a = {0};

	CHECK(arena_alloc(&a, 1) == NULL);
	CHECK(arena_alloc(&a, 0) == NULL);
	arena_reset(&a);
	arena_check(&a);
	arena_fini(&a);
	arena_fini(NULL);
}

TEST(arena_without_memory_returns_null)
{
	struct arena a;

	arena_init(&a, 256, SIZE_MAX);
	CHECK(arena_alloc(&a, SIZE_MAX / 4) == NULL);
	CHECK(arena_alloc(&a, 10) != NULL);
	arena_check(&a);
	arena_fini(&a);
}

TEST(arena_reset_keeps_the_first_block_and_no_other)
{
	struct arena a;
	void *first;

	arena_init(&a, 1024, 1 << 20);
	CHECK(arena_alloc(&a, 100000) !=
	      NULL); /* larger than the first block, before there is one */
	first = arena_alloc(&a, 10);
	CHECK(arena_alloc(&a, 2000) != NULL);
	CHECK(a.held_bytes > 100000);
	arena_reset(&a);
	arena_check(&a);
	CHECK_EQ(a.held_bytes, 1024);
	for (int i = 0; i < 1000; i++) {
		CHECK(arena_alloc(&a, 10) == first);
		CHECK(arena_alloc(&a, 1000) != NULL);
		CHECK_EQ(a.held_bytes, 1024);
		arena_reset(&a);
	}
	arena_fini(&a);
}

TEST(arena_uses_what_is_left_beside_a_large_request)
{
	struct arena a;
	uint8_t *small;

	arena_init(&a, 1024, 1 << 20);
	small = arena_alloc(&a, 16);
	CHECK(arena_alloc(&a, 50000) != NULL);
	CHECK(arena_alloc(&a, 16) == small + 16);
	arena_fini(&a);
}

TEST(arena_serves_protobuf)
{
	struct arena a;
	ProtobufCAllocator allocator;
	void *p;

	arena_init(&a, 1024, 2048);
	allocator = arena_protobuf(&a);
	p = allocator.alloc(allocator.allocator_data, 100);
	CHECK(p != NULL);
	allocator.free(allocator.allocator_data, p);
	memset(p, 1, 100);
	CHECK(allocator.alloc(allocator.allocator_data, 100) == (uint8_t *)p + 112);
	CHECK(allocator.alloc(allocator.allocator_data, 4096) == NULL);
	arena_fini(&a);
}
