/* SPDX-License-Identifier: MIT */
#pragma once

/*
 * Bounded ring of pointers: many producers, one consumer.
 *
 * Each producer's items come out in the order in which it put them in. Nothing is lost
 * and nothing is dropped: a full ring says so. Nothing here allocates, waits or makes a
 * system call after ring_init(), and no thread waits for another one: a producer that is
 * stopped halfway holds back what follows it, but keeps nobody from pushing.
 *
 * Each cell carries the number of the turn in which it may be written or read, so a
 * producer touches the shared tail and its cell, and the consumer its cell alone
 * (Dmitry Vyukov's bounded queue, cut down to one consumer).
 */

#include "base/base.h"

struct WB_SHARED ring_cell {
	_Atomic size_t turn; /* == ticket: may be written; == ticket + 1: may be read */
	void *item;          /* guarded by turn */
};

struct WB_SHARED ring {
	alignas(WB_CACHELINE) _Atomic size_t tail; /* next ticket; producers, CAS */
	alignas(WB_CACHELINE) _Atomic size_t head; /* next ticket to pop; written by the consumer */
	alignas(WB_CACHELINE) struct ring_cell *cells WB_FROZEN;
	size_t mask WB_FROZEN; /* slots - 1 */
};

/**
 * ring_init() - make an empty ring
 * @slots: a power of two, at least 2
 *
 * Return: 0 | -ENOMEM.
 * Thread: before any other thread knows the ring.
 */
int ring_init(struct ring *r, size_t slots) WB_NODISCARD;

/*
 * Frees the ring, not the items still in it. NULL and all zero are allowed. To be called when
 * no other thread uses it any more.
 */
void ring_fini(struct ring *r);

/**
 * ring_push() - hand one item to the consumer
 * @item: not NULL; on success it belongs to whoever pops it
 *
 * Return: true, or false when the ring is full: @item stays the caller's.
 * Thread: any. Everything written before the push is visible after the pop.
 * Cost:   one compare-and-swap when nobody interferes; no allocation.
 */
WB_ANY_THREAD bool ring_push(struct ring *r, void *item) WB_NODISCARD;

/**
 * ring_pop() - take the oldest item
 *
 * NULL also when the oldest item is still being pushed, although later ones are
 * complete. Its producer wakes the consumer after the push like any other.
 *
 * Return: the item, now the caller's | NULL.
 * Thread: the consumer.
 * Cost:   O(1), no locked instruction.
 */
void *ring_pop(struct ring *r) WB_NODISCARD;

/* Whether ring_pop() would return NULL now. The consumer's. */
static inline bool ring_is_empty(struct ring *r)
{
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);

	return atomic_load_explicit(&r->cells[head & r->mask].turn, memory_order_acquire) !=
	       head + 1;
}

/*
 * Items in the ring, those just being pushed too: exact when nothing moves, else an estimate
 * from 0 to the number of slots.
 */
WB_ANY_THREAD size_t ring_depth(struct ring *r);

/* Asserts the invariants while no other thread uses the ring, for tests. O(slots). */
void ring_check(struct ring *r);
