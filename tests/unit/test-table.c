/* SPDX-License-Identifier: MIT */
#include "containers/table.h"

#include <errno.h>

#include "fault.h"
#include "test.h"

#define THINGS 1000

struct thing {
	struct table_node node;
	bool is_in;
};

struct world {
	struct table t;
	struct thing thing[THINGS];
};

static uint64_t hash_of(size_t i)
{
	/* Neighbours differ in high bits too; some of the hashes are the same. */
	return i / 3 * 0x9e3779b97f4a7c15ULL;
}

static void world_insert(struct world *w, size_t i)
{
	table_insert(&w->t, &w->thing[i].node, hash_of(i));
	w->thing[i].is_in = true;
}

static void world_remove(struct world *w, size_t i)
{
	table_remove(&w->t, &w->thing[i].node);
	w->thing[i].is_in = false;
}

static bool world_finds(const struct world *w, size_t i)
{
	const struct table_node *node = table_find(&w->t, hash_of(i));

	while (node && node != &w->thing[i].node)
		node = table_find_next(node);
	return node != NULL;
}

static void world_check(const struct world *w)
{
	size_t n = 0, seen = 0;

	table_check(&w->t);
	for (size_t i = 0; i < THINGS; i++) {
		CHECK_EQ(world_finds(w, i), w->thing[i].is_in);
		n += w->thing[i].is_in;
	}
	for (const struct table_node *node = NULL; (node = table_next(&w->t, node)); seen++)
		CHECK(CONTAINER_OF((struct table_node *)(uintptr_t)node, struct thing, node)
			      ->is_in);
	CHECK_EQ(seen, n);
	CHECK_EQ(w->t.n, n);
}

TEST(table_grows_with_its_nodes_and_shrinks_again)
{
	static struct world w;

	table_init(&w.t);
	for (size_t i = 0; i < THINGS; i++) {
		world_insert(&w, i);
		CHECK_EQ(w.t.n_buckets, i + 1);
	}
	world_check(&w);
	for (size_t i = 0; i < THINGS; i++) {
		world_remove(&w, i);
		CHECK(w.t.n_buckets <= 2 * w.t.n + 2);
	}
	world_check(&w);
	CHECK(w.t.room <= 64);
	table_fini(&w.t);
}

TEST(table_against_an_array_at_random)
{
	static struct world w;
	uint64_t random = test_seed();

	table_init(&w.t);
	for (unsigned step = 0; step < 20000; step++) {
		/* It fills up and empties again, several times. */
		unsigned fill = step / 2500 % 2 ? 30 : 70;
		size_t i = test_random(&random) % THINGS;
		bool want = test_random(&random) % 100 < fill;

		if (want && !w.thing[i].is_in)
			world_insert(&w, i);
		else if (!want && w.thing[i].is_in)
			world_remove(&w, i);
		if (step % 500 == 0)
			world_check(&w);
	}
	world_check(&w);
	table_fini(&w.t);
}

TEST(table_goes_on_without_memory_and_grows_once_there_is_some)
{
	static struct world w;
	size_t i = 0;

	table_init(&w.t);
	fault_fail(FAULT_ALLOC, 1, UINT64_MAX, ENOMEM);
	while (i < THINGS / 2)
		world_insert(&w, i++);
	CHECK(fault_end(FAULT_ALLOC) > 0);
	CHECK_EQ(w.t.n_buckets, 1);
	world_check(&w);
	while (i < THINGS)
		world_insert(&w, i++);
	CHECK_EQ(w.t.n_buckets, THINGS);
	world_check(&w);
	table_fini(&w.t);
}

TEST(table_fini_accepts_what_was_never_made)
{
	struct table t = {0};

	table_fini(&t);
	table_fini(NULL);
}
