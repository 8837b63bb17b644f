/* SPDX-License-Identifier: MIT */
#include "containers/ring.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

#include "test.h"

/* A number as an item; never NULL. */
static void *item(size_t n)
{
	return (void *)(uintptr_t)(n + 1);
}

TEST(ring_is_first_in_first_out_and_says_when_it_is_full)
{
	struct ring r;

	CHECK_EQ(ring_init(&r, 8), 0);
	CHECK(ring_is_empty(&r));
	CHECK(ring_pop(&r) == NULL);
	for (size_t i = 0; i < 8; i++) {
		CHECK(ring_push(&r, item(i)));
		CHECK_EQ(ring_depth(&r), i + 1);
		CHECK(!ring_is_empty(&r));
		ring_check(&r);
	}
	CHECK(!ring_push(&r, item(8)));
	CHECK_EQ(ring_depth(&r), 8);
	for (size_t i = 0; i < 8; i++)
		CHECK(ring_pop(&r) == item(i));
	CHECK(ring_pop(&r) == NULL);
	CHECK(ring_is_empty(&r));
	CHECK_EQ(ring_depth(&r), 0);
	ring_check(&r);
	ring_fini(&r);
}

TEST(ring_has_room_again_for_each_item_taken)
{
	struct ring r;

	CHECK_EQ(ring_init(&r, 2), 0);
	CHECK(ring_push(&r, item(0)));
	CHECK(ring_push(&r, item(1)));
	for (size_t i = 2; i < 1000; i++) {
		CHECK(!ring_push(&r, item(i)));
		CHECK(ring_pop(&r) == item(i - 2));
		CHECK(ring_push(&r, item(i)));
		ring_check(&r);
	}
	ring_fini(&r);
}

TEST(ring_fini_accepts_what_was_never_made)
{
	struct ring r = {0};

	ring_fini(&r);
	ring_fini(NULL);
	CHECK_EQ(ring_init(&r, (size_t)1 << 44), -ENOMEM);
	ring_fini(&r);
}

/* The tickets may wrap around: only their difference counts. */
TEST(ring_goes_on_when_the_tickets_wrap)
{
	struct ring r;
	size_t start = SIZE_MAX - 5;

	CHECK_EQ(ring_init(&r, 4), 0);
	atomic_store(&r.head, start);
	atomic_store(&r.tail, start);
	for (size_t i = 0; i < 4; i++)
		atomic_store(&r.cells[(start + i) & r.mask].turn, start + i);
	ring_check(&r);
	for (size_t i = 0; i < 4; i++)
		CHECK(ring_push(&r, item(i)));
	for (size_t i = 0; i < 20; i++) {
		CHECK(!ring_push(&r, item(i)));
		CHECK_EQ(ring_depth(&r), 4);
		CHECK(ring_pop(&r) == item(i));
		CHECK(ring_push(&r, item(i + 4)));
		ring_check(&r);
	}
	ring_fini(&r);
}

TEST(ring_against_a_counter_at_random)
{
	uint64_t random = test_seed();
	size_t pushed = 0, popped = 0;
	struct ring r;

	CHECK_EQ(ring_init(&r, 16), 0);
	for (int i = 0; i < 20000; i++) {
		if (test_random(&random) >> 63) {
			CHECK_EQ(ring_push(&r, item(pushed)), pushed - popped < 16);
			pushed += pushed - popped < 16;
		} else {
			CHECK(ring_pop(&r) == (pushed == popped ? NULL : item(popped)));
			popped += pushed != popped;
		}
		CHECK_EQ(ring_depth(&r), pushed - popped);
		CHECK_EQ(ring_is_empty(&r), pushed == popped);
		ring_check(&r);
	}
	ring_fini(&r);
}

#define PRODUCERS 4
#define ITEMS 20000

/* What travels: plain memory, so that a missing barrier is a race. */
struct parcel {
	unsigned producer;
	unsigned number;
};

struct producer {
	struct ring *ring;
	unsigned index;
	struct parcel parcels[ITEMS];
	size_t refused;
};

static void *produce(void *arg)
{
	struct producer *p = arg;

	for (unsigned i = 0; i < ITEMS; i++) {
		p->parcels[i] = (struct parcel){p->index, i};
		while (!ring_push(p->ring, &p->parcels[i])) {
			p->refused++;
			sched_yield();
		}
	}
	return NULL;
}

/* Takes all parcels; returns how many were out of order. */
static size_t consume_all(struct ring *r, size_t *ret_deepest)
{
	unsigned next[PRODUCERS] = {0};
	size_t wrong = 0;

	for (size_t taken = 0; taken < PRODUCERS * ITEMS;) {
		bool was_empty = ring_is_empty(r);
		const struct parcel *parcel = ring_pop(r);

		*ret_deepest = MAX(*ret_deepest, ring_depth(r));
		if (!parcel) {
			wrong += !was_empty;
			sched_yield();
			continue;
		}
		wrong += parcel->number != next[parcel->producer]++;
		taken++;
	}
	return wrong;
}

TEST(ring_loses_nothing_and_keeps_the_order_of_each_producer)
{
	static struct producer producers[PRODUCERS];
	static struct ring r;
	pthread_t threads[PRODUCERS];
	size_t deepest = 0, wrong;

	CHECK_EQ(ring_init(&r, 64), 0);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		producers[i].ring = &r;
		producers[i].index = i;
		CHECK_EQ(pthread_create(&threads[i], NULL, produce, &producers[i]), 0);
	}
	wrong = consume_all(&r, &deepest);
	for (unsigned i = 0; i < PRODUCERS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(wrong, 0);
	CHECK(deepest <= 64);
	CHECK(ring_pop(&r) == NULL);
	CHECK_EQ(ring_depth(&r), 0);
	ring_check(&r);
	ring_fini(&r);
}
